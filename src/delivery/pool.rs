//! The delivery threads.
//!
//! The owner submits jobs and drains outcomes; neither ever blocks. Threads
//! grow on demand, and by the owner's hand only: it must block signals around
//! the spawning. The thread that fell idle last gets the next job, so a light
//! load stays on few threads, which keep their connections warm, and the others
//! end. A job is without an outcome in one case only: what [`Pool::shutdown`]
//! interrupted, or found waiting, has not failed, and is sent again by whoever
//! comes after us.
//!
//! `seats` says who is there, who rests and who is woken; `work` is the life of
//! a thread.

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
use crate::core::descriptors::Plan;
use seats::{Floor, Seat};

mod seats;
mod work;

/// Runs that wait for a thread. Far more than threads, far fewer than would
/// matter in memory; the owner bounds what is in flight more tightly.
const QUEUE_RUNS: usize = 4096;

/// Until [`Pool::fit`] says otherwise: the default of
/// `webhook.connections`.
const DEFAULT_LIMIT: usize = 64;

/// How patient threads are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// A thread without work for so long ends, and closes its connections.
    pub end_after_idle: Duration,
    /// A run that takes longer gives its rest back: another thread may be free.
    pub run_at_most: Duration,
}

const PACE: Pace = Pace {
    end_after_idle: Duration::from_secs(60),
    run_at_most: Duration::from_millis(20),
};

/// A TLS call overflows 80 kB in a debug build and fits into 128 kB; the rest
/// is for payloads that nest deeply. An overflow would restart the cluster,
/// while untouched stack costs no memory.
const STACK_BYTES: usize = 512 * 1024;

/// Idle connections of one thread.
const KEPT_CONNECTIONS_PER_THREAD: usize = 16;

/// Jobs that one thread does one after the other, without going back to the owner
/// in between: with a fast receiver the way there and back costs more than the call.
/// When one is not delivered, the run takes too long, or its permission ends, the rest is
/// given back.
pub type Run = Vec<Job>;

/// Asked before each call: whether what the owner knew when it submitted a run still holds.
pub trait Permission: Send + Sync {
    /// What the owner knows now; kept with each run.
    fn stamp(&self) -> u64;
    /// Whether a call of a run with this stamp may start.
    fn holds(&self, stamp: u64) -> bool;
}

/// A run and the stamp of [`Permission`] it was submitted under.
type Submitted = (u64, Run);

/// Called when outcomes wait after there were none.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

