-- Every object of the extension says what it is.
create extension webhook_ext;

select pg_describe_object(d.classid, d.objid, 0) as without_comment
from pg_depend d
join pg_extension x on x.oid = d.refobjid and d.refclassid = 'pg_extension'::regclass
where x.extname = 'webhook_ext'
  and d.deptype = 'e'
  and d.classid in ('pg_proc'::regclass, 'pg_class'::regclass, 'pg_namespace'::regclass)
  and obj_description(d.objid, d.classid::regclass::name) is null
order by 1;

select a.attrelid::regclass as view, a.attname as column_without_comment
from pg_attribute a
where a.attrelid in ('webhook.webhooks'::regclass, 'webhook.events'::regclass, 'webhook.messages'::regclass,
                     'webhook.calls'::regclass, 'webhook.queue'::regclass, 'webhook.worker'::regclass,
                     'webhook.activity'::regclass)
  and a.attnum > 0
  and col_description(a.attrelid, a.attnum) is null;

-- psql shows them beside much else: what is longer is in docs/functions.md.
select pg_describe_object(c.classoid, c.objoid, c.objsubid) as too_long, length(c.description)
from pg_description c
join pg_depend d on d.classid = c.classoid and d.objid = c.objoid
join pg_extension x on x.oid = d.refobjid and d.refclassid = 'pg_extension'::regclass
where x.extname = 'webhook_ext'
  and d.deptype = 'e'
  and length(c.description) > 300
order by 1;

-- Nothing is for PUBLIC, and every function has its own search_path; that of capture is the
-- session's because it is called for each row, and it looks nothing up by an unqualified name.
select p.proname as without_search_path
from pg_proc p
where p.pronamespace in ('webhook'::regnamespace, 'webhook_internal'::regnamespace)
  and not coalesce(p.proconfig @> array['search_path=pg_catalog, pg_temp'], false)
order by p.proname;

-- Each index of what waits begins with the URL. The planner would take any other for a look-up by
-- URL, and go through what waits for all URLs.
select i.indexrelid::regclass as not_by_url
from pg_index i
where i.indrelid = 'webhook_internal.retry'::regclass
  and pg_get_expr(i.indpred, i.indrelid) like '%waiting%'
  and pg_get_indexdef(i.indexrelid, 1, true) !~ '\murl_key\M';

drop extension webhook_ext;
