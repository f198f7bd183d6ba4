-- Events by the names that their tables and columns have now, not for users.

-- Names and operators below are PostgreSQL's own, whatever else the schema may hold.
set local search_path = pg_catalog, pg_temp;

-- What to call an event and its table now.
create view webhook_internal.event_label as
select e.event_key,
       e.id,
       e.event_type,
       coalesce(
           -- a part that holds a dot or a quote is quoted, so that two tables never have one name
           case
               when n.nspname = 'public' then
                   case when c.relname ~ '[."]' then concat('"', replace(c.relname::text, '"', '""'), '"') else c.relname::text end
               when c.oid is not null then concat(
                   case when n.nspname ~ '[."]' then concat('"', replace(n.nspname::text, '"', '""'), '"') else n.nspname::text end,
                   '.',
                   case when c.relname ~ '[."]' then concat('"', replace(c.relname::text, '"', '""'), '"') else c.relname::text end
               )
           end,
           e.object_label
       ) as object_text
from webhook.event_def e
left join pg_class c on c.oid = e.object_name
left join pg_namespace n on n.oid = c.relnamespace;

-- The role that owns an event, and the right on the table that it has lost. Its oid counts while the
-- table is the one it was recorded for: it survives a rename. After a dump and restore the name
-- counts; a role that does not exist there leaves the event to the owner of the table.
create view webhook_internal.event_owner as
select e.event_key,
       r.oid as owner_oid,
       coalesce(r.rolname::text, e.owner_name) collate "default" as owner,
       (case
           when c.oid is null then null
           when r.oid is null then 'its owner ' || coalesce(quote_ident(e.owner_name), 'role') || ' was dropped'
           when not has_table_privilege(r.oid, c.oid, 'select')
           then 'its owner ' || quote_ident(r.rolname) || ' may not SELECT from the table'
           when c.relrowsecurity and not r.rolsuper and not r.rolbypassrls and not pg_has_role(r.oid, c.relowner, 'usage')
           then 'the row security of the table applies to its owner ' || quote_ident(r.rolname)
       end) collate "default" as lost_rights
from webhook.event_def e
left join pg_class c on c.oid = e.object_name
left join pg_roles n on n.rolname::text = e.owner_name
left join pg_roles r
  on r.oid = case
                 when e.object_oid = e.object_name::oid and e.owner_oid is not null then e.owner_oid
                 else coalesce(n.oid, c.relowner)
             end;

-- The trigger that captures each event: its own if it has a condition, else the one that it shares.
create view webhook_internal.event_trigger as
select e.event_key,
       t.oid as trigger_oid,
       t.tgname as trigger_name,
       t.tgenabled as enabled,
       t.tgfoid = 'webhook.capture()'::regprocedure as is_ours
from webhook.event_def e
cross join lateral (
    select f.trigger_oid
    from webhook_internal.shared_trigger(e.object_name::oid, e.event_type) f
    where e.condition is null
    union all
    select o.oid
    from pg_trigger o
    where e.condition is not null
      and o.tgrelid = e.object_name
      and o.tgname = 'webhook_' || e.id
) as s (trigger_oid)
join pg_trigger t on t.oid = s.trigger_oid;

-- Each event with the name its table has now and the reason why it makes no messages.
-- Column numbers count while the table is the one they were recorded for, else the names.
create view webhook_internal.event_now as
select e.event_key, e.id, e.webhook_key, e.event_type, e.object_name, e.object_label, e.object_oid,
       e.object_fields, e.object_attnums, e.event_sources, e.payload_fields, e.payload_attnums,
       e.payload_template, e.condition, e.enabled, e.null_style, e.list_style, e.detail,
       e.created_at, e.created_by, e.modified_at, e.modified_by, e.dropped_at,
       e.template_fields, e.template_attnums,
       w.id as webhook_id,
       w.name as webhook_name,
       b.object_text,
       fields.missing as missing_columns,
       coalesce(fields.object_names, e.object_fields) as object_fields_now,
       coalesce(fields.payload_names, e.payload_fields) as payload_fields_now,
       case
           when e.object_name is null and not s.is_operational then 'its table is not on this node'
           when c.oid is null and not s.is_operational then 'its table was dropped'
           when fields.missing is not null then 'column was dropped: ' || fields.missing
           when fields.retyped is not null then 'column in match has another type: ' || fields.retyped
           when s.is_stopped then o.lost_rights
           when t.trigger_oid is null and not s.is_operational then 'its trigger was dropped'
           when t.enabled = 'D' then 'its trigger is disabled'
           when not e.enabled then 'it is not enabled'
           when not w.enabled then 'its webhook is not enabled'
           when fields.unknown is not null then 'enum value in match does not exist: ' || fields.unknown
           else coalesce(e.detail, w.detail)
       end as reason,
       w.enabled and e.enabled
           and (s.is_operational or c.oid is not null and fields.missing is null and fields.retyped is null
                                    and t.trigger_oid is not null and t.enabled <> 'D' and not s.is_stopped) as active,
       o.owner,
       fields.retyped as retyped_columns,
       fields.match as match_now,
       fields.order_names as order_key_now,
       fields.unknown as unknown_values,
       -- As its trigger has it, which follows renames.
       case
           when e.condition is not null
           then substring(pg_get_triggerdef(t.trigger_oid, true) from 'FOR EACH ROW WHEN \((.*)\) EXECUTE FUNCTION ')
       end as condition_now
