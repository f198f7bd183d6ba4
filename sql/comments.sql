-- What psql shows with \df+ and \d+: meaning, units, ranges, errors.

-- Functions

comment on function webhook.create_webhook(text, text[], text, integer, boolean, jsonb, integer, integer, interval, integer, text, text, text, interval) is
    'Creates a webhook: a named set of URLs, a secret, a call rate. Returns it with its secret (the HMAC key) '
    'and token (stands in payloads). delivery_order: none, fifo or key; log_level: all, errors or none. '
    'Errors: 22023 bad argument, 42710 name or URL taken. docs/functions.md has each argument.';
comment on function webhook.update_webhook(text, text, text[], text, integer, boolean, jsonb, integer, integer, interval, integer, text, text, text, interval) is
    'Changes a webhook, given by id or name, and returns it; null leaves a value as it is, an empty text or '
    'list clears it. enabled sets the status of all its events. Errors: 42704 unknown webhook, 22023 bad '
    'argument, 42710 name or URL taken, 42501 privilege missing. docs/functions.md has each argument.';
comment on function webhook.drop_webhook(text) is
    'Drops a webhook, given by id or name, with its events, their triggers and what it has pending. Calls '
    'already made stay in webhook.calls. Errors: 42704 unknown webhook, 55P03 a table is in use for '
    'longer than lock_timeout (at most 5 s).';
comment on function webhook.pause_webhook(text) is
    'Holds delivery of a webhook, given by id or name: changes are still captured, nothing is sent. '
    'Errors: 42704 unknown webhook.';
comment on function webhook.resume_webhook(text) is
    'Ends a pause, and opens URLs again that were switched off (by an answer 410 Gone or disable_after). With '
    'delivery_order fifo or key, messages that wait for a retry are due at once. Takes id or name. Errors: 42704 '
    'unknown webhook.';
comment on function webhook.regenerate_secret(text, interval) is
    'Gives a webhook, by id or name, a new secret and returns it. During overlap (0 to 3650 days) messages '
    'carry the signatures of both; at most 8 secrets sign at a time. Errors: 42704 unknown webhook, 22023 '
    'overlap out of range, or 8 secrets have not expired.';
comment on function webhook.reveal_secret(text) is
    'The secrets that sign the messages of a webhook, given by id or name, newest first; the current one '
    'has no expires_at. Errors: 42704 unknown webhook.';
comment on function webhook.create_event(text, regclass, text, text[], text[], text[], text, text, boolean, text, text, text, jsonb, text[]) is
    'Creates an event: a rule which change of a table makes a message for a webhook (id or name). The caller '
    'needs TRIGGER and SELECT on the table and owns the event. Errors: 22023, 42704, 42710 the same event '
    'exists, 42501, 42809 not a table of this kind, 55P03. docs/functions.md has each argument.';
comment on function webhook.update_event(text, text[], text[], text[], text, text, boolean, text, text, text, jsonb, text[]) is
    'Changes an event, given by id, and returns it; null leaves a value as it is, an empty array or text, or '
    '{} for match, clears it. The caller needs the rights of webhook.create_event(). Errors: as there, and '
    '42704 unknown event, or its table was dropped. docs/functions.md has each argument.';
comment on function webhook.drop_event(text) is
    'Drops an event, given by id. What it captured is still delivered. The trigger goes with the last event '
    'that shares it, unless the table is in use. Errors: 42704 unknown event, 55P03 the table of an event '
    'with a condition is in use for longer than lock_timeout (at most 5 s).';
comment on function webhook.preview_payload(text, jsonb) is
    'The body that a message of an event would have; the ids of message and call are zeros. record: values of '
    'columns after the change; others are of some row, else null. The caller needs TRIGGER and SELECT on the '
    'table. Errors: 42704 unknown event or column, 22023 a value does not fit, 42501.';
comment on function webhook.template_parameters(regclass) is
    'The parameters that payload templates for this table may hold, and what each means. The caller needs '
    'TRIGGER and SELECT on the table. Errors: 42704 unknown table, 42501 privilege missing, 42809 not an '
    'ordinary or partitioned table.';
comment on function webhook.explain_event(text) is
    'Why a message of an event, given by id, comes or does not come: one row a check, with what to do in '
    'detail, and a last one, overall. About a change made in this session, now; names in URLs are not '
    'resolved. Errors: 42704 unknown event.';
