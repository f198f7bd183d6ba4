//! What a settlement writes, as rows: calls, retries, and the lanes that changed.
//!
//! Only turns what the engine knows into values; `settle` writes them.

use std::sync::Arc;

use super::engine::{Engine, MessageLane};
use super::routes::Logged;
use super::time;
use super::unsettled::{Scope, Settled};
use crate::core::position::Coordinate;
use crate::delivery::call::Verdict;
use crate::pg::clock;
use crate::store::ledger::{self, LaneState};
use crate::store::settlement::{CallRow, Parked, RetryRow};

impl Engine {
    /// Of this part, and with the tail's position of all.
    pub fn dirty_lanes(&self, scope: Scope<'_>, now: u64) -> Vec<LaneState> {
        let now_pg = clock::now();
        self.lanes
            .values()
            .filter(|lane| lane.dirty && (scope.tail || scope.has(lane.url_key)))
            .map(|lane| {
                let mut durable = lane.durable();
                // What the last worker left busy is so until it has been read.
                let interrupted = self.interrupted.get(&lane.url_key).into_iter().flatten();
                let mut listed = lane.listed();
                listed.extend(interrupted.clone());
                durable.busy.extend(interrupted);
                let mut state = LaneState::new(lane.url_key, &durable);
                state.listed = listed.iter().map(ledger::as_text).collect();
                if let Some(next_at) = next_call_at(lane, now, now_pg) {
                    "backing_off".clone_into(&mut state.state);
                    state.next = Some(time::text(next_at));
                    state.until = silent_until(lane, now, now_pg);
                } else if self.throttled.contains(&lane.webhook_key) {
                    "throttled".clone_into(&mut state.state);
                }
                state.error.clone_from(&lane.last_error);
                if let Some(event_key) = self.unroutable.event_of(lane.url_key) {
                    "blocked".clone_into(&mut state.state);
                    state.error = Some(format!(
                        "webhook.event_def has no row with event_key {event_key}"
                    ));
                }
                let behind = self.oldest_behind.get(&lane.url_key).copied();
                let dates = lane.foremost().map(|entry| entry.message.captured_at);
                state.oldest = dates.chain(behind).min();
                state
            })
            .collect()
    }

    pub fn call_rows(&self, scope: Scope<'_>) -> Vec<CallRow> {
        self.settlement
            .settled(scope)
            .filter(|settled| self.is_logged(settled))
            .map(|settled| call_row(settled, self.webhook_id(settled.webhook_key)))
            .collect()
    }

    /// A call may end after its webhook was dropped.
    fn webhook_id(&self, webhook_key: i32) -> Option<Arc<str>> {
        let webhook = self.routes.webhooks.get(&webhook_key);
        webhook.map_or_else(
            || self.stores.routing.webhook_id(webhook_key),
            |webhook| Some(Arc::clone(&webhook.id)),
        )
    }

    fn is_logged(&self, settled: &Settled) -> bool {
        let webhook = self.routes.webhooks.get(&settled.webhook_key);
        match webhook.map_or(Logged::All, |webhook| webhook.logged) {
            Logged::All => true,
            Logged::Errors => settled.outcome.verdict != Verdict::Delivered,
            Logged::None => false,
        }
    }

    pub fn retry_rows(&self, scope: Scope<'_>) -> Vec<RetryRow> {
        // A message whose URL is gone for good leaves nothing behind.
        self.settlement
            .settled(scope)
            .filter(|settled| settled.outcome.verdict != Verdict::Delivered)
            .filter(|settled| self.routes.urls.contains_key(&settled.url_key))
            .map(|settled| retry_row(settled, self.is_withdrawn(settled)))
            .collect()
    }

    /// It was canceled while it was on its way.
    pub fn is_withdrawn(&self, settled: &Settled) -> bool {
        !settled.is_retry && self.withdrawals.cover(settled.url_key, settled.at)
    }

    pub fn delivered_retries(&self, scope: Scope<'_>) -> Vec<(i32, Coordinate)> {
        self.settlement
            .settled(scope)
            .filter(|settled| settled.is_retry || self.is_withdrawn(settled))
            .filter(|settled| settled.outcome.verdict == Verdict::Delivered)
            .map(|settled| (settled.url_key, settled.at))
            .collect()
    }
}

/// When a lane that is silent, or that a retry holds, makes its next call.
fn next_call_at(lane: &MessageLane, now: u64, now_pg: i64) -> Option<i64> {
    silent_until(lane, now, now_pg).max(lane.held_until())
}

fn silent_until(lane: &MessageLane, now: u64, now_pg: i64) -> Option<i64> {
    let until = lane.silent_until(now)?;
    Some(now_pg + i64::try_from((until - now) / 1000).unwrap_or(0))
}

fn call_row(settled: &Settled, webhook_id: Option<Arc<str>>) -> CallRow {
    let outcome = &settled.outcome;
    CallRow {
        call_id: outcome.call_id,
        called_at: time::pg_micros(outcome.called_at),
        message_id: settled.message_id,
        url_key: settled.url_key,
        event_key: settled.event_key,
        event_date: settled.event_date,
        attempt: i32::try_from(settled.attempts).unwrap_or(i32::MAX),
        success: outcome.verdict == Verdict::Delivered,
        webhook_id,
        http_code: outcome.http_code.map(i32::from),
        http_response: (!outcome.response.is_empty()).then(|| outcome.response.clone()),
        detail: outcome.detail.clone(),
        message_size: i32::try_from(outcome.message_size).unwrap_or(i32::MAX),
        duration_ms: outcome.duration.as_secs_f64() * 1000.0,
    }
}

fn retry_row(settled: &Settled, withdrawn: bool) -> RetryRow {
    let next_at = settled.next_at.filter(|_| !withdrawn);
    RetryRow {
        url_key: settled.url_key,
        at: settled.at,
        message_id: settled.message_id,
        webhook_key: settled.webhook_key,
        event_key: settled.event_key,
        event_date: settled.event_date,
        attempts: i32::try_from(settled.attempts).unwrap_or(i32::MAX),
        state: match next_at {
            _ if withdrawn => Parked::Canceled,
            Some(_) => Parked::Waiting,
            None => Parked::Failed,
        },
        next_at,
        last_error: settled
            .outcome
            .detail
            .clone()
            .or_else(|| settled.outcome.http_code.map(|code| format!("HTTP {code}"))),
    }
}
