//! Messages of operational events, and the same as NOTIFY. For the worker, in a transaction.

use uuid::Uuid;

use super::stopped_events::StoppedEvent;
use crate::core::definitions::operational::{Occurrence, OperationalEvent};
use crate::core::health::news::Happened;
use crate::pg::spi::{Arg, Query};

/// What was written.
#[derive(Default)]
pub struct Told {
    /// In the outbox.
    pub messages: usize,
    pub notifications: Vec<String>,
}

const URLS: &str = "
select u.url_key, u.webhook_key, w.id, w.name, u.url
from webhook.url_def u
join webhook.webhook_def w on w.webhook_key = u.webhook_key
where u.url_key = any ($1)
  and u.dropped_at is null
  and w.dropped_at is null";

const SUBSCRIBERS: &str = "
select e.event_key, e.webhook_key, e.event_type
from webhook.event_def e
join webhook.webhook_def w on w.webhook_key = e.webhook_key
where e.object_name is null
  and e.dropped_at is null
  and e.event_type = any ($1)
  and e.enabled
  and w.enabled
  and w.dropped_at is null
order by e.event_key";

const OUTBOX_NUMBER: &str = "
select outbox_number::pg_catalog.int4 from webhook.control";

/// A flush, as capture writes one.
macro_rules! put {
    ($number:literal) => {
        concat!(
            "insert into webhook.outbox_",
            $number,
            " (xid, id, message_id, event_key, webhook_key, captured_at, source, record)
select pg_catalog.pg_current_xact_id(), f.flush + m.place - 1, m.message_id, m.event_key, m.webhook_key,
       pg_catalog.clock_timestamp(), 'webhook_ext', m.record
from (select pg_catalog.nextval('webhook.outbox_flush_seq') << 20 as flush) f
cross join rows from (
    pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4)
) with ordinality as m (message_id, event_key, webhook_key, record, place)"
        )
    };
}

/// A queue that is full would make COMMIT fail.
const NOTIFY: &str = "
select pg_catalog.pg_notify('webhook', n.payload)
from pg_catalog.unnest($1) n (payload)
where pg_catalog.pg_notification_queue_usage() < 0.5";

/// Kept plans of this file's statements.
pub struct OperationalMessages {
    urls: Query,
    subscribers: Query,
    outbox_number: Query,
    put: [Query; 4],
    notify: Query,
}

/// A URL and its webhook.
struct Subject {
    url_key: i32,
    webhook_key: i32,
    webhook_id: String,
    webhook_name: String,
    url: String,
}

/// A message for one event.
struct Row {
    event_key: i32,
    webhook_key: i32,
    record: String,
}

impl OperationalMessages {
    pub fn new() -> Self {
        Self {
            urls: Query::new(URLS),
            subscribers: Query::new(SUBSCRIBERS),
            outbox_number: Query::new(OUTBOX_NUMBER),
            put: [
                Query::new(put!("0")),
                Query::new(put!("1")),
                Query::new(put!("2")),
                Query::new(put!("3")),
            ],
            notify: Query::new(NOTIFY),
        }
    }

    /// Puts a message into the outbox for each event of the type, but for those of the webhook that
    /// it is about.
    pub fn put(&self, happened: &[Happened]) -> Told {
        let subjects = self.subjects(happened);
        let about = happened.iter().filter_map(|one| {
            let subject = subjects.iter().find(|s| s.url_key == one.url_key)?;
            let occurrence = occurrence(one, subject);
            Some((one.event, subject.webhook_key, occurrence))
        });
        self.put_all(&Vec::from_iter(about))
    }