comment on function webhook.message(uuid) is
    'All about a message in one row: its change, the body and headers that were or will be sent, rendered '
    'now, and each URL with state, attempts, next attempt and give-up time. record, old_record and body: null for '
    'webhook_reader. Errors: 22023 null, 42704 none such (or past webhook.log_retention).';
comment on function webhook.test_webhook(text) is
    'Sends a message of type webhook.test to each URL of a webhook, given by id or name, when the transaction '
    'commits; returns the URLs and the id of the message. It is signed, throttled, repeated, logged and '
    'counted as any message. Errors: 42704 unknown webhook, 55000 in a copy of another database.';
comment on function webhook.redeliver(uuid) is
    'Sends a message again under its old id, whatever became of it, to each URL of its webhook, before queued '
    'ones; attempts and age start again. Returns the calls queued. Errors: 22023 null, 42704 no such message, '
    '55000 webhook dropped, or a copy not adopted, 42501 a URL is newer than the message.';
comment on function webhook.redeliver(text, timestamptz, timestamptz, text[], text) is
    'Sends messages of a webhook (id or name) again: of event_date from since up to, not including, until (null = '
    'now), that are failed, delivered or canceled as status lists, at all URLs or outgoing_url. Returns the calls '
    'queued. Errors: 22023, 42704 webhook or URL, 55000 a copy not adopted.';
comment on function webhook.redeliver_failed(text, timestamptz, timestamptz) is
    'Sends the failed messages of a webhook (id or name) again: of event_date from since (null = the first) '
    'up to, not including, until (null = now); a call for each URL that a message failed for. Returns the '
    'calls queued. Errors: 22023 null, 42704 unknown webhook, 55000 in a copy that was not adopted.';
comment on function webhook.retry_now(text, text) is
    'A receiver is back: messages of a webhook (id or name) that wait for a retry are due at once, of all its URLs '
    'or of outgoing_url; back-off and Retry-After end. Returns their number. Errors: 22023 null, 42704 unknown '
    'webhook or URL.';
comment on function webhook.cancel(uuid) is
    'Withdraws a message wherever it is pending or failed; true if it was anywhere. A call that is on the '
    'wire ends, is logged, and is not repeated. Errors: 22023 null, 42704 no such message (or past '
    'webhook.log_retention).';
comment on function webhook.cancel_pending(text) is
    'Cancels everything that a webhook (id or name) has pending and that was committed before the call, '
    'retries included. A call that is on the wire ends and is not repeated. It takes as long for one message '
    'as for ten million. Returns their number. Errors: 22023 null, 42704 unknown webhook.';
comment on function webhook.adopt(text) is
    'Makes a copy of a database (a restored dump, a template copy, a base backup with another '
    'webhook.identity) the one that captures and sends. pending: keep = what is pending here is sent; forget '
    '= it is canceled. Errors: 42501 not a superuser, 22023 another value of pending, 55000 during recovery.';
comment on function webhook.rest(text, text, jsonb) is
    'The REST API: status and body of the answer to a request. GET, POST /v3/outgoingWebhooks and '
    '.../{webhookId}/events; GET, PUT, DELETE .../{webhookId} and .../events/{eventId}; /v2 is an alias. '
    'Answers 200, 201, 204, 400 with {"Message": ...}, 404, 405. Errors: 55P03 the table is in use.';
comment on function webhook.wait_idle(interval) is
    'Waits until no message is due or in flight: true, or false after timeout. What is paused, switched off, '
    'backing off or waits for a later retry does not count. Starts the worker unless it was stopped. Errors: '
    '22023 negative timeout, 55000 no worker can run, or messages wait in a copy not adopted.';
comment on function webhook.start_worker() is
    'Starts the worker of this database and ends a stop by webhook.stop_worker(); true if it started one, '
    'which then begins when the transaction commits if it was stopped before. Errors: 55000 during '
    'recovery or without a free worker slot (max_worker_processes).';
comment on function webhook.stop_worker() is
    'Stops the worker of this database and keeps it away until webhook.start_worker(); true if one ran. '
    'Waits up to 5 s for its end. Changes are still captured.';
comment on function webhook.grant_to(text, text) is
    'Gives a role, in this database alone, the privileges of webhook_admin (privileges: admin) or '
    'webhook_reader (reader). Call it again after ALTER EXTENSION UPDATE. Errors: 42501 neither superuser nor '
    'owner of the extension, 22023 other privileges, null or a role of the extension, 42704 no such role.';
