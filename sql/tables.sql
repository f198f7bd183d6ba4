-- Definitions: what users create. Carried by pg_dump. What is internal and yet in schema webhook is there for sessions
-- with the library of 0.1.0 and for its dumps: see Copies and upgrades in ARCHITECTURE.md.
-- A dropped definition stays as a tombstone (dropped_at) while the log and the outbox still name it.

create sequence webhook.definition_key_seq as integer;

create table webhook.webhook_def (
    webhook_key     integer primary key default pg_catalog.nextval('webhook.definition_key_seq'),
    -- as src/core/definitions/ids.rs makes them
    id              text not null unique check (id collate pg_catalog."C" operator(pg_catalog.~) '^[a-z0-9]{6}$'),
    name            text not null,
    description     text,
    call_throttling integer,
    enabled         boolean not null,
    paused          boolean not null default false,
    headers         jsonb not null,
    timeout_ms      integer not null,
    max_attempts    integer not null,
    max_age         interval not null,
    max_in_flight   integer not null,
    delivery_order  text not null check (delivery_order operator(pg_catalog.=) any (array['none', 'fifo', 'key'])),
    log_level       text not null check (log_level operator(pg_catalog.=) any (array['all', 'errors', 'none'])),
    detail          text,
    created_at      timestamptz not null default pg_catalog.clock_timestamp(),
    created_by      text not null,
    modified_at     timestamptz,
    modified_by     text,
    dropped_at      timestamptz,
    disable_after   interval
);
create unique index webhook_def_name on webhook.webhook_def (name) where dropped_at is null;

-- Newest first by created_at; a secret without expires_at is the current one.
create table webhook.secret_def (
    webhook_key integer not null references webhook.webhook_def on delete cascade,
    secret      text not null,
    created_at  timestamptz not null default pg_catalog.clock_timestamp(),
    expires_at  timestamptz,
    -- a table in a publication needs a key
    primary key (webhook_key, secret)
);

create table webhook.url_def (
    url_key     integer primary key default pg_catalog.nextval('webhook.definition_key_seq'),
    webhook_key integer not null references webhook.webhook_def on delete cascade,
    position    integer not null,
    url         text not null,
    disabled_at timestamptz,
    detail      text,
    dropped_at  timestamptz,
    -- an older message was never meant for it
    created_at  timestamptz not null default pg_catalog.clock_timestamp(),
    -- when a user said last that its receiver is back: webhook.retry_now(), webhook.resume_webhook()
    reopened_at timestamptz
);
create unique index url_def_url on webhook.url_def (webhook_key, url) where dropped_at is null;
create index url_def_webhook on webhook.url_def (webhook_key);

-- The table as regclass and its columns by name and number: the number survives a rename,
-- the name survives a dump and restore.
create table webhook.event_def (
    event_key           integer primary key default pg_catalog.nextval('webhook.definition_key_seq'),
    id                  text not null unique check (id collate pg_catalog."C" operator(pg_catalog.~) '^[a-z0-9]{6}$'),
    webhook_key         integer not null references webhook.webhook_def on delete cascade,
    event_type          text not null check (event_type operator(pg_catalog.=) any (
        array['table.recordInsert', 'table.recordUpdate', 'table.recordDelete',
              'webhook.urlFailing', 'webhook.urlRecovered', 'webhook.urlDisabled', 'webhook.messageFailed',
              'webhook.eventDisabled', 'webhook.backlogGrowing']
    )),
    object_name         regclass,
    -- its name when the event was created, shown once the table is gone
    object_label        text,
    -- the table's oid when the column numbers were recorded
    object_oid          oid,
    object_fields       text[],
    object_attnums      smallint[],
    event_sources       text[],
    payload_fields      text[],
    payload_attnums     smallint[],
    payload_template    text,
    condition           text,
    enabled             boolean not null,
    null_style          text not null check (null_style operator(pg_catalog.=) any (array['typed', 'null'])),
    list_style          text not null check (list_style operator(pg_catalog.=) any (array['array', 'keyed'])),
    detail              text,
    created_at          timestamptz not null default pg_catalog.clock_timestamp(),
    created_by          text not null,
    modified_at         timestamptz,
    modified_by         text,
    dropped_at          timestamptz,
    -- the columns that payload_template names
    template_fields     text[],
    template_attnums    smallint[],
    -- the role whose rights the event needs: webhook_internal.event_owner
    owner_name          text,
    owner_oid           oid,
    -- values by column name; the columns by name and number, and how each is compared
    match               jsonb,
    match_fields        text[],
    match_attnums       smallint[],
    match_kinds         text[],
    -- the same for events on the same columns
    match_group         uuid,
    -- hashes of the group and each combination of values, in the order of match_fields
    match_keys          uuid[],
    -- the columns whose values are the key of delivery_order 'key'; null = the table's key
    order_key           text[],
    order_key_attnums   smallint[]
);
-- Capture reads the events without match, and each group once, however many events it has.
create index event_def_capture
    on webhook.event_def (object_name, event_type, match_group, object_oid, match_attnums)
    where dropped_at is null;
