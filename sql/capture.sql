-- The trigger function of every event. Without an argument it captures the events of its table that
-- have no condition; of an event with one, the argument is the id. Without settings of its own: they
-- would cost more than the capture of a row. Its code names every object with its schema and looks
-- things up under a search_path of its own.
create function webhook.capture()
returns trigger
language c
as 'MODULE_PATHNAME', 'webhook_capture';

-- The trigger of a table that captures all its events of one type that have no condition. 0.1.0 made
-- one trigger an event, webhook_<id>: the first of those counts, too. Of several, one that fires. Without
-- settings of its own, so that it becomes a part of the statements and views that name it.
create function webhook_internal.shared_trigger(object oid, type_of_event text)
returns table (trigger_oid oid)
language sql
stable
as $$
    select t.oid
    from pg_catalog.pg_trigger t
    cross join (
        values ('table.recordInsert', 5, 'webhook_insert_'),
               ('table.recordUpdate', 17, 'webhook_update_'),
               ('table.recordDelete', 9, 'webhook_delete_')
    ) as k (event_type, trigger_type, prefix)
    where k.event_type operator(pg_catalog.=) type_of_event
      and t.tgrelid operator(pg_catalog.=) object
      and t.tgfoid operator(pg_catalog.=) 'webhook.capture()'::pg_catalog.regprocedure
      and t.tgparentid operator(pg_catalog.=) 0::pg_catalog.oid
      and t.tgtype operator(pg_catalog.=) k.trigger_type
      and t.tgqual is null
      and t.tgattr::pg_catalog.text operator(pg_catalog.=) ''
      and (
            t.tgnargs operator(pg_catalog.=) 0 and pg_catalog.starts_with(t.tgname::pg_catalog.text, k.prefix)
            or t.tgnargs operator(pg_catalog.=) 1
               and pg_catalog.encode(t.tgargs, 'escape') operator(pg_catalog.=)
                   pg_catalog.concat(pg_catalog.substr(t.tgname::pg_catalog.text, 9), pg_catalog.chr(92), '000')
               and pg_catalog.starts_with(t.tgname::pg_catalog.text, 'webhook_')
      )
    order by pg_catalog.strpos('AORD', t.tgenabled::pg_catalog.text), t.oid
    limit 1
$$;
