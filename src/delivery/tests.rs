//! The pool and its client against receivers that behave, misbehave and hang.

mod faults;
mod pool;
mod posts;
mod runs;
mod scripted;
mod secure;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver as WakeUps};
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::core::policy::address::AddressPolicy;
use crate::core::policy::endpoint::Endpoint;
use crate::core::policy::secret::Secret;
use crate::core::policy::signing::Signer;

use super::call::{CallStamp, Job, Outcome, Payload, SentAt, Target};
use super::client::ClientConfig;
use super::pool::{Pace, Pool, Wake};

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(20);

struct Text(Vec<u8>);

impl Payload for Text {
    fn render(&self, _: &CallStamp, _: usize, out: &mut Vec<u8>) -> Result<usize, String> {
        out.extend_from_slice(&self.0);
        Ok(self.0.len())
    }
}

/// Nothing happens because a machine is slow.
const PATIENT: Pace = Pace {
    end_after_idle: Duration::from_secs(3600),
    run_at_most: Duration::from_secs(3600),
};

/// A pool with the wake-ups it sends.
struct PoolUser {
    pool: Pool,
    wake_ups: WakeUps<()>,
    next_token: AtomicU64,
}

impl PoolUser {
    fn new(config: ClientConfig) -> Self {
        Self::with_pace(config, PATIENT)
    }

    fn with_pace(config: ClientConfig, pace: Pace) -> Self {
        Self::with_pool(|wake| Pool::with_pace(config, wake, pace))
    }

    fn with_pool(make: impl FnOnce(Wake) -> Pool) -> Self {
        let (wake_up, wake_ups) = mpsc::channel();
        let wake_up = std::sync::Mutex::new(wake_up);
        let wake = Arc::new(move || {
            let _ = wake_up.lock().unwrap().send(());
        });
        Self {
            pool: make(wake),
            wake_ups,
            next_token: AtomicU64::new(1),
        }
    }

    fn local() -> Self {
        Self::new(local_config())
    }

    /// A job of a webhook with a throttle, which has to know when requests are written.
    fn submit(&self, target: &Arc<Target>, payload: Arc<dyn Payload>) -> Job {
        self.submit_job(target, payload, Some(SentAt::default()))
    }

    fn submit_job(
        &self,
        target: &Arc<Target>,
        payload: Arc<dyn Payload>,
        sent: Option<SentAt>,
    ) -> Job {
        let job = Job {
            token: self.next_token.fetch_add(1, Ordering::SeqCst),
            target: Arc::clone(target),
            payload,
            message_id: Uuid::from_u128(7),
            call_id: Uuid::from_u128(8),
            attempt: 3,
            sent,
        };
        let copy = copy_of(&job);
        self.pool.submit(vec![job]).expect("the queue has room");
        if self.pool.needs_thread() {
            self.pool.spawn_thread().unwrap();
        }
        copy
    }

    fn wait_for(&self, count: usize) -> Vec<Outcome> {
        let until = Instant::now() + PATIENCE;
        let mut outcomes = Vec::new();
        while outcomes.len() < count {
            if self.pool.drain_outcomes(1000, &mut outcomes) == 0 {
                let left = until.saturating_duration_since(Instant::now());
                self.wake_ups
                    .recv_timeout(left)
                    .expect("an outcome in time");
            }
        }
        outcomes
    }

    fn call(&self, target: &Arc<Target>) -> Outcome {
        self.call_with(target, Arc::new(Text(b"{}".to_vec())))
    }

    fn call_with(&self, target: &Arc<Target>, payload: Arc<dyn Payload>) -> Outcome {
        self.submit_job(target, payload, None);
        self.wait_for(1).remove(0)
    }

    fn call_throttled(&self, target: &Arc<Target>) -> Outcome {
        self.submit(target, Arc::new(Text(b"{}".to_vec())));
        self.wait_for(1).remove(0)
    }
}

fn copy_of(job: &Job) -> Job {
    Job {
        token: job.token,
        target: Arc::clone(&job.target),
        payload: Arc::clone(&job.payload),
        message_id: job.message_id,
        call_id: job.call_id,
        attempt: job.attempt,
        sent: job.sent.clone(),
    }
}

fn local_config() -> ClientConfig {
    ClientConfig {
        policy: AddressPolicy::parse("127.0.0.0/8").unwrap(),
        max_response_size: 1000,
        ..ClientConfig::default()
    }
}

fn target(url: &str) -> Arc<Target> {
    target_within(url, PATIENCE)
}

fn target_within(url: &str, timeout: Duration) -> Arc<Target> {
    Arc::new(Target {
        url: Endpoint::parse(url).unwrap(),
        timeout,
        headers: vec![],
        signers: vec![(Signer::new(&Secret::from_random([1; 32])), None)],
        confidential: Arc::default(),
    })
}

fn detail(outcome: &Outcome) -> &str {
    outcome.detail.as_deref().unwrap_or("none")
}
