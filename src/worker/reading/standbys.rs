//! New messages wait for standbys: `webhook.synchronized_standby_slots`.
//!
//! The tail reads up to a snapshot only when all standbys have what the snapshot sees, and
//! everything else reads what the tail has passed. So neither a lane's backlog nor a retry
//! needs a look at a standby. What was read before the setting was known (by an earlier worker,
//! or before a reload) waits once, at a barrier. Without the setting nothing here is asked.

use std::sync::Arc;
use std::time::Duration;

use crate::core::messages::snapshot::Snapshot;
use crate::core::messages::standby::Candidates;
use crate::pg::standby_slots::{self, SlotState};
use crate::pg::{snapshot, wal};

/// Slots are looked at, and snapshots taken, this often at most …
const SOONEST_NANOS: u64 = 1_000_000;
/// … and this often at least, when standbys have lagged for long.
const LATEST_NANOS: u64 = 50_000_000;
/// The pause between looks, as a part of the time that standbys have lagged.
const PAUSE_PART: u64 = 8;
/// A lag is worth a word after this, and the word is renewed this often.
const NOTICE_NANOS: u64 = 1_000_000_000;
const WARNING_NANOS: u64 = 60_000_000_000;

/// Whether standbys have what lanes and tail had read before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Barrier {
    Open,
    /// Where the log ends is still to be read.
    Wanted,
    At {
        position: u64,
        since: u64,
    },
}

/// See the module.
pub struct Standbys {
    slots: Vec<String>,
    barrier: Barrier,
    candidates: Candidates<Arc<Snapshot>>,
    /// The position that all standbys have.
    confirmed: u64,
    /// Something may have been committed since the last candidate.
    has_news: bool,
    next_look: u64,
    next_candidate: u64,
    next_notice: u64,
    next_warning: u64,
}

impl Standbys {
    pub fn new(slots: &[String]) -> Self {
        Self {
            slots: slots.to_vec(),
            barrier: if slots.is_empty() {
                Barrier::Open
            } else {
                Barrier::Wanted
            },
            candidates: Candidates::default(),
            confirmed: 0,
            has_news: false,
            next_look: 0,
            next_candidate: 0,
            next_notice: 0,
            next_warning: 0,
        }
    }

    /// The slots that are waited for.
    pub fn slots(&self) -> &[String] {
        &self.slots
    }

    /// Whether messages wait for standbys at all.
    pub fn is_on(&self) -> bool {
        !self.slots.is_empty()
    }

    /// Whether what the tail has passed may be sent.
    pub fn has_passed_barrier(&self) -> bool {
        self.barrier == Barrier::Open
    }

    /// Whether the tail may go on without news.
    pub fn wants_tail(&self, now: u64) -> bool {
        match self.barrier {
            Barrier::Wanted => true,
            Barrier::At { .. } => false,
            Barrier::Open => {
                (self.has_news && now >= self.next_candidate)
                    || self.candidates.has_confirmed(self.confirmed)
            }
        }
    }

    /// How long nothing is to be done here.
    pub fn due_in(&self, now: u64) -> Option<Duration> {
        let look = self.since().map(|_| self.next_look);
        // One that is due is a matter of the tail, which may have to wait for a lock.
        let is_later = self.has_news && self.has_passed_barrier() && self.next_candidate > now;
        let candidate = is_later.then_some(self.next_candidate);
        let next = look.into_iter().chain(candidate).min()?;
        Some(Duration::from_nanos(next.saturating_sub(now)))
    }

    /// Since when something waits.
    fn since(&self) -> Option<u64> {
        match self.barrier {
            Barrier::At { since, .. } => Some(since),
            _ => self.candidates.since(),
        }
    }

    /// The position that ends the waiting.
    fn wanted(&self) -> u64 {
        let barrier = match self.barrier {
            Barrier::At { position, .. } => position,
            _ => 0,
        };
        barrier.max(self.candidates.wanted().unwrap_or(0))
    }

    fn pause(&self, now: u64) -> u64 {
        let lag = now.saturating_sub(self.since().unwrap_or(now));
        (lag / PAUSE_PART).clamp(SOONEST_NANOS, LATEST_NANOS)
    }