from webhook.event_def e
join webhook.webhook_def w on w.webhook_key = e.webhook_key
-- Each part is looked up for the events that are asked for, and not for all.
cross join lateral (
    select k.object_text
    from webhook_internal.event_label k
    where k.event_key = e.event_key
    offset 0
) b
cross join lateral (
    select k.owner, k.lost_rights
    from webhook_internal.event_owner k
    where k.event_key = e.event_key
    offset 0
) o
cross join lateral (
    select o.lost_rights is not null
           and coalesce(nullif(current_setting('webhook.recheck_privileges', true), ''), 'on')::boolean,
           starts_with(e.event_type, 'webhook.')
) as s (is_stopped, is_operational)
left join pg_class c on c.oid = e.object_name
left join lateral (
    select k.trigger_oid, k.enabled
    from webhook_internal.event_trigger k
    where k.event_key = e.event_key
    offset 0
) t on true
left join lateral (
    select string_agg(distinct f.name, ', ' order by f.name) filter (
               -- what is not used may be missing
               where a.attname is null and (f.kind <> 'order' or w.delivery_order = 'key')
           ) as missing,
           array_agg(coalesce(a.attname::text, f.name) order by f.place) filter (where f.kind = 'object') as object_names,
           array_agg(coalesce(a.attname::text, f.name) order by f.place) filter (where f.kind = 'payload') as payload_names,
           string_agg(a.attname::text collate "default", ', ' order by a.attname) filter (
               where f.kind = 'match' and webhook_internal.match_kind(a.atttypid, a.attcollation) is distinct from f.compared_as
                 and a.attname is not null
           ) as retyped,
           jsonb_object_agg(coalesce(a.attname::text, f.name), e.match -> f.name) filter (where f.kind = 'match') as match,
           array_agg(coalesce(a.attname::text, f.name) order by f.place) filter (where f.kind = 'order') as order_names,
           string_agg(
               concat(a.attname, ' = ', webhook_internal.unknown_labels(a.atttypid, e.match -> f.name)) collate "default",
               ', ' order by a.attname
           ) filter (
               where case when f.compared_as = 'enum' then webhook_internal.unknown_labels(a.atttypid, e.match -> f.name) end is not null
           ) as unknown
    from (
        select 'object', o.name, o.number, o.place, null
        from unnest(e.object_fields, e.object_attnums) with ordinality as o (name, number, place)
        union all
        select 'payload', p.name, p.number, p.place, null
        from unnest(e.payload_fields, e.payload_attnums) with ordinality as p (name, number, place)
        union all
        select 'template', m.name, m.number, m.place, null
        from unnest(e.template_fields, e.template_attnums) with ordinality as m (name, number, place)
        union all
        select 'match', v.name, v.number, v.place, v.compared_as
        from unnest(e.match_fields, e.match_attnums, e.match_kinds)
            with ordinality as v (name, number, compared_as, place)
        union all
        select 'order', k.name, k.number, k.place, null
        from unnest(e.order_key, e.order_key_attnums) with ordinality as k (name, number, place)
    ) f (kind, name, number, place, compared_as)
    left join pg_attribute a
      on a.attrelid = e.object_name
     and a.attnum > 0
     and not a.attisdropped
     and case when e.object_oid = e.object_name::oid then a.attnum = f.number else a.attname = f.name end
) fields on true;

set local search_path = webhook, pg_temp;
