//! Executes one job in a delivery thread: render, sign, post, classify the answer.
//!
//! Any failure, including a panic, becomes the job's outcome.

use std::any::Any;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::core::policy::retry;
use crate::core::policy::signing;

use super::answer;
use super::call::{CallStamp, Job, Outcome, Target, Verdict};
use super::client::{Answer, Client, Request, Rules};
use super::failure_class::{self, FailureClass};

/// A larger body buffer is freed after the call.
const KEPT_BODY_BYTES: usize = 64 * 1024;

/// Unused capacity that a body buffer may keep while the body is sent.
const SLACK_BODY_BYTES: usize = 1024 * 1024;

/// The client and the body buffer of one thread.
pub struct CallExecutor {
    rules: Arc<Rules>,
    client: Arc<dyn Client>,
    body: Vec<u8>,
}

impl CallExecutor {
    pub fn new(rules: Arc<Rules>, client: Arc<dyn Client>) -> Self {
        Self {
            rules,
            client,
            body: Vec::new(),
        }
    }

    /// Makes the call. Returns no executor after a panic, because its state is unknown then.
    pub fn deliver(mut self, job: &Job) -> (Option<Self>, Outcome) {
        let stamp = CallStamp {
            message_id: job.message_id,
            call_id: job.call_id,
            attempt: job.attempt,
            called_at: SystemTime::now(),
        };
        let started = Instant::now();
        let tried = panic::catch_unwind(AssertUnwindSafe(|| {
            let outcome = self.call(job, &stamp);
            (self, outcome)
        }));
        let (executor, mut outcome) = match tried {
            Ok((executor, outcome)) => (Some(executor), outcome),
            Err(panic) => (None, after_panic(job, &stamp, panic.as_ref())),
        };
        outcome.duration = started.elapsed();
        (executor, outcome)
    }

    fn call(&mut self, job: &Job, stamp: &CallStamp) -> Outcome {
        fault_point(&job.target);
        if let Some(oversize) = job.payload.oversize() {
            let size = usize::try_from(oversize.at_least_bytes).unwrap_or(usize::MAX);
            let mut outcome = blank(job, stamp, size);
            outcome.verdict = Verdict::TooLarge;
            outcome.detail = Some(oversize.detail());
            return outcome;
        }
        self.body.clear();
        let limit_bytes = self.rules.config.max_message_size;
        let rendered = job.payload.render(stamp, limit_bytes, &mut self.body);
        let message_size = *rendered.as_ref().unwrap_or(&self.body.len());
        let mut outcome = blank(job, stamp, message_size);
        match rendered {
            Err(why) => {
                outcome.verdict = Verdict::Unrenderable;
                outcome.detail = Some(why);
            }
            Ok(_) if message_size > limit_bytes => {
                outcome.verdict = Verdict::TooLarge;
                outcome.detail = Some(format!(
                    "the message has {message_size} bytes, webhook.max_message_size allows {limit_bytes}"
                ));
            }
            Ok(_) => {
                self.trim(SLACK_BODY_BYTES);
                let answer =
                    missing_descriptor(&job.target).unwrap_or_else(|| self.post(job, stamp));
                let most_bytes = self.rules.config.max_response_size;
                let was_cut = answer.was_cut || answer.body.len() >= most_bytes;
                settle(&mut outcome, answer, most_bytes);
                let confidential = &job.target.confidential;
                confidential.mask(&mut outcome.response, was_cut);
                if let Some(detail) = &mut outcome.detail {
                    confidential.mask(detail, false);
                }
            }
        }
        if self.body.capacity() > KEPT_BODY_BYTES {
            self.body = Vec::new();
        }
        outcome
    }

    fn trim(&mut self, slack_bytes: usize) {
        if self.body.capacity() - self.body.len() > slack_bytes {
            self.body.shrink_to_fit();
        }
    }

