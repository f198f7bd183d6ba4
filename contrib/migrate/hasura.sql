-- Reads the event triggers of Hasura from its catalog (hdb_catalog.hdb_metadata of version 2, hdb_catalog.event_triggers
-- of version 1) and prints the calls of webhook.create_webhook and webhook.create_event that replace them. Changes nothing.
--
--   psql -X -q -f contrib/migrate/hasura.sql mydb > webhooks.sql
--
-- In version 2 the catalog may be in another database than the tables: copy hdb_catalog.hdb_metadata to the tables' database
-- first (pg_dump --table). Read webhooks.sql, and run it in a database that has the extension. Bodies keep the form that
-- receivers know: id, created_at, trigger, table, event.

\ir common.sql

-- One row a trigger: name, schema, relation, and its configuration as in the metadata API.
create temp table trigger (name text, schema text, relation text, configuration jsonb);

do $$
begin
    if to_regclass('hdb_catalog.hdb_metadata') is not null then
        insert into pg_temp.trigger
        select t ->> 'name', coalesce(r #>> '{table,schema}', 'public'), coalesce(r #>> '{table,name}', r ->> 'table'), t
        from hdb_catalog.hdb_metadata m
        cross join jsonb_array_elements(coalesce(m.metadata::jsonb -> 'sources', '[]')) as s
        cross join jsonb_array_elements(coalesce(s -> 'tables', '[]')) as r
        cross join jsonb_array_elements(coalesce(r -> 'event_triggers', '[]')) as t
        where coalesce(s ->> 'kind', 'postgres') in ('postgres', 'citus');
    elsif to_regclass('hdb_catalog.event_triggers') is not null then
        insert into pg_temp.trigger
        select e.name, e.schema_name, e.table_name, e.configuration::jsonb from hdb_catalog.event_triggers e;
    end if;
end
$$;

create temp table found as
select t.*,
       to_regclass(format('%I.%I', t.schema, t.relation)) as target,
       format('%I.%I', t.schema, t.relation) as object_name,
       t.configuration ->> 'webhook' as url,
       t.configuration ->> 'webhook_from_env' as url_variable,
       (t.configuration #>> '{retry_conf,num_retries}')::integer as retries,
       (t.configuration #>> '{retry_conf,timeout_sec}')::numeric as timeout_s,
       (t.configuration #>> '{retry_conf,interval_sec}')::numeric as interval_s,
       coalesce(t.configuration -> 'headers', '[]') as headers
from pg_temp.trigger t;

select '-- Replaces event triggers of Hasura. What Hasura reads from its environment is a variable of psql: give it with
-- psql -v NAME=value. Receivers verify nothing so far: give them the secrets that webhook.reveal_secret shows, and let them
-- check the header webhook-signature. Remove the event triggers in Hasura once this is committed.
\set ON_ERROR_STOP on
begin;
';

select format(E'select id from webhook.create_webhook(%L, array[%s]%s%s%s);%s\n',
              f.name,
              coalesce(quote_literal(f.url), ':' || quote_literal(f.url_variable)),
              case when h.pairs is null then '' else format(E',\n    headers => json_build_object(%s)::jsonb', h.pairs) end,
              format(E',\n    max_attempts => %s', coalesce(f.retries, 0) + 1),
              format(', timeout_ms => %s', (coalesce(f.timeout_s, 60) * 1000)::integer),
              case when f.url like '%{{%' then E'\n-- {{...}} in this URL is a variable of Hasura''s environment: replace it.' else '' end
              || format(E'\n-- Hasura retries every %s s; here webhook.retry_schedule says when.', coalesce(f.interval_s, 10)))
from found f
left join lateral (
    select string_agg(format('%L, %s', h ->> 'name', coalesce(quote_literal(h ->> 'value'), ':' || quote_literal(h ->> 'value_from_env'))),
                      ', ' order by place) as pairs
    from jsonb_array_elements(f.headers) with ordinality as l (h, place)
    where not pg_temp.is_refused_header(h ->> 'name')
) h on true
where f.target is not null
order by f.name collate "C";

select format(E'select id from webhook.create_event(%L, %L, %L%s,\n    null_style => ''null'', payload_template => %L);\n',
              f.name, f.object_name, pg_temp.event_type(o.operation),
              case when o.operation = 'UPDATE' and jsonb_typeof(o.rule -> 'columns') = 'array'
                   then format(E',\n    object_fields => %s', pg_temp.text_array(array(select jsonb_array_elements_text(o.rule -> 'columns'))))
                   else '' end,
              format('{"id": "[@out-hook:messageId]", "created_at": "[@out-hook:eventDate]", "trigger": {"name": %s}, '
                     '"table": {"schema": %s, "name": %s}, '
                     '"event": {"op": "%s", "session_variables": null, "data": {"old": %s, "new": %s}}}',
                     to_json(f.name), to_json(f.schema), to_json(f.relation), o.operation,
                     case o.operation when 'INSERT' then 'null' when 'UPDATE' then pg_temp.row_template(f.target, 'old')
                          else pg_temp.row_template(f.target, 'field') end,
                     case when o.operation = 'DELETE' then 'null' else pg_temp.row_template(f.target, 'field') end))
from found f
cross join lateral (
    values (1, 'INSERT', f.configuration #> '{definition,insert}'),
           (2, 'UPDATE', f.configuration #> '{definition,update}'),
           (3, 'DELETE', f.configuration #> '{definition,delete}')
) as o (place, operation, rule)
where f.target is not null
  and jsonb_typeof(o.rule) = 'object'
order by f.name collate "C", o.place;

select E'commit;\n';

select pg_temp.remark(format('Not replaced: event trigger %s, whose table %s is not in this database.', name, object_name))
from found
where target is null
order by name collate "C";

select pg_temp.remark(format('Not replaced: manual invocation of event trigger %s.', name))
from found
where target is not null
  and (configuration #>> '{definition,enable_manual}')::boolean
order by name collate "C";
