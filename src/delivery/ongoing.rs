//! The state of the call in progress, shared by a client, its resolver and its sockets.
//!
//! ureq's own deadline needs a new configuration per request, and it restarts a socket's timeout
//! at each partial write. Here the deadline is one value that every wait of the call reads. A
//! client belongs to one thread: the atomics serve `Sync`, except the end, which another thread
//! may set.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::call::SentAt;

/// State of one client's current call.
#[derive(Debug)]
pub struct Ongoing {
    epoch: Instant,
    deadline_ns: AtomicU64,
    received_bytes: AtomicU64,
    most_bytes: u64,
    dialled: AtomicBool,
    is_dialling: AtomicBool,
    fresh_only: AtomicBool,
    is_ended: AtomicBool,
    /// Records when the request was written, if the job asks for it.
    sent: Mutex<Option<SentAt>>,
}

impl Ongoing {
    /// `most_bytes`: how much may be received in one call, heads and TLS
    /// records included.
    pub fn new(most_bytes: u64) -> Self {
        Self {
            epoch: Instant::now(),
            deadline_ns: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
            most_bytes,
            dialled: AtomicBool::new(false),
            is_dialling: AtomicBool::new(false),
            fresh_only: AtomicBool::new(false),
            is_ended: AtomicBool::new(false),
            sent: Mutex::default(),
        }
    }

    /// Starts a call, or its second try: `fresh_only` keeps it off connections
    /// that were used before.
    pub fn begin(&self, deadline: Instant, fresh_only: bool) {
        let after = deadline.saturating_duration_since(self.epoch);
        let after_ns = u64::try_from(after.as_nanos()).unwrap_or(u64::MAX);
        self.deadline_ns.store(after_ns, Relaxed);
        self.received_bytes.store(0, Relaxed);
        self.dialled.store(false, Relaxed);
        self.is_dialling.store(false, Relaxed);
        self.fresh_only.store(fresh_only, Relaxed);
    }

    /// The note of the call that begins.
    pub fn record_sending_in(&self, note: Option<SentAt>) {
        *self.sent.lock().unwrap_or_else(PoisonError::into_inner) = note;
    }

    /// The pending output was written.
    pub fn note_sent(&self) {
        if self.is_dialling.load(Relaxed) {
            return;
        }
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(note) = &*sent {
            note.set();
        }
    }

    /// Ends this call and all later ones; called from another thread.
    pub fn end(&self) {
        self.is_ended.store(true, SeqCst);
    }

    /// `None` once the deadline has passed.
    pub fn remaining(&self) -> Option<Duration> {
        let deadline = Duration::from_nanos(self.deadline_ns.load(Relaxed));
        let left = deadline.saturating_sub(self.epoch.elapsed());
        (!left.is_zero() && !self.is_ended.load(SeqCst)).then_some(left)
    }

    /// A connection is being established: what is written now is not the request.
    pub fn note_dialled(&self) {
        self.dialled.store(true, Relaxed);
        self.is_dialling.store(true, Relaxed);
    }

    pub fn note_connected(&self) {
        self.is_dialling.store(false, Relaxed);
    }

    /// Counts received bytes; `false` above the limit of one call.
    pub fn note_received(&self, bytes: usize) -> bool {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let total = self.received_bytes.load(Relaxed).saturating_add(bytes);
        self.received_bytes.store(total, Relaxed);
        total <= self.most_bytes
    }

    pub fn fresh_only(&self) -> bool {
        self.fresh_only.load(Relaxed)
    }

    /// Whether the call used a kept connection and received nothing: most likely the receiver
    /// had closed it.
    pub fn met_silence_on_kept_connection(&self) -> bool {
        !self.dialled.load(Relaxed) && self.received_bytes.load(Relaxed) == 0
    }
}
