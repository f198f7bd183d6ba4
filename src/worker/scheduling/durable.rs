//! What is written of each URL.

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

    /// The state of each lane that has changed.
    pub fn lane_states(&self, is_wanted: impl Fn(i32) -> bool) -> Vec<LaneState> {
        let (now, now_pg) = (self.ticker.now(), clock::now());
        let unwritten = self.urls.agenda.unwritten();
        let wanted = unwritten.iter().filter(|url_key| is_wanted(**url_key));
        wanted
            .filter_map(|url_key| self.urls.get(*url_key))
            .filter(|url| url.lane.dirty)
            .map(|url| lane_state(url, now, now_pg))
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

fn lane_state(url: &UrlState, now: u64, now_pg: i64) -> LaneState {
    let lane = &url.lane;
    let mut durable = lane.durable();
    // What the last worker left busy is so until it has been read.
    let mut listed = lane.listed();
    listed.extend(&url.recovered);
    durable.busy.extend(&url.recovered);
    let mut state = LaneState::new(lane.url_key, &durable);
    state.listed = listed.iter().map(settlement_log::as_text).collect();
    if let Some(next_at) = next_call_at(lane, now, now_pg) {
        "backing_off".clone_into(&mut state.state);
        state.next = Some(time::text(next_at));
        state.until = backoff_until(lane, now, now_pg);
    } else if url.throttled_until > now {
        "throttled".clone_into(&mut state.state);
    }
    state.error.clone_from(&lane.last_error);
    if lane.is_crowded() && state.state == "active" {
        "blocked".clone_into(&mut state.state);
        state.error = Some(format!(
            "{} keys wait for a retry; other messages are sent when fewer do",
            lane.blocked_keys()
        ));
    }
    if let Some(event_key) = url.blocked_by {
        "blocked".clone_into(&mut state.state);
        state.error = Some(format!(
            "webhook.event_def has no row with event_key {event_key}"
        ));
    }
    let dates = lane.foremost().map(|entry| entry.message.captured_at);
    state.oldest = dates.chain(url.oldest_behind).min();
    state
}

/// When a lane that backs off, or that a retry holds, makes its next call.
fn next_call_at(lane: &MessageLane, now: u64, now_pg: i64) -> Option<i64> {
    backoff_until(lane, now, now_pg).max(lane.held_until())
}

fn backoff_until(lane: &MessageLane, now: u64, now_pg: i64) -> Option<i64> {
    let until = lane.backoff_until(now)?;
    Some(now_pg + i64::try_from((until - now) / 1000).unwrap_or(0))
}