create index event_def_match on webhook.event_def using gin (match_keys) with (fastupdate = off)
    where dropped_at is null;
-- By the first key, so that a further event of a webhook with thousands is compared with its likes.
create index event_def_webhook on webhook.event_def (webhook_key, (match_keys[1]));
-- Operational events have no table.
create index event_def_operational on webhook.event_def (event_type) where object_name is null and dropped_at is null;

-- The present names of columns that were recorded by name and number. Numbers count while
-- the table is the one they were recorded for, else (after a restore) the names; what is
-- gone is left out.
create function webhook.present_columns(object regclass, recorded_for oid, names text[], numbers smallint[])
returns text[]
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
    select case when names is not null then array(
        select a.attname::text
        from unnest(names, numbers) with ordinality as f (name, number, place)
        join pg_catalog.pg_attribute a
          on a.attrelid = object
         and a.attnum > 0
         and not a.attisdropped
         and case when recorded_for = object::oid then a.attnum = f.number else a.attname = f.name end
        order by f.place) end
$$;

-- Whether all recorded columns are still there.
create function webhook.columns_present(object regclass, recorded_for oid, names text[], numbers smallint[])
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
    select names is null
        or cardinality(webhook.present_columns(object, recorded_for, names, numbers)) = cardinality(names)
$$;

-- Which webhooks' definitions, retries or cancellations a transaction has changed, so that the
-- worker reads these and no others. Read by snapshot, and deleted once it was read. Without
-- webhook_key: all may have changed.
create table webhook_internal.definition_change (
    change_id   bigint generated always as identity primary key,
    xid         xid8 not null default pg_catalog.pg_current_xact_id(),
    webhook_key integer
);
create index definition_change_xid on webhook_internal.definition_change (xid);

-- How the values of a column are compared with those of match: by their stored form, which only these
-- types have in one way for equal values. NULL: another type.
create function webhook_internal.match_kind(column_type oid, column_collation oid)
returns text
language c
stable
strict
as 'MODULE_PATHNAME', 'match_kind_wrapper';

-- Labels that match lists and the enum does not have, because it calls them otherwise now. With settings of its
-- own, so that it does not become a part of the views: their plans would look so costly that each is compiled.
create function webhook_internal.unknown_labels(column_type oid, listed jsonb)
returns text
language sql
stable
strict
set search_path = pg_catalog, pg_temp
as $$
    with recursive below (type_oid) as (
        select column_type
        union all
        select t.typbasetype
        from below
        join pg_type t on t.oid = below.type_oid
        where t.typtype = 'd'
    )
    select string_agg(v.label collate "default", ', ' order by v.label collate "C")
    from jsonb_array_elements_text(
        case jsonb_typeof(listed) when 'array' then listed else jsonb_build_array(listed) end
    ) as v (label)
    where v.label is not null
      and not exists (
              select
              from below
              join pg_enum n on n.enumtypid = below.type_oid
              where n.enumlabel::text collate "C" = v.label collate "C"
          )
$$;

-- In which databases the definitions were made. Carried by pg_dump, so that a restored copy can
-- tell that it is one; empty until the first webhook is created.
create table webhook.def_origin (
    -- as pg_control_system() shows it
    system_identifier bigint not null,
    database_oid      oid not null,
    -- webhook.identity
    identity          text not null,
    primary key (system_identifier, database_oid, identity)
);