comment on function webhook.revoke_from(text) is
    'Takes from a role what webhook.grant_to() gave it, and any other privilege that it has on objects of the '
    'extension; not what it has by membership. Errors: 42501 another caller, 22023 null or a role of the '
    'extension, 42704 no such role.';
comment on function webhook.create_worker_role() is
    'Makes the role webhook_worker, if it is missing, and grants it what the statements of the worker need in '
    'this database. Call it when the role was dropped or privileges of it were revoked. Errors: 42501 not a '
    'superuser, 55000 a role of this name can log in, has members or other attributes.';
comment on function webhook_internal.check_grantee(text) is
    'Internal: the checks of webhook.grant_to() and webhook.revoke_from().';
comment on function webhook_internal.unknown_labels(oid, jsonb) is
    'Internal: values that match lists for a column and its enum does not have.';
comment on function webhook_internal.match_kind(oid, oid) is
    'Internal: how the values of a column of this type and collation are compared with those of match; null: '
    'they cannot be.';
comment on function webhook_internal.shared_trigger(oid, text) is
    'Internal: the trigger of a table that captures all its events of one type that have no condition.';
comment on function webhook_internal.masked_url(text) is
    'Internal: a text whose URLs are without what looks like a credential, for roles that may not call '
    'webhook.drop_webhook().';
comment on function webhook_internal.stored_json(text) is
    'Internal: a stored record as jsonb, or as a JSON string where jsonb cannot hold it.';
comment on function webhook_internal.masked_headers(jsonb) is
    'Internal: request headers without values that look like credentials.';
comment on function webhook_internal.masked_values(jsonb) is
    'Internal: values in webhook.changes without what looks like a credential.';
comment on function webhook_internal.worker_process() is
    'Internal: process id and start of this databases worker, for the view webhook.worker.';
comment on function webhook_internal.worker_detail() is
    'Internal: what holds the worker up, for the view webhook.worker.';
comment on function webhook_internal.worker_absence() is
    'Internal: why no worker runs, for the view webhook.worker.';
comment on function webhook_internal.delivery_hold() is
    'Internal: why nothing is sent, for the view webhook.queue.';
comment on function webhook_internal.unseen_messages() is
    'Internal: messages that the tail reader has not counted yet, for the views.';
comment on function webhook_internal.busy_messages() is
    'Internal: messages taken by a lane and not settled, for the views.';
comment on function webhook.capture() is
    'Internal: the trigger function of every event. Its argument is the event id; it does nothing on a '
    'table the event is not for.';
comment on function webhook_internal.definition_row_changed() is
    'Internal: the trigger that tells the worker which webhook a changed definition belongs to.';
comment on function webhook_internal.definitions_changed() is
    'Internal: tells worker and sessions that a definition has changed.';
comment on function webhook_internal.refuse_replicated() is
    'Internal: the trigger that refuses rows of a subscription in tables of the extension.';
comment on function webhook.present_columns(regclass, oid, text[], smallint[]) is
    'Internal: the present names of columns that were recorded by name and number.';
comment on function webhook.columns_present(regclass, oid, text[], smallint[]) is
    'Internal: whether all columns that were recorded by name and number are still there.';

-- Views for users

comment on view webhook.webhooks is
    'Webhooks, one row each.';
comment on column webhook.webhooks.id is
    'Six characters of [a-z0-9].';
comment on column webhook.webhooks.name is
    'Unique name.';
comment on column webhook.webhooks.description is
    'Free text.';
comment on column webhook.webhooks.outgoing_urls is
    'Every message goes to each of these.';
comment on column webhook.webhooks.call_throttling is
    'Most calls that arrive in any one second, all URLs together, retries included; null = no limit.';
comment on column webhook.webhooks.status is
    'Active; Paused: captures, sends nothing; Inactive: its events capture nothing.';
comment on column webhook.webhooks.events is
    'Number of events.';
comment on column webhook.webhooks.messages is
    'Messages captured, exact, those of dropped events and test messages included.';
comment on column webhook.webhooks.calls is
    'HTTP requests made.';
comment on column webhook.webhooks.errors is
    'Calls that failed.';
comment on column webhook.webhooks.created_at is
    'When it was created.';
comment on column webhook.webhooks.created_by is
    'Role that created it.';
comment on column webhook.webhooks.modified_at is
    'Last change; null = none.';
