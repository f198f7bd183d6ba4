//! The delivery threads.
//!
//! The owner submits jobs and drains outcomes; neither ever blocks. Threads
//! grow on demand, and by the owner's hand only: it must block signals around
//! the spawning. The thread that fell idle last gets the next job, so a light
//! load stays on few threads, which keep their connections warm, and the others
//! end. Outcomes may be lost in one case only: a call that [`Pool::shutdown`]
//! interrupted is no failure, and is sent again by whoever comes after us.

use std::io;
use std::sync::atomic::{fence, AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError};

use super::call::{Job, Outcome, Verdict};
use super::client::{Client, ClientConfig, Rules, UreqClient};
use super::desk::{recalled, Desk};
use super::names::Names;
use super::tls;

/// Jobs that wait for a thread. Far more than threads, far fewer than would
/// matter in memory; the owner bounds what is in flight more tightly.
const QUEUE_JOBS: usize = 4096;

/// Until [`Pool::set_limit`] says otherwise: the default of
/// `webhook.connections`.
const DEFAULT_LIMIT: usize = 64;

/// A thread without work for so long ends, and closes its connections.
const END_AFTER_IDLE: Duration = Duration::from_secs(60);

/// A TLS call overflows 80 kB in a debug build and fits into 128 kB; the rest
/// is for payloads that nest deeply. An overflow would restart the cluster,
/// while untouched stack costs no memory.
const STACK_BYTES: usize = 512 * 1024;

/// Idle connections of all threads together, so that open files stay within
/// the usual limit of 1,024; and of one thread.
const KEPT_CONNECTIONS: usize = 512;
const KEPT_CONNECTIONS_PER_THREAD: usize = 16;

/// Jobs that one thread does one after the other, without going back to the owner
/// in between: with a fast receiver the way there and back costs more than the call.
/// When one is not delivered, the rest is given back.
pub type Run = Vec<Job>;

/// A run that goes on for longer than this tells the owner what it has so far.
const TELL_AFTER: Duration = Duration::from_millis(2);

/// Called when outcomes wait after there were none.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// One thread as the others see it.
struct Seat {
    /// Set while it stands in [`Floor::idle`].
    is_idle: AtomicBool,
    client: Mutex<Option<Arc<dyn Client>>>,
}

/// What changes when threads come, go or rest.
struct Floor {
    /// The last one is woken first.
    idle: Vec<(Arc<Seat>, Thread)>,
    /// A thread was woken and has not arrived yet. It looks after the jobs
    /// that came meanwhile, and wakes the next one if there are more: so a
    /// burst costs its submitter one wake-up.
    is_waking: bool,
    seats: Vec<Arc<Seat>>,
    rules: Arc<Rules>,
}

struct Shared {
    jobs: Receiver<Run>,
    outcomes: Sender<Outcome>,
    floor: Mutex<Floor>,
    thread_ended: Condvar,
    /// `Floor::seats.len()` and `Floor::idle.len()`, to be read without the
    /// lock.
    threads: AtomicUsize,
    idle: AtomicUsize,
    limit: AtomicUsize,
    /// Jobs that are submitted and have no outcome yet.
    in_flight: AtomicUsize,
    /// Counts the changes of `Floor::rules`.
    generation: AtomicU64,
    is_closing: AtomicBool,
    is_wake_due: AtomicBool,
    wake: Wake,
    end_after_idle: Duration,
}

/// A pool of delivery threads; see the module.
pub struct Pool {
    shared: Arc<Shared>,
    submitted: Sender<Run>,
    outcomes: Receiver<Outcome>,
    handles: Mutex<Vec<JoinHandle<()>>>,
}

impl Pool {
    /// A pool without threads. `wake` runs in delivery threads.
    pub fn new(config: ClientConfig, wake: Wake) -> Self {
        Self::ending_idle_threads(config, wake, END_AFTER_IDLE)
    }

    pub(super) fn ending_idle_threads(
        config: ClientConfig,
        wake: Wake,
        end_after_idle: Duration,
    ) -> Self {
        let (submitted, jobs) = crossbeam_channel::bounded(QUEUE_JOBS);
        let (sender, outcomes) = crossbeam_channel::unbounded();
        let names = Arc::new(Names::of_system());
        let shared = Arc::new(Shared {
            jobs,
            outcomes: sender,
            floor: Mutex::new(Floor {
                idle: Vec::new(),
                is_waking: false,
                seats: Vec::new(),
                rules: make_rules(config, names, DEFAULT_LIMIT),
            }),
            thread_ended: Condvar::new(),
            threads: AtomicUsize::new(0),
            idle: AtomicUsize::new(0),
            limit: AtomicUsize::new(DEFAULT_LIMIT),
            in_flight: AtomicUsize::new(0),
            generation: AtomicU64::new(0),
            is_closing: AtomicBool::new(false),
            is_wake_due: AtomicBool::new(false),
            wake,
            end_after_idle,
        });
        Self {
            shared,
            submitted,
            outcomes,
            handles: Mutex::default(),
        }
    }