-- One row: whether the worker was stopped by hand, and into which outbox table writers append.
-- state_*: where outbox, log and positions were written; no dump carries it. With it, a database
-- that pg_upgrade has moved differs from one that a dump was restored into.
create table webhook.control (
    only_row       boolean primary key default true check (only_row),
    worker_stopped boolean not null default false,
    outbox_number  smallint not null default 0,
    state_system   bigint,
    state_database oid,
    state_identity text,
    state_server   integer,
    -- of a cluster: that of its coordinator
    account_id     text
);
insert into webhook.control default values;

-- Outbox, call log and the figures of minutes are rings of tables: one is written, full or old ones are closed, and
-- what is past retention is emptied as a whole. Nothing is deleted row by row.
create table webhook_internal.segment (
    kind      text not null check (kind operator(pg_catalog.=) any (array['outbox', 'call_log', 'activity'])),
    number    smallint not null,
    -- both null: empty; closed_at null: being written
    opened_at timestamptz,
    closed_at timestamptz,
    primary key (kind, number)
);
insert into webhook_internal.segment (kind, number, opened_at)
select k.kind, n.number, case when n.number operator(pg_catalog.=) 0 then pg_catalog.clock_timestamp() end
from (values ('outbox'), ('call_log'), ('activity')) as k (kind)
cross join (values (0), (1), (2), (3)) as n (number);

-- Messages: insert-only, read between snapshots. id = flush number << 20 | place within the flush;
-- for changes of one row, and for transactions that follow one another, id order is the true order.
-- A row that was larger than webhook.max_message_size has neither record nor old_record, and in
-- changed, else an array, {"at_least_bytes": ..., "limit_bytes": ...}: it fails at once. Where the webhook
-- keeps the order of keys, changed begins with k, the hashes of the message's keys and a colon.
create sequence webhook.outbox_flush_seq;

-- Capture writes them as heap tables, whatever default_table_access_method says.
create table webhook.outbox_0 (
    xid         xid8 not null,
    id          bigint not null,
    message_id  uuid not null,
    event_key   integer not null,
    webhook_key integer not null,
    captured_at timestamptz not null,
    source      text,
    actor       text,
    changed     text,
    record      text,
    old_record  text
) using heap;
create table webhook.outbox_1 (like webhook.outbox_0 including all) using heap;
create table webhook.outbox_2 (like webhook.outbox_0 including all) using heap;
create table webhook.outbox_3 (like webhook.outbox_0 including all) using heap;
create index outbox_0_position on webhook.outbox_0 (xid, id);
create index outbox_1_position on webhook.outbox_1 (xid, id);
create index outbox_2_position on webhook.outbox_2 (xid, id);
create index outbox_3_position on webhook.outbox_3 (xid, id);

-- Message ids begin with the time (UUID version 7) and rows come nearly in that order, so that
-- a summary of each block range finds a message or a span of time, and costs writers next to
-- nothing. The worker summarises what is new.
create index outbox_0_time on webhook.outbox_0 using brin (message_id, captured_at) with (pages_per_range = 32);
create index outbox_1_time on webhook.outbox_1 using brin (message_id, captured_at) with (pages_per_range = 32);
create index outbox_2_time on webhook.outbox_2 using brin (message_id, captured_at) with (pages_per_range = 32);
create index outbox_3_time on webhook.outbox_3 using brin (message_id, captured_at) with (pages_per_range = 32);

create view webhook_internal.outbox as
    select * from webhook.outbox_0
    union all select * from webhook.outbox_1
    union all select * from webhook.outbox_2
    union all select * from webhook.outbox_3;

-- A snapshot the tail reader passed, and the webhooks with messages between it and the tick before.
create table webhook_internal.tick (
    tick_id      bigint primary key,
    snapshot     pg_snapshot not null,
    webhook_keys integer[] not null,
    created_at   timestamptz not null default pg_catalog.clock_timestamp()
);

