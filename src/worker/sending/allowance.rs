//! What delivery threads ask before each call: does the main thread know all that was committed?
//!
//! A session that cancels, pauses or edits notes it beside the worker's latch before its client
//! hears of COMMIT ([`Notes`]). The main thread takes the allowance away before it takes the
//! note, and gives it back once it has read what changed, under another number if that was
//! anything: runs of before end then. So whatever is slow, a call starts only if nothing was
//! committed that the main thread did not know when it chose the message.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use crate::delivery::pool::Permission;
use crate::pg::wake::Notes;

/// The main thread has not caught up.
const NONE: u64 = 0;

/// See the module.
pub struct Allowance {
    notes: Notes,
    /// What the main thread knows, by number; [`NONE`] while it reads.
    current: AtomicU64,
    /// The last number.
    last: AtomicU64,
}

impl Allowance {
    /// Of a worker that has read nothing yet.
    pub fn new(notes: Notes) -> Self {
        Self {
            notes,
            current: AtomicU64::new(NONE),
            last: AtomicU64::new(NONE),
        }
    }

    /// Whether the main thread may choose what is sent.
    pub fn is_given(&self) -> bool {
        self.current.load(SeqCst) != NONE
    }

    /// Something may have changed that is not read yet.
    pub fn withdraw(&self) {
        self.current.store(NONE, SeqCst);
    }

    /// Nothing has changed since it was given last.
    pub fn give_again(&self) {
        self.current.store(self.last.load(SeqCst), SeqCst);
    }

    /// What has changed is read.
    pub fn give(&self) {
        let next = self.last.load(SeqCst) + 1;
        self.last.store(next, SeqCst);
        self.current.store(next, SeqCst);
    }
}

impl Permission for Allowance {
    fn stamp(&self) -> u64 {
        self.current.load(SeqCst)
    }

    /// The note first: who does not find it because it was taken finds no allowance, or a
    /// newer one.
    fn holds(&self, stamp: u64) -> bool {
        !self.notes.has_forbids() && stamp != NONE && self.current.load(SeqCst) == stamp
    }
}
