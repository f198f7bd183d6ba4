//! What users do not know of a URL yet, and when they may be told: operational events.
//!
//! What is so is compared with what they were told last. At most one event of a kind for a URL and
//! minute: what is different after that minute is told then.

use std::time::Duration;

use uuid::Uuid;

use super::given_up::GivenUp;
use crate::core::definitions::operational::OperationalEvent;
use crate::core::values::time_text::utc_text;

/// Between two events of one kind about one URL.
const QUIET_NANOS: u64 = 60_000_000_000;
/// After a lock was in the way.
const AGAIN_NANOS: u64 = 1_000_000_000;

/// What happened to a URL. Times as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happened {
    pub event: OperationalEvent,
    pub url_key: i32,
    pub since: Option<String>,
    pub error: Option<String>,
    pub message_id: Option<Uuid>,
    pub attempts: Option<u32>,
    pub messages: Option<u64>,
    pub pending: Option<u64>,
    pub at: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Failing {
    /// In microseconds since 2000-01-01 UTC.
    since: i64,
    error: String,
}

/// What waits for its first call at a URL that is called.
pub struct Backlog {
    pub url_key: i32,
    pub messages: i64,
    /// Date of the oldest, in microseconds since 2000-01-01 UTC.
    pub oldest: i64,
}

/// A backlog that is old.
#[derive(Clone, Debug, PartialEq, Eq)]
struct OldBacklog {
    /// What it had then.
    messages: i64,
    since: u64,
    is_told: bool,
}

/// One that has grown since.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Grown {
    messages: i64,
    oldest: i64,
}

/// What is news of one URL.
#[derive(Clone, Default)]
pub struct UrlNews {
    failing: Option<Failing>,
    /// When a failure that users were told of began.
    told_since: Option<i64>,
    disabled: Option<String>,
    given_up: Option<GivenUp>,
    backlog: Option<OldBacklog>,
    grown: Option<Grown>,
    quiet: Quiet,
}

/// Until when nothing more of a kind is told.
#[derive(Clone, Default)]
struct Quiet {
    failing: u64,
    recovered: u64,
    disabled: u64,
    given_up: u64,
    grown: u64,
}

impl UrlNews {
    pub fn delivered(&mut self) {
        self.failing = None;
    }

    /// The URL fails since, for all that is known.
    pub fn fails(&mut self, since: Option<i64>, error: String) {
        self.failing = since.map(|since| Failing { since, error });
    }

    /// The last worker wrote that it fails: it has told of that.
    pub fn was_told_to_fail(&mut self, since: i64, error: String) {
        self.told_since = Some(since);
        self.failing = Some(Failing { since, error });
    }

    pub fn is_disabled(&mut self, why: String) {
        self.disabled = Some(why);
    }

    pub fn gave_up(&mut self, given_up: GivenUp) {
        let before = self.given_up.as_ref().map_or(0, |before| before.messages);
        self.given_up = Some(GivenUp {
            messages: before + given_up.messages,
            ..given_up
        });
    }

    /// Its backlog is old for as long as `old`, or more.
    pub fn note_old_backlog(&mut self, found: &Backlog, now: u64, old: Duration) {
        let known = self.backlog.get_or_insert(OldBacklog {
            messages: found.messages,
            since: now,
            is_told: false,
        });
        let old = u64::try_from(old.as_nanos()).unwrap_or(u64::MAX);
        if known.is_told || now.saturating_sub(known.since) < old {
            return;
        }
        if found.messages > known.messages {
            self.grown = Some(Grown {
                messages: found.messages,
                oldest: found.oldest,
            });
        } else {
            *known = OldBacklog {
                messages: found.messages,
                since: now,
                is_told: false,
            };
        }
    }

    pub fn forget_backlog(&mut self) {
        self.backlog = None;
        self.grown = None;
    }

