//! How long the machine itself held things up.
//!
//! A bound in seconds is about the product, but on a busy or virtual machine a process may
//! have to wait for its turn, and then it is late through no fault of its own. So beside what
//! is timed a thread does nothing but wake up every few milliseconds: the time by which it is
//! late is time in which the machine let nobody go on, and does not count.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::ending::SetOnDrop;

const WAKE_EVERY: Duration = Duration::from_millis(5);

/// Every sleep ends a little late.
const USUAL: Duration = Duration::from_millis(1);

/// When the machine stood still, from and to in microseconds since 1970.
#[derive(Default)]
pub struct Stalls {
    spans: Mutex<Vec<(u64, u64)>>,
}

impl Stalls {
    pub fn of(spans: Vec<(u64, u64)>) -> Self {
        Self {
            spans: Mutex::new(spans),
        }
    }

    /// How much of this time the machine stood still.
    pub fn between(&self, from_us: u64, to_us: u64) -> Duration {
        let spans = self.spans.lock().unwrap();
        let overlaps = spans.iter().map(|(stopped, went_on)| {
            let (from, to) = (from_us.max(*stopped), to_us.min(*went_on));
            to.saturating_sub(from)
        });
        Duration::from_micros(overlaps.sum())
    }

    fn watch_until(&self, done: &AtomicBool) {
        while !done.load(Ordering::Relaxed) {
            let slept = Instant::now();
            thread::sleep(WAKE_EVERY);
            let late = slept.elapsed().saturating_sub(WAKE_EVERY);
            if late > USUAL {
                let now = now_us();
                let late_us = u64::try_from(late.as_micros()).unwrap();
                self.spans.lock().unwrap().push((now - late_us, now));
            }
        }
    }
}

pub fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_micros()).unwrap()
}

/// Runs `work`, which can ask when the machine stood still meanwhile.
pub fn watched<T>(work: impl FnOnce(&Stalls) -> T) -> T {
    let (stalls, done) = (Stalls::default(), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| stalls.watch_until(&done));
        // Also when `work` panics the watcher must end.
        let _done = SetOnDrop(&done);
        work(&stalls)
    })
}

/// Runs `work` and returns how long it took, less what the machine took.
pub fn timed(work: impl FnOnce()) -> Duration {
    watched(|stalls| {
        let (from_us, started) = (now_us(), Instant::now());
        work();
        let took = started.elapsed();
        took.saturating_sub(stalls.between(from_us, now_us()))
    })
}

/// Runs `work`, which must be over within `limit`.
pub fn assert_within(limit: Duration, what: &str, work: impl FnOnce()) {
    let took = timed(work);
    assert!(
        took <= limit,
        "{what} took {took:?}, at most {limit:?} it may"
    );
}
