//! What users have canceled, as the worker hears of it.
//!
//! Two kinds: single messages (rows of `webhook_internal.retry` in state `canceling`, until the lane gets
//! there) and everything a URL had pending at a moment (a snapshot in `webhook_internal.cancellation`).

use crate::core::messages::position::{Cursor, MessagePosition};
use crate::core::messages::snapshot::Snapshot;
use crate::pg::spi::{Arg, Query, Row};

/// A cancellation that the worker has not heard of before.
pub struct NewCancellation {
    pub cancellation_id: i64,
    pub url_key: i32,
    pub webhook_key: i32,
}

/// One message that was canceled before its first call.
pub struct SingleCancellation {
    pub url_key: i32,
    pub webhook_key: i32,
    pub at: MessagePosition,
}

/// How far a lane had come when the worker read a cancellation.
pub struct CancellationNote {
    pub cancellation_id: i64,
    pub url_key: i32,
    pub position: Cursor,
    /// `[[xid, id], …]` as text, because JSON numbers are too small.
    pub in_flight: String,
}

impl CancellationNote {
    pub fn new(cancellation: &NewCancellation, position: Cursor, busy: &[MessagePosition]) -> Self {
        let busy: Vec<(String, String)> = busy
            .iter()
            .map(|at| (at.xid.to_string(), at.id.to_string()))
            .collect();
        Self {
            cancellation_id: cancellation.cancellation_id,
            url_key: cancellation.url_key,
            position,
            in_flight: serde_json::to_string(&busy).unwrap_or_else(|_| "[]".to_owned()),
        }
    }
}

/// The one whose snapshot sees most, which need not be the last: its transaction may have begun
/// before another one's. Of two snapshots with equal bounds the shorter one has fewer running.
const NEWEST: &str = "
select distinct on (k.url_key) k.url_key, k.before::pg_catalog.text
from webhook_internal.cancellation k
where k.webhook_key = any ($1)
order by k.url_key,
         pg_catalog.pg_snapshot_xmax(k.before) desc,
         pg_catalog.pg_snapshot_xmin(k.before) desc,
         pg_catalog.length(k.before::pg_catalog.text)";

const NEW: &str = "
select k.cancellation_id, k.url_key, k.webhook_key
from webhook_internal.cancellation k
where k.taken_before is null
order by k.cancellation_id";

const ALL_SINGLE: &str = "
select r.url_key, r.webhook_key, r.xid, r.id
from webhook_internal.retry r
where r.state = 'canceling'";

const SINGLE: &str = "
select r.url_key, r.webhook_key, r.xid, r.id
from webhook_internal.retry r
where r.url_key = any ($1) and r.state = 'canceling'";

const FORGET_SINGLE: &str = "
delete from webhook_internal.retry r
where r.url_key = $1 and r.xid = $2 and r.id = $3 and r.state = 'canceling'";

/// What was canceled one by one before is canceled with everything else from now on.
const NOTE: &str = "
with noted as (
    update webhook_internal.cancellation k
    set taken_before = $2::pg_catalog.pg_snapshot,
        taken_within = $3::pg_catalog.pg_snapshot,
        taken_up_to = $4,
        in_flight = $5::pg_catalog.jsonb
    where k.cancellation_id = $1
    returning k.url_key, k.before, k.in_flight
)
delete from webhook_internal.retry r
using noted k
where r.url_key = k.url_key
  and r.state = 'canceling'
  and pg_catalog.pg_visible_in_snapshot(r.xid, k.before)
  and not k.in_flight @> pg_catalog.jsonb_build_array(
          pg_catalog.jsonb_build_array(r.xid::pg_catalog.text, r.id::pg_catalog.text))";

/// What is pending by the settlement log; $1 url.
const PENDING: &str = "
select coalesce((select l.pending from webhook_internal.lane l where l.url_key = $1), 0)
     + coalesce((
           select sum((e.item ->> 1)::pg_catalog.int8)::pg_catalog.int8
           from webhook_internal.compaction f
           join webhook_internal.settlement n on n.seq > f.compacted_seq
           cross join lateral pg_catalog.jsonb_array_elements(n.backlog) as e (item)
           where (e.item ->> 0)::pg_catalog.int4 = $1), 0)";