    fn post(&self, job: &Job, stamp: &CallStamp) -> Answer {
        let target = &job.target;
        // Under a clock before 1970 the timestamp is 0, which receivers refuse.
        let since_epoch = stamp.called_at.duration_since(UNIX_EPOCH);
        let timestamp_s = since_epoch.map_or(0, |time| time.as_secs());
        let valid = target.signers.iter().filter(|(_, expires_at)| {
            expires_at.is_none_or(|expires_at| expires_at > stamp.called_at)
        });
        let mut id = [0; uuid::fmt::Hyphenated::LENGTH];
        let signature = signing::signature_header(
            valid.map(|(signer, _)| signer),
            stamp.message_id.hyphenated().encode_lower(&mut id),
            timestamp_s,
            &self.body,
        );
        self.client.post(&Request {
            url: &target.url,
            timeout: target.timeout,
            message_id: stamp.message_id,
            call_id: stamp.call_id,
            attempt: stamp.attempt,
            timestamp_s,
            signature: &signature,
            headers: &target.headers,
            body: &self.body,
            sent: job.sent.clone(),
        })
    }
}

fn blank(job: &Job, stamp: &CallStamp, message_size: usize) -> Outcome {
    Outcome {
        token: job.token,
        call_id: stamp.call_id,
        called_at: stamp.called_at,
        duration: Duration::ZERO,
        message_size,
        http_code: None,
        response: String::new(),
        detail: None,
        retry_after: None,
        verdict: Verdict::Failed,
        failure_class: Some(FailureClass::Other),
        ends_run: true,
    }
}

/// The outcome of a job whose call was not made.
pub fn recalled(job: &Job) -> Outcome {
    let stamp = CallStamp {
        message_id: job.message_id,
        call_id: job.call_id,
        attempt: job.attempt,
        called_at: SystemTime::now(),
    };
    Outcome {
        verdict: Verdict::NotAttempted,
        failure_class: None,
        ..blank(job, &stamp, 0)
    }
}

fn settle(outcome: &mut Outcome, answer: Answer, max_response_size: usize) {
    outcome.http_code = answer.http_code;
    let fault_class = answer.fault.is_some().then_some(answer.fault_class);
    outcome.response = answer::readable(&answer.body, answer.was_cut, max_response_size);
    (outcome.verdict, outcome.detail) = match (answer.fault, answer.http_code) {
        (Some(fault), _) if answer.is_local => (Verdict::Local, Some(fault)),
        (Some(_), _) if answer.is_stale => (Verdict::NotAttempted, None),
        (Some(fault), _) => (Verdict::Failed, Some(fault)),
        (None, Some(code)) => answer::judge_status(code),
        (None, None) => (Verdict::Failed, Some("no answer".to_owned())),
    };
    outcome.failure_class =
        failure_class::of_outcome(outcome.verdict, outcome.http_code, fault_class);
    if outcome.http_code.is_some_and(answer::may_ask_to_wait) {
        outcome.retry_after = answer
            .retry_after
            .and_then(|value| retry::parse_retry_after(&value, SystemTime::now()));
    }
}

fn after_panic(job: &Job, stamp: &CallStamp, panic: &(dyn Any + Send)) -> Outcome {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    Outcome {
        detail: Some(format!("internal error in the delivery thread: {text}")),
        ..blank(job, stamp, 0)
    }
}

/// Panics where the fault tests ask for it.
fn fault_point(target: &Target) {
    if cfg!(feature = "fault_injection") && target.url.as_str().contains("webhook-fault-panic") {
        panic!("a fault test asked for it");
    }
}

/// Fails the first calls for lack of a descriptor where the fault tests ask for it.
fn missing_descriptor(target: &Target) -> Option<Answer> {
    const CALLS: usize = 30;
    static CALLS_SO_FAR: AtomicUsize = AtomicUsize::new(0);
    let is_asked = cfg!(feature = "fault_injection")
        && target.url.as_str().contains("webhook-fault-descriptor")
        && CALLS_SO_FAR.fetch_add(1, SeqCst) < CALLS;
    is_asked.then(|| Answer {
        fault: Some("Too many open files (os error 24)".to_owned()),
        is_local: true,
        ..Answer::default()
    })
}
