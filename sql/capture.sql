-- The trigger function of every event; its only argument is the event's id. Without
-- settings of its own: they would cost more than the capture of a row. Its code names
-- every object with its schema and looks things up under a search_path of its own.
create function webhook.capture()
returns trigger
language c
as 'MODULE_PATHNAME', 'webhook_capture';
