//! Jobs, which go into a delivery thread, and outcomes, which come out.
//!
//! Both own their data: a job borrows nothing from the worker, an outcome nothing from the call.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use uuid::Uuid;

use super::failure_class::FailureClass;
use crate::core::messages::oversize::Oversize;
use crate::core::policy::endpoint::Endpoint;
use crate::core::policy::redaction::Redactions;
use crate::core::policy::signing::Signer;

/// The identity of one call: part of its headers, and of its payload if that asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallStamp {
    pub message_id: Uuid,
    pub call_id: Uuid,
    /// 1 for the first call of a message to a URL.
    pub attempt: u32,
    pub called_at: SystemTime,
}

/// A message that writes its body. Runs in a delivery thread, so it must neither call PostgreSQL
/// nor block.
pub trait Payload: Send + Sync {
    /// Whether the body is known to be too large without rendering it.
    fn oversize(&self) -> Option<Oversize> {
        None
    }

    /// Appends the body to `out`, which is empty, and returns its size. A body over
    /// `limit_bytes` is not sent, so it need not be written; only its size is used. A large
    /// body should reserve its size first: growing step by step takes up to twice the memory.
    ///
    /// # Errors
    /// Why the message has no body; the text becomes the call's detail, and the message fails
    /// permanently as [`Verdict::Unrenderable`].
    fn render(
        &self,
        stamp: &CallStamp,
        limit_bytes: usize,
        out: &mut Vec<u8>,
    ) -> Result<usize, String>;
}

/// One URL of a webhook and how it is called. Shared by its jobs.
#[derive(Clone, Debug)]
pub struct Target {
    pub url: Endpoint,
    /// From the name look-up to the last byte read.
    pub timeout: Duration,
    /// The webhook's own headers, checked by [`crate::core::policy::headers`].
    pub headers: Vec<(String, String)>,
    /// Newest first, each with its expiry; the current one has none.
    pub signers: Vec<(Signer, Option<SystemTime>)>,
    /// Credentials that are masked in logged answers.
    pub confidential: Arc<Redactions>,
}

/// When a request was written, for an owner who cannot wait for the answer to know it.
#[derive(Clone, Debug, Default)]
pub struct SentAt(Arc<Mutex<Option<Instant>>>);

impl SentAt {
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
    /// Chosen by the submitter and returned with the outcome.
    pub token: u64,
    pub target: Arc<Target>,
    pub payload: Arc<dyn Payload>,
    pub message_id: Uuid,
    pub call_id: Uuid,
    pub attempt: u32,
    /// Set while the request is written.
    pub sent: Option<SentAt>,
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
    /// A failure that another attempt may resolve.
    Failed,
    /// 410 Gone: the receiver wants no more calls to this URL.
    Gone,
    /// The body is over `max_message_size`; nothing was sent.
    TooLarge,
    /// The payload could not be written; nothing was sent.
    Unrenderable,
    /// No call was made: an earlier job of the run failed, or the run was stopped. Or its kept connection was
    /// closed, and a throttle has to admit it again.
    NotAttempted,
    /// No call was made: this machine lacked a descriptor, a port or memory.
    Local,
}

/// The result of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub token: u64,
    pub call_id: Uuid,
    pub called_at: SystemTime,
    pub duration: Duration,
    /// Bytes of the body.
    pub message_size: usize,
    /// The status code, also if the call failed after the status line.
    pub http_code: Option<u16>,
    /// The start of the answer: valid UTF-8 without NUL, at most `max_response_size` bytes.
    pub response: String,
    /// Why the message was not delivered.
    pub detail: Option<String>,
    /// From status 429 and 503 only; at most one hour.
    pub retry_after: Option<Duration>,
    pub verdict: Verdict,
    /// `None`: it was delivered, or not made.
    pub failure_class: Option<FailureClass>,
    /// The last job of its run: the thread is free again.
    pub ends_run: bool,
}