comment on column webhook.webhooks.modified_by is
    'Role that made the last change.';
comment on column webhook.webhooks.detail is
    'Why it cannot be used as it is; null = nothing wrong.';

comment on column webhook.webhooks.headers is
    'Extra request headers; values that look like credentials are ***.';
comment on column webhook.webhooks.timeout_ms is
    'Milliseconds that a call may take in all.';
comment on column webhook.webhooks.max_attempts is
    'Most calls per message and URL.';
comment on column webhook.webhooks.max_age is
    'A message older than this is given up.';
comment on column webhook.webhooks.max_in_flight is
    'Most calls at a time per URL.';
comment on column webhook.webhooks.delivery_order is
    'none, fifo or key; see webhook.create_webhook().';
comment on column webhook.webhooks.log_level is
    'Which calls are logged: all, errors or none.';
comment on column webhook.webhooks.disable_after is
    'A URL that fails for so long without one success is switched off; null = never.';
comment on column webhook.webhooks.messages_30d is
    'Messages captured in the last thirty days, today (UTC) included.';
comment on column webhook.webhooks.calls_30d is
    'HTTP requests made in the last thirty days.';
comment on column webhook.webhooks.errors_30d is
    'Calls that failed in the last thirty days.';

comment on view webhook.events is
    'Events, one row each.';
comment on column webhook.events.id is
    'Six characters of [a-z0-9].';
comment on column webhook.events.webhook_id is
    'Id of its webhook.';
comment on column webhook.events.webhook_name is
    'Name of its webhook.';
comment on column webhook.events.event_type is
    'table.recordInsert, table.recordUpdate or table.recordDelete; operational events: webhook.urlFailing and others.';
comment on column webhook.events.object_name is
    'Its table, with the schema unless that is public; as it was called when it is gone. Null: an operational event.';
comment on column webhook.events.object_fields is
    'A message only if one of these changed, by their present names; null = any field.';
comment on column webhook.events.event_sources is
    'Only changes made by these sources; null = all.';
comment on column webhook.events.payload_fields is
    'Columns in the payload; null = all.';
comment on column webhook.events.payload_template is
    'Custom payload; null = the default one.';
comment on column webhook.events.condition is
    'SQL condition over new and old; null = none.';
comment on column webhook.events.status is
    'Active, or Inactive: it makes no messages.';
comment on column webhook.events.detail is
    'Why it makes no messages; null = nothing wrong.';
comment on column webhook.events.messages is
    'Messages captured, exact.';
comment on column webhook.events.calls is
    'HTTP requests made.';
comment on column webhook.events.errors is
    'Calls that failed.';
comment on column webhook.events.created_at is
    'When it was created.';
comment on column webhook.events.created_by is
    'Role that created it.';
comment on column webhook.events.modified_at is
    'Last change; null = none.';
comment on column webhook.events.modified_by is
    'Role that made the last change.';
comment on column webhook.events.null_style is
    'typed: SQL NULL is null or an empty string by type; null: always null.';
comment on column webhook.events.list_style is
    'array: arrays as JSON arrays; keyed: as objects by position.';
comment on column webhook.events.owner is
    'Role whose rights on the table the event needs: the one that created it, or that took it over with '
    'webhook.update_event(). If it loses SELECT, or row security comes to apply to it, the event stops.';
comment on column webhook.events.match is
    'Values that columns of the row must have, by their present names; null = any.';
comment on column webhook.events.order_key is
    'The columns that order_key names, by their present names; null = the table''s key. Used where delivery_order '
    'of the webhook is key.';
comment on column webhook.events.messages_30d is
    'Messages captured in the last thirty days, today (UTC) included.';
comment on column webhook.events.calls_30d is
    'HTTP requests made in the last thirty days.';
comment on column webhook.events.errors_30d is
    'Calls that failed in the last thirty days.';

comment on view webhook.messages is
    'Messages that are kept: a change of a row, times an event.';
comment on column webhook.messages.message_id is
    'Stays the same over retries, crashes and redeliveries.';
comment on column webhook.messages.event_id is
    'Id of its event.';
comment on column webhook.messages.webhook_id is
    'Id of its webhook.';
comment on column webhook.messages.event_type is
    'Which change it tells of; webhook.test: a test message, which has no event.';
comment on column webhook.messages.object_name is
    'The events table.';
comment on column webhook.messages.event_date is
    'When the change was captured.';
comment on column webhook.messages.source is
    'Event source of the session that made the change.';