/// Messages of webhook $1 that the tail ($2, $3, $4) has passed, the lane ($5, $6, $7) has not,
/// and that were committed after snapshot $8; $9 is the first transaction of which that can be.
const AFTER: &str = "
select pg_catalog.count(*)
from webhook_internal.outbox o
where o.xid >= $9
  and o.webhook_key = $1
  and not pg_catalog.pg_visible_in_snapshot(o.xid, $8::pg_catalog.pg_snapshot)
  and (pg_catalog.pg_visible_in_snapshot(o.xid, $2::pg_catalog.pg_snapshot)
       or (pg_catalog.pg_visible_in_snapshot(o.xid, $3::pg_catalog.pg_snapshot) and o.id <= $4))
  and not (pg_catalog.pg_visible_in_snapshot(o.xid, $5::pg_catalog.pg_snapshot)
           or (pg_catalog.pg_visible_in_snapshot(o.xid, $6::pg_catalog.pg_snapshot) and o.id <= $7))";

/// Kept plans of this file's statements.
pub struct CancellationStore {
    newest: Query,
    new: Query,
    all_single: Query,
    single: Query,
    forget_single: Query,
    note: Query,
    pending: Query,
    after: Query,
}

impl CancellationStore {
    pub fn new() -> Self {
        Self {
            newest: Query::new(NEWEST),
            new: Query::new(NEW),
            all_single: Query::new(ALL_SINGLE),
            single: Query::new(SINGLE),
            forget_single: Query::new(FORGET_SINGLE),
            note: Query::new(NOTE),
            pending: Query::new(PENDING),
            after: Query::new(AFTER),
        }
    }

    /// For each URL of these webhooks the newest snapshot before which everything was canceled.
    pub fn newest(&self, webhook_keys: &[i32]) -> Vec<(i32, Snapshot)> {
        let mut found = Vec::new();
        self.newest.read(&[Arg::I32Array(webhook_keys)], |row| {
            let before = row.text(1).and_then(|text| text.parse().ok());
            found.extend(row.i32(0).zip(before));
        });
        found
    }

    pub fn new_cancellations(&self) -> Vec<NewCancellation> {
        let mut found = Vec::new();
        self.new.read(&[], |row| {
            found.push(NewCancellation {
                cancellation_id: row.i64(0)?,
                url_key: row.i32(1)?,
                webhook_key: row.i32(2)?,
            });
            Some(())
        });
        found
    }

    /// Single messages of all URLs that were canceled and that no lane has come to yet.
    pub fn all_single(&self) -> Vec<SingleCancellation> {
        let mut found = Vec::new();
        self.all_single.read(&[], |row| found.extend(single(row)));
        found
    }

    /// The same of these URLs.
    pub fn single(&self, url_keys: &[i32]) -> Vec<SingleCancellation> {
        let mut found = Vec::new();
        self.single
            .read(&[Arg::I32Array(url_keys)], |row| found.extend(single(row)));
        found
    }

    /// The message had been delivered before the worker heard of it.
    pub fn forget_single(&self, url_key: i32, at: MessagePosition) {
        self.forget_single
            .write(&[Arg::I32(url_key), Arg::Xid(at.xid), Arg::I64(at.id)]);
    }

    /// The worker has heard of a cancellation.
    pub fn note(&self, note: &CancellationNote) {
        let window = &note.position.window;
        self.note.write(&[
            Arg::I64(note.cancellation_id),
            Arg::Text(Some(&window.from.to_string())),
            Arg::Text(Some(&window.to.to_string())),
            Arg::I64(note.position.id),
            Arg::Text(Some(&note.in_flight)),
        ]);
    }

    /// What has been written down as pending for the URL.
    pub fn pending(&self, url_key: i32) -> i64 {
        let mut pending = 0;
        self.pending.read(&[Arg::I32(url_key)], |row| {
            pending = row.i64(0).unwrap_or(0)
        });
        pending
    }

    /// How many messages the tail has passed and the lane has not that came after `before`.
    pub fn after(&self, webhook_key: i32, tail: &Cursor, lane: &Cursor, before: &Snapshot) -> i64 {
        let mut count = 0;
        self.after.read(
            &[
                Arg::I32(webhook_key),
                Arg::Text(Some(&tail.window.from.to_string())),
                Arg::Text(Some(&tail.window.to.to_string())),
                Arg::I64(tail.id),
                Arg::Text(Some(&lane.window.from.to_string())),
                Arg::Text(Some(&lane.window.to.to_string())),
                Arg::I64(lane.id),
                Arg::Text(Some(&before.to_string())),
                Arg::Xid(before.xmin),
            ],
            |row| count = row.i64(0).unwrap_or(0),
        );
        count
    }
}

fn single(row: &Row<'_>) -> Option<SingleCancellation> {
    Some(SingleCancellation {
        url_key: row.i32(0)?,
        webhook_key: row.i32(1)?,
        at: MessagePosition {
            xid: row.xid(2)?,
            id: row.i64(3)?,
        },
    })
}
