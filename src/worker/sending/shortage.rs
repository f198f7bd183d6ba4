//! What this machine lacks for calls: descriptors, ports, memory, threads.
//!
//! A call that cannot be made for such a reason is no attempt. Its message goes back, and its
//! lane rests for a moment.

/// A thread that could not be started is tried again after this.
const AGAIN_AFTER_NANOS: u64 = 100_000_000;
/// While calls are held for other reasons this must not keep the loop awake.
const SHORTEST_SLEEP_NANOS: u64 = 1_000_000;
/// Nothing was lacking since then: it is over.
const OVER_AFTER_NANOS: u64 = 5_000_000_000;
/// While it goes on it is said so often.
const SAY_EVERY_NANOS: u64 = 60_000_000_000;

/// See the module.
#[derive(Default)]
pub(super) struct Shortage {
    /// Fewer connections than the setting asks for.
    limited: Option<String>,
    /// What was lacking last, and when.
    lacking: Option<(String, u64)>,
    warned_at: Option<u64>,
    /// When a thread that could not be started is tried again.
    again_at: Option<u64>,
}

impl Shortage {
    /// In how many nanoseconds something is to be tried again.
    pub fn due_in(&self, now: u64) -> Option<u64> {
        let due = self.again_at.map(|at| at.saturating_sub(now));
        due.map(|nanos| nanos.max(SHORTEST_SLEEP_NANOS))
    }

    /// Fewer connections than the settings ask for, or none fewer.
    pub fn limit(&mut self, limited: Option<String>) {
        if let Some(text) = limited.as_ref().filter(|_| self.limited != limited) {
            pgrx::warning!("{text}");
        }
        self.limited = limited;
    }

    /// A call could not be made.
    pub fn note(&mut self, lacking: String, now: u64) {
        let warned_at = self.warned_at;
        if warned_at.is_none_or(|at| now.saturating_sub(at) >= SAY_EVERY_NANOS) {
            self.warned_at = Some(now);
            pgrx::warning!("webhook calls wait, because this server lacks a resource: {lacking}");
        }
        self.lacking = Some((lacking, now));
    }

    /// No thread could be started; calls that were handed over wait for one.
    pub fn note_missing_thread(&mut self, error: &std::io::Error, now: u64) {
        self.again_at = Some(now + AGAIN_AFTER_NANOS);
        self.note(format!("no thread can be started: {error}"), now);
    }

    /// Forgets what was lacking once it is there again.
    pub fn forget_old(&mut self, now: u64) {
        self.again_at = self.again_at.filter(|at| *at > now);
        let lacking = self.lacking.as_ref();
        if lacking.is_some_and(|(_, at)| now.saturating_sub(*at) >= OVER_AFTER_NANOS) {
            self.lacking = None;
        }
    }

    /// What is lacking, in words.
    pub fn text(&self) -> Option<String> {
        let lacking = self.lacking.as_ref();
        let lacking = lacking.map(|(what, _)| format!("calls wait: {what}"));
        let texts: Vec<String> = self.limited.iter().cloned().chain(lacking).collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    }
}
