//! The rings of tables that outbox, call log and the figures of minutes consist of.
//!
//! A table is emptied by TRUNCATE under a lock that is not waited for: a waiting one would
//! block the sessions behind it. What is still to be sent holds its table back; the few
//! messages that wait for a retry move to the table that is written. For the worker, in a
//! transaction; statements are seldom run, and each sees what committed before it.

use super::rows::{execute, first, query};
use crate::core::messages::rotation::Segment;
use crate::pg::owner::as_owner;

/// Blocks that are summarised together (`pages_per_range` of the index).
const BLOCKS_A_RANGE: i64 = 32;

/// Which ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ring {
    Outbox,
    CallLog,
    Activity,
}

impl Ring {
    /// What its tables are called in `webhook_internal.segment`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Outbox => "outbox",
            Self::CallLog => "call_log",
            Self::Activity => "activity",
        }
    }

    /// A table as statements name it.
    fn table(self, number: i16) -> String {
        let schema = match self {
            Self::Outbox => "webhook",
            Self::CallLog | Self::Activity => "webhook_internal",
        };
        format!("{schema}.{}_{number}", self.name())
    }
}

/// Times in microseconds; $1 ring.
const SEGMENTS: &str = "
select s.number,
       (extract(epoch from s.opened_at) * 1000000)::pg_catalog.int8,
       (extract(epoch from s.closed_at) * 1000000)::pg_catalog.int8,
       pg_catalog.pg_relation_size(c.oid),
       pg_catalog.pg_total_relation_size(c.oid)
from webhook_internal.segment s
join pg_catalog.pg_class c
  on c.relname = s.kind || '_' || s.number
join pg_catalog.pg_namespace n
  on n.oid = c.relnamespace
 and n.nspname = case s.kind when 'outbox' then 'webhook' else 'webhook_internal' end
where s.kind = $1
order by s.number";

/// Messages that wait for a retry and move when a table is emptied: half a second's work.
const MOVED_AT_MOST: i64 = if cfg!(feature = "fault_injection") {
    1_000
} else {
    50_000
};

const TOO_MANY_WAIT: &str = "
select pg_catalog.count(*) > $1
from (
    select
    from webhook_internal.retry r
    where r.state = 'waiting'
    limit $1 + 1
) w";

const NOW: &str = "
select (extract(epoch from pg_catalog.clock_timestamp()) * 1000000)::pg_catalog.int8";

const CLOSE: &str = "
update webhook_internal.segment s
set closed_at = pg_catalog.clock_timestamp()
where s.kind = $1
  and s.opened_at is not null
  and s.closed_at is null";

const OPEN: &str = "
update webhook_internal.segment s
set opened_at = pg_catalog.clock_timestamp()
where s.kind = $1
  and s.number = $2";

/// Writers hear of it, because it is a definition.
const WRITE_TO: &str = "
update webhook.control k
set outbox_number = $1";

const EMPTIED: &str = "
update webhook_internal.segment s
set opened_at = null, closed_at = null
where s.kind = $1
  and s.number = $2";

/// The newest state of each lane that reads for itself or has messages on their way, and of some
/// others. webhook_internal.place and webhook_internal.busy say more and call functions that run with the rights of
/// their owner, which the worker does not.
macro_rules! lanes {
    () => {
        "
with latest as (
    select distinct on (e.state -> 'u') (e.state -> 'u')::pg_catalog.int4 as url_key, e.state
    from webhook_internal.uncompacted n
    cross join lateral pg_catalog.jsonb_array_elements(n.lanes) as e (state)
    order by e.state -> 'u', n.seq desc
),
lanes as (
    select s.url_key, u.webhook_key, u.dropped_at is null as is_live, s.state,
           coalesce((s.state -> 'own')::pg_catalog.bool, false) as own
    from (
        select m.url_key, m.state
        from latest m
        union all
        select l.url_key, l.state
        from webhook_internal.lane l
        where l.active
          and not exists (select from latest m where m.url_key = l.url_key)
    ) s
    join webhook.url_def u on u.url_key = s.url_key
    join webhook.webhook_def w on w.webhook_key = u.webhook_key
    where u.dropped_at is null
       or u.dropped_at >= w.dropped_at
)"
    };
}

/// Cancellations whose messages are gone: all there are came into tables that were opened later.
const FORGET_CANCELLATIONS: &str = concat!(
    lanes!(),
    "
delete from webhook_internal.cancellation k
where not exists (
      select
      from webhook_internal.segment s
      where s.kind = 'outbox'
        and s.opened_at <= k.canceled_at
  )
  and not exists (
      select
      from lanes p
      where p.url_key = k.url_key
        and p.own
  )"
);

/// The tables of a ring.
pub fn all(ring: Ring) -> Vec<Segment> {
    query(SEGMENTS, &[ring.name().into()], |row| Segment {
        number: row.value(1),
        opened_at: row.get(2),
        closed_at: row.get(3),
        row_bytes: row.value(4),
        total_bytes: row.value(5),
    })
}

/// Whether there is no message at all, neither a committed one nor another. By the files' sizes:
/// no snapshot is too old to see what was emptied.
pub fn outbox_is_empty() -> bool {
    all(Ring::Outbox).iter().all(|table| table.row_bytes == 0)
}

/// By the clock that the tables' times are of.
pub fn now() -> i64 {
    first(NOW, &[], |row| row.value(1)).unwrap_or(0)
}

