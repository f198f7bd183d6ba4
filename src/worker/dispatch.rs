//! From the lanes to the delivery threads, and what comes back.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::engine::{Engine, MessageEntry};
use super::throttling::LetGo;
use super::time;
use super::unsettled::Settled;
use crate::core::lane::Health;
use crate::delivery::call::{Job, Outcome, Payload, SentNote, Target, Verdict};
use crate::pg::{encoding, signals};

/// The last free connections go only to lanes that have none: a receiver that hangs
/// must not take them all.
const RESERVED_CONNECTIONS: usize = 8;
/// Bodies on the wire that were read with their rows; large ones have a budget of their own.
const BYTES_IN_FLIGHT: usize = 24 << 20;
/// Outcomes taken from the pool at once.
const OUTCOMES_AT_ONCE: usize = 4096;
/// With so many outcomes unwritten (the disk is full, say) nothing new is sent.
const UNSETTLED_AT_MOST: usize = 5000;

impl Engine {
    /// Starts as many calls as lanes, throttles, connections and memory allow.
    pub fn dispatch(&mut self) {
        self.next_throttled = None;
        self.throttled.clear();
        self.count_what_was_sent();
        self.look_at_shortage();
        if !self.settings.on || self.settlement.outcomes() >= UNSETTLED_AT_MOST {
            return;
        }
        // Where connections were used up last time, the next one goes on.
        let (before, from) = (..self.next_served, self.next_served..);
        let in_turn = self.lanes.range(from).chain(self.lanes.range(before));
        let mut active: Vec<i32> = in_turn
            .filter(|(_, lane)| lane.has_next())
            .map(|(url_key, _)| *url_key)
            .collect();
        // One call a lane and round, so that no lane starves another.
        while !active.is_empty() && self.pool.in_flight() < self.settings.connections {
            active.retain(|url_key| {
                let has_started = self.start_one(*url_key);
                if has_started {
                    self.next_served = url_key.wrapping_add(1);
                }
                has_started
            });
        }
        self.grant_bodies();
        self.grow_pool();
    }

    fn grow_pool(&mut self) {
        while self.pool.needs_thread() {
            if let Err(error) = signals::with_all_blocked(|| self.pool.spawn_thread()) {
                self.note_missing_thread(&error);
                return;
            }
        }
    }

    /// Starts the next call of a lane; `false` if it can start none now.
    fn start_one(&mut self, url_key: i32) -> bool {
        let now = self.ticker.now();
        if !self.settlement.held.may_call(url_key) || !self.has_connection(url_key, now) {
            return false;
        }
        self.skip_withdrawn(url_key);
        let Some(lane) = self.lanes.get_mut(&url_key) else {
            return false;
        };
        let Some(entry) = lane.peek() else {
            return false;
        };
        if !entry.message.is_ready() {
            let limit_bytes = self.settings.max_message_bytes;
            let too_large = entry
                .message
                .as_too_large(limit_bytes, encoding::bytes_a_character());
            if let Some(too_large) = too_large {
                entry.message = too_large;
            }
        }
        let needs_body = !entry.message.is_ready();
        if !needs_body && self.bytes_in_flight >= BYTES_IN_FLIGHT && !entry.message.has_share() {
            return false;
        }
        let webhook_key = lane.webhook_key;
        let mut length = lane.run_length();
        let mut let_go = None;
        if let Some(throttle) = self.throttles.get_mut(&webhook_key) {
            let taken = if needs_body {
                throttle.may_take(now)
            } else {
                throttle.try_take(now)
            };
            if let Err(wait) = taken {
                let at = now + wait;
                self.next_throttled = Some(self.next_throttled.map_or(at, |next| next.min(at)));
                self.throttled.insert(webhook_key);
                return false;
            }
            // The throttle counts calls when they start: no run ahead of it.
            length = 1;
            let_go = Some(now);
        }
        if needs_body {
            self.bodies.want(url_key);
            return false;
        }
        self.submit(url_key, length, let_go)
    }

    /// Whether the lane may have another connection now.
    pub fn has_connection(&self, url_key: i32, now: u64) -> bool {
        let free = self
            .settings
            .connections
            .saturating_sub(self.pool.in_flight());
        self.lanes.get(&url_key).is_some_and(|lane| {
            let reserved = lane.in_flight() > 0 && free <= RESERVED_CONNECTIONS;
            let rests = self.shortage.rests(url_key, now);
            free > 0 && !reserved && !rests && lane.may_start(now)
        })
    }

    /// Hands the lane's next messages to a thread. `false` if there was none.
    /// `let_go`: when a throttle did so.
    fn submit(&mut self, url_key: i32, length: usize, let_go: Option<u64>) -> bool {
        let target = self
            .routes
            .urls
            .get(&url_key)
            .and_then(|url| url.target.clone());
        let Some(target) = target else {
            return false;
        };
        let run: Vec<Job> = (0..length)
            .map_while(|_| self.next_job(url_key, &target, let_go))
            .collect();
        if run.is_empty() {
            return false;
        }
        if let Some(lane) = self.lanes.get_mut(&url_key) {
            lane.begin_run();
        }
        // The pool's queue is far longer than connections allow; were it full all the
        // same, the messages go back.
        if let Err(run) = self.pool.submit(run) {
            let count = run.len();
            for (place, job) in run.iter().enumerate() {
                self.give_back(url_key, job.token, place + 1 == count);
            }
            return false;
        }
        true
    }

