-- A cluster of Citus: definitions are made on the coordinator and applied on every node.

-- Definitions as documents, one for each row of a definition table; of secrets, one for each webhook. Empty until
-- webhook.enable_cluster() has made a reference table of it; then the coordinator writes it with each change of a
-- definition, and a trigger on the placement of each node applies it there in the same distributed transaction.
create table webhook_internal.cluster_document (
    kind    text not null check (kind operator(pg_catalog.=) any (
        array['cluster', 'webhook_def', 'secret_def', 'url_def', 'event_def']
    )),
    key     integer not null,
    doc     jsonb not null,
    version bigint not null default 1,
    primary key (kind, key)
);

-- Which of them this node has applied. A document that came with a copy of the table has fired no trigger.
create table webhook_internal.cluster_applied (
    kind    text not null,
    key     integer not null,
    version bigint not null,
    primary key (kind, key)
);

-- Names and operators below are PostgreSQL's own, whatever else the schema may hold.
set local search_path = pg_catalog, pg_temp;

-- The present names of columns in the order of the recorded ones; null if one is gone.
create function webhook_internal.names_now(object regclass, recorded_for oid, names text[], numbers smallint[])
returns text[]
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
    select case
               when webhook.columns_present(object, recorded_for, names, numbers)
               then webhook.present_columns(object, recorded_for, names, numbers)
           end
$$;

-- The numbers of columns, null if there are no names or one is not there.
create function webhook_internal.column_numbers(object oid, names jsonb)
returns smallint[]
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
    select case when count(*) = count(a.attnum) and count(*) > 0 then array_agg(a.attnum order by f.place) end
    from jsonb_array_elements_text(case jsonb_typeof(names) when 'array' then names end) with ordinality as f (name, place)
    left join pg_attribute a
      on a.attrelid = object
     and a.attname = f.name
     and a.attnum > 0
     and not a.attisdropped
$$;

-- The documents of the definitions that are here. Tables and columns stand in them by the names that they have now.
create view webhook_internal.cluster_document_now as
select 'webhook_def' as kind, w.webhook_key as key, to_jsonb(w) as doc
from webhook.webhook_def w
union all
select 'secret_def', w.webhook_key,
       coalesce((
           select jsonb_agg(to_jsonb(s) order by s.created_at, s.secret)
           from webhook.secret_def s
           where s.webhook_key = w.webhook_key
       ), '[]')
from webhook.webhook_def w
union all
select 'url_def', u.url_key, to_jsonb(u)
from webhook.url_def u
union all
select 'event_def', e.event_key,
       to_jsonb(e) - array['object_oid', 'owner_oid', 'object_attnums', 'payload_attnums', 'template_attnums',
                           'match_attnums', 'order_key_attnums']
       || jsonb_build_object(
              'object_name', case when c.oid is not null then format('%I.%I', n.nspname, c.relname) end,
              'object_label', l.object_text,
              'owner_name', coalesce(o.owner, e.owner_name),
              'object_now', webhook_internal.names_now(e.object_name, e.object_oid, e.object_fields, e.object_attnums),
              'payload_now', webhook_internal.names_now(e.object_name, e.object_oid, e.payload_fields, e.payload_attnums),
              'template_now', webhook_internal.names_now(e.object_name, e.object_oid, e.template_fields, e.template_attnums),
              'match_now', webhook_internal.names_now(e.object_name, e.object_oid, e.match_fields, e.match_attnums),
              'order_now', webhook_internal.names_now(e.object_name, e.object_oid, e.order_key, e.order_key_attnums)
          )
from webhook.event_def e
join webhook_internal.event_label l on l.event_key = e.event_key
join webhook_internal.event_owner o on o.event_key = e.event_key
left join pg_class c on c.oid = e.object_name
left join pg_namespace n on n.oid = c.relnamespace;

-- Brings a definition of this node in line with its document; without one it is removed, unless it was
-- dropped: then its own log and outbox may still name it, and this node's worker removes it.
create function webhook_internal.apply_cluster_document(kind text, key integer, doc jsonb)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    key_column constant text := case kind when 'url_def' then 'url_key' when 'event_def' then 'event_key' else 'webhook_key' end;
    wanted jsonb := doc;
    object oid;