-- What cannot be told from the lanes' positions: calls that failed and will be repeated
-- ('waiting'), were given up ('failed') or were canceled ('canceled'; 'canceling' while the
-- message still lies before the lane), and redeliveries: 'waiting' as well, 'delivered' where
-- the position would say that the message was canceled.
-- accepted_at: since when the message's age counts, if not since event_date.
-- key_hash, other_key_hash: the order keys (delivery_order 'key'), two after a change of
-- the key. What waits with next_at 'infinity' waits for an earlier message of one of its keys.
create table webhook_internal.retry (
    url_key     integer not null,
    xid         xid8 not null,
    id          bigint not null,
    message_id  uuid not null,
    webhook_key integer not null,
    event_key   integer,
    event_date  timestamptz not null,
    attempts    integer not null,
    state       text not null check (state operator(pg_catalog.=) any (
        array['waiting', 'failed', 'canceled', 'canceling', 'delivered']
    )),
    next_at     timestamptz,
    last_error  text,
    changed_at  timestamptz not null default pg_catalog.clock_timestamp(),
    accepted_at timestamptz,
    key_hash    bigint,
    other_key_hash bigint,
    primary key (url_key, id, xid)
);
-- What is due of one URL.
create index retry_due_url on webhook_internal.retry (url_key, next_at) where state operator(pg_catalog.=) 'waiting';
-- What holds a lane that keeps the order.
create index retry_waiting on webhook_internal.retry (url_key, id, xid) where state operator(pg_catalog.=) 'waiting';
-- The first of a key that waits, where a URL keeps the order of each key. On an expression, so that no other
-- index serves these look-ups: whatever statistics say, no plan goes through all that waits for the URL.
create index retry_key on webhook_internal.retry ((case when state operator(pg_catalog.=) 'waiting' then url_key end), key_hash, id, xid)
    where (case when state operator(pg_catalog.=) 'waiting' then url_key end) is not null and key_hash is not null;
create index retry_other_key on webhook_internal.retry ((case when state operator(pg_catalog.=) 'waiting' then url_key end), other_key_hash, id, xid)
    where (case when state operator(pg_catalog.=) 'waiting' then url_key end) is not null and other_key_hash is not null;
create index retry_message on webhook_internal.retry (message_id);
create index retry_failed on webhook_internal.retry (webhook_key, event_date) where state operator(pg_catalog.=) 'failed';
-- Counted by webhook.queue without a look at the rows.
create index retry_failed_url on webhook_internal.retry (url_key) where state operator(pg_catalog.=) 'failed';
create index retry_canceling on webhook_internal.retry (url_key, id, xid) where state operator(pg_catalog.=) 'canceling';

-- webhook.cancel_pending(): of what was committed before the snapshot, nothing more is sent to
-- the URL. counted: how many messages that were, until the worker has heard of it; then it notes
-- where the lane stood: what lay before (taken_*), and what was on its way (in_flight), is not
-- canceled.
create table webhook_internal.cancellation (
    cancellation_id bigint generated always as identity primary key,
    url_key         integer not null,
    webhook_key     integer not null,
    before          pg_snapshot not null,
    counted         bigint not null,
    taken_before    pg_snapshot,
    taken_within    pg_snapshot,
    taken_up_to     bigint,
    in_flight       jsonb,
    canceled_at     timestamptz not null default pg_catalog.clock_timestamp()
);
create index cancellation_url on webhook_internal.cancellation (url_key, cancellation_id);
create index cancellation_webhook on webhook_internal.cancellation (webhook_key);
-- What the worker has not heard of.
create index cancellation_new on webhook_internal.cancellation (cancellation_id) where taken_before is null;

-- What the worker has settled since the last compaction, one row a settlement, insert-only.
-- counts:   [[event_key, messages, calls, errors], ...]   to add to webhook_internal.counter
-- backlog:  [[url_key, pending delta], ...]               to add to webhook_internal.lane.pending
-- lanes:    [{...}, ...]                                    the newest state of each lane it names
-- tail_*:   where the tail reader stands: everything between tail_from and tail_to with an id
--           up to tail_id, and everything before tail_from, has been counted and routed.
create table webhook_internal.settlement (
    seq        bigint primary key,
    tail_from  pg_snapshot not null,
    tail_to    pg_snapshot not null,
    tail_id    bigint not null,
    tail_tick  bigint not null,
    counts     jsonb not null,
    backlog    jsonb not null,
    lanes      jsonb not null,
    written_at timestamptz not null default pg_catalog.clock_timestamp()
);
-- Compressing what lives for ten seconds would cost more than it saves.
alter table webhook_internal.settlement alter column counts set storage external;
alter table webhook_internal.settlement alter column backlog set storage external;
alter table webhook_internal.settlement alter column lanes set storage external;

