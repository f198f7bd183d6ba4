//! What is done beside messages: tables in order, counts, clocks, and what the views say.

use super::Engine;
use crate::core::health::news::Backlog;
use crate::worker::definitions::Changes;
use crate::worker::maintenance::Written;
use crate::worker::notices::Topic;

impl Engine {
    /// Which tables are written has to be known before anything is.
    pub(super) fn maintain_if_due(&mut self) {
        if !self.maintenance.is_due() {
            return;
        }
        let is_quiet = self.sender.in_flight() == 0;
        let seq = self.settler.seq();
        let number = self.maintenance.rotate(seq, is_quiet, &mut self.locks);
        self.settler.log_to(number);
        self.settler
            .record_activity_in(self.maintenance.activity_number());
        self.definitions
            .forget_changes(&mut self.locks, self.ticker);
    }

    /// On a node of a cluster: what came to it without firing a trigger. May open a transaction.
    pub(super) fn apply_cluster_definitions(&mut self) {
        let part = self.maintenance.apply_cluster_definitions(&mut self.locks);
        if let Some(part) = part {
            self.definitions.share_rates(part);
        }
    }

    /// Tells users of events that make no more messages. May open transactions.
    pub(super) fn look_at_events(&mut self) {
        if let Some(told) = self.maintenance.look_at_events(&mut self.locks) {
            self.made_messages |= told.messages > 0;
            self.settler.tell(told.notifications);
            self.settler.notify();
        }
    }

    /// The wall clock may have been set back: retries come as soon as they were meant to.
    pub(super) fn adjust_for_clock_step(&mut self) {
        if self.maintenance.adjust_for_clock_step(&mut self.locks) {
            self.definitions.read_again(Changes::everything());
        }
    }

    /// Puts counts right where messages have gone that no lane will come to.
    pub(super) fn reconcile_if_due(&mut self) {
        let (any_lagging, seq) = (self.scheduler.any_lagging(), self.settler.seq());
        let Some(written) = self.maintenance.look_at_pending(any_lagging, seq) else {
            return;
        };
        self.note_backlogs(&written);
        let is_emptied = written.outbox_is_empty;
        let mut held = self.scheduler.held(is_emptied);
        for url_key in written.pending.keys() {
            // One of which nothing is known is at the tail and holds nothing.
            held.entry(*url_key).or_insert(Some(0));
        }
        for (url_key, held) in held {
            let written = written.pending.get(&url_key).copied().unwrap_or(0);
            let counted = written + self.settler.pending_change(url_key);
            if let Some(missing) = held.map(|held| held - counted).filter(|by| *by != 0) {
                self.settler.change_backlog(url_key, missing);
                self.settler.be_due();
            }
        }
        if is_emptied {
            self.scheduler.forget_what_is_behind();
        }
    }

    /// What waits where nothing but the receiver is in the way.
    fn note_backlogs(&mut self, written: &Written) {
        let oldest = self.scheduler.oldest_of_open().into_iter();
        let backlogs = oldest.map(|(url_key, oldest)| {
            let written = written.pending.get(&url_key).copied().unwrap_or(0);
            Backlog {
                url_key,
                messages: written + self.settler.pending_change(url_key),
                oldest,
            }
        });
        let backlogs: Vec<Backlog> = backlogs.collect();
        self.settler.note_backlogs(&backlogs);
    }

    /// Has views and `webhook.worker` say what cannot be done, and why. May open transactions.
    pub(super) fn say_what_is_wrong(&mut self) {
        self.definitions
            .show_details_if_due(&mut self.locks, self.ticker);
        self.locks.adjust_lock_timeout(self.settler.has_locked());
        if let Some(blocked) = self.locks.take_blocked(self.ticker.now()) {
            self.settler.add_blocked(blocked.as_secs_f64());
        }
        if let Some(text) = self.locks.look_if_due(self.ticker.now()) {
            self.notices.set(Topic::Blocked, text);
        }
        let blocked = self.scheduler.blocked();
        let text = self.definitions.mind_missing(&blocked);
        self.notices.set(Topic::UnknownEvents, text);
        let text = self.scheduler.look_at_retry_capped();
        self.notices.set(Topic::RetryCappedUrls, text);
    }

    /// Looks at the slots while something waits for them.
    pub(super) fn look_at_standbys(&mut self) {
        if let Some(text) = self.reader.look_at_standbys() {
            self.notices.set(Topic::StandbySlots, text);
        }
    }
}