comment on column webhook.messages.status is
    'pending: a URL still has to get it, or is getting it; delivered: every URL that the webhook still has got '
    'it; failed: given up for a URL; canceled: for a URL, or with its webhook.';

comment on view webhook.calls is
    'The log of calls: an HTTP request that carries a message to a URL.';
comment on column webhook.calls.call_id is
    'Sent as webhook-call-id.';
comment on column webhook.calls.called_at is
    'When the call began.';
comment on column webhook.calls.message_id is
    'The message it carried.';
comment on column webhook.calls.webhook_id is
    'Id of the webhook.';
comment on column webhook.calls.webhook_name is
    'Name of the webhook.';
comment on column webhook.calls.event_id is
    'Id of the event.';
comment on column webhook.calls.event_type is
    'Which change the message tells of; webhook.test: a test message, which has no event.';
comment on column webhook.calls.object_name is
    'The events table.';
comment on column webhook.calls.event_date is
    'When the change was captured.';
comment on column webhook.calls.outgoing_url is
    'The URL called.';
comment on column webhook.calls.attempt is
    '1 for the first call of the message to this URL, then 2, 3, ...';
comment on column webhook.calls.status is
    'Success: an answer of 200 to 299; else Failure.';
comment on column webhook.calls.http_code is
    'Status code of the answer; null = there was none.';
comment on column webhook.calls.http_response is
    'Beginning of the answers body, up to webhook.max_response_size.';
comment on column webhook.calls.detail is
    'Why the call failed; null for a success.';
comment on column webhook.calls.message_size is
    'Size of the request body in bytes.';
comment on column webhook.calls.duration_ms is
    'From connect to the last byte read, in milliseconds.';

comment on view webhook.queue is
    'What waits for each outgoing URL, one row a URL.';
comment on column webhook.queue.webhook_id is
    'Id of the webhook.';
comment on column webhook.queue.webhook_name is
    'Name of the webhook.';
comment on column webhook.queue.outgoing_url is
    'The URL.';
comment on column webhook.queue.state is
    'active; failing: the last call failed, others go on; backing_off: the next call is a probe, or with fifo '
    'the retry that holds the others; throttled; paused; disabled: resume_webhook() opens it; delivery_off: '
    'webhook.delivery; no_worker: none runs; blocked: last_error says by what.';
comment on column webhook.queue.pending is
    'Messages not settled for this URL, those that wait for a retry not counted.';
comment on column webhook.queue.retrying is
    'Messages whose call failed and will be repeated.';
comment on column webhook.queue.failed is
    'Messages that were given up.';
comment on column webhook.queue.oldest_pending is
    'About when the oldest waiting change was captured; null = nothing waits.';
comment on column webhook.queue.next_attempt_at is
    'Earliest moment at which something may be sent to it: the latest of back-off, Retry-After, throttle and '
    'due retry. Null: nothing waits, or nothing is sent unless a user does something.';
comment on column webhook.queue.last_error is
    'Why it is disabled or blocked, else why the last call failed; null once a call succeeds.';
comment on column webhook.queue.failing_since is
    'Start of the first call that failed after the last success; null unless the last call failed.';
comment on column webhook.queue.last_success_at is
    'Start of the last call that succeeded.';
comment on column webhook.queue.last_error_at is
    'Start of the last call that failed.';

comment on view webhook.worker is
    'The worker of this database, one row.';
comment on column webhook.worker.database is
    'This database.';
comment on column webhook.worker.pid is
    'Process id; null = none runs.';
comment on column webhook.worker.state is
    'running; starting; stopped by webhook.stop_worker(); not running.';
comment on column webhook.worker.started_at is
    'When the process started.';
comment on column webhook.worker.version is
    'Version of the extension in this database.';
comment on column webhook.worker.last_error is
    'Why none runs, and what to do; null = nothing wrong.';
comment on column webhook.worker.detail is
    'What holds the worker up, and how to end it: a lock and the process that holds it, a copy of another '
    'database, a standby that lags, too few file descriptors. NULL if nothing does.';

comment on view webhook.changes is
    'Who changed what through the functions, and when, one row a change, written in its transaction. Rows about '
    'webhooks and events stay as long as these; others, and those of dropped ones, for webhook.log_retention.';
comment on column webhook.changes.changed_at is
    'When it was changed.';
comment on column webhook.changes.changed_by is
    'Role that changed it.';
