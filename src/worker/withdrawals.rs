//! What must not be sent any more, although it is still before a lane.
//!
//! Users cancel single messages, or everything that a URL had pending at a moment. A lane
//! does not look for them: whatever it comes to is held against what is known here. A message
//! on the wire is not stopped; if its call fails it is not repeated.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::engine::{Engine, MessageLane};
use crate::core::lane::Feed;
use crate::core::position::{Coordinate, Position};
use crate::core::snapshot::Snapshot;
use crate::pg::clock;
use crate::store::withdrawals::{NewCancellation, Standpoint};

/// See the module.
#[derive(Default)]
pub struct Withdrawals {
    /// Everything that a URL had when this snapshot was taken.
    before: HashMap<i32, Arc<Snapshot>>,
    single: HashMap<i32, HashSet<Coordinate>>,
    /// Heard of, not written down yet.
    noted: Vec<Standpoint>,
}

impl Withdrawals {
    /// Whether the URL's message was withdrawn while it waited for its first call. A
    /// redelivery is no such message: its row says what is to become of it.
    pub fn cover(&self, url_key: i32, at: Coordinate) -> bool {
        self.cover_all_of(url_key, at.xid)
            || self
                .single
                .get(&url_key)
                .is_some_and(|single| single.contains(&at))
    }

    /// Whether everything of this transaction was withdrawn.
    pub fn cover_all_of(&self, url_key: i32, xid: u64) -> bool {
        self.before
            .get(&url_key)
            .is_some_and(|before| before.sees(xid))
    }

    /// Whether the URL's whole window was withdrawn.
    pub fn cover_window(&self, url_key: i32, end: &Snapshot) -> bool {
        self.before
            .get(&url_key)
            .is_some_and(|before| end.is_within(before))
    }

    pub fn noted(&self) -> &[Standpoint] {
        &self.noted
    }

    /// What was noted of these URLs is written down.
    pub fn settled(&mut self, is_written: impl Fn(i32) -> bool) {
        self.noted
            .retain(|standpoint| !is_written(standpoint.url_key));
    }

    /// A single message needs no watching any more.
    pub fn forget(&mut self, url_key: i32, at: Coordinate) {
        if let Some(single) = self.single.get_mut(&url_key) {
            single.remove(&at);
        }
    }
}

impl Engine {
    /// Reads what users have canceled since. In a transaction.
    pub fn load_withdrawals(&mut self) {
        let newest = self.stores.withdrawals.newest();
        self.withdrawals.before = newest
            .into_iter()
            .map(|(url_key, before)| (url_key, Arc::new(before)))
            .collect();
        self.load_single_withdrawals();
        let known: HashSet<i64> = self
            .withdrawals
            .noted
            .iter()
            .map(|standpoint| standpoint.cancellation_id)
            .collect();
        for cancellation in self.stores.withdrawals.new_cancellations() {
            if !known.contains(&cancellation.cancellation_id) {
                self.hear_of(&cancellation);
            }
        }
        // Retries that are loaded may be canceled, and others may be due at once.
        self.drop_due_retries();
        self.next_retry_at = Some(i64::MIN);
    }

    fn load_single_withdrawals(&mut self) {
        self.withdrawals.single.clear();
        for (url_key, at) in self.stores.withdrawals.single() {
            // The row of one that is canceled with everything else as well goes when that is
            // written down: until then it is counted.
            if self.is_done_with(url_key, at) {
                self.settlement.forget_single(url_key, at);
            } else {
                let single = self.withdrawals.single.entry(url_key).or_default();
                single.insert(at);
            }
        }
    }

    /// The message was delivered before the worker heard that it was withdrawn.
    fn is_done_with(&self, url_key: i32, at: Coordinate) -> bool {
        let interrupted = self.interrupted.get(&url_key);
        let Some(lane) = self.lanes.get(&url_key) else {
            return false;
        };
        self.standpoint_of(lane).has_passed(at)
            && !lane.holds(at)
            && !interrupted.is_some_and(|coordinates| coordinates.contains(&at))
    }

    /// How far the lane has read.
    fn standpoint_of(&self, lane: &MessageLane) -> Position {
        match lane.feed() {
            Feed::Own(position) => position.clone(),
            Feed::Tail => self.tail.position.clone(),
        }
    }

    /// From now on nothing that was committed before is sent to the URL; what is on its way
    /// arrives. The count of what is pending is put right at once.
    fn hear_of(&mut self, cancellation: &NewCancellation) {
        let url_key = cancellation.url_key;
        self.drop_queue(url_key);
        self.oldest_behind.remove(&url_key);
        let interrupted = self.interrupted.get(&url_key).map_or(0, Vec::len);
        let Some(lane) = self.lanes.get(&url_key) else {
            return;
        };
        let Some(before) = self.withdrawals.before.get(&url_key) else {
            return;
        };
        let position = self.standpoint_of(lane);
        let after = self.stores.withdrawals.after(
            cancellation.webhook_key,
            &self.tail.position,
            &position,
            before,
        );
        let pending = self.stores.withdrawals.pending(url_key);
        let mut durable = lane.durable();
        durable
            .busy
            .extend(self.interrupted.get(&url_key).into_iter().flatten());
        let rest = after + i64::try_from(lane.taken() + interrupted).unwrap_or(0);
        self.settlement.set_backlog(url_key, rest - pending);
        let standpoint = Standpoint::new(cancellation, position, &durable);
        self.withdrawals.noted.push(standpoint);
        let now = self.ticker.now();
        self.settlement.be_due(now);
    }

    fn drop_due_retries(&mut self) {
        for lane in self.lanes.values_mut() {
            for entry in lane.unload_retries() {
                self.queued.remove(&entry.message);
            }
        }
    }

    /// The lane has come to a message that was withdrawn: it is written down as canceled.
    pub fn skip_withdrawn(&mut self, url_key: i32) {
        loop {
            let Some(lane) = self.lanes.get_mut(&url_key) else {
                return;
            };
            let withdrawals = &self.withdrawals;
            let covered = lane
                .peek()
                .filter(|entry| !entry.is_retry && withdrawals.cover(url_key, entry.at))
                .map(|entry| (entry.at, Arc::clone(&entry.message)));
            let Some((at, message)) = covered else {
                return;
            };
            lane.cancel();
            self.queued.remove(&message);
            self.settlement.change_backlog(url_key, -1);
            let is_single = !self.withdrawals.cover_all_of(url_key, at.xid);
            let due_at = is_single.then(clock::now);
            self.settlement.withdraw(url_key, at, &message, due_at);
            let now = self.ticker.now();
            self.settlement.be_due(now);
            self.next_retry_at = due_at.or(self.next_retry_at);
            self.withdrawals.forget(url_key, at);
        }
    }
}
