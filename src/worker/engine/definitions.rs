//! What has changed in definitions, retries and cancellations, and what that means for URLs.

use std::collections::{BTreeSet, HashMap};
use std::mem;
use std::time::{Duration, Instant};

use super::calls::take_uncalled;
use super::Engine;
use crate::core::definitions::words::DeliveryOrder;
use crate::core::messages::position::Cursor;
use crate::pg::tx;
use crate::store::cancellations::{CancellationNote, NewCancellation};
use crate::store::outbox::StoredMessage;
use crate::worker::definitions::{Changes, Known};
use crate::worker::locks::Work;
use crate::worker::scheduling::Applied;

/// Messages that wait for others no longer, in one transaction.
const RELEASED_AT_ONCE: i64 = 1_000;
/// Those that other sessions have locked are tried again after this.
const RELEASE_AGAIN_AFTER: Duration = Duration::from_secs(1);

impl Engine {
    /// Reads what has changed. In a transaction.
    pub(super) fn read_definitions(&mut self) {
        let (changes, read_up_to) = self.definitions.changes();
        let in_use = match changes.everything {
            true => self.scheduler.webhooks(),
            false => BTreeSet::new(),
        };
        let read = self.definitions.read_changes(&changes, in_use);
        self.maintenance
            .webhooks_changed(&changes.webhooks, changes.everything);
        self.apply(&read, changes.everything);
        self.definitions.accept_changes(read_up_to);
    }

    /// These webhooks were read: their URLs learn it. In a transaction.
    pub(super) fn apply(&mut self, webhook_keys: &BTreeSet<i32>, everything: bool) {
        let mut applied = Applied::default();
        for key in webhook_keys {
            if let Some(known) = self.definitions.get(*key) {
                let known = known.clone();
                self.scheduler.apply(*key, &known, &mut applied);
            }
        }
        self.expect_retries(applied, everything);
        for cancellation in self.definitions.cancellations().new_cancellations() {
            // Another webhook may be in the cache as it was before.
            let is_read = everything || webhook_keys.contains(&cancellation.webhook_key);
            if is_read && !self.settler.has_note(cancellation.cancellation_id) {
                self.apply_cancellation(&cancellation);
            }
        }
        take_uncalled(&mut self.scheduler, &mut self.settler);
        let scheduler = &self.scheduler;
        self.settler.amend_held_back(
            |row| {
                scheduler.is_canceled_with_all(row.url_key, row.at)
                    || !scheduler.is_live(row.url_key)
            },
            |url_key| scheduler.orders_keys(url_key),
        );
        self.settler.amend(|settled| {
            let (url_key, at) = (settled.url_key, settled.at);
            settled.is_canceled |= !settled.is_retry && scheduler.is_canceled(url_key, at);
            settled.url_is_live = scheduler.is_live(url_key);
        });
    }

    /// Reads webhooks that could not be read when messages named them, if no lock is in the way now.
    /// In a transaction.
    pub(super) fn read_owed(&mut self) {
        let owed = self.definitions.owed().clone();
        if owed.is_empty() {
            return;
        }
        let read = self.try_part(Work::Webhooks, |engine| {
            engine
                .definitions
                .load(&Vec::from_iter(owed.iter().copied()));
            engine.definitions.owes_no_more(&owed);
            engine.apply(&owed, false);
        });
        if read.is_none() {
            self.definitions.owe(owed);
        }
    }

    /// Reads what the messages of a page need. Where a lock of another session is in the way, the
    /// webhooks that are not known wait for it, and all others go on. In a transaction.
    pub(super) fn need_for(&mut self, messages: &[StoredMessage]) {
        let wanted = self.definitions.wanted_for(messages);
        if wanted.is_empty() {
            return;
        }
        let read = self.try_part(Work::Webhooks, |engine| {
            engine
                .definitions
                .load(&Vec::from_iter(wanted.iter().copied()));
            let scheduler = &engine.scheduler;
            let in_use = wanted.iter().filter(|key| scheduler.has_webhook(**key));
            let in_use: BTreeSet<i32> = in_use.copied().collect();
            if !in_use.is_empty() {
                engine.apply(&in_use, false);
            }
        });
        if read.is_none() {
            self.definitions.owe(wanted);
        }
    }