    /// The same for events that make no more messages. `at`: as text, in UTC.
    pub fn put_stopped(&self, stopped: &[StoppedEvent], at: &str) -> Told {
        let about = stopped.iter().map(|event| {
            let occurrence = Occurrence {
                webhook_id: &event.webhook_id,
                webhook_name: &event.webhook_name,
                last_error: event.reason.as_deref(),
                at,
                event_id: Some(&event.id),
                object_name: event.object_name.as_deref(),
                ..Occurrence::default()
            };
            let kind = OperationalEvent::EventDisabled;
            (kind, event.webhook_key, occurrence)
        });
        self.put_all(&Vec::from_iter(about))
    }

    /// Each with the webhook that it is about.
    fn put_all(&self, occurrences: &[(OperationalEvent, i32, Occurrence<'_>)]) -> Told {
        let types = occurrences.iter().map(|(event, ..)| Some(event.as_str()));
        let subscribers = self.subscribers(&Vec::from_iter(types));
        let mut rows = Vec::new();
        let mut told = Told::default();
        for (event, about, occurrence) in occurrences {
            told.notifications.push(occurrence.notification(*event));
            let others = subscribers.iter().filter(|(_, webhook_key, event_type)| {
                webhook_key != about && event_type == event.as_str()
            });
            rows.extend(others.map(|(event_key, webhook_key, _)| Row {
                event_key: *event_key,
                webhook_key: *webhook_key,
                record: occurrence.record(),
            }));
        }
        told.messages = rows.len();
        self.insert(&rows);
        told
    }

    fn subjects(&self, happened: &[Happened]) -> Vec<Subject> {
        let keys: Vec<i32> = happened.iter().map(|one| one.url_key).collect();
        let mut subjects = Vec::new();
        self.urls.read(&[Arg::I32Array(&keys)], |row| {
            subjects.push(Subject {
                url_key: row.i32(0)?,
                webhook_key: row.i32(1)?,
                webhook_id: row.text(2)?,
                webhook_name: row.text(3)?,
                url: row.text(4)?,
            });
            Some(())
        });
        subjects
    }

    fn subscribers(&self, types: &[Option<&str>]) -> Vec<(i32, i32, String)> {
        let mut subscribers = Vec::new();
        self.subscribers.read(&[Arg::TextArray(types)], |row| {
            subscribers.push((row.i32(0)?, row.i32(1)?, row.text(2)?));
            Some(())
        });
        subscribers
    }

    fn insert(&self, rows: &[Row]) {
        if rows.is_empty() {
            return;
        }
        let mut number = 0;
        self.outbox_number
            .read(&[], |row| number = row.i32(0).unwrap_or(0));
        let number = usize::try_from(number).unwrap_or(0) % self.put.len();
        let ids: Vec<Uuid> = rows.iter().map(|_| Uuid::now_v7()).collect();
        let event_keys: Vec<i32> = rows.iter().map(|row| row.event_key).collect();
        let webhook_keys: Vec<i32> = rows.iter().map(|row| row.webhook_key).collect();
        let records: Vec<Option<&str>> = rows.iter().map(|row| Some(row.record.as_str())).collect();
        self.put[number].write(&[
            Arg::UuidArray(&ids),
            Arg::I32Array(&event_keys),
            Arg::I32Array(&webhook_keys),
            Arg::TextArray(&records),
        ]);
    }

    /// Tells sessions that listen. Nothing if the queue of notifications is half full.
    pub fn notify(&self, payloads: &[String]) {
        let payloads: Vec<Option<&str>> = payloads.iter().map(|p| Some(p.as_str())).collect();
        self.notify.write(&[Arg::TextArray(&payloads)]);
    }
}

fn occurrence<'a>(happened: &'a Happened, subject: &'a Subject) -> Occurrence<'a> {
    Occurrence {
        webhook_id: &subject.webhook_id,
        webhook_name: &subject.webhook_name,
        outgoing_url: Some(&subject.url),
        since: happened.since.as_deref(),
        last_error: happened.error.as_deref(),
        message_id: happened.message_id,
        attempts: happened.attempts,
        messages: happened.messages,
        pending: happened.pending,
        at: &happened.at,
        ..Occurrence::default()
    }
}