/// From this transaction's end on, rows go to another table of the ring.
pub fn write_to(ring: Ring, number: i16) {
    execute(CLOSE, &[ring.name().into()]);
    execute(OPEN, &[ring.name().into(), number.into()]);
    if ring == Ring::Outbox {
        execute(WRITE_TO, &[number.into()]);
    }
}

/// Takes a table from everybody else, or fails at once.
pub fn lock(ring: Ring, number: i16) {
    let table = ring.table(number);
    execute(
        &format!("lock table {table} in access exclusive mode nowait"),
        &[],
    );
}

/// Whether tail or lanes still have something to read in an outbox table, or have it on the wire.
pub fn is_needed(number: i16) -> bool {
    let lanes = lanes!();
    let statement = format!(
        "{lanes}
select exists (
           select
           from webhook_internal.tail t
           join webhook.outbox_{number} o on o.xid >= pg_catalog.pg_snapshot_xmin(t.tail_from)
           where not (pg_catalog.pg_visible_in_snapshot(o.xid, t.tail_from)
                      or (pg_catalog.pg_visible_in_snapshot(o.xid, t.tail_to) and o.id <= t.tail_id)))
    or exists (
           select
           from lanes n
           cross join lateral (
               select (n.state ->> 'from')::pg_catalog.pg_snapshot,
                      (n.state ->> 'to')::pg_catalog.pg_snapshot,
                      (n.state ->> 'id')::pg_catalog.int8
           ) p (taken_before, taken_within, taken_up_to)
           left join lateral (
               select c.before
               from webhook_internal.cancellation c
               where c.url_key = n.url_key
               -- The one that sees most, as in webhook_internal.place.
               order by pg_catalog.pg_snapshot_xmax(c.before) desc, pg_catalog.pg_snapshot_xmin(c.before) desc,
                        pg_catalog.length(c.before::pg_catalog.text)
               limit 1
           ) k on true
           join webhook.outbox_{number} o
             on o.webhook_key = n.webhook_key
            and o.xid >= pg_catalog.pg_snapshot_xmin(p.taken_before)
           where n.is_live
             and n.own
             and (k.before is null or not pg_catalog.pg_visible_in_snapshot(o.xid, k.before))
             and not (pg_catalog.pg_visible_in_snapshot(o.xid, p.taken_before)
                      or (pg_catalog.pg_visible_in_snapshot(o.xid, p.taken_within)
                          and o.id <= p.taken_up_to)))
    or exists (
           select
           from (
               select (e.at ->> 0)::pg_catalog.xid8 as xid, (e.at ->> 1)::pg_catalog.int8 as id
               from lanes n
               cross join lateral pg_catalog.jsonb_array_elements(coalesce(n.state -> 'busy', '[]')) as e (at)
               where n.is_live
           ) b
           join webhook.outbox_{number} o on o.xid = b.xid and o.id = b.id)"
    );
    first(&statement, &[], |row| row.value(1)).unwrap_or(true)
}

/// Whether so many messages wait for a retry that moving them would take long.
pub fn too_many_wait() -> bool {
    first(TOO_MANY_WAIT, &[MOVED_AT_MOST.into()], |row| row.value(1)).unwrap_or(false)
}

/// Messages that wait for a retry move to the table that is written; what was given up or
/// canceled, or was to go to a URL that is no more, is forgotten with its message.
pub fn move_waiting_messages(number: i16, written: i16) {
    execute(
        &format!(
            "
insert into webhook.outbox_{written}
select o.*
from (
    select distinct r.xid, r.id
    from webhook_internal.retry r
    join webhook.url_def u on u.url_key = r.url_key and u.dropped_at is null
    where r.state = 'waiting'
) w
join webhook.outbox_{number} o on o.xid = w.xid and o.id = w.id"
        ),
        &[],
    );
    execute(
        &format!(
            "
delete from webhook_internal.retry r
using webhook.url_def u
where u.url_key = r.url_key
  and (r.state <> 'waiting' or u.dropped_at is not null)
  and exists (select from webhook.outbox_{number} o where o.xid = r.xid and o.id = r.id)"
        ),
        &[],
    );
}

/// Empties a table that is locked.
pub fn truncate(ring: Ring, number: i16) {
    execute(&format!("truncate {}", ring.table(number)), &[]);
    execute(EMPTIED, &[ring.name().into(), number.into()]);
}

/// After a table was emptied.
pub fn forget_cancellations() {
    execute(FORGET_CANCELLATIONS, &[]);
}

/// How many full block ranges there are between two blocks.
pub fn full_ranges(from_block: i64, blocks: i64) -> i64 {
    (blocks - from_block).max(0) / BLOCKS_A_RANGE
}

/// Adds block ranges from `from_block` on to the time index of an outbox table, so that messages
/// are found there. Returns the first block that is not in it.
pub fn summarise(number: i16, from_block: i64, ranges: i64) -> i64 {
    // Not while VACUUM or ANALYZE is at it: they would be canceled, again and again.
    execute(
        &format!("lock table webhook.outbox_{number} in share update exclusive mode nowait"),
        &[],
    );
    let end = from_block + ranges * BLOCKS_A_RANGE;
    let statement = format!(
        "
select pg_catalog.brin_summarize_range('webhook.outbox_{number}_time', b)
from pg_catalog.generate_series($1, $2 - 1, {BLOCKS_A_RANGE}) as b"
    );
    // No privilege allows it but ownership.
    as_owner(|| execute(&statement, &[from_block.into(), end.into()]));
    end
}
