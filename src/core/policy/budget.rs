//! A bound on the memory of large bodies, all URLs together.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;

/// How many bytes are held at a time.
#[derive(Debug, Default)]
pub struct Budget {
    used: Arc<AtomicUsize>,
}

/// Part of a [`Budget`], given back when dropped, in whatever thread.
#[derive(Debug)]
pub struct Share {
    bytes: usize,
    used: Arc<AtomicUsize>,
}

impl Budget {
    /// A share, if all together stay within `limit`. What exceeds that by itself gets one
    /// while nothing else has.
    pub fn reserve(&self, bytes: usize, limit: usize) -> Option<Share> {
        let used = self.used.load(SeqCst);
        if used > 0 && used.saturating_add(bytes) > limit {
            return None;
        }
        // Only one thread reserves; the others give back.
        self.used.fetch_add(bytes, SeqCst);
        Some(Share {
            bytes,
            used: Arc::clone(&self.used),
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_stay_within_the_limit_and_come_back() {
        let budget = Budget::default();
        let first = budget.reserve(60, 100).expect("it is empty");
        assert!(budget.reserve(41, 100).is_none());
        assert!(budget.reserve(1, 50).is_none());
        let second = budget.reserve(40, 100).expect("it fits exactly");
        drop(first);
        assert!(budget.reserve(61, 100).is_none());
        drop(second);
        assert!(budget.reserve(100, 100).is_some());
    }

    #[test]
    fn what_exceeds_the_limit_goes_alone() {
        let budget = Budget::default();
        let small = budget.reserve(1, 100).expect("it is empty");
        assert!(budget.reserve(usize::MAX, 100).is_none());
        drop(small);
        let large = budget.reserve(1000, 100).expect("nothing else is held");
        assert!(budget.reserve(0, 100).is_none());
        drop(large);
        assert!(budget.reserve(1, 100).is_some());
    }
}
