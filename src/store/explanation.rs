//! What `webhook.explain_event` has to know, as the extension's owner.

use super::citus;
use super::order_key::{self, NoKey};
use super::rows::{first, query};
use crate::core::explain::{EventFacts, UrlFacts};
use crate::pg::owner::as_owner;

/// A thousand of the webhook's last calls are looked through for messages that were too large.
const EVENT: &str = "
select e.id, e.event_type, e.enabled,
       w.name, w.enabled, w.paused, w.detail,
       coalesce(e.object_text, ''), c.oid is not null, e.missing_columns,
       t.enabled::pg_catalog.text,
       t.is_ours,
       pg_catalog.array_to_string(e.object_fields_now, ', '),
       e.event_sources, coalesce(e.condition_now, e.condition),
       c.relkind = 'p',
       (select pg_catalog.count(*)
        from pg_catalog.pg_partition_tree(c.oid) p
        where c.relkind = 'p' and p.isleaf),
       (select pg_catalog.string_agg(p.relid::pg_catalog.text, ', ')
        from pg_catalog.pg_partition_tree(c.oid) p
        left join pg_catalog.pg_trigger k on k.tgrelid = p.relid and k.tgname = t.trigger_name
        where c.relkind = 'p' and p.isleaf
          and (k.oid is null or k.tgenabled = 'D')),
       (select i.inhparent::pg_catalog.regclass::pg_catalog.text
        from pg_catalog.pg_inherits i
        where c.relispartition and i.inhrelid = c.oid),
       (select pg_catalog.count(*)
        from (select l.event_key, l.detail
              from webhook_internal.call_log l
              where l.webhook_id = w.id
              order by l.called_at desc
              limit 1000) l
        where l.event_key = e.event_key
          and l.detail like '%webhook.max_message_size allows%'),
       o.owner, o.lost_rights,
       (select pg_catalog.format('%I.%I', n.nspname, c.relname)
        from pg_catalog.pg_namespace n
        where n.oid = c.relnamespace),
       t.trigger_name::pg_catalog.text,
       pg_catalog.left(e.match_now::pg_catalog.text, 1000), e.retyped_columns,
       w.delivery_order, e.unknown_values
from webhook_internal.event_now e
join webhook.webhook_def w on w.webhook_key = e.webhook_key
join webhook_internal.event_owner o on o.event_key = e.event_key
left join pg_catalog.pg_class c on c.oid = e.object_name
left join webhook_internal.event_trigger t on t.event_key = e.event_key
where e.event_key = $1";

const URLS: &str = "
select q.outgoing_url, q.state, q.pending, q.retrying,
       case
           when q.next_attempt_at <= pg_catalog.clock_timestamp() then 'now'
           else 'at ' || q.next_attempt_at::pg_catalog.timestamptz(0)::pg_catalog.text
       end,
       q.last_error, q.failing_since::pg_catalog.timestamptz(0)::pg_catalog.text,
       case
           when w.disable_after is not null
           then (greatest(q.failing_since, case when q.failing_since is not null then u.reopened_at end)
               + least(w.disable_after, '10000 years'::pg_catalog.interval))::pg_catalog.timestamptz(0)::pg_catalog.text
       end
from webhook.queue q
join webhook.webhook_def w on w.id = q.webhook_id
join webhook.url_def u on u.webhook_key = w.webhook_key and u.url = q.outgoing_url and u.dropped_at is null
join webhook.event_def e on e.webhook_key = w.webhook_key
where e.event_key = $1
order by q.outgoing_url";

const SETTING: &str = "
select pg_catalog.current_setting('session_replication_role'), pg_catalog.pg_is_in_recovery()";

const PROPAGATES: &str = "
select coalesce(pg_catalog.current_setting('citus.propagate_set_commands', true) = 'local', false)";

/// The event and its table.
pub fn event(event_key: i32) -> EventFacts {
    let key = order_key::of_event(event_key).and_then(|key| match key {
        Ok(columns) => Some(Ok(columns.join(", "))),
        Err(NoKey::ColumnDropped) => None,
        Err(no_key) => Some(Err(no_key.reason())),
    });
    let facts = as_owner(|| {
        first(EVENT, &[event_key.into()], |row| EventFacts {
            id: row.value(1),
            event_type: row.value(2),
            enabled: row.value(3),
            webhook: row.value(4),
            webhook_enabled: row.value(5),
            webhook_paused: row.value(6),
            webhook_detail: row.get(7),
            table: row.value(8),
            table_is_there: row.value(9),
            missing_columns: row.get(10),
            trigger: row.get(11),
            trigger_is_ours: row.get(12).unwrap_or(false),
            object_fields: row.get(13),
            event_sources: row.get(14),
            condition: row.get(15),
            is_partitioned: row.get(16).unwrap_or(false),
            partitions: row.get(17).unwrap_or(0),
            deaf_partitions: row.get(18),
            partition_of: row.get(19),
            too_large: row.get(20).unwrap_or(0),
            owner: row.get(21),
            lost_rights: row.get(22),
            table_in_sql: row.get(23).unwrap_or_default(),
            trigger_name: row.get(24),
            matched: row.get(25),
            retyped_columns: row.get(26),
            delivery_order: row.value(27),
            unknown_values: row.get(28),
            order_key: None,
            shards: None,
        })
    });
    let shards = as_owner(|| citus::of_event(event_key));
    EventFacts {
        order_key: key,
        shards,
        ..facts.expect("a locked row does not go away")
    }
}

/// The URLs of its webhook.
pub fn urls(event_key: i32) -> Vec<UrlFacts> {
    as_owner(|| {
        query(URLS, &[event_key.into()], |row| UrlFacts {
            url: row.value(1),
            state: row.value(2),
            pending: row.value(3),
            retrying: row.value(4),
            next_attempt: row.get(5),
            last_error: row.get(6),
            failing_since: row.get(7),
            disabled_from: row.get(8),
        })
    })
}

/// `session_replication_role`, and whether the server is in recovery.
pub fn session() -> (String, bool) {
    first(SETTING, &[], |row| (row.value(1), row.value(2))).expect("a SELECT of settings has a row")
}

/// Whether Citus passes on `SET LOCAL` to the nodes of its cluster.
pub fn propagates_set_local() -> bool {
    first(PROPAGATES, &[], |row| row.value(1)).unwrap_or(false)
}
