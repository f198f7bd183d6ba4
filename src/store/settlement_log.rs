//! The worker's durable state, kept insert-only.
//!
//! Each settlement appends one row: where the tail stands, what to add to the
//! counters and backlogs, and the newest state of each lane that changed. Now and
//! then the rows are compacted into the base tables. No row is updated per message,
//! so an old snapshot in another session slows nothing down.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::core::messages::position::{Cursor, MessagePosition, Window};
use crate::core::messages::snapshot::Snapshot;
use crate::core::scheduling::lane::DurableLane;
use crate::pg::spi::{Arg, Query};

/// A lane as it is written; the views read the same fields.
#[derive(Debug, Serialize, Deserialize)]
pub struct LaneState {
    /// url_key
    pub u: i32,
    /// The lane has a position of its own.
    pub own: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    #[serde(default)]
    pub tick: i64,
    #[serde(default)]
    pub id: i64,
    /// Taken but not settled: `[xid, id]` as text, because JSON numbers are too small.
    pub busy: Vec<(String, String)>,
    /// Those of them that still wait for their call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listed: Vec<(String, String)>,
    /// `active`, `throttled`, `backing_off` or `blocked`.
    pub state: String,
    /// When the next call may come, if the lane is silent or throttled.
    pub next: Option<String>,
    /// The same in microseconds since 2000-01-01 UTC, for the next worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
    /// So many calls have failed in a row that the next one is a probe.
    #[serde(default, skip_serializing_if = "is_false")]
    pub probing: bool,
    /// Why the last call failed, if it did.
    pub error: Option<String>,
    /// Since when calls fail; the last success; the last error. In microseconds since 2000-01-01 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<i64>,
    #[serde(default, rename = "ok", skip_serializing_if = "Option::is_none")]
    pub ok_at: Option<i64>,
    #[serde(default, rename = "err", skip_serializing_if = "Option::is_none")]
    pub error_at: Option<i64>,
    /// Why it does not go on by itself …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked: Option<String>,
    /// … but with retries, as they are due.
    #[serde(default, skip_serializing_if = "is_false")]
    pub retry_capped: bool,
    /// Date of the oldest message that is pending, if it is known, in microseconds since
    /// 2000-01-01 UTC.
    #[serde(default)]
    pub oldest: Option<i64>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde calls it
fn is_false(value: &bool) -> bool {
    !value
}

impl LaneState {
    pub fn new(url_key: i32, durable: &DurableLane) -> Self {
        let position = durable.position.as_ref();
        Self {
            u: url_key,
            own: position.is_some(),
            from: position.map(|p| p.window.from.to_string()),
            to: position.map(|p| p.window.to.to_string()),
            tick: position.map_or(0, |p| p.window.tick),
            id: position.map_or(0, |p| p.id),
            busy: durable.busy.iter().map(as_text).collect(),
            listed: Vec::new(),
            state: "active".to_owned(),
            next: None,
            until: None,
            probing: false,
            error: None,
            since: None,
            ok_at: None,
            error_at: None,
            blocked: None,
            retry_capped: false,
            oldest: None,
        }
    }

    /// The reverse of [`LaneState::new`].
    pub fn durable(&self) -> Result<DurableLane, String> {
        let position = match (&self.from, &self.to) {
            (Some(from), Some(to)) if self.own => Some(Cursor {
                window: Window::new(Arc::new(from.parse()?), Arc::new(to.parse()?), self.tick),
                id: self.id,
            }),
            _ => None,
        };
        let busy = self
            .busy
            .iter()
            .map(|(xid, id)| {
                Ok(MessagePosition {
                    xid: xid.parse().map_err(|_| format!("not an xid: {xid}"))?,
                    id: id.parse().map_err(|_| format!("not an id: {id}"))?,
                })
            })
            .collect::<Result<_, String>>()?;
        Ok(DurableLane { position, busy })
    }
}

/// JSON numbers are too small.
pub fn as_text(at: &MessagePosition) -> (String, String) {
    (at.xid.to_string(), at.id.to_string())
}

/// Where the tail reader stands, as it is stored.
#[derive(Debug)]
pub struct TailState {
    pub seq: i64,
    pub from: Snapshot,
    pub to: Snapshot,
    pub id: i64,
    pub tick: i64,
}

/// What the worker starts from.
pub struct Restored {
    pub tail: TailState,
    pub lanes: Vec<RestoredLane>,
}

/// A lane that was not idle when the last worker ended, or whose calls failed.
pub struct RestoredLane {
    pub state: LaneState,
    /// All that is kept of it is how its calls ended.
    pub is_idle: bool,
    /// `None`: its URL has no row.
    pub webhook_key: Option<i32>,
}

/// One settlement's row.
pub struct LogRow<'a> {
    pub seq: i64,
    pub tail: &'a Cursor,
    /// `[[event_key, messages, calls, errors], …]`
    pub counts: &'a str,
    /// `[[url_key, pending delta], …]`
    pub backlog: &'a str,
    /// `[LaneState, …]`
    pub lanes: &'a str,
}

