//! URLs whose outcomes cannot be written because another session holds a lock that they need.
//!
//! What is known of them stays in memory, and they are tried again after growing pauses; the
//! outcomes of all other URLs are written meanwhile. A crash repeats what was not written.

use std::collections::{BTreeMap, HashSet};

/// First pause before another try …
const FIRST_PAUSE_NANOS: u64 = 50_000_000;
/// … and the longest.
const LONGEST_PAUSE_NANOS: u64 = 1_000_000_000;
/// With so many URLs held, others that need the same tables are held untried: each try may
/// cost a `lock_timeout`.
const MANY: usize = 3;
/// With so many outcomes in memory the held URLs make no calls.
const OUTCOMES_AT_MOST: usize = 5000;
/// So many URLs are found to be locked in one go, at most.
pub(super) const FAILURES_AT_ONCE: usize = 2;

/// See the module.
#[derive(Default)]
pub(super) struct LockedUrls {
    /// When each was tried last.
    urls: BTreeMap<i32, u64>,
    /// Not even delivered messages can be written: all URLs are held.
    everything: bool,
    /// How many outcomes are held.
    pub(super) outcomes: usize,
    next_try: u64,
    pause: u64,
}

impl LockedUrls {
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
