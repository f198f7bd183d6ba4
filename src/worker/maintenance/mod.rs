//! What keeps the tables in order: rotation and retention, reconciled counts, the wall clock, events that stop.
//!
//! Owns when each is looked at next. Takes what the other owners know (the last settlement,
//! whether anything is on the wire) and gives what follows from a look. Each look has transactions
//! of its own, and one that fails comes again.

#![forbid(unsafe_code)]

mod clock;
mod cluster;
mod reconciliation;
mod rotation;
mod stopped_events;

use std::collections::BTreeSet;
use std::time::Duration;

use super::locks::Locks;
use super::time::Ticker;
use crate::core::policy::throttle::Part;
use crate::pg::settings::Delivery;
use crate::store::operational_messages::Told;
use crate::store::retries::RetryStore;
use clock::WallClock;
use cluster::ClusterDefinitions;
use reconciliation::Reconciliation;
use rotation::Rotation;
use stopped_events::StoppedEventWatch;

pub use reconciliation::Written;

/// See the module.
pub struct Maintenance {
    rotation: Rotation,
    reconciliation: Reconciliation,
    clock: WallClock,
    stopped_events: StoppedEventWatch,
    cluster: ClusterDefinitions,
    retries: RetryStore,
    ticker: Ticker,
}

impl Maintenance {
    pub fn new(settings: &Delivery, ticker: Ticker) -> Self {
        Self {
            rotation: Rotation::new(settings),
            reconciliation: Reconciliation::new(),
            clock: WallClock::new(ticker),
            stopped_events: StoppedEventWatch::new(),
            cluster: ClusterDefinitions::new(),
            retries: RetryStore::new(),
            ticker,
        }
    }

    /// SIGHUP.
    pub fn reconfigure(&mut self, settings: &Delivery) {
        self.rotation.reconfigure(settings);
        self.stopped_events.anything_changed();
    }

    /// How long nothing needs a look.
    pub fn due_in(&self) -> Duration {
        let rotation = self.rotation.due_in().min(self.cluster.due_in());
        let events = self.stopped_events.due_in();
        events.map_or(rotation, |events| events.min(rotation))
    }

    pub fn is_due(&self) -> bool {
        self.rotation.is_due()
    }

    /// Something was settled: sizes are worth a look.
    pub fn be_due_soon(&mut self) {
        self.rotation.be_due_soon();
    }

    /// Gives the call log table that is written from now on. Opens transactions.
    pub fn rotate(&mut self, seq: i64, is_quiet: bool, locks: &mut Locks) -> usize {
        self.rotation.look(seq, is_quiet, locks, self.ticker);
        self.rotation.call_log_number()
    }

    /// The table of the figures of minutes that is written from now on.
    pub fn activity_number(&self) -> usize {
        self.rotation.activity_number()
    }

    /// `true` if retries have another time now, because the clock was set back. May open a
    /// transaction.
    pub fn adjust_for_clock_step(&mut self, locks: &mut Locks) -> bool {
        self.clock.adjust(&self.retries, locks, self.ticker)
    }

    /// Applies what came to this node of a cluster. Gives which part of each webhook's rate is this node's, when it
    /// was looked up. May open a transaction.
    pub fn apply_cluster_definitions(&mut self, locks: &mut Locks) -> Option<Part> {
        if self.stopped_events.is_due() {
            self.cluster.be_due();
        }
        self.cluster.look_if_due(locks, self.ticker)
    }

    /// The definitions of these webhooks have changed; `everything`: and any others.
    pub fn webhooks_changed(&mut self, webhook_keys: &BTreeSet<i32>, everything: bool) {
        self.stopped_events.webhooks_changed(webhook_keys);
        if everything {
            self.stopped_events.anything_changed();
        }
    }

    /// Tells users of events that make no more messages. May open a transaction.
    pub fn look_at_events(&mut self, locks: &mut Locks) -> Option<Told> {
        self.stopped_events.look_if_due(locks, self.ticker)
    }

    /// What is written as pending, if it is time to compare. Opens a transaction.
    pub fn look_at_pending(&mut self, any_lagging: bool, seq: i64) -> Option<Written> {
        self.reconciliation.look_if_due(any_lagging, seq)
    }
}
