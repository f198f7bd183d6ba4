-- docs/reference.md: what the database says about the extension, as Markdown.
--
-- For psql without alignment and headers, in a database with the extension whose server preloads the library
-- (only then webhook.database_workers has its true context). A comment that begins with "Internal" is not for
-- users. The output is the same for every version of PostgreSQL.

\set ON_ERROR_STOP on
set search_path = pg_catalog;

-- A comment as Markdown: names as code, the signs of Markdown as themselves.
create function pg_temp.prose(text) returns text language sql as $$
    select replace(regexp_replace(
        -- A name with an underscore, of schema webhook, or that begins with one; with its parentheses.
        regexp_replace(
            replace(replace(replace(replace(replace($1, '<', '&lt;'), '|', '\|'), '*', '\*'), '[', '\['), '\*\*\*', '`***`'),
            '(?<![a-z0-9_`.<])((webhook|pg_catalog)\.[a-z_"/.]*[a-z_"](\(\))?|_?[a-z0-9]+(_[a-z0-9]+)+(\(\))?|_[a-z]+(_[a-z]+)*_?)(?![a-z_`])',
            '`\1`', 'gi'),
        '`([a-z_]+)`\\\*', '`\1*`', 'g'), 'docs/functions.md', '[Functions in detail](functions.md)')
$$;

create function pg_temp.anchor(text) returns text language sql as $$
    select format('[`%s`](#%s)', $1, lower($1))
$$;

create temp view shown_function as
select p.oid, p.proname::text as name, obj_description(p.oid, 'pg_proc') as comment,
       dense_rank() over (partition by p.proname order by p.oid) as number, p.pronargs, p.pronargdefaults,
       p.proargnames, p.proargmodes, p.proargtypes, p.proallargtypes, p.proretset, p.prorettype
from pg_proc p
where p.pronamespace = 'webhook'::regnamespace
  and p.proname <> 'extension_installed'
  and obj_description(p.oid, 'pg_proc') not like 'Internal%';

create temp view signature as
select f.oid,
       format(E'```\nwebhook.%s(%s)\n    returns %s\n```', f.name, i.arguments, coalesce(r.columns, format_type(f.prorettype, null))) as text
from shown_function f
cross join lateral (
    select coalesce(E'\n' || string_agg(format('    %s%s', rpad(a.name, w.width + 1), coalesce(rpad(a.type, t.width + 1) || 'default ' || a.fallback, a.type)), E',\n' order by a.place) || E'\n', '') as arguments
    from (
        select n.place, f.proargnames[n.place] as name, format_type(n.type, null) as type,
               regexp_replace(pg_get_function_arg_default(f.oid, n.place::integer), '::[a-z "]+(\[\])?(?=$|\))', '', 'g') as fallback
        from unnest(f.proargtypes::oid[]) with ordinality as n (type, place)
    ) a
    cross join lateral (select max(length(name)) as width from unnest(f.proargnames[1:f.pronargs]) as u (name)) w
    cross join lateral (
        select max(length(format_type(u.type, null))) as width from unnest(f.proargtypes::oid[]) as u (type)
    ) t
) i
cross join lateral (
    select case when f.proretset then 'table (' || string_agg(format('%s %s', f.proargnames[n.place], format_type(n.type, null)), ', ' order by n.place)
                || ')' end as columns
    from unnest(f.proallargtypes) with ordinality as n (type, place)
    where f.proargmodes[n.place] = 't'
) r;

-- The page

select '# Reference

<!-- Written by `make reference` from the comments in the database. Do not edit: change the comments. -->

Functions, views, settings, metrics and errors, as `\df+ webhook.*`, `\d+` and `pg_settings` show them.
[Who may call and read what](access.md) is a page of its own.

## Functions

Where an argument is called `webhook` it takes the id or the name of a webhook; `event` takes the id. Functions take
their arguments by name (`name => ''crm''`). Names and order of arguments do not change; new ones come at the end.
';

select string_agg(pg_temp.anchor(name), ', ' order by name collate "C") || E'\n'
from (select distinct name from shown_function) n;

select format(E'### %s\n\n%s\n', name, string_agg(s.text || E'\n\n' || pg_temp.prose(comment), E'\n\n' order by f.number))
from shown_function f
join signature s on s.oid = f.oid
group by name
order by name collate "C";

select '## Views

Names and order of columns do not change; new ones come at the end.
';

create temp view shown_view as
select c.oid, c.relname::text as name, obj_description(c.oid, 'pg_class') as comment
from pg_class c
where c.relnamespace = 'webhook'::regnamespace
  and c.relkind = 'v'
  and obj_description(c.oid, 'pg_class') not like 'Internal%';

select string_agg(format('[`%s`](#view-%1$s)', name), ', ' order by name collate "C") || E'\n' from shown_view;

select format(E'### View %s\n\n%s\n\n| column | type | meaning |\n| --- | --- | --- |\n%s\n', v.name, pg_temp.prose(v.comment),
              string_agg(format('| `%s` | %s | %s |', a.attname, format_type(a.atttypid, a.atttypmod),
                                pg_temp.prose(col_description(v.oid, a.attnum))), E'\n' order by a.attnum))
from shown_view v
join pg_attribute a on a.attrelid = v.oid and a.attnum > 0 and not a.attisdropped
group by v.name, v.comment
order by v.name collate "C";

select '## Settings