    /// The most threads. Those over a lowered limit end after their call; the
    /// others share the kept connections anew.
    pub fn set_limit(&self, limit: usize) {
        if self.shared.limit.swap(limit, SeqCst) == limit {
            return;
        }
        let mut floor = self.shared.floor();
        let rules = Rules {
            kept_connections: kept_connections(limit),
            ..(*floor.rules).clone()
        };
        self.shared.replace_rules(&mut floor, Arc::new(rules));
    }

    /// New settings: each thread takes them before its next call and drops the
    /// connections it kept, which the old address policy had allowed.
    pub fn reconfigure(&self, config: ClientConfig) {
        let names = Arc::clone(&self.shared.floor().rules.names);
        let rules = make_rules(config, names, self.shared.limit.load(SeqCst));
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
        let seat = Arc::new(Seat {
            is_idle: AtomicBool::new(false),
            client: Mutex::default(),
        });
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
        match self.submitted.try_send(run) {
            Ok(()) => {
                self.shared.wake_one();
                Ok(())
            }
            Err(TrySendError::Full(run) | TrySendError::Disconnected(run)) => {
                self.shared.in_flight.fetch_sub(1, SeqCst);
                Err(run)
            }
        }
    }

    /// Appends up to `most` outcomes and says how many. When it says `most`,
    /// call again: there is no second wake-up for what is left.
    pub fn drain_outcomes(&self, most: usize, into: &mut Vec<Outcome>) -> usize {
        // Before draining: what arrives from here on rings again.
        self.shared.is_wake_due.store(false, SeqCst);
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

fn make_rules(config: ClientConfig, names: Arc<Names>, limit: usize) -> Arc<Rules> {
    Arc::new(Rules {
        tls: tls::trusting(config.ca_pem.as_deref()),
        config: Arc::new(config),
        names,
        kept_connections: kept_connections(limit),
    })
}

fn kept_connections(limit: usize) -> usize {
    (KEPT_CONNECTIONS / limit.max(1)).clamp(1, KEPT_CONNECTIONS_PER_THREAD)
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

    /// Lets every idle thread look around.
    fn stir(&self, floor: &mut Floor) {
        for (seat, thread) in floor.idle.drain(..) {
            seat.is_idle.store(false, SeqCst);
            thread.unpark();
        }
        self.idle.store(0, SeqCst);
    }

    /// Leaves the list of the idle; false when somebody took us off it before.
    fn stand_up(&self, floor: &mut Floor, seat: &Arc<Seat>) -> bool {
        let before = floor.idle.len();
        floor.idle.retain(|(other, _)| !Arc::ptr_eq(other, seat));
        self.idle.store(floor.idle.len(), SeqCst);
        seat.is_idle.store(false, SeqCst);
        floor.idle.len() < before
    }

    /// After a job was queued, or found queued. Who rests announces it first
    /// and looks for jobs then; here it is the other way round, so one of the
    /// two sees the other.
    fn wake_one(&self) {
        fence(SeqCst);
        if self.idle.load(SeqCst) == 0 {
            return;
        }
        let mut floor = self.floor();
        if floor.is_waking {
            return;
        }
        let Some((seat, thread)) = floor.idle.pop() else {
            return;
        };
        floor.is_waking = true;
        self.idle.store(floor.idle.len(), SeqCst);
        seat.is_idle.store(false, SeqCst);
        drop(floor);
        thread.unpark();
    }

    /// A thread that was woken is back. It, or one that it wakes, takes what is
    /// queued. Said once too often it costs a wake-up, once too few all of them.
    fn arrive(&self) {
        self.floor().is_waking = false;
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

    /// The life of a thread.
    fn work(&self, seat: &Arc<Seat>) {
        let mut equipped: Option<(u64, Desk)> = None;
        while self.may_go_on(seat) {
            let generation = self.generation.load(SeqCst);
            if equipped
                .as_ref()
                .is_some_and(|(taken, _)| *taken != generation)
            {
                equipped = None;
                lock(&seat.client).take();
            }
            match self.jobs.try_recv() {
                Ok(run) => {
                    if !self.jobs.is_empty() {
                        self.wake_one();
                    }
                    equipped = self.serve_run(seat, equipped, &run);
                }
                Err(_) if self.rest(seat) => {}
                Err(_) => break,
            }
        }
        drop(equipped);
        self.leave(seat);
        if !self.jobs.is_empty() {
            self.wake_one();
        }
    }

    fn serve_run(
        &self,
        seat: &Seat,
        mut equipped: Option<(u64, Desk)>,
        run: &[Job],
    ) -> Option<(u64, Desk)> {
        let started = Instant::now();
        let mut stopped = false;
        for (place, job) in run.iter().enumerate() {
            let outcome = if stopped {
                recalled(job)
            } else {
                let (generation, desk) = equipped.unwrap_or_else(|| self.equip(seat));
                let (desk, outcome) = desk.deliver(job);
                equipped = desk.map(|desk| (generation, desk));
                // New settings hold from the next call on.
                stopped = outcome.verdict != Verdict::Delivered
                    || generation != self.generation.load(SeqCst)
                    || self.is_closing.load(SeqCst);
                outcome
            };
            let ends_run = place + 1 == run.len();
            let tell = ends_run || stopped || started.elapsed() >= TELL_AFTER;
            self.finish(
                Outcome {
                    ends_run,
                    ..outcome
                },
                tell,
            );
        }
        equipped
    }

    fn equip(&self, seat: &Seat) -> (u64, Desk) {
        let (generation, rules) = {
            let floor = self.floor();
            (self.generation.load(SeqCst), Arc::clone(&floor.rules))
        };
        let client: Arc<dyn Client> = Arc::new(UreqClient::new(&rules));
        *lock(&seat.client) = Some(Arc::clone(&client));
        // close() sets the flag before it looks for clients: it either finds
        // this one, or the flag is seen here.
        if self.is_closing.load(SeqCst) {
            client.interrupt();
        }
        (generation, Desk::new(rules, client))
    }

    fn finish(&self, outcome: Outcome, tell: bool) {
        let was_interrupted = self.is_closing.load(SeqCst)
            && matches!(outcome.verdict, Verdict::Failed | Verdict::Recalled);
        let ends_run = outcome.ends_run;
        // The owner holds the other end for as long as anyone can look.
        if was_interrupted || self.outcomes.send(outcome).is_err() {
            return;
        }
        if ends_run {
            self.in_flight.fetch_sub(1, SeqCst);
        }
        if tell && !self.is_wake_due.swap(true, SeqCst) {
            (self.wake)();
        }
    }

    fn may_go_on(&self, seat: &Arc<Seat>) -> bool {
        if self.is_closing.load(SeqCst) {
            return false;
        }
        if self.threads.load(SeqCst) <= self.limit.load(SeqCst) {
            return true;
        }
        let mut floor = self.floor();
        let is_over = floor.seats.len() > self.limit.load(SeqCst);
        if is_over {
            self.give_up_seat(&mut floor, seat);
        }
        !is_over
    }

    /// Waits to be woken. False when nobody did for so long that the thread
    /// ends: then the seat is given up.
    fn rest(&self, seat: &Arc<Seat>) -> bool {
        self.lie_down(seat);
        // A job or a closing that came before we were in the list rang for
        // somebody else.
        if !self.jobs.is_empty() || self.is_closing.load(SeqCst) {
            self.stand_up(&mut self.floor(), seat);
        }
        let since = Instant::now();
        while seat.is_idle.load(SeqCst) {
            let left = self.end_after_idle.saturating_sub(since.elapsed());
            if left.is_zero() && self.end_idle(seat) {
                return false;
            }
            thread::park_timeout(left);
        }
        self.arrive();
        true
    }

    fn lie_down(&self, seat: &Arc<Seat>) {
        let me = (Arc::clone(seat), thread::current());
        let mut floor = self.floor();
        seat.is_idle.store(true, SeqCst);
        floor.idle.push(me);
        self.idle.store(floor.idle.len(), SeqCst);
        drop(floor);
        fence(SeqCst);
    }

    /// In one step: whoever submits a job either wakes this thread or does not
    /// count it any more. False when it was woken in the last moment.
    fn end_idle(&self, seat: &Arc<Seat>) -> bool {
        let mut floor = self.floor();
        let was_idle = self.stand_up(&mut floor, seat);
        if was_idle {
            self.give_up_seat(&mut floor, seat);
        }
        was_idle
    }

    fn give_up_seat(&self, floor: &mut Floor, seat: &Arc<Seat>) {
        floor.seats.retain(|other| !Arc::ptr_eq(other, seat));
        self.threads.store(floor.seats.len(), SeqCst);
    }

    fn leave(&self, seat: &Arc<Seat>) {
        lock(&seat.client).take();
        self.give_up_seat(&mut self.floor(), seat);
        self.thread_ended.notify_all();
    }
}
