//! Which threads there are, which of them rest, and which is woken.
//!
//! One lock guards it, and no other is taken under it. Whether somebody rests is asked for each
//! job, without the lock; the orders that this needs are said where they are kept.

use std::sync::atomic::{fence, AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::{self, Thread};
use std::time::Instant;

use super::super::client::{Client, Rules};
use super::Shared;

/// One thread as the others see it.
pub(super) struct Seat {
    /// Set while it stands in [`Floor::idle`].
    is_idle: AtomicBool,
    pub client: Mutex<Option<Arc<dyn Client>>>,
}

/// What changes when threads come, go or rest.
pub(super) struct Floor {
    /// The last one is woken first.
    idle: Vec<(Arc<Seat>, Thread)>,
    /// A thread was woken and has not arrived yet. It looks after the jobs
    /// that came meanwhile, and wakes the next one if there are more: so a
    /// burst costs its submitter one wake-up.
    is_waking: bool,
    pub seats: Vec<Arc<Seat>>,
    pub rules: Arc<Rules>,
}

impl Seat {
    pub fn new() -> Self {
        Self {
            is_idle: AtomicBool::new(false),
            client: Mutex::default(),
        }
    }
}

impl Floor {
    pub fn empty(rules: Arc<Rules>) -> Self {
        Self {
            idle: Vec::new(),
            is_waking: false,
            seats: Vec::new(),
            rules,
        }
    }
}

impl Shared {
    /// Lets every idle thread look around.
    pub(super) fn stir(&self, floor: &mut Floor) {
        for (seat, thread) in floor.idle.drain(..) {
            seat.is_idle.store(false, SeqCst);
            thread.unpark();
        }
        self.idle.store(0, SeqCst);
    }

    /// Leaves the list of the idle, unless somebody took us off it before.
    fn stand_up(&self, floor: &mut Floor, seat: &Arc<Seat>) {
        floor.idle.retain(|(other, _)| !Arc::ptr_eq(other, seat));
        self.idle.store(floor.idle.len(), SeqCst);
        seat.is_idle.store(false, SeqCst);
    }

    /// After a job was queued, or found queued. Who rests announces it first
    /// and looks for jobs then; here it is the other way round, so one of the
    /// two sees the other.
    pub(super) fn wake_one(&self) {
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

    /// Waits to be woken. False when nobody did for so long that the thread
    /// ends: then the seat is given up.
    pub(super) fn rest(&self, seat: &Arc<Seat>, generation: u64) -> bool {
        self.lie_down(seat);
        // A job, a closing or new settings that came before we were in the list rang for
        // another thread. A resting thread keeps no connection that the settings forbid.
        if !self.jobs.is_empty()
            || self.is_closing.load(SeqCst)
            || self.generation.load(SeqCst) != generation
        {
            self.stand_up(&mut self.floor(), seat);
        }
        let since = Instant::now();
        while seat.is_idle.load(SeqCst) {
            let left = self.pace.end_after_idle.saturating_sub(since.elapsed());
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

    /// Whoever submits a job either wakes this thread or does not count it any more:
    /// it is gone from the count of threads before it is gone from that of the idle, which
    /// is looked at first. False when it was woken in the last moment.
    fn end_idle(&self, seat: &Arc<Seat>) -> bool {
        let mut floor = self.floor();
        let is_idle = seat.is_idle.load(SeqCst);
        if is_idle {
            self.give_up_seat(&mut floor, seat);
            self.stand_up(&mut floor, seat);
        }
        is_idle
    }

    pub(super) fn give_up_seat(&self, floor: &mut Floor, seat: &Arc<Seat>) {
        floor.seats.retain(|other| !Arc::ptr_eq(other, seat));
        self.threads.store(floor.seats.len(), SeqCst);
    }
}