| set by | takes effect |
| --- | --- |
| session | `SET`, also `ALTER ROLE … SET` and `ALTER DATABASE … SET` |
| superuser | the same, by a superuser |
| reload | in `postgresql.conf` or with `ALTER SYSTEM`, at the next reload |
| start | in `postgresql.conf` or with `ALTER SYSTEM`, when the server starts |

A session knows the settings once it has called a function of the extension; in a new session run
`load ''webhook_ext''` before `alter system set webhook.… = …`.
';

select format(E'### %s\n\n| | |\n| --- | --- |\n| type | %s |\n| default | %s |\n%s| set by | %s |\n\n%s %s\n',
              s.name,
              s.vartype || case s.unit when 'B' then ', bytes' when 'MB' then ', megabytes' when 's' then ', seconds' else '' end,
              case
                  when s.name = 'webhook.account_id' then 'derived from the cluster''s system identifier'
                  -- With its unit, as it is written; the server has the default.
                  when s.unit is not null then format('`%s`', current_setting(s.name))
                  when s.boot_val = '' then 'empty'
                  else format('`%s`', s.boot_val)
              end,
              case when s.min_val is null then '' else format(E'| range | %s to %s |\n', s.min_val, s.max_val) end,
              case s.context when 'user' then 'session' when 'superuser' then 'superuser' when 'sighup' then 'reload' when 'postmaster' then 'start' end,
              pg_temp.prose(s.short_desc), pg_temp.prose(s.extra_desc))
from pg_settings s
where s.name like 'webhook.%'
  -- A build for tests has it; no other does.
  and s.name <> 'webhook.fault'
order by s.name collate "C";

select '## Metrics

`webhook.metrics` has a row for each sample; `webhook.prometheus()` gives the same as OpenMetrics text, with the types,
units and help texts below. [Monitoring](monitoring.md) says how to scrape them.

| metric | type | labels | meaning |
| --- | --- | --- | --- |';

-- The list in webhook.prometheus() is the only place with the types and texts.
select format('| `%s` | %s | %s | %s |',
              m[1] || case m[2] when 'counter' then '_total' when 'histogram' then '_bucket, _sum, _count' else '' end,
              m[2],
              case
                  when m[1] ~ '^webhook_(messages|calls|call_errors|event_disabled)$' then '`webhook_id`, `webhook`, `event_id`'
                  when m[1] = 'webhook_call_duration_seconds' then '`webhook_id`, `webhook`, `le`'
                  when m[1] ~ '^webhook_(worker|delivery|outbox|call_log|activity)_' then ''
                  else '`webhook_id`, `webhook`, `outgoing_url`'
              end,
              pg_temp.prose(m[4]))
from pg_proc p
cross join regexp_matches(p.prosrc, $$\('(webhook_[a-z_]+)', '([a-z]+)', (null|'[a-z]+'), '([^']+)'\)$$, 'g') as m
where p.oid = 'webhook.prometheus()'::regprocedure;

select '
## Errors

Each error has a HINT that says what to do. Functions check all arguments before they change anything.

| SQLSTATE | condition | meaning | functions |
| --- | --- | --- | --- |';

with code (sqlstate, condition, meaning) as (
    values
        ('22023', 'invalid_parameter_value', 'an argument is malformed, out of range or null'),
        ('42501', 'insufficient_privilege', 'a role or a right on a table is missing'),
        ('42704', 'undefined_object', 'a webhook, event, URL, column, message, table or role does not exist'),
        ('42710', 'duplicate_object', 'a name, URL or event is there already'),
        ('42809', 'wrong_object_type', 'a view, foreign table, temporary table, system catalog or virtual generated column where a table or a stored column is needed'),
        ('55000', 'object_not_in_prerequisite_state', 'not possible in the state of the server: recovery, no worker slot, a copy that was not adopted, library and schema of different versions'),
        ('55P03', 'lock_not_available', 'a table is in use for longer than `lock_timeout`, and for at most 5 s')
)
select format('| `%s` | `%s` | %s | %s |', c.sqlstate, c.condition, c.meaning,
              coalesce(string_agg(f.link, ', ' order by f.name collate "C"), ''))
from code c
left join (
    select name, pg_temp.anchor(name) as link, string_agg(substring(comment from 'Errors: .*'), ' ') as errors
    from shown_function
    group by name
) f on f.errors ~ ('\m' || c.sqlstate || '\M')
group by c.sqlstate, c.condition, c.meaning
order by c.sqlstate collate "C";

-- A code that a comment names and the list does not have would be lost.
do $$
declare
    unknown text;
begin
    select string_agg(distinct m[1], ', ') into unknown
    from pg_temp.shown_function f
    cross join regexp_matches(substring(f.comment from 'Errors: .*'), '\m([0-9][0-9A-Z]{4})\M', 'g') as m
    where m[1] not in ('22023', '42501', '42704', '42710', '42809', '55000', '55P03', '10000', '10485');
    if unknown is not null then
        raise exception 'scripts/reference.sql does not know the SQLSTATE %', unknown;
    end if;
end
$$;

select '
Capture does not fail the statement of a writer, but for what would fail it anyway:

| SQLSTATE | when |
| --- | --- |
| `54001` | a value nests deeper than 1,000 arrays and composites |
| `53200` | the session has no memory for the row |
| `54000` | a single text of a message has more than 1 GB |
| `55000` | an outbox table was changed by hand (an index with an expression, another column or access method), or the row is replicated into a table of the extension |';
