//! URLs whose outcomes cannot be written because another session holds a lock that they need.
//!
//! What is known of them stays in memory, and they are tried again after growing pauses; the
//! outcomes of all other URLs are written meanwhile. A crash repeats what was not written.

use std::collections::{BTreeMap, HashSet};

use super::engine::Engine;
use super::locks::Work;
use super::unsettled::{Scope, Urls};
use crate::delivery::call::Verdict;

/// First pause before another try …
const FIRST_PAUSE_NANOS: u64 = 50_000_000;
/// … and the longest.
const LONGEST_PAUSE_NANOS: u64 = 1_000_000_000;
/// With so many URLs held, others that need the same tables are held untried: each try may
/// cost a `lock_timeout`.
const MANY: usize = 3;
/// With so many outcomes in memory the held URLs make no calls.
const OUTCOMES_AT_MOST: usize = 5000;
/// Ticks only spare lagging lanes some reading: a lock on their table is looked at this often.
const NO_TICK_NANOS: u64 = 1_000_000_000;
/// So many URLs are found to be locked in one go, at most.
const FAILURES_AT_ONCE: usize = 2;

/// See the module.
#[derive(Default)]
pub struct Held {
    /// When each was tried last.
    urls: BTreeMap<i32, u64>,
    /// Not even delivered messages can be written: all URLs are held.
    everything: bool,
    /// How many outcomes are held.
    pub(super) outcomes: usize,
    next_try: u64,
    pause: u64,
}

impl Held {
    pub fn has(&self, url_key: i32) -> bool {
        self.everything || self.urls.contains_key(&url_key)
    }

    pub fn is_empty(&self) -> bool {
        !self.everything && self.urls.is_empty()
    }

    pub fn holds_everything(&self) -> bool {
        self.everything
    }

    pub fn are_many(&self) -> bool {
        self.urls.len() >= MANY
    }

    pub fn urls(&self) -> HashSet<i32> {
        self.urls.keys().copied().collect()
    }

    /// Those that have waited longest for a try come first.
    pub fn in_turn(&self) -> Vec<i32> {
        let mut urls: Vec<_> = self.urls.iter().map(|(url, at)| (*at, *url)).collect();
        urls.sort_unstable();
        urls.into_iter().map(|(_, url_key)| url_key).collect()
    }

    pub fn due_at(&self) -> Option<u64> {
        (!self.is_empty()).then_some(self.next_try)
    }

    /// The next try is not waited for.
    pub fn be_due(&mut self) {
        self.next_try = 0;
    }

    /// Whether a URL may have calls that could not be written for now.
    pub fn may_call(&self, url_key: i32) -> bool {
        self.outcomes < OUTCOMES_AT_MOST || !self.has(url_key)
    }

    /// `tried_at` is 0 for one that was not tried.
    pub fn hold(&mut self, url_key: i32, tried_at: u64, now: u64) {
        self.begin(now);
        let last = self.urls.entry(url_key).or_default();
        *last = tried_at.max(*last);
    }

    pub fn hold_everything(&mut self, now: u64) {
        self.begin(now);
        self.everything = true;
    }

    /// Only those that are held one by one stay so.
    pub fn release_everything(&mut self) {
        self.everything = false;
    }

    pub fn release(&mut self, url_key: i32) {
        self.urls.remove(&url_key);
    }

    pub fn release_all(&mut self) {
        self.everything = false;
        self.urls.clear();
    }

    /// After a try of all that were held.
    pub fn tried(&mut self, now: u64) {
        self.pause = (self.pause * 2).min(LONGEST_PAUSE_NANOS);
        self.next_try = now + self.pause;
    }

    fn begin(&mut self, now: u64) {
        if self.is_empty() {
            self.pause = FIRST_PAUSE_NANOS;
            self.next_try = now + self.pause;
        }
    }
}

impl Engine {
    /// The URLs whose outcomes are not even tried now.
    pub fn set_aside(&mut self, now: u64) -> HashSet<i32> {
        if self.settlement.held.holds_everything() {
            return self.with_outcomes();
        }
        let mut aside = self.settlement.held.urls();
        if self.settlement.held.are_many() {
            for url_key in self.lockable() {
                self.settlement.held.hold(url_key, 0, now);
                aside.insert(url_key);
            }
        }
        aside
    }

    /// URLs of which more than their lane's state is to be written.
    fn with_outcomes(&self) -> HashSet<i32> {
        let noted = self.withdrawals.noted().iter();
        let mut urls = self.settlement.concerned();
        urls.extend(noted.map(|standpoint| standpoint.url_key));
        urls
    }

