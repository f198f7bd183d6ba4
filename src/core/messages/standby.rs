//! Which messages standbys have: `webhook.synchronized_standby_slots`.
//!
//! A commit is on a standby once the standby has flushed the log up to a position that was
//! read after the commit became visible. So a snapshot is taken first, then the end of the
//! log; once every standby has that much, whatever the snapshot sees is safe. Pure: positions
//! and time are arguments.

use std::collections::VecDeque;

use crate::core::error::{Error, Result};

/// PostgreSQL's names have at most 63 bytes.
const LONGEST_NAME: usize = 63;

/// Snapshots that wait. When there are more, every second one is dropped: the longer a
/// standby lags, the coarser the steps in which messages are released.
const MOST_CANDIDATES: usize = 32;

/// Reads `webhook.synchronized_standby_slots`: names of slots, separated by commas.
///
/// # Errors
/// A name that no replication slot can have.
pub fn parse_slot_names(text: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    if text.trim().is_empty() {
        return Ok(names);
    }
    for name in text.split(',').map(str::trim) {
        check_slot_name(name)?;
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

fn check_slot_name(name: &str) -> Result<()> {
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if !name.is_empty() && name.len() <= LONGEST_NAME && name.chars().all(is_allowed) {
        return Ok(());
    }
    let shown: String = name.chars().take(LONGEST_NAME + 1).collect();
    Err(Error::invalid(format!(
        "webhook.synchronized_standby_slots: \"{shown}\" cannot be the name of a replication slot"
    ))
    .with_hint(
        "list names of physical replication slots, separated by commas; a name has 1 to 63 lower-case letters, digits and underscores",
    ))
}

/// Snapshots whose transactions standbys may not have yet, oldest first.
#[derive(Debug)]
pub struct Candidates<S> {
    waiting: VecDeque<Candidate<S>>,
}

#[derive(Debug)]
struct Candidate<S> {
    snapshot: S,
    /// The end of the log, read after the snapshot was taken.
    position: u64,
    /// When it was taken, in nanoseconds.
    since: u64,
}

impl<S> Default for Candidates<S> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
        }
    }
}

impl<S> Candidates<S> {
    /// A snapshot that is later than all others.
    pub fn push(&mut self, snapshot: S, position: u64, now: u64) {
        if self.waiting.len() >= MOST_CANDIDATES {
            // The oldest one stays: it tells since when standbys lag.
            let mut place = 0;
            self.waiting.retain(|_| {
                place += 1;
                place % 2 == 1
            });
        }
        self.waiting.push_back(Candidate {
            snapshot,
            position,
            since: now,
        });
    }

    /// The newest snapshot.
    pub fn last(&self) -> Option<&S> {
        self.waiting.back().map(|candidate| &candidate.snapshot)
    }

    /// Takes out the newest snapshot that is safe with standbys that have the log up to
    /// `confirmed`, and those before it.
    pub fn take_confirmed(&mut self, confirmed: u64) -> Option<S> {
        let mut newest = None;
        while self.has_confirmed(confirmed) {
            newest = self.waiting.pop_front().map(|first| first.snapshot);
        }
        newest
    }

    /// Whether any is safe.
    pub fn has_confirmed(&self, confirmed: u64) -> bool {
        let first = self.waiting.front();
        first.is_some_and(|first| first.position <= confirmed)
    }

    /// The position that standbys must reach for all to be safe.
    pub fn wanted(&self) -> Option<u64> {
        self.waiting.back().map(|candidate| candidate.position)
    }

    /// Since when the oldest waits.
    pub fn since(&self) -> Option<u64> {
        self.waiting.front().map(|candidate| candidate.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_names_are_those_that_postgresql_allows() {
        assert_eq!(parse_slot_names(" ").unwrap(), [""; 0]);
        assert_eq!(parse_slot_names("a_1, b,a_1").unwrap(), ["a_1", "b"]);
        let longest = "x".repeat(63);
        assert_eq!(parse_slot_names(&longest).unwrap(), [longest.as_str()]);
        for bad in ["A", "a b", "a,", ",", "a-b", "é", &"x".repeat(64)] {
            let error = parse_slot_names(bad).unwrap_err();
            assert!(error.hint.is_some(), "{bad}: {error}");
        }
    }

    #[test]
    fn the_newest_snapshot_that_standbys_have_ends_the_window() {
        let mut candidates = Candidates::default();
        for (snapshot, position) in [("a", 10), ("b", 20), ("c", 20), ("d", 30)] {
            candidates.push(snapshot, position, position);
        }
        assert_eq!(candidates.take_confirmed(9), None);
        assert_eq!(candidates.since(), Some(10));
        assert_eq!(candidates.take_confirmed(20), Some("c"));
        assert!(!candidates.has_confirmed(29));
        assert_eq!(candidates.since(), Some(30));
        assert_eq!(candidates.wanted(), Some(30));
        assert_eq!(candidates.take_confirmed(31), Some("d"));
        assert_eq!(candidates.last(), None);
    }

    #[test]
    fn few_snapshots_wait_however_long_standbys_lag() {
        let mut candidates = Candidates::default();
        for n in 1..=10_000 {
            candidates.push(n, n, n);
            assert!(candidates.waiting.len() <= MOST_CANDIDATES);
            assert_eq!(candidates.since(), Some(1));
            assert_eq!(candidates.last(), Some(&n));
        }
        let mut released = Vec::new();
        for confirmed in 1..=10_000 {
            released.extend(candidates.take_confirmed(confirmed));
        }
        assert!(released.is_sorted());
        assert_eq!(released.last(), Some(&10_000));
        // Halves at every turn, so that there is something to release all along.
        assert!(released.len() > 8, "{released:?}");
    }
}
