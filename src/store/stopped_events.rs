//! Enabled events that make no messages, because of what was done to their tables or to the rights
//! of their owners. For the worker, in a transaction.

use pgrx::pg_sys;

use crate::pg::spi::{Arg, Query, Row};

/// An event, with the reason why it makes no messages, if there is one.
pub struct StoppedEvent {
    pub event_key: i32,
    pub webhook_key: i32,
    pub id: String,
    pub webhook_id: String,
    pub webhook_name: String,
    /// What its table is called.
    pub object_name: Option<String>,
    pub table: Option<pg_sys::Oid>,
    pub reason: Option<String>,
    /// The reason that users were told.
    pub told: Option<String>,
}

/// What is dropped, or was disabled by a call, is no news.
macro_rules! look {
    ($which:literal) => {
        concat!(
            "
select n.event_key, n.webhook_key, n.id, n.webhook_id, n.webhook_name, n.object_text,
       n.object_name::pg_catalog.oid,
       case when n.enabled and w.enabled and not n.active and n.dropped_at is null and w.dropped_at is null
                 -- else a table of another node
                 and (n.object_name is not null or pg_catalog.starts_with(n.event_type, 'webhook.'))
            then n.reason end,
       s.reason
from webhook_internal.event_now n
join webhook.webhook_def w on w.webhook_key = n.webhook_key
left join webhook_internal.stopped_event s on s.event_key = n.event_key
where ",
            $which
        )
    };
}

const AFTER: &str = look!("n.event_key > $1 order by n.event_key limit $2");

const OF: &str = look!("n.event_key = any ($1) order by n.event_key");

/// Looks through all that there are of a webhook or table, so it is not for each page.
const KEYS: &str = "
select k.event_key
from (
    select e.event_key from webhook.event_def e where e.event_key = any ($1)
    union
    select e.event_key from webhook.event_def e where e.webhook_key = any ($2)
    union
    select e.event_key
    from webhook.event_def e
    where e.object_name = any ($3::pg_catalog.oid[]::pg_catalog.regclass[])
      and e.dropped_at is null
) k
where k.event_key > $4
order by k.event_key
limit $5";

const MARK: &str = "
insert into webhook_internal.stopped_event (event_key, reason)
select m.event_key, m.reason
from rows from (pg_catalog.unnest($1), pg_catalog.unnest($2)) as m (event_key, reason)
on conflict (event_key) do update set reason = excluded.reason";

const FORGET: &str = "
delete from webhook_internal.stopped_event where event_key = any ($1)";

/// Kept plans of this file's statements.
pub struct StoppedEvents {
    after: Query,
    of: Query,
    keys: Query,
    mark: Query,
    forget: Query,
}

impl StoppedEvents {
    pub fn new() -> Self {
        Self {
            after: Query::new(AFTER),
            of: Query::new(OF),
            keys: Query::new(KEYS),
            mark: Query::new(MARK),
            forget: Query::new(FORGET),
        }
    }

    /// So many events, stopped or not, that come after this one.
    pub fn after(&self, event_key: i32, limit: i64) -> Vec<StoppedEvent> {
        let mut events = Vec::new();
        self.after
            .read(&[Arg::I32(event_key), Arg::I64(limit)], |row| {
                events.extend(event(row));
            });
        events
    }

    /// These events.
    pub fn of(&self, event_keys: &[i32]) -> Vec<StoppedEvent> {
        let mut events = Vec::new();
        self.of.read(&[Arg::I32Array(event_keys)], |row| {
            events.extend(event(row))
        });
        events
    }

    /// Keys of these events, of those of these webhooks, and of those of these tables: so many that
    /// come after this one, in order.
    pub fn keys(
        &self,
        (event_keys, webhook_keys, tables): (&[i32], &[i32], &[pg_sys::Oid]),
        after: i32,
        limit: i64,
    ) -> Vec<i32> {
        let tables: Vec<i64> = tables.iter().map(|oid| i64::from(oid.to_u32())).collect();
        let arguments = [
            Arg::I32Array(event_keys),
            Arg::I32Array(webhook_keys),
            Arg::I64Array(&tables),
            Arg::I32(after),
            Arg::I64(limit),
        ];
        let mut keys = Vec::new();
        self.keys.read(&arguments, |row| keys.extend(row.i32(0)));
        keys
    }

    /// Users are told of these reasons.
    pub fn mark<'a>(&self, events: impl Iterator<Item = &'a StoppedEvent>) {
        let (keys, reasons): (Vec<i32>, Vec<Option<&str>>) = events
            .map(|event| (event.event_key, event.reason.as_deref()))
            .unzip();
        if !keys.is_empty() {
            self.mark
                .write(&[Arg::I32Array(&keys), Arg::TextArray(&reasons)]);
        }
    }

    /// These make messages again, or are no more.
    pub fn forget(&self, event_keys: &[i32]) {
        if !event_keys.is_empty() {
            self.forget.write(&[Arg::I32Array(event_keys)]);
        }
    }
}

fn event(row: &Row<'_>) -> Option<StoppedEvent> {
    Some(StoppedEvent {
        event_key: row.i32(0)?,
        webhook_key: row.i32(1)?,
        id: row.text(2)?,
        webhook_id: row.text(3)?,
        webhook_name: row.text(4)?,
        object_name: row.text(5),
        table: row.oid(6),
        reason: row.text(7),
        told: row.text(8),
    })
}