    /// Reads the slots; what they show decides until the next look.
    fn look(&mut self, now: u64) -> Vec<(String, SlotState)> {
        let seen: Vec<(String, SlotState)> = self
            .slots
            .iter()
            .map(|name| (name.clone(), standby_slots::look(name)))
            .collect();
        let all = seen.iter().map(|(_, state)| match state {
            SlotState::Physical { position, .. } => *position,
            _ => 0,
        });
        self.confirmed = all.min().unwrap_or(0);
        if let Barrier::At { position, .. } = self.barrier {
            if position <= self.confirmed {
                self.barrier = Barrier::Open;
            }
        }
        self.next_look = now + self.pause(now);
        seen
    }

    /// What the tail may read up to. In a transaction with a snapshot.
    pub(super) fn confirmed_end(&mut self, now: u64) -> Option<Arc<Snapshot>> {
        if self.has_news && now >= self.next_candidate {
            self.has_news = false;
            let current = snapshot::current();
            if self.candidates.last().is_none_or(|last| **last != current) {
                // The snapshot first: all that it sees lies before the end of the log.
                let position = wal::make_everything_durable();
                self.candidates.push(Arc::new(current), position, now);
            }
            self.look(now);
            self.next_candidate = now + self.pause(now);
        }
        self.candidates.take_confirmed(self.confirmed)
    }

    fn set_barrier(&mut self, now: u64) {
        let position = wal::make_everything_durable();
        self.barrier = Barrier::At {
            position,
            since: now,
        };
        self.look(now);
    }
}

impl Standbys {
    /// What the tail may read up to, as far as standbys have it. `is_due`: something may have
    /// been committed. In a transaction with a snapshot.
    pub(super) fn tail_end(&mut self, is_due: bool, now: u64) -> TailEnd {
        if self.slots.is_empty() {
            return TailEnd::Any;
        }
        self.has_news |= is_due;
        if self.barrier == Barrier::Wanted {
            // Even if standbys have it already: what was recovered goes first.
            self.set_barrier(now);
            return TailEnd::Nothing;
        }
        if !self.has_passed_barrier() {
            return TailEnd::Nothing;
        }
        TailEnd::Confirmed
    }

    /// Looks at the slots while something waits for them. Gives what they lack, in words, if that
    /// is worth a word; `Some(None)` if nothing waits.
    pub fn look_if_due(&mut self, now: u64) -> Option<Option<String>> {
        let Some(since) = self.since() else {
            self.next_notice = 0;
            return Some(None);
        };
        if now < self.next_look {
            return None;
        }
        let seen = self.look(now);
        let lasts = now.saturating_sub(since) >= NOTICE_NANOS;
        if !lasts || now < self.next_notice {
            return None;
        }
        self.next_notice = now + NOTICE_NANOS;
        let text = self.what_lacks(&seen)?;
        if now >= self.next_warning {
            self.next_warning = now + WARNING_NANOS;
            pgrx::warning!("{text}");
        }
        Some(Some(text))
    }

    fn what_lacks(&self, seen: &[(String, SlotState)]) -> Option<String> {
        let wanted = self.wanted();
        let lacks: Vec<String> = seen
            .iter()
            .filter_map(|(name, state)| lack(name, *state, wanted))
            .collect();
        (!lacks.is_empty()).then(|| {
            format!(
                "new messages wait for webhook.synchronized_standby_slots: {}",
                lacks.join(", ")
            )
        })
    }
}

/// How far the tail may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TailEnd {
    /// Nothing waits for standbys.
    Any,
    Nothing,
    /// See [`Standbys::confirmed_end`].
    Confirmed,
}

/// What a slot lacks, in words; `None` if nothing.
fn lack(name: &str, state: SlotState, wanted: u64) -> Option<String> {
    let reason = match state {
        SlotState::Missing => "does not exist".to_owned(),
        SlotState::Logical => "is not a physical slot".to_owned(),
        SlotState::Invalidated => "has been invalidated".to_owned(),
        SlotState::Physical { position, .. } if position >= wanted => return None,
        SlotState::Physical {
            position,
            is_active,
        } => {
            let lack = match position {
                0 => "has confirmed nothing".to_owned(),
                _ => format!("is {} bytes behind", wanted - position),
            };
            if is_active {
                lack
            } else {
                format!("is inactive and {lack}")
            }
        }
    };
    Some(format!("slot \"{name}\" {reason}"))
}
