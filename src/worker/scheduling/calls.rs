//! What comes back from the delivery threads.

use std::sync::Arc;
use std::time::Duration;

use super::starting::Run;
use super::url::MessageEntry;
use super::Scheduler;
use crate::core::definitions::words::DeliveryOrder;
use crate::core::scheduling::lane::Health;
use crate::delivery::call::{Outcome, Verdict};
use crate::worker::definitions::{Logged, WebhookRoute};
use crate::worker::settled::Settled;
use crate::worker::time;

/// A lane whose call could not be made for lack of a resource rests for so long.
const REST_NANOS: u64 = 100_000_000;

/// What became of a job.
pub enum Returned {
    Ended(Box<Settled>),
    /// No call was made: its message goes first again.
    NotMade {
        /// What this machine lacked, if that is why.
        lacking: Option<String>,
    },
    /// Its URL is not known any more.
    Unknown,
}

impl Scheduler {
    /// A thread is done with a job.
    pub fn finish(&mut self, outcome: Outcome) -> Returned {
        let now = self.ticker.now();
        let url_key = (outcome.token >> 32) as i32;
        self.throttles.ended(outcome.token, now);
        if matches!(outcome.verdict, Verdict::NotAttempted | Verdict::Local) {
            self.requeue(url_key, outcome.token, outcome.ends_run);
            let is_local = outcome.verdict == Verdict::Local;
            if is_local {
                self.urls
                    .change(url_key, |url, _| url.rests_until = now + REST_NANOS);
            }
            return Returned::NotMade {
                lacking: is_local.then(|| outcome.detail.unwrap_or_default()),
            };
        }
        self.finished_at = now;
        let ended = self.urls.change(url_key, |url, _| {
            let lane = &mut url.lane;
            if outcome.ends_run {
                lane.end_run();
            }
            let nanos = u64::try_from(outcome.duration.as_nanos()).unwrap_or(u64::MAX);
            lane.note_duration(nanos);
            let entry = lane.finish(outcome.token, health(&outcome), now)?;
            super::health::note(&mut url.health, &outcome);
            if let Some(wait) = outcome.retry_after {
                let nanos = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX / 2);
                lane.back_off_until(now + nanos);
            }
            let is_canceled = !entry.is_retry && url.cancellations.contains(entry.at);
            Some((
                entry,
                is_canceled,
                url.route.clone(),
                url.switches_off(&outcome),
                url.health.failing_since,
            ))
        });
        let Some((entry, is_canceled, route, switches_off, failing_since)) = ended.flatten() else {
            return Returned::Unknown;
        };
        self.bytes_in_flight = self
            .bytes_in_flight
            .saturating_sub(entry.message.held_bytes());
        let mut settled = self.settled(url_key, &entry, route.as_deref(), is_canceled, outcome);
        settled.switches_off = switches_off;
        settled.failing_since = failing_since;
        if let Some(due_at) = settled.next_at {
            self.urls.change(url_key, |url, memory| {
                memory.remove_all(&url.lane.wait_for_retry(entry.at, due_at));
            });
        }
        Returned::Ended(Box::new(settled))
    }

    fn settled(
        &self,
        url_key: i32,
        entry: &MessageEntry,
        route: Option<&WebhookRoute>,
        is_canceled: bool,
        outcome: Outcome,
    ) -> Settled {
        let event = &entry.message.event;
        let attempts = entry.attempts + 1;
        // What was canceled while its call was on the wire is not called again.
        let next_at = match outcome.verdict {
            _ if is_canceled => None,
            Verdict::Failed | Verdict::Gone => route.and_then(|route| {
                let now = time::pg_micros(outcome.called_at)
                    + i64::try_from(outcome.duration.as_micros()).unwrap_or(0);
                let delay = self.rules.retry_schedule.delay(attempts, random());
                let at = now + micros(delay.max(outcome.retry_after.unwrap_or_default()));
                let too_old = at - entry.message.accepted_at > route.max_age_us;
                (attempts < route.max_attempts && !too_old).then_some(at)
            }),
            _ => None,
        };
        Settled {
            url_key,
            webhook_key: event.webhook_key,
            webhook_id: route.map(|route| Arc::clone(&route.id)),
            event_key: event.event_key,
            at: entry.at,
            keys: entry.keys,
            message_id: entry.message.message_id,
            event_date: entry.message.captured_at,
            attempts,
            is_retry: entry.is_retry,
            next_at,
            logged: route.map_or(Logged::All, |route| route.logged),
            is_canceled,
            url_is_live: self.is_live(url_key),
            is_operational: event.is_operational,
            failing_since: None,
            switches_off: None,
            outcome,
        }
    }

    /// The run was not taken: its messages go first again.
    pub fn requeue_run(&mut self, run: &Run) {
        let count = run.jobs.len();
        for (place, job) in run.jobs.iter().enumerate() {
            self.requeue(run.url_key, job.token, place + 1 == count);
        }
    }

    /// A message that was handed over and not tried goes first again.
    fn requeue(&mut self, url_key: i32, token: u64, ends_run: bool) {
        let held = self.urls.change(url_key, |url, memory| {
            if ends_run {
                url.lane.end_run();
            }
            let entry = url.lane.recall(token)?;
            let (message, is_retry) = (Arc::clone(&entry.message), entry.is_retry);
            memory.add(&message);
            if is_retry {
                // Only the table knows what has become of it: it is read again.
                let unloaded = match url.lane.keeps_order() {
                    true => url.lane.keep_order(DeliveryOrder::Fifo),
                    false => url.lane.unload_retries(),
                };
                memory.remove_all(&unloaded);
                url.next_retry_at = Some(i64::MIN);
            }
            Some(message.held_bytes())
        });
        let held = held.flatten().unwrap_or(0);
        self.bytes_in_flight = self.bytes_in_flight.saturating_sub(held);
    }
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    // Without randomness retries only lose their jitter.
    let _ = getrandom::fill(&mut bytes);
    u64::from_ne_bytes(bytes)
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX / 4)
}

fn health(outcome: &Outcome) -> Health {
    match (outcome.verdict, outcome.http_code) {
        (Verdict::Delivered, _) => Health::Up,
        (Verdict::Failed, Some(code)) if code == 429 || code >= 500 => Health::Down,
        (Verdict::Failed, None) => Health::Down,
        _ => Health::Unknown,
    }
}