-- The settlements up to compacted_seq, added up.
create table webhook_internal.compaction (
    only_row   boolean primary key default true check (only_row),
    compacted_seq bigint not null,
    tail_from  pg_snapshot not null,
    tail_to    pg_snapshot not null,
    tail_id    bigint not null,
    tail_tick  bigint not null
);
-- Everything there is was not seen yet; 3 is the first id a transaction can have.
insert into webhook_internal.compaction values (true, 0, '3:3:', '3:3:', 0, 0);
create table webhook_internal.counter (
    event_key integer primary key,
    messages  bigint not null,
    calls     bigint not null,
    errors    bigint not null
);
-- What webhook_internal.counter had before it was first changed on that day (UTC), for the last thirty days: what was
-- counted since is the difference.
create table webhook_internal.counter_day (
    event_key integer,
    day       date,
    messages  bigint not null,
    calls     bigint not null,
    errors    bigint not null,
    primary key (event_key, day)
);
create index counter_day_day on webhook_internal.counter_day (day);
-- Enabled events that make no messages because of what was done to their tables or to the rights of their
-- owners, once users were told.
create table webhook_internal.stopped_event (
    event_key integer primary key references webhook.event_def on delete cascade,
    reason    text not null,
    since     timestamptz not null default pg_catalog.clock_timestamp()
);
create table webhook_internal.lane (
    url_key integer primary key,
    pending bigint not null,
    state   jsonb not null,
    -- the next worker has to know it: others are at the tail and have nothing on its way
    active  boolean generated always as (
        state operator(pg_catalog.@>) '{"own": true}'
        or not coalesce(
            state operator(pg_catalog.->) 'busy', '[]') operator(pg_catalog.=) '[]'
        or state operator(pg_catalog.?) 'until'
    ) stored
);
create index lane_active on webhook_internal.lane (url_key) where active;
create index lane_pending on webhook_internal.lane (url_key) where pending operator(pg_catalog.<>) 0;

-- One row a call. It names its webhook by id, as users do: with the key, a query for the newest
-- calls of one webhook would have to sort all of them, because the planner learns the key too
-- late to read them from the index in order.
create table webhook_internal.call_log_0 (
    call_id      uuid not null,
    called_at    timestamptz not null,
    message_id   uuid not null,
    url_key      integer not null,
    event_key    integer,
    event_date   timestamptz not null,
    attempt      integer not null,
    success      boolean not null,
    webhook_id   text,
    http_code    integer,
    http_response text,
    detail       text,
    message_size integer not null,
    duration_ms  double precision not null
);
create table webhook_internal.call_log_1 (like webhook_internal.call_log_0 including all);
create table webhook_internal.call_log_2 (like webhook_internal.call_log_0 including all);
create table webhook_internal.call_log_3 (like webhook_internal.call_log_0 including all);
create index call_log_0_message on webhook_internal.call_log_0 (message_id);
create index call_log_1_message on webhook_internal.call_log_1 (message_id);
create index call_log_2_message on webhook_internal.call_log_2 (message_id);
create index call_log_3_message on webhook_internal.call_log_3 (message_id);
-- Ids are compared byte by byte, whatever the database's collation. What stands behind the time
-- is compared within the index; without it the planner would look for the newest calls of a busy
-- webhook in the rows of all, which takes long once it is busy no more.
create index call_log_0_time on webhook_internal.call_log_0 (called_at, webhook_id text_pattern_ops);
create index call_log_1_time on webhook_internal.call_log_1 (called_at, webhook_id text_pattern_ops);
create index call_log_2_time on webhook_internal.call_log_2 (called_at, webhook_id text_pattern_ops);
create index call_log_3_time on webhook_internal.call_log_3 (called_at, webhook_id text_pattern_ops);
create index call_log_0_webhook on webhook_internal.call_log_0 (webhook_id text_pattern_ops, called_at);
create index call_log_1_webhook on webhook_internal.call_log_1 (webhook_id text_pattern_ops, called_at);
create index call_log_2_webhook on webhook_internal.call_log_2 (webhook_id text_pattern_ops, called_at);
create index call_log_3_webhook on webhook_internal.call_log_3 (webhook_id text_pattern_ops, called_at);
-- Failures, of which there are few. The condition is what the view webhook.calls shows as status,
-- word for word: that is how the planner knows the index for "status = 'Failure'".
create index call_log_0_failure on webhook_internal.call_log_0 (called_at, webhook_id text_pattern_ops)
    where case when success then 'Success' else 'Failure' end operator(pg_catalog.=) 'Failure';
