//! The pool of delivery threads.
//!
//! The owner submits jobs and drains outcomes; neither call blocks. Only the owner starts
//! threads, on demand, because it must block signals while it does. The thread that became idle
//! last gets the next job, so a light load stays on few threads with warm connections and the
//! others end. Every job has an outcome, except those that [`Pool::shutdown`] interrupts or finds
//! waiting: they have not failed, and the next worker sends them again.
//!
//! `slots` is the registry of threads, `work` the loop of one thread.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError};

use super::call::{Job, Outcome};
use super::client::{ClientConfig, Rules};
use super::names::Names;
use super::tls;
use crate::core::policy::descriptors::Plan;
use slots::{ThreadRegistry, ThreadSlot};

mod slots;
mod work;

/// Runs that wait for a thread. Far more than threads and far too few to matter in memory;
/// the owner's own limit of calls in flight is lower.
const QUEUE_RUNS: usize = 4096;

/// The limit before [`Pool::fit`]: the default of `webhook.connections`.
const DEFAULT_LIMIT: usize = 64;

/// How long threads stay idle, and how long a run may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// A thread that is idle for this long ends and closes its connections.
    pub end_after_idle: Duration,
    /// A longer run returns its remaining jobs: another thread may be free.
    pub run_at_most: Duration,
}

const PACE: Pace = Pace {
    end_after_idle: Duration::from_secs(60),
    run_at_most: Duration::from_millis(20),
};

/// A TLS call overflows 80 kB in a debug build and fits in 128 kB; the rest is for deeply
/// nested payloads. An overflow restarts the cluster; untouched stack costs no memory.
const STACK_BYTES: usize = 512 * 1024;

/// Idle connections that one thread keeps, at most.
const KEPT_CONNECTIONS_PER_THREAD: usize = 16;

/// Jobs that one thread executes one after the other: with a fast receiver the hand-over costs
/// more than the call. After a failed call, after a run that takes too long, or when its
/// permission has ended, the remaining jobs are returned as [`Verdict::NotAttempted`](super::call::Verdict).
pub type Run = Vec<Job>;

/// Checked before each call: whether the definitions that a run was submitted under are current.
pub trait Permission: Send + Sync {
    /// The current version; stored with each submitted run.
    fn stamp(&self) -> u64;
    /// Whether a call of a run with this stamp may start.
    fn holds(&self, stamp: u64) -> bool;
}

/// A run and the stamp of [`Permission`] it was submitted under.
type Submitted = (u64, Run);

/// Called when the outcome queue becomes non-empty. Runs in a delivery thread.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

struct Shared {
    jobs: Receiver<Submitted>,
    permission: OnceLock<Arc<dyn Permission>>,
    outcomes: Sender<Outcome>,
    registry: Mutex<ThreadRegistry>,
    thread_ended: Condvar,
    /// Copies of `ThreadRegistry::slots.len()` and `ThreadRegistry::idle.len()` that are read
    /// without the mutex.
    threads: AtomicUsize,
    idle: AtomicUsize,
    limit: AtomicUsize,
    kept_connections: AtomicUsize,
    /// Submitted runs that have not ended.
    in_flight: AtomicUsize,
    /// Counts the changes of `ThreadRegistry::rules`.
    generation: AtomicU64,
    is_closing: AtomicBool,
    is_wake_due: AtomicBool,
    wake: Wake,
    pace: Pace,
}

/// A pool of delivery threads; see the module.
pub struct Pool {
    shared: Arc<Shared>,
    submitted: Sender<Submitted>,
    outcomes: Receiver<Outcome>,
    handles: Mutex<Vec<JoinHandle<()>>>,
}

impl Pool {
    /// A pool without threads. `wake` runs in delivery threads.
    pub fn new(config: ClientConfig, wake: Wake) -> Self {
        Self::with_pace(config, wake, PACE)
    }

    pub(super) fn with_pace(config: ClientConfig, wake: Wake, pace: Pace) -> Self {
        let (submitted, jobs) = crossbeam_channel::bounded(QUEUE_RUNS);
        let (sender, outcomes) = crossbeam_channel::unbounded();
        let names = Arc::new(Names::of_system());
        let plan = Plan::unlimited(DEFAULT_LIMIT);
        let shared = Arc::new(Shared {
            jobs,
            permission: OnceLock::new(),
            outcomes: sender,
            registry: Mutex::new(ThreadRegistry::empty(make_rules(
                config,
                names,
                kept_connections(&plan),
            ))),
            thread_ended: Condvar::new(),
            threads: AtomicUsize::new(0),
            idle: AtomicUsize::new(0),
            limit: AtomicUsize::new(plan.connections),
            kept_connections: AtomicUsize::new(kept_connections(&plan)),
            in_flight: AtomicUsize::new(0),
            generation: AtomicU64::new(0),
            is_closing: AtomicBool::new(false),
            is_wake_due: AtomicBool::new(false),
            wake,
            pace,
        });
        Self {
            shared,
            submitted,
            outcomes,
            handles: Mutex::default(),
        }
    }

    /// Sets the permission that threads check before each call. Call it once, before the first
    /// run.
    pub fn ask_before_calls(&self, permission: Arc<dyn Permission>) {
        let _ = self.shared.permission.set(permission);
    }

    /// [`Pool::fit`] without a limit on descriptors.
    #[cfg(test)]
    pub fn set_limit(&self, limit: usize) {
        self.fit(&Plan::unlimited(limit));
    }

