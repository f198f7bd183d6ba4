//! What this machine lacks for calls: descriptors, ports, memory, threads.
//!
//! A call that cannot be made for such a reason is no attempt. Its message goes back, and its
//! lane rests for a moment.

use std::collections::HashMap;

use super::engine::Engine;
use super::notices::Topic;
use crate::core::descriptors::Plan;
use crate::pg::descriptors;

/// A lane whose call could not be made rests for so long.
const REST_NANOS: u64 = 100_000_000;
/// While calls are held for other reasons this must not keep the loop awake.
const SHORTEST_SLEEP_NANOS: u64 = 1_000_000;
/// Nothing was lacking since then: it is over.
const OVER_AFTER_NANOS: u64 = 5_000_000_000;
/// While it goes on it is said so often.
const SAY_EVERY_NANOS: u64 = 60_000_000_000;

/// See the module.
#[derive(Default)]
pub struct Shortage {
    /// Fewer connections than the setting asks for.
    limited: Option<String>,
    /// What was lacking last, and when.
    lacking: Option<(String, u64)>,
    warned_at: Option<u64>,
    /// Until when lanes rest.
    resting: HashMap<i32, u64>,
    /// When a thread that could not be started is tried again.
    again_at: Option<u64>,
}

impl Shortage {
    pub fn rests(&self, url_key: i32, now: u64) -> bool {
        self.resting.get(&url_key).is_some_and(|until| *until > now)
    }

    /// In how many nanoseconds something is to be tried again.
    pub fn due_in(&self, now: u64) -> Option<u64> {
        let times = self.resting.values().chain(&self.again_at);
        let due = times.map(|at| at.saturating_sub(now)).min();
        due.map(|nanos| nanos.max(SHORTEST_SLEEP_NANOS))
    }
}

impl Engine {
    /// Makes room for as many connections as the settings ask for, or takes fewer.
    pub fn fit_connections(&mut self) {
        let wanted = self.settings.connections;
        let room = descriptors::make_room(Plan::unlimited(wanted).descriptors());
        let plan = Plan::within(wanted, room.available);
        self.pool.fit(&plan);
        self.settings.connections = plan.connections;
        let limited = (plan.connections < wanted).then(|| {
            format!(
                "webhook.connections is {wanted}, but the worker may open only {} files: {} calls \
                 are made at a time; raise the server's limit of open files",
                room.limit, plan.connections
            )
        });
        if let Some(text) = limited
            .as_ref()
            .filter(|_| self.shortage.limited != limited)
        {
            pgrx::warning!("{text}");
        }
        self.shortage.limited = limited;
        self.show_shortage();
    }

    /// The lane's call could not be made.
    pub fn rest(&mut self, url_key: i32, lacking: Option<String>) {
        let now = self.ticker.now();
        self.shortage.resting.insert(url_key, now + REST_NANOS);
        self.note_lacking(lacking.unwrap_or_default());
    }

    /// No thread could be started; calls that were handed over wait for one.
    pub fn note_missing_thread(&mut self, error: &std::io::Error) {
        self.shortage.again_at = Some(self.ticker.now() + REST_NANOS);
        self.note_lacking(format!("no thread can be started: {error}"));
    }

    fn note_lacking(&mut self, lacking: String) {
        let now = self.ticker.now();
        let warned_at = self.shortage.warned_at;
        if warned_at.is_none_or(|at| now.saturating_sub(at) >= SAY_EVERY_NANOS) {
            self.shortage.warned_at = Some(now);
            pgrx::warning!("webhook calls wait, because this server lacks a resource: {lacking}");
        }
        self.shortage.lacking = Some((lacking, now));
        self.show_shortage();
    }

    /// Lets lanes go on, and forgets what was lacking once it is there again.
    pub fn look_at_shortage(&mut self) {
        let now = self.ticker.now();
        self.shortage.resting.retain(|_, until| *until > now);
        self.shortage.again_at = self.shortage.again_at.filter(|at| *at > now);
        let lacking = self.shortage.lacking.as_ref();
        if lacking.is_some_and(|(_, at)| now.saturating_sub(*at) >= OVER_AFTER_NANOS) {
            self.shortage.lacking = None;
            self.show_shortage();
        }
    }

    fn show_shortage(&mut self) {
        let lacking = self.shortage.lacking.as_ref();
        let lacking = lacking.map(|(what, _)| format!("calls wait: {what}"));
        let texts: Vec<String> = self
            .shortage
            .limited
            .iter()
            .cloned()
            .chain(lacking)
            .collect();
        let text = (!texts.is_empty()).then(|| texts.join("; "));
        self.notices.set(Topic::Connections, text);
    }
}