    fn next_job(&mut self, url_key: i32, target: &Arc<Target>, let_go: Option<u64>) -> Option<Job> {
        self.skip_withdrawn(url_key);
        let token = self.new_token(url_key);
        let lane = self.lanes.get_mut(&url_key)?;
        lane.peek().filter(|entry| entry.message.is_ready())?;
        let entry = lane.start(token)?;
        let message = Arc::clone(&entry.message);
        let attempt = entry.attempts + 1;
        self.queued.remove(&message);
        self.bytes_in_flight += message.held_bytes();
        let sent = let_go.map(|at| {
            let sent = SentNote::default();
            let note = sent.clone();
            self.let_go.insert(token, LetGo { at, sent });
            note
        });
        Some(Job {
            token,
            target: Arc::clone(target),
            message_id: message.message_id,
            payload: message as Arc<dyn Payload>,
            call_id: Uuid::now_v7(),
            attempt,
            sent,
        })
    }

    /// A message that was handed over and not tried goes first again.
    fn give_back(&mut self, url_key: i32, token: u64, ends_run: bool) {
        let Some(lane) = self.lanes.get_mut(&url_key) else {
            return;
        };
        if ends_run {
            lane.end_run();
        }
        let Some(entry) = lane.recall(token) else {
            return;
        };
        let (message, is_retry) = (Arc::clone(&entry.message), entry.is_retry);
        self.queued.add(&message);
        self.bytes_in_flight = self.bytes_in_flight.saturating_sub(message.held_bytes());
        if is_retry {
            self.unload_retries(url_key);
        }
    }

    /// Only the table knows what has become of a retry that was handed over: it is read again.
    fn unload_retries(&mut self, url_key: i32) {
        let Some(lane) = self.lanes.get_mut(&url_key) else {
            return;
        };
        let unloaded = if lane.keeps_order() {
            lane.keep_order(true)
        } else {
            lane.unload_retries()
        };
        for entry in unloaded {
            self.queued.remove(&entry.message);
        }
        self.next_retry_at = Some(i64::MIN);
    }

    fn new_token(&mut self, url_key: i32) -> u64 {
        self.next_token = self.next_token.wrapping_add(1);
        (u64::from(url_key as u32) << 32) | u64::from(self.next_token)
    }

    /// Takes what the threads have finished. `true` if there was anything.
    pub fn take_outcomes(&mut self) -> bool {
        let mut outcomes = Vec::new();
        while self.pool.drain_outcomes(OUTCOMES_AT_ONCE, &mut outcomes) == OUTCOMES_AT_ONCE {}
        let any = !outcomes.is_empty();
        for outcome in outcomes {
            self.finish(outcome);
        }
        any
    }

    fn finish(&mut self, outcome: Outcome) {
        let now = self.ticker.now();
        let url_key = (outcome.token >> 32) as i32;
        if let Some(let_go) = self.let_go.remove(&outcome.token) {
            self.count_as_sent(outcome.token, &let_go, now);
        }
        if matches!(outcome.verdict, Verdict::Recalled | Verdict::Local) {
            self.give_back(url_key, outcome.token, outcome.ends_run);
            if outcome.verdict == Verdict::Local {
                self.rest(url_key, outcome.detail);
            }
            return;
        }
        let Some(lane) = self.lanes.get_mut(&url_key) else {
            return;
        };
        if outcome.ends_run {
            lane.end_run();
        }
        lane.note_duration(u64::try_from(outcome.duration.as_nanos()).unwrap_or(u64::MAX));
        let Some(entry) = lane.finish(outcome.token, health(&outcome), now) else {
            return;
        };
        self.bytes_in_flight = self
            .bytes_in_flight
            .saturating_sub(entry.message.held_bytes());
        lane.last_error = error_text(&outcome);
        if let Some(wait) = outcome.retry_after {
            lane.be_silent_until(now + u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX / 2));
        }
        if !entry.is_retry {
            self.settlement.change_backlog(url_key, -1);
        }
        let settled = self.settled(url_key, &entry, outcome);
        if let (Some(due_at), Some(lane)) = (settled.next_at, self.lanes.get_mut(&url_key)) {
            for behind in lane.wait_for_retry(entry.at, due_at) {
                self.queued.remove(&behind.message);
            }
        }
        self.settlement.add(settled, now);
    }

    fn settled(&self, url_key: i32, entry: &MessageEntry, outcome: Outcome) -> Settled {
        let event = &entry.message.event;
        let webhook = self.routes.webhooks.get(&event.webhook_key);
        let attempts = entry.attempts + 1;
        // What was withdrawn while its call was on the wire is not called again.
        let withdrawn = !entry.is_retry && self.withdrawals.cover(url_key, entry.at);
        let next_at = match outcome.verdict {
            _ if withdrawn => None,
            Verdict::Delivered
            | Verdict::TooLarge
            | Verdict::Unrenderable
            | Verdict::Recalled
            | Verdict::Local => None,
            Verdict::Failed | Verdict::Gone => webhook.and_then(|webhook| {
                let now = time::pg_micros(outcome.called_at)
                    + i64::try_from(outcome.duration.as_micros()).unwrap_or(0);
                let delay = self.settings.retry_schedule.delay(attempts, random());
                let at = now + micros(delay.max(outcome.retry_after.unwrap_or_default()));
                let too_old = at - entry.message.accepted_at > webhook.max_age_us;
                (attempts < webhook.max_attempts && !too_old).then_some(at)
            }),
        };
        Settled {
            url_key,
            webhook_key: event.webhook_key,
            event_key: event.event_key,
            at: entry.at,
            message_id: entry.message.message_id,
            event_date: entry.message.captured_at,
            attempts,
            is_retry: entry.is_retry,
            next_at,
            outcome,
        }
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

fn error_text(outcome: &Outcome) -> Option<String> {
    match outcome.verdict {
        Verdict::Delivered => None,
        _ => outcome
            .detail
            .clone()
            .or_else(|| outcome.http_code.map(|code| format!("HTTP {code}"))),
    }
}