    /// Sets the limits of threads, kept connections and name look-ups. Threads above a lowered
    /// limit end after their call; kept connections are divided among the others again.
    pub fn fit(&self, plan: &Plan) {
        let kept = kept_connections(plan);
        let has_changed = self.shared.limit.swap(plan.connections, SeqCst) != plan.connections
            || self.shared.kept_connections.load(SeqCst) != kept;
        self.shared.kept_connections.store(kept, SeqCst);
        let mut registry = self.shared.registry();
        registry.rules.names.set_limit(plan.look_ups);
        if !has_changed {
            return;
        }
        let rules = Rules {
            kept_connections: kept,
            ..(*registry.rules).clone()
        };
        self.shared.replace_rules(&mut registry, Arc::new(rules));
    }

    /// Applies new settings: before its next call each thread closes its kept connections, which
    /// the old address policy had allowed.
    pub fn reconfigure(&self, config: ClientConfig) {
        let names = Arc::clone(&self.shared.registry().rules.names);
        let rules = make_rules(config, names, self.shared.kept_connections.load(SeqCst));
        self.shared
            .replace_rules(&mut self.shared.registry(), rules);
    }

    /// Whether a job waits, no thread is free for it, and the limit allows one more.
    pub fn needs_thread(&self) -> bool {
        let threads = self.threads();
        threads < self.shared.limit.load(SeqCst) && threads < self.in_flight()
    }

    /// Starts one thread. The caller has blocked all signals.
    pub fn spawn_thread(&self) -> io::Result<()> {
        let slot = Arc::new(ThreadSlot::new());
        let (shared, own_slot) = (Arc::clone(&self.shared), Arc::clone(&slot));
        let mut registry = self.shared.registry();
        let handle = thread::Builder::new()
            .name("webhook delivery".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || shared.work(&own_slot))?;
        registry.slots.push(slot);
        self.shared.threads.store(registry.slots.len(), SeqCst);
        drop(registry);
        let mut handles = lock(&self.handles);
        handles.retain(|handle| !handle.is_finished());
        handles.push(handle);
        Ok(())
    }

    /// Submits jobs to the threads.
    ///
    /// # Errors
    /// Returns the jobs if the queue is full or the pool is shutting down.
    pub fn submit(&self, run: Run) -> Result<(), Run> {
        if self.shared.is_closing.load(SeqCst) {
            return Err(run);
        }
        self.shared.in_flight.fetch_add(1, SeqCst);
        let stamp = self.shared.permission.get().map_or(0, |p| p.stamp());
        match self.submitted.try_send((stamp, run)) {
            Ok(()) => {
                self.shared.wake_one();
                Ok(())
            }
            Err(TrySendError::Full((_, run)) | TrySendError::Disconnected((_, run))) => {
                self.shared.in_flight.fetch_sub(1, SeqCst);
                Err(run)
            }
        }
    }

    /// Appends up to `most` outcomes and returns their number. If that is `most`, call again:
    /// the remaining ones send no further wake-up.
    pub fn drain_outcomes(&self, most: usize, into: &mut Vec<Outcome>) -> usize {
        // Before draining, so that later outcomes send a wake-up again. A swap, because it must
        // see what was sent before the wake-up that it clears.
        self.shared.is_wake_due.swap(false, SeqCst);
        let before = into.len();
        into.extend(self.outcomes.try_iter().take(most));
        into.len() - before
    }

    /// Submitted runs that have not ended; no more calls than this are on the wire.
    pub fn in_flight(&self) -> usize {
        self.shared.in_flight.load(SeqCst)
    }

    pub fn threads(&self) -> usize {
        self.shared.threads.load(SeqCst)
    }

    /// Interrupts all calls and ends all threads. Jobs without an outcome are dropped; outcomes
    /// can still be drained. `true` if every thread ended within `deadline`; one that hangs in
    /// connect or in a name look-up is left behind.
    pub fn shutdown(&self, deadline: Duration) -> bool {
        let until = Instant::now() + deadline;
        self.shared.close();
        if !self.shared.wait_for_end(until) {
            return false;
        }
        for handle in lock(&self.handles).drain(..) {
            // The thread has left the registry and its panics were caught: this waits for its
            // last instructions only.
            let _ = handle.join();
        }
        true
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.close();
    }
}

fn make_rules(config: ClientConfig, names: Arc<Names>, kept_connections: usize) -> Arc<Rules> {
    Arc::new(Rules {
        tls: tls::trusting(config.ca_pem.as_deref()),
        config: Arc::new(config),
        names,
        kept_connections,
    })
}

/// The share of one thread.
fn kept_connections(plan: &Plan) -> usize {
    (plan.kept_connections / plan.connections.max(1)).clamp(1, KEPT_CONNECTIONS_PER_THREAD)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn registry(&self) -> MutexGuard<'_, ThreadRegistry> {
        lock(&self.registry)
    }

    fn replace_rules(&self, registry: &mut ThreadRegistry, rules: Arc<Rules>) {
        registry.rules = rules;
        self.generation.fetch_add(1, SeqCst);
        self.wake_all(registry);
    }

    fn close(&self) {
        self.is_closing.store(true, SeqCst);
        let slots = {
            let mut registry = self.registry();
            self.wake_all(&mut registry);
            registry.slots.clone()
        };
        for slot in slots {
            let client = lock(&slot.client).take();
            if let Some(client) = client {
                client.interrupt();
            }
        }
    }

    fn wait_for_end(&self, until: Instant) -> bool {
        let mut registry = self.registry();
        while !registry.slots.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.thread_ended.wait_timeout(registry, left);
            registry = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}