    /// URLs whose outcomes change rows that other sessions change, too. First calls that were
    /// answered well only add rows.
    fn lockable(&self) -> HashSet<i32> {
        let settlement = &self.settlement;
        let failed = settlement.outcomes.iter().filter(|settled| {
            settled.is_retry
                || settled.outcome.verdict != Verdict::Delivered
                || self.is_withdrawn(settled)
        });
        let withdrawn = settlement.withdrawn.iter().map(|row| row.url_key);
        let outdated = settlement.outdated.iter().map(|(url_key, _)| *url_key);
        let noted = self.withdrawals.noted().iter();
        failed
            .map(|settled| settled.url_key)
            .chain(withdrawn)
            .chain(outdated)
            .chain(noted.map(|standpoint| standpoint.url_key))
            .chain(settlement.gone.iter().copied())
            .collect()
    }

    /// Something of the whole is locked: what cannot be kept from being written is written
    /// first. `false` if not even the tail's position could be.
    pub fn settle_apart(&mut self, aside: &HashSet<i32>, now: u64) -> bool {
        let lockable: HashSet<i32> = self.lockable().difference(aside).copied().collect();
        let mut others = aside.clone();
        others.extend(&lockable);
        let nothing = HashSet::new();
        let (clean, tail) = (Urls::AllBut(&others), Urls::Only(&nothing));
        for (tick, urls) in [(true, clean), (false, clean), (false, tail)] {
            let scope = Scope {
                tail: true,
                tick,
                urls,
            };
            match self.write(&scope) {
                Ok(()) => {
                    if !tick {
                        self.tail.ticked_at = now + NO_TICK_NANOS;
                    }
                    if matches!(urls, Urls::AllBut(_)) {
                        self.try_each(&Vec::from_iter(lockable), now);
                    } else {
                        self.settlement.held.hold_everything(now);
                        self.locks.failed(Work::Outcomes, now);
                    }
                    return true;
                }
                Err(failure) if failure.is_lock_not_available() => {}
                Err(failure) => return self.writing_failed(&failure, now),
            }
        }
        self.locks.failed(Work::Tail, now);
        self.settlement.not_before = self.locks.next_try_of(Work::Tail).unwrap_or(now);
        false
    }

    /// Tries what is held: together, and if that fails one by one.
    pub fn try_held(&mut self, now: u64) {
        let all = if self.settlement.held.holds_everything() {
            self.with_outcomes()
        } else {
            self.settlement.held.urls()
        };
        match self.write(&Scope::only(&all)) {
            Ok(()) => self.settlement.held.release_all(),
            Err(failure) if !failure.is_lock_not_available() => {
                self.writing_failed(&failure, now);
            }
            Err(_) if self.settlement.held.holds_everything() => self.try_clean(&all, now),
            Err(_) => {
                let urls = self.settlement.held.in_turn();
                self.try_each(&urls, now);
            }
        }
        self.settlement.held.tried(now);
        self.note_held(now);
    }

    /// Whether what only adds rows can be written again.
    fn try_clean(&mut self, all: &HashSet<i32>, now: u64) {
        let lockable = self.lockable();
        let clean = all.difference(&lockable).copied().collect();
        let written = self.write(&Scope::only(&clean));
        if written.is_ok() && lockable.len() < all.len() {
            self.settlement.held.release_everything();
            self.try_each(&Vec::from_iter(lockable), now);
        }
    }

    /// Each URL in a transaction of its own. After a few that are locked the others are held
    /// untried: each costs time in which nothing else is done.
    fn try_each(&mut self, url_keys: &[i32], now: u64) {
        let mut failures = 0;
        for url_key in url_keys {
            if failures >= FAILURES_AT_ONCE {
                self.settlement.held.hold(*url_key, 0, now);
                continue;
            }
            match self.write(&Scope::only(&HashSet::from([*url_key]))) {
                Ok(()) => self.settlement.held.release(*url_key),
                Err(failure) => {
                    if !failure.is_lock_not_available() {
                        self.writing_failed(&failure, now);
                    }
                    failures += 1;
                    self.settlement.held.hold(*url_key, now, now);
                    self.adjust_lock_timeout();
                }
            }
        }
        self.note_held(now);
    }

    fn note_held(&mut self, now: u64) {
        if self.settlement.held.is_empty() {
            self.locks.succeeded(Work::Outcomes);
        } else {
            self.locks.failed(Work::Outcomes, now);
        }
    }
}