    /// Everything that users do not know, and from when on they may be told.
    pub fn news(&self) -> Vec<(OperationalEvent, u64)> {
        let mut news = Vec::new();
        match (&self.failing, self.told_since) {
            (Some(_), None) => news.push((OperationalEvent::UrlFailing, self.quiet.failing)),
            (None, Some(_)) => news.push((OperationalEvent::UrlRecovered, self.quiet.recovered)),
            _ => {}
        }
        if self.disabled.is_some() {
            news.push((OperationalEvent::UrlDisabled, self.quiet.disabled));
        }
        if self.given_up.is_some() {
            news.push((OperationalEvent::MessageFailed, self.quiet.given_up));
        }
        if self.grown.is_some() {
            news.push((OperationalEvent::BacklogGrowing, self.quiet.grown));
        }
        news
    }

    pub fn happened(&self, event: OperationalEvent, url_key: i32, at: i64) -> Happened {
        let mut happened = Happened {
            event,
            url_key,
            since: None,
            error: None,
            message_id: None,
            attempts: None,
            messages: None,
            pending: None,
            at: utc_text(at),
        };
        let failing = self.failing.as_ref();
        match event {
            OperationalEvent::UrlFailing => {
                happened.since = failing.map(|failing| utc_text(failing.since));
                happened.error = failing.map(|failing| failing.error.clone());
            }
            OperationalEvent::UrlRecovered => happened.since = self.told_since.map(utc_text),
            OperationalEvent::UrlDisabled => {
                happened.since = failing.map(|failing| utc_text(failing.since));
                happened.error.clone_from(&self.disabled);
            }
            OperationalEvent::MessageFailed => {
                let given_up = self.given_up.as_ref();
                happened.error = given_up.map(|given_up| given_up.error.clone());
                happened.message_id = given_up.map(|given_up| given_up.message_id);
                happened.attempts = given_up.map(|given_up| given_up.attempts);
                happened.messages = given_up.map(|given_up| given_up.messages);
            }
            // It is about no URL.
            OperationalEvent::EventDisabled => {}
            OperationalEvent::BacklogGrowing => {
                let grown = self.grown.as_ref();
                happened.since = grown.map(|grown| utc_text(grown.oldest));
                happened.pending = grown.and_then(|grown| u64::try_from(grown.messages).ok());
            }
        }
        happened
    }

    /// Users were told.
    pub fn told(&mut self, event: OperationalEvent, now: u64) {
        let quiet = match event {
            OperationalEvent::UrlFailing => {
                self.told_since = self.failing.as_ref().map(|failing| failing.since);
                &mut self.quiet.failing
            }
            OperationalEvent::UrlRecovered => {
                self.told_since = None;
                &mut self.quiet.recovered
            }
            OperationalEvent::UrlDisabled => {
                self.disabled = None;
                &mut self.quiet.disabled
            }
            OperationalEvent::MessageFailed => {
                self.given_up = None;
                &mut self.quiet.given_up
            }
            OperationalEvent::EventDisabled => return,
            OperationalEvent::BacklogGrowing => {
                self.grown = None;
                if let Some(backlog) = &mut self.backlog {
                    backlog.is_told = true;
                }
                &mut self.quiet.grown
            }
        };
        *quiet = now + QUIET_NANOS;
    }

    /// A lock was in the way.
    pub fn postpone(&mut self, event: OperationalEvent, now: u64) {
        let quiet = match event {
            OperationalEvent::UrlFailing => &mut self.quiet.failing,
            OperationalEvent::UrlRecovered => &mut self.quiet.recovered,
            OperationalEvent::UrlDisabled => &mut self.quiet.disabled,
            OperationalEvent::MessageFailed => &mut self.quiet.given_up,
            OperationalEvent::EventDisabled => return,
            OperationalEvent::BacklogGrowing => &mut self.quiet.grown,
        };
        *quiet = now + AGAIN_NANOS;
    }

    pub fn may_be_forgotten(&self, now: u64) -> bool {
        let Quiet {
            failing,
            recovered,
            disabled,
            given_up,
            grown,
        } = self.quiet;
        let quiet_until = [failing, recovered, disabled, given_up, grown];
        let is_well = self.failing.is_none() && self.backlog.is_none();
        is_well && self.news().is_empty() && quiet_until.iter().all(|at| *at <= now)
    }