create index call_log_1_failure on webhook_internal.call_log_1 (called_at, webhook_id text_pattern_ops)
    where case when success then 'Success' else 'Failure' end operator(pg_catalog.=) 'Failure';
create index call_log_2_failure on webhook_internal.call_log_2 (called_at, webhook_id text_pattern_ops)
    where case when success then 'Success' else 'Failure' end operator(pg_catalog.=) 'Failure';
create index call_log_3_failure on webhook_internal.call_log_3 (called_at, webhook_id text_pattern_ops)
    where case when success then 'Success' else 'Failure' end operator(pg_catalog.=) 'Failure';
create index call_log_0_webhook_failure on webhook_internal.call_log_0 (webhook_id text_pattern_ops, called_at)
    where case when success then 'Success' else 'Failure' end operator(pg_catalog.=) 'Failure';
create index call_log_1_webhook_failure on webhook_internal.call_log_1 (webhook_id text_pattern_ops, called_at)
    where case when success then 'Success' else 'Failure' end operator(pg_catalog.=) 'Failure';
create index call_log_2_webhook_failure on webhook_internal.call_log_2 (webhook_id text_pattern_ops, called_at)
    where case when success then 'Success' else 'Failure' end operator(pg_catalog.=) 'Failure';
create index call_log_3_webhook_failure on webhook_internal.call_log_3 (webhook_id text_pattern_ops, called_at)
    where case when success then 'Success' else 'Failure' end operator(pg_catalog.=) 'Failure';
create index call_log_0_code on webhook_internal.call_log_0 (called_at, http_code) where http_code operator(pg_catalog.>=) 300;
create index call_log_1_code on webhook_internal.call_log_1 (called_at, http_code) where http_code operator(pg_catalog.>=) 300;
create index call_log_2_code on webhook_internal.call_log_2 (called_at, http_code) where http_code operator(pg_catalog.>=) 300;
create index call_log_3_code on webhook_internal.call_log_3 (called_at, http_code) where http_code operator(pg_catalog.>=) 300;

create view webhook_internal.call_log as
    select * from webhook_internal.call_log_0
    union all select * from webhook_internal.call_log_1
    union all select * from webhook_internal.call_log_2
    union all select * from webhook_internal.call_log_3;

-- Who changed what through the functions, insert-only, in their transaction. Secrets are never in it, and
-- headers with masked values. is_kept: as long as the definition lives, whatever webhook.log_retention says.
create table webhook_internal.change_log (
    change_id   bigint generated always as identity primary key,
    changed_at  timestamptz not null default pg_catalog.clock_timestamp(),
    changed_by  text not null,
    action      text not null,
    kind        text not null,
    id          text,
    name        text,
    webhook_id  text,
    webhook_key integer,
    event_key   integer,
    is_kept     boolean not null,
    old         jsonb,
    new         jsonb
);
create index change_log_time on webhook_internal.change_log (changed_at);
create index change_log_id on webhook_internal.change_log (id, changed_at);
create index change_log_expiring on webhook_internal.change_log (changed_at) where not is_kept;
create index change_log_webhook on webhook_internal.change_log (webhook_key) where is_kept;
create index change_log_event on webhook_internal.change_log (event_key) where is_kept and event_key is not null;