begin
    if kind = 'cluster' then
        update webhook.control
        set account_id = doc ->> 'account_id'
        where account_id is distinct from doc ->> 'account_id';
        return;
    end if;
    if kind = 'secret_def' then
        delete from webhook.secret_def s
        where s.webhook_key = key
          and not exists (
              select from jsonb_array_elements(coalesce(doc, '[]')) d where d ->> 'secret' = s.secret
          );
        insert into webhook.secret_def
        select r.*
        from jsonb_populate_recordset(null::webhook.secret_def, coalesce(doc, '[]')) r
        on conflict (webhook_key, secret) do update
        set created_at = excluded.created_at, expires_at = excluded.expires_at;
        return;
    end if;
    if doc is null then
        execute format('delete from webhook.%I where %I = $1 and dropped_at is null', kind, key_column) using key;
        return;
    end if;
    if kind = 'webhook_def' and doc ->> 'dropped_at' is null then
        -- Another webhook had the name here, and has another one or none in its own document, which comes later.
        update webhook.webhook_def w
        set name = concat(w.id, ' ', w.name)
        where w.name = doc ->> 'name'
          and w.webhook_key <> key
          and w.dropped_at is null;
    end if;
    if kind = 'event_def' then
        object := to_regclass(doc ->> 'object_name');
        wanted := doc || jsonb_build_object(
            'object_name', object::regclass,
            'object_oid', object,
            'owner_oid', (select r.oid from pg_roles r where r.rolname::text = doc ->> 'owner_name'),
            'object_attnums', webhook_internal.column_numbers(object, doc -> 'object_now'),
            'payload_attnums', webhook_internal.column_numbers(object, doc -> 'payload_now'),
            'template_attnums', webhook_internal.column_numbers(object, doc -> 'template_now'),
            'match_attnums', webhook_internal.column_numbers(object, doc -> 'match_now'),
            'order_key_attnums', webhook_internal.column_numbers(object, doc -> 'order_now')
        );
    end if;
    execute format(
        'insert into webhook.%1$I select r.* from jsonb_populate_record(null::webhook.%1$I, $1) r'
        ' on conflict (%2$I) do update set %3$s',
        kind, key_column,
        (
            select string_agg(format('%1$I = excluded.%1$I', a.attname), ', ')
            from pg_attribute a
            where a.attrelid = format('webhook.%I', kind)::regclass
              and a.attnum > 0
              and not a.attisdropped
              and a.attname <> key_column
        )
    ) using wanted;
end
$$;

-- Events whose table came to this node after them, or came back under its name with another number, as Citus does
-- it when it converts a table: they are about that table from now on. Gives how many; null is all tables.
create function webhook_internal.find_tables_again(only_table oid)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    changed bigint;
begin
    update webhook.event_def e
    set object_name = f.object,
        object_oid = f.object,
        object_attnums = webhook_internal.column_numbers(f.object, to_jsonb(e.object_fields)),
        payload_attnums = webhook_internal.column_numbers(f.object, to_jsonb(e.payload_fields)),
        template_attnums = webhook_internal.column_numbers(f.object, to_jsonb(e.template_fields)),
        match_attnums = webhook_internal.column_numbers(f.object, to_jsonb(e.match_fields)),
        order_key_attnums = webhook_internal.column_numbers(f.object, to_jsonb(e.order_key))
    from (
        select c.oid as object,
               c.relname,
               case
                   when n.nspname = 'public' then
                       case when c.relname ~ '[."]' then concat('"', replace(c.relname::text, '"', '""'), '"') else c.relname::text end
                   else concat(
                       case when n.nspname ~ '[."]' then concat('"', replace(n.nspname::text, '"', '""'), '"') else n.nspname::text end,
                       '.',
                       case when c.relname ~ '[."]' then concat('"', replace(c.relname::text, '"', '""'), '"') else c.relname::text end
                   )
               end as label
        from pg_class c
        join pg_namespace n on n.oid = c.relnamespace
        where c.relkind in ('r', 'p')
          and (only_table is null or c.oid = only_table)
    ) f
    where f.label = e.object_label
      -- The last part of the label, for the index.
      and f.relname = (case
              when right(e.object_label, 1) = '"' then
                  replace(substring(e.object_label from '(?:^|\.)"((?:[^"]|"")*)"$'), '""', '"')
              else substring(e.object_label from '[^.]*$')
          end)::name
      and e.dropped_at is null
      and not exists (select from pg_class c where c.oid = e.object_name);
    get diagnostics changed = row_count;
    -- A table that has left this node is none that was dropped: its coordinator has it.
    if only_table is null and webhook_internal.is_cluster() and (select l.groupid from pg_dist_local_group l) <> 0 then
        update webhook.event_def e
        set object_name = null, object_oid = null
        where e.object_name is not null
          and not exists (select from pg_class c where c.oid = e.object_name);
    end if;
    return changed;
