//! What is written of each URL.

use std::fmt;

use super::url::UrlState;
use super::{MessageLane, Scheduler};
use crate::pg::clock;
use crate::store::settlement_log::{self, LaneState};
use crate::worker::time;

impl Scheduler {
    /// Outcomes of these URLs are being written.
    pub fn begin_writing(&mut self, outcomes_of: impl Fn(i32) -> bool) {
        for url_key in self.urls.agenda.unwritten() {
            if outcomes_of(url_key) {
                self.urls
                    .change(url_key, |url, _| url.lane.begin_settling());
            }
        }
    }

    /// The state of each lane that has changed. `is_locked`: what its calls came to cannot be
    /// written for now.
    pub fn lane_states(
        &self,
        is_wanted: impl Fn(i32) -> bool,
        is_locked: impl Fn(i32) -> bool,
    ) -> Vec<LaneState> {
        let (now, now_pg) = (self.ticker.now(), clock::now());
        let unwritten = self.urls.agenda.unwritten();
        let wanted = unwritten.iter().filter(|url_key| is_wanted(**url_key));
        wanted
            .filter_map(|url_key| self.urls.get(*url_key))
            .filter(|url| url.lane.dirty)
            .map(|url| {
                let is_locked = url.lane.has_unwritten_outcomes() && is_locked(url.lane.url_key);
                lane_state(url, now, now_pg, is_locked)
            })
            .collect()
    }

    /// They are written; of other URLs, if `all_states`, their state alone.
    pub fn written(&mut self, outcomes_of: impl Fn(i32) -> bool, all_states: bool) {
        for url_key in self.urls.agenda.unwritten() {
            if outcomes_of(url_key) {
                self.urls.change(url_key, |url, _| url.lane.settled());
            } else if all_states {
                self.urls.change(url_key, |url, _| url.lane.written());
            }
        }
    }

    /// They could not be written and will be tried again.
    pub fn writing_failed(&mut self, outcomes_of: impl Fn(i32) -> bool) {
        for url_key in self.urls.agenda.unwritten() {
            if outcomes_of(url_key) {
                self.urls
                    .change(url_key, |url, _| url.lane.settling_failed());
            }
        }
    }
}

fn lane_state(url: &UrlState, now: u64, now_pg: i64, is_locked: bool) -> LaneState {
    let lane = &url.lane;
    let mut durable = lane.durable();
    // What the last worker left busy is so until it has been read.
    let mut listed = lane.listed();
    listed.extend(&url.recovered);
    durable.busy.extend(&url.recovered);
    let mut state = LaneState::new(lane.url_key, &durable);
    state.listed = listed.iter().map(settlement_log::as_text).collect();
    let throttled_until = (url.throttled_until > now).then(|| at(url.throttled_until, now, now_pg));
    if let Some(next_at) = next_call_at(lane, now, now_pg) {
        "backing_off".clone_into(&mut state.state);
        state.next = Some(time::text(
            throttled_until.map_or(next_at, |at| at.max(next_at)),
        ));
        state.until = backoff_until(lane, now, now_pg);
    } else if let Some(throttled_until) = throttled_until {
        "throttled".clone_into(&mut state.state);
        state.next = Some(time::text(throttled_until));
    }
    state.probing = lane.is_probing();
    state.error.clone_from(&url.health.error);
    state.since = url.health.failing_since;
    state.ok_at = url.health.last_success_at;
    state.error_at = url.health.last_error_at;
    if let Some(reason) = block_of(url, is_locked) {
        // One that is capped goes on with retries, when it says.
        state.retry_capped = matches!(reason, Block::RetryCapped(_));
        if state.state == "active" || !state.retry_capped {
            "blocked".clone_into(&mut state.state);
            state.blocked = Some(reason.to_string());
        }
    }
    state.oldest = url.oldest_pending();
    state
}

/// Why a lane does not go on by itself.
enum Block {
    /// So many keys wait for a retry.
    RetryCapped(usize),
    NoEvent(i32),
    Locked,
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RetryCapped(keys) => write!(
                f,
                "{keys} keys wait for a retry; other messages are sent when fewer do"
            ),
            Self::NoEvent(event_key) => {
                write!(f, "webhook.event_def has no row with event_key {event_key}")
            }
            Self::Locked => write!(
                f,
                "a lock of another session keeps the outcomes of its calls from being written: \
                 webhook.worker.detail says whose"
            ),
        }
    }
}

fn block_of(url: &UrlState, is_locked: bool) -> Option<Block> {
    if let Some(event_key) = url.blocked_by {
        return Some(Block::NoEvent(event_key));
    }
    if is_locked {
        return Some(Block::Locked);
    }
    let lane = &url.lane;
    lane.is_retry_capped()
        .then(|| Block::RetryCapped(lane.blocked_keys()))
}

/// When a lane that backs off, or that a retry holds, makes its next call.
fn next_call_at(lane: &MessageLane, now: u64, now_pg: i64) -> Option<i64> {
    backoff_until(lane, now, now_pg).max(lane.held_until())
}

fn backoff_until(lane: &MessageLane, now: u64, now_pg: i64) -> Option<i64> {
    Some(at(lane.backoff_until(now)?, now, now_pg))
}

/// A later moment of the worker's clock on PostgreSQL's.
fn at(moment: u64, now: u64, now_pg: i64) -> i64 {
    now_pg + i64::try_from(moment.saturating_sub(now) / 1000).unwrap_or(0)
}