    /// When the first news may be told, if there is any.
    pub fn due_at(&self) -> Option<u64> {
        self.news().into_iter().map(|(_, from)| from).min()
    }

    /// When users may be told that the backlog has grown, if it has.
    pub fn grown_due_at(&self) -> Option<u64> {
        self.grown.as_ref().map(|_| self.quiet.grown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing(since: i64) -> Option<Failing> {
        Some(Failing {
            since,
            error: "answered 500".to_owned(),
        })
    }

    fn due(url: &UrlNews, now: u64) -> Vec<OperationalEvent> {
        let news = url.news().into_iter().filter(|(_, from)| *from <= now);
        news.map(|(event, _)| event).collect()
    }

    #[test]
    fn a_url_that_comes_and_goes_is_told_of_once_a_minute_and_as_it_is_then() {
        use OperationalEvent::{UrlFailing, UrlRecovered};
        let mut url = UrlNews {
            failing: failing(1),
            ..UrlNews::default()
        };
        assert_eq!(due(&url, 5), [UrlFailing]);
        url.told(UrlFailing, 5);
        assert_eq!(due(&url, 5), []);
        url.failing = None;
        assert_eq!(due(&url, 6), [UrlRecovered]);
        let recovered = url.happened(UrlRecovered, 7, 8);
        assert_eq!(recovered.since, Some(utc_text(1)));
        url.told(UrlRecovered, 6);
        // Again, too early; and over before the minute is.
        url.failing = failing(7);
        assert_eq!(due(&url, 4 + QUIET_NANOS), []);
        url.failing = None;
        assert_eq!(due(&url, 10 + QUIET_NANOS), []);
        assert!(url.may_be_forgotten(10 + QUIET_NANOS));
        // Again, and for longer.
        url.failing = failing(9);
        assert_eq!(due(&url, 5 + QUIET_NANOS), [UrlFailing]);
        assert!(!url.may_be_forgotten(10 + QUIET_NANOS));
    }

    #[test]
    fn a_backlog_grows_if_it_is_old_and_larger_after_as_long_a_time() {
        const OLD: Duration = Duration::from_nanos(100);
        let mut url = UrlNews::default();
        let mut found = |messages, now| {
            let backlog = Backlog {
                url_key: 7,
                messages,
                oldest: 1,
            };
            url.note_old_backlog(&backlog, now, OLD);
            if let Some(grown) = url.grown.clone() {
                url.told(OperationalEvent::BacklogGrowing, now);
                return Some(grown.messages);
            }
            None
        };
        assert_eq!(found(10, 0), None);
        assert_eq!(found(20, 99), None);
        // Not larger: the time starts again.
        assert_eq!(found(10, 100), None);
        assert_eq!(found(11, 199), None);
        assert_eq!(found(11, 200), Some(11));
        // Once, until it is not old any more.
        assert_eq!(found(90, 400), None);
        url.forget_backlog();
        assert!(url.may_be_forgotten(400 + QUIET_NANOS));
        assert_eq!(url.news(), []);
    }

    #[test]
    fn what_a_lock_has_kept_from_being_told_is_told_later() {
        let mut url = UrlNews {
            disabled: Some("the receiver answered 410 Gone".to_owned()),
            given_up: Some(GivenUp {
                url_key: 7,
                messages: 3,
                message_id: Uuid::nil(),
                attempts: 2,
                error: "answered 410".to_owned(),
            }),
            ..UrlNews::default()
        };
        let both = [
            OperationalEvent::UrlDisabled,
            OperationalEvent::MessageFailed,
        ];
        for event in both {
            url.postpone(event, 5);
        }
        assert_eq!(due(&url, 5), []);
        assert_eq!(due(&url, 5 + AGAIN_NANOS), both);
        let failed = url.happened(OperationalEvent::MessageFailed, 7, 0);
        assert_eq!((failed.messages, failed.attempts), (Some(3), Some(2)));
        for event in both {
            url.told(event, 5);
        }
        assert_eq!(url.news(), []);
    }
}
