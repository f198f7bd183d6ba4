//! How much memory a process takes for itself.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::support::ending::SetOnDrop;

/// Often enough to see what lasts as long as one large body.
const SAMPLE_EVERY: Duration = Duration::from_millis(20);

/// Does `work` and returns its result with the most private memory, in MB, that the
/// process was seen to hold meanwhile.
pub fn with_peak_private_mb<T>(pid: i32, work: impl FnOnce() -> T) -> (T, f64) {
    let (peak_kb, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let result = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                peak_kb.fetch_max(private_kb(pid), Ordering::Relaxed);
                thread::sleep(SAMPLE_EVERY);
            }
        });
        // Also when `work` panics the sampler must end.
        let _done = SetOnDrop(&done);
        work()
    });
    let peak_kb = peak_kb.into_inner();
    assert!(peak_kb > 0, "process {pid} was not seen");
    (result, peak_kb as f64 / 1024.0)
}

/// The sum of Private_Clean and Private_Dirty over all mappings but the shared ones: a
/// page of the shared buffers that no other process has touched would count, too.
pub fn private_kb(pid: i32) -> u64 {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap_or_default();
    let (mut sum, mut is_shared) = (0, false);
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let (Some(first), Some(second)) = (words.next(), words.next()) else {
            continue;
        };
        if !first.ends_with(':') {
            // The head of a mapping: addresses, then permissions such as `rw-s`.
            is_shared = second.ends_with('s');
        } else if first.starts_with("Private_") && !is_shared {
            sum += second.parse::<u64>().unwrap_or(0);
        }
    }
    sum
}