    /// Retries of these URLs may have come or gone, and single messages may have been canceled.
    fn expect_retries(&mut self, applied: Applied, everything: bool) {
        let mut urls: HashMap<i32, i32> = applied.urls.into_iter().collect();
        if everything {
            urls.extend(self.reader.urls_with_retries());
        }
        let url_keys: Vec<i32> = urls.keys().copied().collect();
        if url_keys.is_empty() && !everything {
            return;
        }
        self.release_held_back(&urls);
        let next = self.reader.next_due(&url_keys);
        let cancellations = self.definitions.cancellations();
        let singles = match everything {
            true => cancellations.all_single(),
            false => cancellations.single(&url_keys),
        };
        let of_retries = next.keys().filter_map(|url_key| urls.get(url_key)).copied();
        let of_singles = singles.iter().map(|single| single.webhook_key);
        self.definitions.need(of_retries.chain(of_singles));
        self.scheduler.forget_singles(&url_keys);
        for url_key in next.keys() {
            let known = urls.get(url_key).and_then(|key| self.definitions.get(*key));
            self.scheduler.know(*url_key, known);
        }
        self.scheduler.expect_retries(&next, &url_keys);
        for single in singles {
            let (url_key, at) = (single.url_key, single.at);
            let tail = self.reader.tail_position();
            if self.scheduler.is_done_with(url_key, at, tail) {
                // The row of one that is canceled with everything else as well goes when that is
                // written down: until then it is counted.
                self.settler.forget_single(url_key, at);
            } else {
                let known = self.definitions.get(single.webhook_key);
                self.scheduler.know(url_key, known);
                self.scheduler.cancel_single(url_key, at);
            }
        }
    }

    /// Messages wait for others of their keys only where the order of keys is kept. In parts: the
    /// webhooks are read again while there are more.
    fn release_held_back(&mut self, urls: &HashMap<i32, i32>) {
        let mut released: Vec<i32> = Vec::new();
        for (url_key, webhook_key) in urls {
            let known = self.definitions.get(*webhook_key);
            let route = known.and_then(Known::live);
            if route.is_some_and(|route| route.order != DeliveryOrder::Key) {
                released.push(*url_key);
            }
        }
        if released.is_empty() {
            return;
        }
        let mut released = self.reader.holding_back(&released);
        if released.is_empty() {
            return;
        }
        let done = tx::part(|| {
            let count = self.reader.release(&released, RELEASED_AT_ONCE);
            (count, self.reader.holding_back(&released))
        });
        let (count, left) = match done {
            Ok(done) => done,
            Err(failure) if failure.is_lock_not_available() => (0, released.clone()),
            Err(failure) => failure.raise(),
        };
        let left = left.iter().filter_map(|url_key| urls.get(url_key));
        if count >= RELEASED_AT_ONCE.unsigned_abs() {
            for webhook_key in left {
                self.definitions.read_again(Changes::of(*webhook_key));
            }
        } else {
            self.release_again.extend(left);
        }
        if count > 0 {
            self.key_writes.released.append(&mut released);
        }
    }

    /// What was locked is tried again, whether or not its session changed it.
    pub(super) fn release_what_was_locked(&mut self) {
        if self.release_again.is_empty() || Instant::now() < self.release_not_before {
            return;
        }
        self.release_not_before = Instant::now() + RELEASE_AGAIN_AFTER;
        self.definitions.read_again(Changes {
            everything: false,
            webhooks: mem::take(&mut self.release_again),
        });
    }

    /// From now on nothing that was committed before is sent to the URL; what is on its way
    /// arrives. The count of what is pending is put right at once.
    fn apply_cancellation(&mut self, cancellation: &NewCancellation) {
        let (url_key, webhook_key) = (cancellation.url_key, cancellation.webhook_key);
        self.definitions.need([webhook_key]);
        let known = self.definitions.get(webhook_key);
        let url = known.and_then(|known| known.live()?.url(url_key));
        let Some(before) = url.and_then(|url| url.canceled_before.clone()) else {
            return;
        };
        self.scheduler.apply_cancellation(url_key);
        // What left memory is counted by its own row.
        take_uncalled(&mut self.scheduler, &mut self.settler);
        let progress = self.scheduler.progress(url_key);
        let tail = self.reader.tail_position();
        let position: Cursor = progress.position.unwrap_or_else(|| tail.clone());
        let cancellations = self.definitions.cancellations();
        let after = cancellations.after(webhook_key, tail, &position, &before);
        let written = cancellations.pending(url_key);
        let rest = after + i64::try_from(progress.taken).unwrap_or(0);
        self.settler.set_pending(url_key, rest, written);
        let note = CancellationNote::new(cancellation, position, &progress.busy);
        self.settler.note_cancellation(note);
    }
}
