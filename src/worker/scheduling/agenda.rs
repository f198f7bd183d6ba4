//! What is to be done for which URL, so that no loop goes over those for which there is nothing.
//!
//! Each URL's [`Listing`] is worked out when something of it has changed; the sets follow.

use std::collections::BTreeSet;

use super::url::UrlState;

/// URLs that are idle and kept all the same, so that the next message finds them.
const IDLE_AT_MOST: usize = if cfg!(feature = "fault_injection") {
    2
} else {
    1_000
};

/// What is to be done for one URL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    /// A call may start.
    pub ready: bool,
    /// It backs off, rests or is throttled.
    pub asleep_until: Option<u64>,
    /// A page of its backlog is to be read.
    pub needs_page: bool,
    /// Its retries are read then.
    pub retry_at: Option<i64>,
    /// It keeps an order and does not know what waits.
    pub asks: bool,
    /// It keeps the order, and a retry is first in it.
    pub blocked_until: Option<i64>,
    /// Too many of its keys wait for a retry.
    pub retry_capped: bool,
    /// Something of it is to be written.
    pub unwritten: bool,
    pub recovered: bool,
    /// It stops before a message that cannot be routed.
    pub blocked: bool,
    pub lagging: bool,
    pub idle_since: Option<u64>,
}

/// URLs in turn: the next one after the last that had its turn.
#[derive(Default)]
pub(super) struct Ring {
    urls: BTreeSet<i32>,
    next: i32,
}

impl Ring {
    fn set(&mut self, url_key: i32, is_in: bool) {
        if is_in {
            self.urls.insert(url_key);
        } else {
            self.urls.remove(&url_key);
        }
    }

    /// The URL whose turn it is.
    pub fn first(&self) -> Option<i32> {
        let from = self.urls.range(self.next..).next();
        from.or_else(|| self.urls.first()).copied()
    }

    /// It has had its turn.
    pub fn pass(&mut self, url_key: i32) {
        self.next = url_key.wrapping_add(1);
    }

    pub fn is_empty(&self) -> bool {
        self.urls.is_empty()
    }

    /// The next `count` of them.
    pub fn some(&self, count: usize) -> Vec<i32> {
        let (before, from) = (..self.next, self.next..);
        let in_turn = self.urls.range(from).chain(self.urls.range(before));
        in_turn.take(count).copied().collect()
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Agenda {
    pub ready: Ring,
    pub needs_page: Ring,
    asleep: BTreeSet<(u64, i32)>,
    retries: BTreeSet<(i64, i32)>,
    asks: BTreeSet<i32>,
    blocked_until: BTreeSet<(i64, i32)>,
    retry_capped: BTreeSet<i32>,
    unwritten: BTreeSet<i32>,
    recovered: BTreeSet<i32>,
    blocked: BTreeSet<i32>,
    lagging: BTreeSet<i32>,
    idle: BTreeSet<(u64, i32)>,
}

fn set(of: &mut BTreeSet<i32>, url_key: i32, is_in: bool) {
    if is_in {
        of.insert(url_key);
    } else {
        of.remove(&url_key);
    }
}

fn reset<T: Ord>(of: &mut BTreeSet<(T, i32)>, url_key: i32, before: Option<T>, now: Option<T>) {
    if let Some(before) = before {
        of.remove(&(before, url_key));
    }
    if let Some(now) = now {
        of.insert((now, url_key));
    }
}

fn due<T: Ord + Copy>(of: &BTreeSet<(T, i32)>, until: T, most: usize) -> Vec<i32> {
    let due = of.range(..=(until, i32::MAX)).take(most);
    due.map(|(_, url_key)| *url_key).collect()
}

impl Agenda {
    /// Something of the URL has changed.
    pub fn list(&mut self, url: &mut UrlState, now: u64) {
        let listing = url.list(now);
        self.replace(url.lane.url_key, url.listing, listing);
        url.listing = listing;
    }

    /// The URL is forgotten.
    pub fn remove(&mut self, url: &UrlState) {
        self.replace(url.lane.url_key, url.listing, Listing::default());
    }

    fn replace(&mut self, key: i32, before: Listing, now: Listing) {
        if before == now {
            return;
        }
        macro_rules! flags {
            ($($of:ident),*) => {
                $(if before.$of != now.$of {
                    set(&mut self.$of, key, now.$of);
                })*
            };
        }
        macro_rules! times {
            ($($of:ident: $at:ident),*) => {
                $(if before.$at != now.$at {
                    reset(&mut self.$of, key, before.$at, now.$at);
                })*
            };
        }
        flags!(asks, retry_capped, unwritten, recovered, blocked, lagging);
        times!(
            asleep: asleep_until,
            retries: retry_at,
            blocked_until: blocked_until,
            idle: idle_since
        );
        if before.ready != now.ready {
            self.ready.set(key, now.ready);
        }
        if before.needs_page != now.needs_page {
            self.needs_page.set(key, now.needs_page);
        }
    }

    /// It could start a call, but not now for reasons that are not its own. [`Agenda::list`]
    /// brings it back.
    pub fn defer(&mut self, url: &mut UrlState) {
        self.ready.set(url.lane.url_key, false);
        url.listing.ready = false;
    }

    /// URLs whose pause is over.
    pub fn awake(&self, now: u64) -> Vec<i32> {
        due(&self.asleep, now, usize::MAX)
    }

    pub fn next_awake_at(&self) -> Option<u64> {
        self.asleep.first().map(|(at, _)| *at)
    }

    /// URLs whose retries are due.
    pub fn retries_due(&self, now_pg: i64, most: usize) -> Vec<i32> {
        due(&self.retries, now_pg, most)
    }

    pub fn next_retry_at(&self) -> Option<i64> {
        self.retries.first().map(|(at, _)| *at)
    }

    /// URLs that keep the order and have to be told what waits, or whose first retry is due.
    pub fn asking(&self, now_pg: i64) -> BTreeSet<i32> {
        let due = due(&self.blocked_until, now_pg, usize::MAX);
        self.asks.iter().copied().chain(due).collect()
    }

    pub fn any_asking(&self, now_pg: i64) -> bool {
        let next = self.next_blocked_until();
        !self.asks.is_empty() || next.is_some_and(|at| at <= now_pg)
    }

    pub fn next_blocked_until(&self) -> Option<i64> {
        self.blocked_until.first().map(|(at, _)| *at)
    }

    pub fn retry_capped(&self) -> &BTreeSet<i32> {
        &self.retry_capped
    }

    pub fn unwritten(&self) -> Vec<i32> {
        self.unwritten.iter().copied().collect()
    }

    pub fn recovered(&self) -> &BTreeSet<i32> {
        &self.recovered
    }

    pub fn blocked(&self) -> &BTreeSet<i32> {
        &self.blocked
    }

    pub fn lagging(&self) -> &BTreeSet<i32> {
        &self.lagging
    }

    /// Those that are idle for longest and are too many to keep.
    pub fn idle_too_many(&self) -> Vec<i32> {
        let most = self.idle.len().saturating_sub(IDLE_AT_MOST);
        self.idle.iter().take(most).map(|(_, url)| *url).collect()
    }
}
