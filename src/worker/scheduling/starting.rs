//! Which call starts next: one run a URL and round, so that no URL starves another.

use std::sync::Arc;

use uuid::Uuid;

use super::Scheduler;
use crate::core::messages::order_keys::OrderKeys;
use crate::core::messages::position::MessagePosition;
use crate::delivery::call::{Job, Payload, SentAt, Target};
use crate::pg::encoding;
use crate::worker::message::Message;

/// The last free connections go only to lanes that have none: a receiver that hangs
/// must not take them all.
const RESERVED_CONNECTIONS: usize = 8;
/// Bodies on the wire that were read with their rows; large ones have a budget of their own.
const BYTES_IN_FLIGHT: usize = 24 << 20;

/// Messages of one URL that one thread sends, one after the other.
pub struct Run {
    pub url_key: i32,
    pub jobs: Vec<Job>,
}

/// A message that was canceled before its first call, and to which its lane has come.
pub struct CanceledMessage {
    pub url_key: i32,
    pub at: MessagePosition,
    pub keys: OrderKeys,
    pub message: Arc<Message>,
    /// When it is due if it was redelivered meanwhile; its row is then gone.
    pub due_at: Option<i64>,
}

impl Scheduler {
    /// The next run, if one may start with so many free connections. `may_call`: whether what
    /// becomes of a URL's calls can be kept.
    pub fn next_run(
        &mut self,
        free_connections: usize,
        may_call: impl Fn(i32) -> bool,
    ) -> Option<Run> {
        if !self.rules.delivery_is_on || free_connections == 0 {
            return None;
        }
        while let Some(url_key) = self.urls.agenda.ready.first() {
            if may_call(url_key) {
                let run = self.start(url_key, free_connections);
                if run.is_some() {
                    self.urls.agenda.ready.pass(url_key);
                    return run;
                }
            }
            // Until the next round, unless the agenda knows when it may.
            self.urls.defer(url_key);
            self.deferred.push(url_key);
        }
        None
    }

    /// A round of calls is over: URLs that had to wait for others are asked again in the next.
    pub fn end_round(&mut self) {
        let deferred = std::mem::take(&mut self.deferred);
        self.urls.list_again(&deferred);
    }

    /// What lanes have come to that was canceled before.
    pub fn take_canceled(&mut self) -> Vec<CanceledMessage> {
        std::mem::take(&mut self.canceled)
    }

    fn start(&mut self, url_key: i32, free_connections: usize) -> Option<Run> {
        let now = self.ticker.now();
        if !self.has_connection(url_key, now, free_connections) {
            return None;
        }
        self.skip_canceled(url_key);
        let limit_bytes = self.rules.max_message_bytes;
        let are_full = self.bytes_in_flight >= BYTES_IN_FLIGHT;
        let (needs_body, mut length) = self.urls.change(url_key, |url, _| {
            let length = url.lane.run_length();
            let entry = url.lane.peek()?;
            if !entry.message.is_ready() {
                let a_character = encoding::bytes_a_character();
                if let Some(too_large) = entry.message.as_too_large(limit_bytes, a_character) {
                    entry.message = too_large;
                }
            }
            let needs_body = !entry.message.is_ready();
            let may_go = needs_body || !are_full || entry.message.has_share();
            may_go.then_some((needs_body, length))
        })??;
        let webhook_key = self.urls.get(url_key)?.lane.webhook_key;
        let mut admitted_at = None;
        match self.throttles.admit(webhook_key, now, needs_body) {
            Ok(false) => {}
            // The throttle counts calls when they start: no run ahead of it.
            Ok(true) => (length, admitted_at) = (1, Some(now)),
            Err(wait) => {
                let until = now + wait;
                self.urls
                    .change(url_key, |url, _| url.throttled_until = until);
                return None;
            }
        }
        if needs_body {
            self.want_body(url_key);
            return None;
        }
        self.run_of(url_key, length, admitted_at)
    }

    /// Whether the lane may have another connection now.
    pub(super) fn has_connection(&self, url_key: i32, now: u64, free_connections: usize) -> bool {
        self.urls.get(url_key).is_some_and(|url| {
            let is_reserved = url.lane.in_flight() > 0 && free_connections <= RESERVED_CONNECTIONS;
            free_connections > 0
                && !is_reserved
                && url.rests_until <= now
                && url.lane.may_start(now)
        })
    }

    /// The lane's next messages. `admitted_at`: when a throttle let them go.
    fn run_of(&mut self, url_key: i32, length: usize, admitted_at: Option<u64>) -> Option<Run> {
        let target = self.urls.get(url_key)?.target.clone()?;
        let jobs: Vec<Job> = (0..length)
            .map_while(|_| self.next_job(url_key, &target, admitted_at))
            .collect();
        if jobs.is_empty() {
            return None;
        }
        self.urls.change(url_key, |url, _| url.lane.begin_run());
        Some(Run { url_key, jobs })
    }

    fn next_job(
        &mut self,
        url_key: i32,
        target: &Arc<Target>,
        admitted_at: Option<u64>,
    ) -> Option<Job> {
        self.skip_canceled(url_key);
        let token = self.new_token(url_key);
        let (message, attempt) = self.urls.change(url_key, |url, memory| {
            url.lane.peek().filter(|entry| entry.message.is_ready())?;
            let entry = url.lane.start(token)?;
            let message = Arc::clone(&entry.message);
            memory.remove(&message);
            Some((message, entry.attempts + 1))
        })??;
        self.bytes_in_flight += message.held_bytes();
        let webhook_key = message.event.webhook_key;
        let sent = admitted_at.map(|at| self.throttles.watch(token, webhook_key, at));
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

    fn new_token(&mut self, url_key: i32) -> u64 {
        self.next_token = self.next_token.wrapping_add(1);
        (u64::from(url_key as u32) << 32) | u64::from(self.next_token)
    }

    /// The lane has come to messages that were canceled: they are not sent.
    fn skip_canceled(&mut self, url_key: i32) {
        loop {
            let skipped = self.urls.change(url_key, |url, memory| {
                let entry = url.lane.peek().filter(|entry| !entry.is_retry)?;
                let (at, keys) = (entry.at, entry.keys);
                let message = Arc::clone(&entry.message);
                let canceled = url.take_cancellation(at, keys, &message)?;
                url.lane.cancel(canceled.due_at.is_some());
                memory.remove(&message);
                Some(canceled)
            });
            match skipped.flatten() {
                Some(canceled) => self.canceled.push(canceled),
                None => return,
            }
        }
    }
}

/// When the throttle let a call go, and when its request was written.
pub(super) struct AdmittedCall {
    pub webhook_key: i32,
    /// On the worker's ticker.
    pub at: u64,
    pub sent: SentAt,
}