end
$$;

-- Writes the document of one definition, if it has changed. On the coordinator.
create function webhook_internal.publish_cluster_document(of_kind text, of_key integer)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    wanted jsonb;
begin
    select n.doc into wanted
    from webhook_internal.cluster_document_now n
    where n.kind = of_kind
      and n.key = of_key;
    if wanted is null then
        delete from webhook_internal.cluster_document d where d.kind = of_kind and d.key = of_key;
    else
        insert into webhook_internal.cluster_document as d (kind, key, doc)
        values (of_kind, of_key, wanted)
        on conflict (kind, key) do update
        set doc = excluded.doc, version = d.version + 1
        where d.doc is distinct from excluded.doc;
    end if;
end
$$;

create function webhook_internal.cluster_document_changed()
returns trigger
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'cluster_document_changed_wrapper';

create trigger cluster_document_changed
    after insert or update or delete on webhook_internal.cluster_document
    for each row execute function webhook_internal.cluster_document_changed();

-- The rows of a view on each node, with the rights of the caller there; without a cluster, here. Whoever may not
-- connect to a node gets no answer from it.
create function webhook_internal.on_each_node(of_view text)
returns table (node text, answered boolean, answer text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    command text;
begin
    if of_view is null or of_view not in ('queue', 'worker', 'metrics') then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'of_view is none of queue, worker and metrics',
            hint = 'read webhook.cluster_queue, cluster_worker or cluster_metrics';
    end if;
    -- The search_path of a node's session is that of its user: each name has its schema.
    command := format(
        'select coalesce(pg_catalog.jsonb_agg(pg_catalog.to_jsonb(v)), ''[]'')::pg_catalog.text from webhook.%I v',
        of_view
    );
    if not webhook_internal.is_cluster() then
        node := 'here';
        answered := true;
        execute command into answer;
        return next;
        return;
    end if;
    return query
        select concat(n.nodename, ':', n.nodeport), r.success, r.result
        from run_command_on_all_nodes(command, true, true) r
        join pg_dist_node n on n.nodeid = r.nodeid
        order by n.groupid;
end
$$;

-- Whether webhook.enable_cluster() was called.
create function webhook_internal.is_cluster()
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
    if to_regclass('pg_catalog.pg_dist_partition') is null then
        return false;
    end if;
    return exists (
        select
        from pg_dist_partition p
        where p.logicalrelid = 'webhook_internal.cluster_document'::regclass
    );
end
$$;

create function webhook.enable_cluster()
returns void
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'enable_cluster_wrapper';

create function webhook.drain_node(node text)
returns bigint
language c
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'drain_node_wrapper';

create view webhook.cluster_queue as
select n.node, v.*
from webhook_internal.on_each_node('queue') n
left join lateral jsonb_populate_recordset(
    null::webhook.queue,
    case when n.answered then n.answer::jsonb else jsonb_build_array(jsonb_build_object('state', 'unreachable', 'last_error', n.answer)) end
) v on true;

create view webhook.cluster_worker as
select n.node, v.*
from webhook_internal.on_each_node('worker') n
left join lateral jsonb_populate_recordset(
    null::webhook.worker,
    case when n.answered then n.answer::jsonb else jsonb_build_array(jsonb_build_object('state', 'unreachable', 'last_error', n.answer)) end
) v on true;

create view webhook.cluster_metrics as
select n.node, v.*
from webhook_internal.on_each_node('metrics') n
cross join lateral (
    select m.*
    from jsonb_populate_recordset(null::webhook.metrics, case when n.answered then n.answer::jsonb end) m
    union all
    select 'webhook_node_answers', '{}', n.answered::integer
) v;

set local search_path = webhook, pg_temp;
