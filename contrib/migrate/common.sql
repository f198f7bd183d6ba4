-- What the scripts of this folder share: temporary functions, gone with the session.

\set ON_ERROR_STOP on
\pset format unaligned
\pset tuples_only on
set search_path = pg_catalog;
set client_min_messages = warning;

-- A JSON object with a parameter for each column: {"id": "[@field:id]", ...}. What a template cannot name is left out.
create function pg_temp.row_template(target oid, kind text) returns text language sql as $$
    select format('{%s}', string_agg(format('%s: %s', to_json(attname::text), to_json(format('[@%s:%s]', kind, attname))),
                                     ', ' order by attnum))
    from pg_attribute
    where attrelid = target
      and attnum > 0
      and not attisdropped
      -- Virtual generated columns (PostgreSQL 18) have no stored value.
      and attgenerated <> 'v'
      and attname !~ '[][]'
$$;

create function pg_temp.event_type(operation text) returns text language sql as $$
    select 'table.record' || initcap(operation)
$$;

-- The extension sets these itself.
create function pg_temp.is_refused_header(name text) returns boolean language sql as $$
    select lower(name) in ('content-type', 'content-length', 'user-agent', 'host', 'connection', 'transfer-encoding')
        or lower(name) like 'webhook-%'
$$;

create function pg_temp.text_array(items text[]) returns text language sql as $$
    select format('array[%s]', string_agg(quote_literal(item), ', ' order by place))
    from unnest(items) with ordinality as i (item, place)
$$;

-- A comment of SQL. A line break in a name would end it, and what follows in the name would run as a statement.
create function pg_temp.remark(remark text) returns text language sql as $$
    select '-- ' || regexp_replace(remark, '[\n\r]+', ' ', 'g')
$$;