comment on column webhook.changes.action is
    'create, update, drop, pause, resume, regenerate_secret, test; redeliver, redeliver_failed, retry_now, cancel, cancel_pending; start, stop, adopt.';
comment on column webhook.changes.kind is
    'webhook, event, message, worker or database.';
comment on column webhook.changes.id is
    'Id of the webhook, event or message.';
comment on column webhook.changes.name is
    'Name of its webhook at that time.';
comment on column webhook.changes.old is
    'What was there before: of an update the values that it changed, of a drop all of them. Never a secret; header values that look like credentials are ***.';
comment on column webhook.changes.new is
    'The same after it; how many messages or calls an action was about.';
comment on column webhook.changes.webhook_id is
    'Id of its webhook.';

comment on view webhook.metrics is
    'Everything as numbers, one row a sample: webhook_messages_total, _calls_total, _call_errors_total, '
    '_event_disabled of each event; _pending_messages, _since_success_seconds, _url_disabled and more of each '
    'URL; _call_duration_seconds of each webhook; _worker_*, _delivery_enabled, _bytes.';
comment on column webhook.metrics.name is
    'Name of the metric; those in _total only grow.';
comment on column webhook.metrics.labels is
    'What it is a metric of.';
comment on column webhook.metrics.value is
    'The value now.';

comment on function webhook.duration_quantile(text, double precision, double precision) is
    'Milliseconds that a part of the calls (0.5, 0.95, ...) did not exceed, 6 % at most off, never above max_ms; '
    'null without calls. durations: of webhook.activity; those of several rows are joined by '
    'string_agg(durations, '' ''). Errors: 22023 longer than 32 million characters.';

comment on view webhook.activity is
    'What happened in each minute, one row a minute and URL that had messages or calls. Kept for 30 days, in '
    'blocks of ten. Written every ten seconds: a crash may lose what is younger.';
comment on column webhook.activity.minute is
    'Begin of the minute.';
comment on column webhook.activity.webhook_id is
    'Id of the webhook.';
comment on column webhook.activity.outgoing_url is
    'The URL.';
comment on column webhook.activity.messages is
    'Messages that came for the URL.';
comment on column webhook.activity.calls is
    'Calls that ended, retries included.';
comment on column webhook.activity.failures is
    'Those of them that failed.';
comment on column webhook.activity.p50_ms is
    'Half of the calls took no longer, in milliseconds, 6 % at most off.';
comment on column webhook.activity.p95_ms is
    '95 % of the calls took no longer, in milliseconds, 6 % at most off.';
comment on column webhook.activity.max_ms is
    'The longest call, in milliseconds.';
comment on column webhook.activity.pending is
    'Messages not settled when the row was last written, those that wait for a retry not counted.';
comment on column webhook.activity.webhook_name is
    'Name of the webhook.';
comment on column webhook.activity.connect_failures is
    'Failures: the name has no address, the port is closed, the connection broke.';
comment on column webhook.activity.tls_failures is
    'Failures: no secure connection, for example because of the certificate.';
comment on column webhook.activity.timeouts is
    'Failures: timeout_ms was over.';
comment on column webhook.activity.http_4xx is
    'Failures: answered 400 to 499.';
comment on column webhook.activity.http_5xx is
    'Failures: answered 500 to 599.';
comment on column webhook.activity.other_failures is
    'Failures: any other, as a redirect, a refused address or a message that is too large.';
comment on column webhook.activity.durations is
    'How many calls took how long, for webhook.duration_quantile().';

comment on function webhook.version() is
    'The versions of the library that this session has loaded and of the schema in this database, the commit that '
    'the library was built from, and the major version of PostgreSQL that it was built for. While library and '
    'schema differ, webhook.worker.detail says what to do.';

comment on function webhook.prometheus() is
    'All of webhook.metrics as text in the format of OpenMetrics 1.0, which Prometheus scrapes: with TYPE, UNIT and '
    'HELP of each metric, and # EOF at the end. Serve it as application/openmetrics-text.';

comment on domain webhook."text/html" is
    'A page, for what serves a result by the name of its type, as PostgREST does.';
comment on function webhook.status_page(interval) is
    'A page that shows how webhooks fare: one verdict, figures, the last hour, each URL with the statement '
    'that mends it, failures, last calls. refresh: the page loads itself again after so long, 0 = never. Only '
    'roles that may call webhook.drop_webhook() see answers. Errors: 22023 refresh out of range.';