const TAIL: &str = "
select l.seq, l.tail_from::pg_catalog.text, l.tail_to::pg_catalog.text, l.tail_id, l.tail_tick
from (
    select seq, tail_from, tail_to, tail_id, tail_tick from webhook_internal.settlement
    union all
    select compacted_seq, tail_from, tail_to, tail_id, tail_tick from webhook_internal.compaction
) l
order by l.seq desc
limit 1";

/// The newest state of each lane that is not idle or whose calls fail, with its webhook if its URL has a
/// row. Any other needs none: it is at the tail.
const LANES: &str = "
select distinct on (s.url_key) s.state::pg_catalog.text, u.webhook_key, u.dropped_at is not null, s.is_idle
from (
    select (e.state ->> 'u')::pg_catalog.int4 as url_key, e.state, l.seq, false as is_idle
    from webhook_internal.compaction f
    join webhook_internal.settlement l on l.seq > f.compacted_seq
    cross join lateral pg_catalog.jsonb_array_elements(l.lanes) as e (state)
    union all
    select n.url_key, n.state, 0, not n.active
    from webhook_internal.lane n
    where n.active
       or n.state ? 'since'
) s
left join webhook.url_def u on u.url_key = s.url_key
order by s.url_key, s.seq desc";

const APPEND: &str = "
insert into webhook_internal.settlement (seq, tail_from, tail_to, tail_id, tail_tick, counts, backlog, lanes)
values ($1, $2::pg_catalog.pg_snapshot, $3::pg_catalog.pg_snapshot, $4, $5,
        $6::pg_catalog.jsonb, $7::pg_catalog.jsonb, $8::pg_catalog.jsonb)";

/// What was counted before this day, of events that are counted for the first time on it.
const KEEP_COUNTERS_OF_DAY: &str = "
insert into webhook_internal.counter_day (event_key, day, messages, calls, errors)
select e.event_key, (pg_catalog.now() at time zone 'UTC')::pg_catalog.date,
       coalesce(c.messages, 0), coalesce(c.calls, 0), coalesce(c.errors, 0)
from (
    select distinct (e.item ->> 0)::pg_catalog.int4 as event_key
    from webhook_internal.settlement l
    cross join lateral pg_catalog.jsonb_array_elements(l.counts) as e (item)
    where l.seq > (select compacted_seq from webhook_internal.compaction) and l.seq <= $1
) e
left join webhook_internal.counter c on c.event_key = e.event_key
on conflict (event_key, day) do nothing";

/// The views count the last thirty days.
const FORGET_DAYS: &str = "
delete from webhook_internal.counter_day
where day <= (pg_catalog.now() at time zone 'UTC')::pg_catalog.date - 30";

const COMPACT_COUNTERS: &str = "
insert into webhook_internal.counter as c (event_key, messages, calls, errors)
select (e.item ->> 0)::pg_catalog.int4,
       sum((e.item ->> 1)::pg_catalog.int8),
       sum((e.item ->> 2)::pg_catalog.int8),
       sum((e.item ->> 3)::pg_catalog.int8)
from webhook_internal.settlement l
cross join lateral pg_catalog.jsonb_array_elements(l.counts) as e (item)
where l.seq > (select compacted_seq from webhook_internal.compaction) and l.seq <= $1
group by 1
on conflict (event_key) do update
set messages = c.messages + excluded.messages,
    calls = c.calls + excluded.calls,
    errors = c.errors + excluded.errors";

const COMPACT_BACKLOG: &str = "
insert into webhook_internal.lane as n (url_key, pending, state)
select (e.item ->> 0)::pg_catalog.int4, sum((e.item ->> 1)::pg_catalog.int8), '{}'
from webhook_internal.settlement l
cross join lateral pg_catalog.jsonb_array_elements(l.backlog) as e (item)
where l.seq > (select compacted_seq from webhook_internal.compaction) and l.seq <= $1
group by 1
on conflict (url_key) do update
set pending = n.pending + excluded.pending";

/// A worker that has made no call since its start does not know when the last ones were.
const COMPACT_LANES: &str = "
insert into webhook_internal.lane as n (url_key, pending, state)
select distinct on ((e.state ->> 'u')::pg_catalog.int4)
       (e.state ->> 'u')::pg_catalog.int4, 0, e.state
from webhook_internal.settlement l
cross join lateral pg_catalog.jsonb_array_elements(l.lanes) as e (state)
where l.seq > (select compacted_seq from webhook_internal.compaction) and l.seq <= $1
order by (e.state ->> 'u')::pg_catalog.int4, l.seq desc
on conflict (url_key) do update
set state = pg_catalog.jsonb_strip_nulls(
        pg_catalog.jsonb_build_object('ok', n.state -> 'ok', 'err', n.state -> 'err')
    ) || excluded.state";