struct Shared {
    jobs: Receiver<Submitted>,
    permission: OnceLock<Arc<dyn Permission>>,
    outcomes: Sender<Outcome>,
    floor: Mutex<Floor>,
    thread_ended: Condvar,
    /// `Floor::seats.len()` and `Floor::idle.len()`, to be read without the
    /// lock.
    threads: AtomicUsize,
    idle: AtomicUsize,
    limit: AtomicUsize,
    kept_connections: AtomicUsize,
    /// Runs that are submitted and have not ended.
    in_flight: AtomicUsize,
    /// Counts the changes of `Floor::rules`.
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
            floor: Mutex::new(Floor::empty(make_rules(
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

    /// From now on threads ask before each call; said once, before the first run.
    pub fn ask_before_calls(&self, permission: Arc<dyn Permission>) {
        let _ = self.shared.permission.set(permission);
    }

    /// [`Pool::fit`] with as many descriptors as it takes.
    #[cfg(test)]
    pub fn set_limit(&self, limit: usize) {
        self.fit(&Plan::unlimited(limit));
    }

    /// The most threads, kept connections and look-ups. Threads over a lowered limit end
    /// after their call; the others share the kept connections anew.
    pub fn fit(&self, plan: &Plan) {
        let kept = kept_connections(plan);
        let has_changed = self.shared.limit.swap(plan.connections, SeqCst) != plan.connections
            || self.shared.kept_connections.load(SeqCst) != kept;
        self.shared.kept_connections.store(kept, SeqCst);
        let mut floor = self.shared.floor();
        floor.rules.names.set_limit(plan.look_ups);
        if !has_changed {
            return;
        }
        let rules = Rules {
            kept_connections: kept,
            ..(*floor.rules).clone()
        };
        self.shared.replace_rules(&mut floor, Arc::new(rules));
    }

    /// New settings: each thread takes them before its next call and drops the
    /// connections it kept, which the old address policy had allowed.
    pub fn reconfigure(&self, config: ClientConfig) {
        let names = Arc::clone(&self.shared.floor().rules.names);
        let rules = make_rules(config, names, self.shared.kept_connections.load(SeqCst));
        self.shared.replace_rules(&mut self.shared.floor(), rules);
    }

    /// Whether a job waits that no thread is there for, and the limit allows
    /// one more.
    pub fn needs_thread(&self) -> bool {
        let threads = self.threads();
        threads < self.shared.limit.load(SeqCst) && threads < self.in_flight()
    }

    /// Starts one thread. The caller has blocked all signals.
    pub fn spawn_thread(&self) -> io::Result<()> {
        let seat = Arc::new(Seat::new());
        let (shared, own_seat) = (Arc::clone(&self.shared), Arc::clone(&seat));
        let mut floor = self.shared.floor();
        let handle = thread::Builder::new()
            .name("webhook delivery".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || shared.work(&own_seat))?;
        floor.seats.push(seat);
        self.shared.threads.store(floor.seats.len(), SeqCst);
        drop(floor);
        let mut handles = lock(&self.handles);
        handles.retain(|handle| !handle.is_finished());
        handles.push(handle);
        Ok(())
    }

    /// Hands jobs over; gives them back when the queue is full or the pool is
    /// shutting down.
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

    /// Appends up to `most` outcomes and says how many. When it says `most`,
    /// call again: there is no second wake-up for what is left.
    pub fn drain_outcomes(&self, most: usize, into: &mut Vec<Outcome>) -> usize {
        // Before draining: what arrives from here on rings again. A swap, as it has to see
        // what was sent before the ring that it takes back.
        self.shared.is_wake_due.swap(false, SeqCst);
        let before = into.len();
        into.extend(self.outcomes.try_iter().take(most));
        into.len() - before
    }

    /// Runs that are submitted and have not ended: so many calls are on the wire at most.
    pub fn in_flight(&self) -> usize {
        self.shared.in_flight.load(SeqCst)
    }

    pub fn threads(&self) -> usize {
        self.shared.threads.load(SeqCst)
    }

    /// Ends all threads, interrupting their calls. Jobs without an outcome are
    /// forgotten; outcomes can still be drained. True when every thread ended
    /// in time; one that hangs in a connect or a look-up is left behind.
    pub fn shutdown(&self, deadline: Duration) -> bool {
        let until = Instant::now() + deadline;
        self.shared.close();
        if !self.shared.wait_for_end(until) {
            return false;
        }
        for handle in lock(&self.handles).drain(..) {
            // Its work is over and its panics were caught: this only waits for
            // the last instructions of the thread.
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

/// Of one thread.
fn kept_connections(plan: &Plan) -> usize {
    (plan.kept_connections / plan.connections.max(1)).clamp(1, KEPT_CONNECTIONS_PER_THREAD)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn floor(&self) -> MutexGuard<'_, Floor> {
        lock(&self.floor)
    }

    fn replace_rules(&self, floor: &mut Floor, rules: Arc<Rules>) {
        floor.rules = rules;
        self.generation.fetch_add(1, SeqCst);
        self.stir(floor);
    }

    fn close(&self) {
        self.is_closing.store(true, SeqCst);
        let seats = {
            let mut floor = self.floor();
            self.stir(&mut floor);
            floor.seats.clone()
        };
        for seat in seats {
            let client = lock(&seat.client).take();
            if let Some(client) = client {
                client.interrupt();
            }
        }
    }

    fn wait_for_end(&self, until: Instant) -> bool {
        let mut floor = self.floor();
        while !floor.seats.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.thread_ended.wait_timeout(floor, left);
            floor = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}