-- Internal

comment on schema webhook_internal is
    'What the extension webhook_ext keeps for itself. Nothing in it is for users, and any release may change it.';
comment on table webhook_internal.activity_0 is
    'Internal: what happened in each minute, by URL; emptied as a whole.';
comment on table webhook_internal.activity_1 is
    'Internal: what happened in each minute, by URL; emptied as a whole.';
comment on table webhook_internal.activity_2 is
    'Internal: what happened in each minute, by URL; emptied as a whole.';
comment on table webhook_internal.activity_3 is
    'Internal: what happened in each minute, by URL; emptied as a whole.';
comment on table webhook_internal.call_duration is
    'Internal: how long the calls of each URL took.';
comment on table webhook_internal.worker_total is
    'Internal: one row, how often the worker has started, and how long locks held it up.';
comment on view webhook_internal.activity_row is
    'Internal: all tables of what happened in each minute.';
comment on table webhook.webhook_def is
    'Internal: webhooks. Holds request headers, which may carry credentials. A dropped one keeps its row.';
comment on table webhook.secret_def is
    'Internal: the secrets of webhooks. Nobody but the owner may read it.';
comment on table webhook.url_def is
    'Internal: the outgoing URLs of webhooks.';
comment on table webhook.event_def is
    'Internal: events. A dropped one keeps its row.';
comment on table webhook_internal.definition_change is
    'Internal: which webhooks have changed since the worker read their definitions.';
comment on table webhook.def_origin is
    'Internal: system identifier, database and webhook.identity under which the definitions were made. '
    'Where they differ from those of the database, it is a copy and sends nothing.';
comment on table webhook.control is
    'Internal: one row, whether the worker was stopped, which outbox table is written to, and where outbox '
    'and log were written.';
comment on table webhook_internal.change_log is
    'Internal: the rows of webhook.changes.';
comment on sequence webhook_internal.change_log_change_id_seq is
    'Internal: numbers the rows of webhook_internal.change_log.';
comment on table webhook_internal.segment is
    'Internal: the tables of outbox and call log, since when each is written and when it was closed.';
comment on table webhook_internal.cancellation is
    'Internal: what webhook.cancel_pending() canceled.';
comment on sequence webhook_internal.definition_change_change_id_seq is
    'Internal: numbers the rows of webhook_internal.definition_change.';
comment on sequence webhook_internal.cancellation_cancellation_id_seq is
    'Internal: keys of webhook_internal.cancellation.';
comment on table webhook.outbox_0 is
    'Internal: messages as they were captured; insert-only, emptied as a whole.';
comment on table webhook.outbox_1 is
    'Internal: messages as they were captured; insert-only, emptied as a whole.';
comment on table webhook.outbox_2 is
    'Internal: messages as they were captured; insert-only, emptied as a whole.';
comment on table webhook.outbox_3 is
    'Internal: messages as they were captured; insert-only, emptied as a whole.';
comment on table webhook_internal.call_log_0 is
    'Internal: one row a call; insert-only, emptied as a whole.';
comment on table webhook_internal.call_log_1 is
    'Internal: one row a call; insert-only, emptied as a whole.';
comment on table webhook_internal.call_log_2 is
    'Internal: one row a call; insert-only, emptied as a whole.';
comment on table webhook_internal.call_log_3 is
    'Internal: one row a call; insert-only, emptied as a whole.';
comment on table webhook_internal.tick is
    'Internal: snapshots the tail reader passed.';
comment on table webhook_internal.retry is
    'Internal: calls that failed and will be repeated, were given up or canceled.';
comment on column webhook_internal.retry.key_hash is
    'Hash of its order key (delivery_order key); null: it is not ordered.';
comment on column webhook_internal.retry.other_key_hash is
    'Hash of the other key, if the change was one of the key.';
comment on column webhook_internal.retry.next_at is
    'When its next call is due; infinity: after an earlier message of one of its keys.';
comment on table webhook_internal.settlement is
    'Internal: what the worker has settled since the last compaction.';
comment on table webhook_internal.compaction is
    'Internal: one row, up to which settlement all are added up.';
comment on table webhook_internal.counter is
    'Internal: counts of messages, calls and errors up to the last compaction.';
comment on table webhook_internal.stopped_event is
    'Internal: enabled events that make no messages, once users were told.';
comment on table webhook_internal.counter_day is
    'Internal: what webhook_internal.counter had before its first change of a day, for thirty days.';