const COMPACT_TAIL: &str = "
update webhook_internal.compaction f
set compacted_seq = l.seq,
    tail_from = l.tail_from,
    tail_to = l.tail_to,
    tail_id = l.tail_id,
    tail_tick = l.tail_tick
from webhook_internal.settlement l
where l.seq = $1";

const FORGET_COMPACTED: &str = "
delete from webhook_internal.settlement
where seq <= $1";

const FORGET_TICKS: &str = "
delete from webhook_internal.tick
where tick_id < $1";

/// What is written down as pending, one row a URL that has any or was counted of late.
const ALL_PENDING: &str = "
select p.url_key, sum(p.pending)::pg_catalog.int8
from (
    select n.url_key, n.pending
    from webhook_internal.lane n
    where n.pending <> 0
    union all
    select (e.item ->> 0)::pg_catalog.int4, (e.item ->> 1)::pg_catalog.int8
    from webhook_internal.compaction f
    join webhook_internal.settlement l on l.seq > f.compacted_seq
    cross join lateral pg_catalog.jsonb_array_elements(l.backlog) as e (item)
) p
join webhook.url_def u on u.url_key = p.url_key and u.dropped_at is null
group by p.url_key";

/// Kept plans of this file's statements.
pub struct SettlementLog {
    tail: Query,
    lanes: Query,
    append: Query,
    compact: [Query; 6],
    forget_days: Query,
    forget_ticks: Query,
    all_pending: Query,
}

impl SettlementLog {
    pub fn new() -> Self {
        Self {
            tail: Query::new(TAIL),
            lanes: Query::new(LANES),
            append: Query::new(APPEND),
            compact: [
                Query::new(KEEP_COUNTERS_OF_DAY),
                Query::new(COMPACT_COUNTERS),
                Query::new(COMPACT_BACKLOG),
                Query::new(COMPACT_LANES),
                Query::new(COMPACT_TAIL),
                Query::new(FORGET_COMPACTED),
            ],
            forget_days: Query::new(FORGET_DAYS),
            forget_ticks: Query::new(FORGET_TICKS),
            all_pending: Query::new(ALL_PENDING),
        }
    }

    /// Where the last worker left off.
    pub fn restore(&self) -> Result<Restored, String> {
        let mut tail = None;
        self.tail.read(&[], |row| {
            tail = Some((row.i64(0), row.text(1), row.text(2), row.i64(3), row.i64(4)));
        });
        let Some((Some(seq), Some(from), Some(to), Some(id), Some(tick))) = tail else {
            return Err("webhook_internal.compaction has no row".to_owned());
        };
        let mut lanes = Vec::new();
        self.lanes.read(&[], |row| {
            let state = row.text(0).unwrap_or_default();
            let is_dropped = row.bool(2).unwrap_or(false);
            // A lane that never settled has an empty state; it starts at the tail.
            if let (Ok(state), false) = (serde_json::from_str(&state), is_dropped) {
                let webhook_key = row.i32(1);
                lanes.push(RestoredLane {
                    state,
                    is_idle: row.bool(3).unwrap_or(false),
                    webhook_key,
                });
            }
        });
        Ok(Restored {
            tail: TailState {
                seq,
                from: from.parse()?,
                to: to.parse()?,
                id,
                tick,
            },
            lanes,
        })
    }

    pub fn append(&self, row: &LogRow<'_>) {
        let (from, to) = (
            row.tail.window.from.to_string(),
            row.tail.window.to.to_string(),
        );
        self.append.write(&[
            Arg::I64(row.seq),
            Arg::Text(Some(&from)),
            Arg::Text(Some(&to)),
            Arg::I64(row.tail.id),
            Arg::I64(row.tail.window.tick),
            Arg::Text(Some(row.counts)),
            Arg::Text(Some(row.backlog)),
            Arg::Text(Some(row.lanes)),
        ]);
    }

    /// How many messages each URL has pending, by what is written.
    pub fn all_pending(&self) -> HashMap<i32, i64> {
        let mut pending = HashMap::new();
        self.all_pending
            .read(&[], |row| pending.extend(row.i32(0).zip(row.i64(1))));
        pending
    }

    /// Adds the rows up to `seq` to the base tables and forgets them; also forgets
    /// the ticks that no lane needs any more. The lanes of dropped URLs stay: webhook.messages
    /// tells by them what was canceled.
    pub fn compact(&self, seq: i64, oldest_tick_needed: i64) {
        for step in &self.compact {
            step.write(&[Arg::I64(seq)]);
        }
        self.forget_days.write(&[]);
        self.forget_ticks.write(&[Arg::I64(oldest_tick_needed)]);
    }
}
