//! Stored ticks: snapshots that the tail has passed, so that lanes that lag read window by window.
//! For the worker, in a transaction.

use crate::core::messages::snapshot::Snapshot;
use crate::core::scheduling::next_window::{NextTick, TicksAhead};
use crate::pg::spi::{Arg, Query};

/// Names every webhook, where it is not known which had messages.
pub const EVERY_WEBHOOK: i32 = 0;

const STORE_TICK: &str = "
insert into webhook_internal.tick (tick_id, snapshot, webhook_keys)
values ($1, $2::pg_catalog.pg_snapshot, $3)
on conflict (tick_id) do nothing";

/// The next tick after one that names a webhook, or every webhook: the window that a lagging
/// lane reads lies before it.
const NEXT_TICK: &str = "
select t.tick_id, t.snapshot::pg_catalog.text
from webhook_internal.tick t
where t.tick_id > $1 and ($2 = any (t.webhook_keys) or 0 = any (t.webhook_keys))
order by t.tick_id
limit 1";

/// Ticks are numbered without gaps and deleted from the first on: if one is there, so are all after it.
const HAS_TICK: &str = "
select true
from webhook_internal.tick t
where t.tick_id = $1";

const LAST_TICK_BEFORE: &str = "
select t.snapshot::pg_catalog.text
from webhook_internal.tick t
where t.tick_id < $1
order by t.tick_id desc
limit 1";

/// Kept plans of this file's statements.
pub struct TickStore {
    store: Query,
    next: Query,
    has: Query,
    last_before: Query,
}

impl TickStore {
    pub fn new() -> Self {
        Self {
            store: Query::new(STORE_TICK),
            next: Query::new(NEXT_TICK),
            has: Query::new(HAS_TICK),
            last_before: Query::new(LAST_TICK_BEFORE),
        }
    }

    pub fn store(&self, tick: i64, snapshot: &Snapshot, webhook_keys: &[i32]) {
        let text = snapshot.to_string();
        self.store.write(&[
            Arg::I64(tick),
            Arg::Text(Some(&text)),
            Arg::I32Array(webhook_keys),
        ]);
    }

    /// The ticks after `tick`, which is not the last one that was stored.
    pub fn after(&self, tick: i64, webhook_key: i32) -> TicksAhead {
        let mut are_complete = false;
        self.has
            .read(&[Arg::I64(tick + 1)], |_| are_complete = true);
        TicksAhead {
            are_complete,
            next: self.next_naming(tick, webhook_key),
        }
    }

    /// The first one that names the webhook.
    fn next_naming(&self, tick: i64, webhook_key: i32) -> Option<NextTick> {
        let mut found = None;
        self.next
            .read(&[Arg::I64(tick), Arg::I32(webhook_key)], |row| {
                found = row.i64(0).zip(row.text(1));
            });
        let (number, snapshot) = found?;
        let mut before = None;
        if number > tick + 1 {
            self.last_before
                .read(&[Arg::I64(number)], |row| before = row.text(0));
        }
        Some(NextTick {
            number,
            snapshot: snapshot.parse().ok()?,
            before: before.and_then(|text| text.parse().ok()),
        })
    }
}
