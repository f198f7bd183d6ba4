//! What goes into a delivery thread and what comes out.
//!
//! Owned values only: a job never borrows from the worker, an outcome never
//! from the call.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use uuid::Uuid;

use crate::core::endpoint::Endpoint;
use crate::core::oversize::Oversize;
use crate::core::redaction::Redactions;
use crate::core::signing::Signer;

/// The identity of one call; part of its headers and perhaps of its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallStamp {
    pub message_id: Uuid,
    pub call_id: Uuid,
    /// 1 for the first call of a message to a URL.
    pub attempt: u32,
    pub called_at: SystemTime,
}

/// A message that can write its body. Runs in a delivery thread, so it must
/// touch neither PostgreSQL nor anything that blocks.
pub trait Payload: Send + Sync {
    /// Whether it is known to be too large without being written.
    fn oversize(&self) -> Option<Oversize> {
        None
    }

    /// Appends the body to `out`, which is empty, and returns its size. Of a body over
    /// `limit_bytes` only the size counts: it is not sent, so it need not be written.
    /// A large body should reserve its size first: growing step by step takes up to
    /// twice the memory.
    ///
    /// # Errors
    /// Why this message has no body; becomes the call's detail. It fails for
    /// good: [`Verdict::Unrenderable`].
    fn render(
        &self,
        stamp: &CallStamp,
        limit_bytes: usize,
        out: &mut Vec<u8>,
    ) -> Result<usize, String>;
}

/// Where and how one URL of a webhook is called. Shared by its jobs.
#[derive(Clone, Debug)]
pub struct Target {
    pub url: Endpoint,
    /// Total, from the look-up of the name to the last byte read.
    pub timeout: Duration,
    /// The webhook's own, already checked by [`crate::core::headers`].
    pub headers: Vec<(String, String)>,
    /// Newest first; one without an end is the current one.
    pub signers: Vec<(Signer, Option<SystemTime>)>,
    /// What an answer must not bring into the log.
    pub confidential: Arc<Redactions>,
}

/// When a request was written, for an owner who cannot wait for the answer to know it.
#[derive(Clone, Debug, Default)]
pub struct SentNote(Arc<Mutex<Option<Instant>>>);

impl SentNote {
    /// Written just now, or another part of it.
    pub fn set(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// `None` while nothing went out.
    pub fn at(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One call to make.
pub struct Job {
    /// The submitter's own number for it, returned with the outcome.
    pub token: u64,
    pub target: Arc<Target>,
    pub payload: Arc<dyn Payload>,
    pub message_id: Uuid,
    pub call_id: Uuid,
    pub attempt: u32,
    /// Set while the request is written.
    pub sent: Option<SentNote>,
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("token", &self.token)
            .field("message_id", &self.message_id)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// 2xx, the answer read to its end or to the size that is kept.
    Delivered,
    /// Anything that another attempt may mend.
    Failed,
    /// 410: the receiver wants no more calls to this URL.
    Gone,
    /// The body is over `max_message_size`; nothing was sent.
    TooLarge,
    /// The payload could not be written; nothing was sent.
    Unrenderable,
    /// An earlier job of its run was not delivered, or the run may not go on: no call was
    /// made, the job is given back.
    Recalled,
    /// This machine lacked a descriptor, a port or memory: no call was made, the job is
    /// given back.
    Local,
}

/// A call that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub token: u64,
    pub call_id: Uuid,
    pub called_at: SystemTime,
    pub duration: Duration,
    /// Bytes of the body.
    pub message_size: usize,
    /// As soon as a status line came, also if the call failed after it.
    pub http_code: Option<u16>,
    /// Start of the answer: valid UTF-8 without NUL, at most
    /// `max_response_size` bytes.
    pub response: String,
    /// Why it was not delivered.
    pub detail: Option<String>,
    /// With 429 and 503 only, at most an hour.
    pub retry_after: Option<Duration>,
    pub verdict: Verdict,
    /// The last one of its run: the thread is free again.
    pub ends_run: bool,
}
