//! How fast a lane goes: how much it hands to a thread at once, and when it stops because
//! its receiver fails.

use super::Lane;

/// After so many failed calls in a row the lane stops and probes: an outage must not
/// burn the attempts of what waits behind.
pub(super) const FAILURES_BEFORE_BACKING_OFF: u32 = 5;
/// The first pause of a backing-off lane; doubled after each failed probe.
const FIRST_PAUSE_NANOS: u64 = 1_000_000_000;
/// A receiver that is back is noticed after this at the latest.
const LONGEST_PAUSE_NANOS: u64 = 60_000_000_000;

/// A run of messages on one thread takes about this long at most …
const RUN_NANOS: u64 = 5_000_000;
/// … and has at most so many messages: they wait for one another.
pub(super) const RUN_AT_MOST: usize = 16;

impl<M> Lane<M> {
    /// A run is sequential: with one at a time a lane keeps the order.
    pub(super) fn connections(&self) -> usize {
        if self.order.is_kept {
            1
        } else {
            self.max_in_flight
        }
    }

    /// How many messages the next run may have. One, unless the receiver is quick and
    /// well and more waits than its connections can take at once.
    pub fn run_length(&self) -> usize {
        let ahead = self.looked_ahead();
        let alone = self.failures > 0
            || self.call_nanos == 0
            || (!self.requeued.is_empty() && ahead == 0)
            || !self.due_retries.is_empty();
        if alone {
            return 1;
        }
        let in_time = usize::try_from(RUN_NANOS / self.call_nanos).unwrap_or(1);
        let share = (self.queue.len() + ahead) / self.connections().max(1);
        share.min(in_time).clamp(1, RUN_AT_MOST)
    }

    /// A thread has begun a run of messages that were started for it.
    pub fn begin_run(&mut self) {
        self.runs += 1;
    }

    /// The thread is free again.
    pub fn end_run(&mut self) {
        self.runs = self.runs.saturating_sub(1);
    }

    /// How long a call took; runs are kept short by it.
    pub fn note_duration(&mut self, nanos: u64) {
        self.call_nanos = if self.call_nanos == 0 {
            nanos.max(1)
        } else {
            // A slow call counts at once, quick ones must prove themselves.
            ((self.call_nanos * 7 + nanos) / 8).max(nanos / 4).max(1)
        };
    }

    pub(super) fn count_failure(&mut self, now: u64) {
        // Calls that were under way when the lane fell silent are no probes: one outage
        // would otherwise count as often as there were calls.
        if self.is_probing() && now < self.backoff_until {
            return;
        }
        self.failures = self.failures.saturating_add(1);
        if let Some(probes) = self.failures.checked_sub(FAILURES_BEFORE_BACKING_OFF) {
            let pause = FIRST_PAUSE_NANOS
                .saturating_mul(2_u64.saturating_pow(probes))
                .min(LONGEST_PAUSE_NANOS);
            self.back_off_until(now + pause);
        }
    }

    /// Whether so many calls have failed in a row that the next one is a probe.
    pub fn is_probing(&self) -> bool {
        self.failures >= FAILURES_BEFORE_BACKING_OFF
    }

    /// No call before `until`: the receiver asked for it, or the lane backs off.
    pub fn back_off_until(&mut self, until: u64) {
        self.dirty = true;
        self.backoff_until = self.backoff_until.max(until);
    }

    /// Forgets failures and pauses: a user says that the receiver is back.
    pub fn reopen(&mut self) {
        self.dirty = true;
        self.failures = 0;
        self.backoff_until = 0;
    }

    /// The moment from which the lane may send again, if it is silent at `now`.
    pub fn backoff_until(&self, now: u64) -> Option<u64> {
        (self.backoff_until > now).then_some(self.backoff_until)
    }
}
