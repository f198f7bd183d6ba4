//! Which part of what is known is written next, where locks of other sessions are in the way.
//!
//! The URLs that need a locked row are held and all others are written without them; the tail's
//! position and what it has counted only add rows. Held URLs are tried again after pauses.

use std::collections::HashSet;

use super::locked_urls::FAILURES_AT_ONCE;
use super::Settler;

/// Why a part could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Locked,
    Failed,
}

/// Writes the outcomes of these URLs.
pub type Write<'a> = dyn FnMut(&mut Settler, &HashSet<i32>) -> Result<(), Refusal> + 'a;

impl Settler {
    /// The URLs whose outcomes are not even tried now.
    pub fn set_aside(&mut self) -> HashSet<i32> {
        let now = self.ticker.now();
        if self.pending.locked.holds_everything() {
            return self.pending.concerned();
        }
        let mut aside = self.pending.locked.urls();
        if self.pending.locked.are_many() {
            for url_key in self.pending.lockable() {
                self.pending.locked.hold(url_key, 0, now);
                aside.insert(url_key);
            }
        }
        aside
    }

    /// URLs whose outcomes change rows that other sessions change, too.
    pub fn lockable(&self) -> HashSet<i32> {
        self.pending.lockable()
    }

    /// Not even what only adds rows can be written.
    pub fn hold_everything(&mut self) {
        self.pending.locked.hold_everything(self.ticker.now());
    }

    /// Whether URLs that are held are to be tried again.
    pub fn locked_are_due(&self) -> bool {
        let now = self.ticker.now();
        self.pending.locked.due_at().is_some_and(|at| at <= now)
    }

    /// The next try is not waited for.
    pub fn try_locked_now(&mut self) {
        self.pending.locked.be_due();
    }

    /// After the set of held URLs has changed.
    pub fn count_locked(&mut self) {
        self.pending.count_locked();
    }

    /// Tries what is held: together, and if that fails one by one. `write` writes the outcomes of
    /// some URLs.
    pub fn try_locked(&mut self, write: &mut Write<'_>) {
        let held_all = self.pending.locked.holds_everything();
        let all = match held_all {
            true => self.pending.concerned(),
            false => self.pending.locked.urls(),
        };
        match write(self, &all) {
            Ok(()) => self.pending.locked.release_all(),
            Err(Refusal::Failed) => {}
            Err(Refusal::Locked) if held_all => self.try_clean(&all, write),
            Err(Refusal::Locked) => {
                let urls = self.pending.locked.in_turn();
                self.try_each(&urls, write);
            }
        }
        self.pending.locked.tried(self.ticker.now());
    }

    /// Whether what only adds rows can be written again.
    fn try_clean(&mut self, all: &HashSet<i32>, write: &mut Write<'_>) {
        let lockable = self.pending.lockable();
        let clean = all.difference(&lockable).copied().collect();
        if write(self, &clean).is_ok() && lockable.len() < all.len() {
            self.pending.locked.release_everything();
            self.try_each(&Vec::from_iter(lockable), write);
        }
    }

    /// Each URL in a transaction of its own. After a few that are locked the others are held
    /// untried: each costs time in which nothing else is done.
    pub fn try_each(&mut self, url_keys: &[i32], write: &mut Write<'_>) {
        let now = self.ticker.now();
        let mut failures = 0;
        for url_key in url_keys {
            if failures >= FAILURES_AT_ONCE {
                self.pending.locked.hold(*url_key, 0, now);
                continue;
            }
            match write(self, &HashSet::from([*url_key])) {
                Ok(()) => self.pending.locked.release(*url_key),
                Err(_) => {
                    failures += 1;
                    self.pending.locked.hold(*url_key, now, now);
                }
            }
        }
    }
}