comment on table webhook_internal.lane is
    'Internal: backlog and state of each URL up to the last compaction.';
comment on sequence webhook.definition_key_seq is
    'Internal: keys of webhooks, URLs and events.';
comment on sequence webhook.outbox_flush_seq is
    'Internal: the order in which transactions write their messages.';
comment on view webhook_internal.outbox is
    'Internal: all outbox tables.';
comment on view webhook_internal.call_log is
    'Internal: all call log tables.';
comment on view webhook_internal.tail is
    'Internal: where the tail reader stands.';
comment on view webhook_internal.uncompacted is
    'Internal: the settlements since the last compaction.';
comment on view webhook_internal.unseen is
    'Internal: messages that the tail reader has not counted yet.';
comment on view webhook_internal.recent_count is
    'Internal: messages, calls and errors that are not in webhook_internal.counter yet, one row an event.';
comment on view webhook_internal.event_count is
    'Internal: exact counters of each event.';
comment on view webhook_internal.lane_now is
    'Internal: the newest state of each lane.';
comment on view webhook_internal.busy is
    'Internal: messages taken by a lane and not settled.';
comment on view webhook_internal.place is
    'Internal: how far each lane has got.';
comment on view webhook_internal.event_label is
    'Internal: what to call an event and its table now.';
comment on view webhook_internal.granted is
    'Internal: privileges on objects of the extension, for webhook.grant_to() and webhook.revoke_from().';
comment on view webhook_internal.event_trigger is
    'Internal: the trigger that captures each event.';
comment on view webhook_internal.event_owner is
    'Internal: the role that owns each event, and the right on the table that it has lost.';
comment on view webhook_internal.event_now is
    'Internal: events with their present table name and what is wrong with them.';
comment on function webhook_internal.extension_installed() is 'Called once by CREATE EXTENSION: starts the worker of this database when the transaction commits.';

comment on function webhook.enable_cluster() is
    'On the coordinator of a Citus cluster: from now on webhooks and events are defined there, and each node captures '
    'and sends what happens in its own shards. Again: puts right what a node lacks. For superusers. Errors: 55000 no '
    'Citus, not the coordinator, or a node is not fit, 42501.';
comment on function webhook.drain_node(text) is
    'How many messages a node of the cluster has still to send, by its name or name:port; at 0 it may be removed once '
    'its shards have gone. Errors: 22023 null, 42704 no such node, or it does not answer.';
comment on view webhook.cluster_queue is
    'webhook.queue of each node of a Citus cluster. A node that does not answer is one row with state unreachable and '
    'the reason as last_error. Without a cluster: of this database.';
comment on view webhook.cluster_worker is
    'webhook.worker of each node of a Citus cluster. A node that does not answer is one row with state unreachable and '
    'the reason as last_error. Without a cluster: of this database.';
comment on view webhook.cluster_metrics is
    'webhook.metrics of each node of a Citus cluster, and webhook_node_answers: 1, or 0 of a node that does not '
    'answer. Without a cluster: of this database.';
comment on table webhook_internal.cluster_document is
    'Internal: definitions of a Citus cluster as documents, secrets included: a reference table once webhook.enable_cluster() '
    'was called.';
comment on table webhook_internal.cluster_applied is
    'Internal: which documents this node of a cluster has applied.';
comment on view webhook_internal.cluster_document_now is
    'Internal: the documents of the definitions as they are now.';
comment on function webhook_internal.names_now(regclass, oid, text[], smallint[]) is
    'Present names of recorded columns; null if one is gone.';
comment on function webhook_internal.column_numbers(oid, jsonb) is
    'Numbers of columns by name; null if one is not there.';
comment on function webhook_internal.apply_cluster_document(text, integer, jsonb) is
    'Makes the definition of this node what its document says; null removes it.';
comment on function webhook_internal.find_tables_again(oid) is
    'Events whose table came later, or under another number, are about it from now on.';
comment on function webhook_internal.publish_cluster_document(text, integer) is
    'Writes the document of a definition that has changed.';
comment on function webhook_internal.cluster_document_changed() is
    'Trigger on each placement of webhook_internal.cluster_document: applies the document.';
comment on function webhook_internal.on_each_node(text) is
    'The rows of a view on each node of a cluster, with the rights of the caller.';
comment on function webhook_internal.is_cluster() is
    'Whether webhook.enable_cluster() was called.';
