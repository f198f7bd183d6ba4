-- Reads the triggers that call supabase_functions.http_request() (database webhooks of Supabase, by pg_net) and prints
-- the calls of webhook.create_webhook and webhook.create_event that replace them. Changes nothing.
--
--   psql -X -q -f contrib/migrate/pg_net.sql mydb > webhooks.sql
--
-- Read webhooks.sql, and run it in a database that has the extension. Bodies keep the form that receivers know:
-- type, table, schema, record, old_record.

\ir common.sql

-- The arguments of a trigger: texts that end with a zero byte.
create function pg_temp.arguments(packed bytea) returns text[] language plpgsql as $$
declare
    found text[] := '{}';
    place integer;
begin
    loop
        place := position('\x00'::bytea in packed);
        exit when place = 0;
        found := found || convert_from(substring(packed for place - 1), current_setting('server_encoding'));
        packed := substring(packed from place + 1);
    end loop;
    return found;
end
$$;

create function pg_temp.encoded(value text) returns text language sql as $$
    select coalesce(string_agg(case when c ~ '[A-Za-z0-9_.~-]' then c
                                    else regexp_replace(upper(encode(convert_to(c, 'UTF8'), 'hex')), '(..)', '%\1', 'g') end,
                               '' order by place), '')
    from regexp_split_to_table(value, '') with ordinality as s (c, place)
$$;

create temp table found as
select t.oid,
       t.tgname::text as name,
       t.tgrelid as target,
       n.nspname::text as schema,
       c.relname::text as relation,
       format('%I.%I', n.nspname, c.relname) as object_name,
       t.tgenabled <> 'D' as enabled,
       t.tgtype,
       (
           select array_agg(a.attname::text order by k.place)
           from unnest(t.tgattr::smallint[]) with ordinality as k (attnum, place)
           join pg_attribute a on a.attrelid = t.tgrelid and a.attnum = k.attnum
       ) as columns,
       substring(pg_get_triggerdef(t.oid) from ' WHEN \((.*)\) EXECUTE (?:FUNCTION|PROCEDURE) ') as condition,
       a.arguments[1] as url,
       upper(a.arguments[2]) as method,
       coalesce(nullif(nullif(a.arguments[3], 'null'), '')::jsonb, '{}') as headers,
       coalesce(nullif(nullif(a.arguments[4], 'null'), '')::jsonb, '{}') as params,
       coalesce(nullif(nullif(a.arguments[5], 'null'), '')::integer, 1000) as timeout_ms
from pg_trigger t
join pg_proc p on p.oid = t.tgfoid
join pg_class c on c.oid = t.tgrelid
join pg_namespace n on n.oid = c.relnamespace
cross join lateral (select pg_temp.arguments(t.tgargs) as arguments) a
where p.proname = 'http_request'
  and p.pronamespace = to_regnamespace('supabase_functions')
  and t.tgparentid = 0
  and not t.tgisinternal;

-- Triggers with the same URL, headers and timeout are one webhook, under the name of the first.
create temp table wanted as
select f.*,
       case f.method when 'POST' then first_value(f.name) over (
           partition by f.url, f.headers, f.params, f.timeout_ms order by f.name collate "C", f.oid
       ) end as webhook
from found f;

select '-- Replaces database webhooks of Supabase. Receivers verify nothing so far: give them the secrets that
-- webhook.reveal_secret shows, and let them check the header webhook-signature.
\set ON_ERROR_STOP on
begin;
';

-- Two webhooks may not have one name.
select format(E'select id from webhook.create_webhook(%L, array[%L]%s,\n    timeout_ms => %s);\n',
              w.webhook || case when w.number > 1 then format(' %s', w.number) else '' end, w.target,
              case when w.kept is null then '' else format(E',\n    headers => %L', w.kept) end, w.timeout_ms)
from (
    select w.webhook, w.timeout_ms, w.url || case when w.params = '{}' then ''
               else case when w.url ~ '\?' then '&' else '?' end || (
                   select string_agg(pg_temp.encoded(key) || '=' || pg_temp.encoded(value), '&' order by key)
                   from jsonb_each_text(w.params)
               ) end as target,
           (select jsonb_object_agg(key, value) from jsonb_each_text(w.headers) where not pg_temp.is_refused_header(key)) as kept,
           row_number() over (partition by w.webhook order by w.url, w.headers, w.params, w.timeout_ms) as number
    from (select distinct webhook, url, headers, params, timeout_ms from wanted where webhook is not null) w
) w
order by w.webhook collate "C", w.number;

select format(E'%s\nselect id from webhook.create_event(%L, %L, %L%s%s%s,\n    null_style => ''null'', payload_template => %L);\n',
              pg_temp.remark(format('Trigger %I on %s, %s.', w.name, w.object_name, lower(o.operation))),
              w.webhook || case when w.number > 1 then format(' %s', w.number) else '' end, w.object_name,
              pg_temp.event_type(o.operation),
              case when o.operation = 'UPDATE' and w.columns is not null then format(E',\n    object_fields => %s', pg_temp.text_array(w.columns)) else '' end,
              case when w.condition is null then '' else format(E',\n    condition => %L', w.condition) end,
              case when w.enabled then '' else E',\n    enabled => false' end,
              format('{"type": "%s", "table": %s, "schema": %s, "record": %s, "old_record": %s}',
                     o.operation, to_json(w.relation), to_json(w.schema),
                     case when o.operation = 'DELETE' then 'null' else pg_temp.row_template(w.target, 'field') end,
                     case o.operation when 'INSERT' then 'null' when 'UPDATE' then pg_temp.row_template(w.target, 'old')
                          else pg_temp.row_template(w.target, 'field') end))
from (
    select w.*, dense_rank() over (partition by w.webhook order by w.url, w.headers, w.params, w.timeout_ms) as number
    from wanted w
    where w.webhook is not null
) w
cross join lateral (values ('INSERT', 4), ('DELETE', 8), ('UPDATE', 16)) as o (operation, bit)
where w.tgtype & o.bit <> 0
  and w.tgtype & 1 <> 0
order by w.object_name collate "C", w.name collate "C", o.bit;

select format(E'alter table %s disable trigger %I;', object_name, name)
from wanted
where webhook is not null
  and enabled
order by object_name collate "C", name collate "C";

select E'\ncommit;\n';

select pg_temp.remark(
    format('Not replaced: trigger %I on %s calls %s with %s; the extension sends POST only.', name, object_name, url, method))
from wanted
where webhook is null
order by object_name collate "C", name collate "C";

select pg_temp.remark(format('Not replaced: trigger %I on %s is a statement''s; the extension sends rows.', name, object_name))
from wanted
where tgtype & 1 = 0
order by object_name collate "C", name collate "C";

select pg_temp.remark(
    format('By hand: trigger %I on %s runs %s, which calls pg_net.', t.tgname, t.tgrelid::regclass, p.oid::regprocedure))
from pg_trigger t
join pg_proc p on p.oid = t.tgfoid
where p.prosrc ~* '\mnet\.http_(post|get|delete)\M'
  and not (p.proname = 'http_request' and p.pronamespace = to_regnamespace('supabase_functions'))
  and t.tgparentid = 0
  and not t.tgisinternal
order by 1;
