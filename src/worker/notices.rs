//! What holds the worker up, in words: the text behind `webhook.worker.detail`.
//!
//! It travels in the process's activity string, so it needs no table: it can be read while
//! locks keep the worker from writing anything.

use std::collections::BTreeMap;

use crate::pg::process::DETAIL_MARK;

/// What a notice is about. One text each; the order is the one they are shown in.
#[allow(dead_code, reason = "a topic comes with what it tells of")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// The definitions were made under another installation: nothing is sent.
    Identity,
    /// Definitions that have changed and cannot be read: nothing is sent.
    Stale,
    /// Locks of other sessions on our tables.
    Blocked,
    /// Standbys that must have a commit before it is sent.
    StandbySlots,
    /// Messages whose event is not known.
    UnknownEvents,
    /// URLs that take no new messages, because too many keys wait for a retry.
    RetryCappedUrls,
    /// Fewer connections than `webhook.connections` asks for.
    Connections,
}

/// See the module.
#[derive(Default)]
pub struct Notices {
    texts: BTreeMap<Topic, String>,
    /// Set on each change, until it is shown.
    is_changed: bool,
}

impl Notices {
    /// Replaces the text of a topic; `None` takes it away. `true` if it was another one.
    #[allow(dead_code, reason = "a topic comes with what it tells of")]
    pub fn set(&mut self, topic: Topic, text: Option<String>) -> bool {
        if self.texts.get(&topic) == text.as_ref() {
            return false;
        }
        match text {
            Some(text) => self.texts.insert(topic, text),
            None => self.texts.remove(&topic),
        };
        self.is_changed = true;
        true
    }

    /// Whether anything has changed since the last call.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.is_changed)
    }

    /// What pg_stat_activity shows: what the worker does, then every notice.
    pub fn activity(&self, doing: &str) -> String {
        if self.texts.is_empty() {
            return doing.to_owned();
        }
        let texts: Vec<&str> = self.texts.values().map(String::as_str).collect();
        format!("{doing}{DETAIL_MARK}{}", texts.join("; "))
    }
}
