//! What users are told of URLs: operational events.
//!
//! Owns what they were told last. What calls came to is compared with that in the transaction that
//! writes it, so that a crash loses none. At most one of a kind for a URL and minute: what is
//! different after that minute is told then. Messages of operational events that fail are not told of, so that
//! two webhooks that watch each other do not keep each other busy.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::failures::GivenUp;
use super::rows;
use crate::core::definitions::operational::OperationalEvent;
use crate::delivery::call::Verdict;
use crate::pg::clock;
use crate::pg::tx::{self, Failure};
use crate::store::operational_messages::{Happened, OperationalMessages, Told};
use crate::worker::settled::Settled;
use crate::worker::time;

/// Between two events of one kind about one URL.
const QUIET_NANOS: u64 = 60_000_000_000;
/// After a lock was in the way.
const AGAIN_NANOS: u64 = 1_000_000_000;
/// A backlog is old if its oldest message waits for longer than this, and grows if it has more
/// messages after as long a time.
const OLD_BACKLOG: Duration = Duration::from_secs(300);
/// More URLs that are healthy and were told of are looked through for those that may be forgotten.
const REMEMBERED: usize = 1_000;

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

/// One URL.
#[derive(Clone, Default)]
struct Url {
    failing: Option<Failing>,
    /// When a failure that users were told of began.
    told_since: Option<i64>,
    disabled: Option<String>,
    given_up: Option<GivenUp>,
    backlog: Option<OldBacklog>,
    grown: Option<Grown>,
    quiet: Quiet,
    /// As it stands among those that wait.
    waits_until: Option<u64>,
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

impl Url {
    fn note(&mut self, settled: &Settled) {
        if !settled.url_is_live {
            return;
        }
        match settled.outcome.verdict {
            Verdict::Delivered => self.failing = None,
            Verdict::Failed | Verdict::Gone if !settled.is_operational => {
                let since = settled.failing_since;
                let error = rows::last_error(settled).unwrap_or_default();
                self.failing = since.map(|since| Failing { since, error });
            }
            _ => {}
        }
        if let Some(given_up) = rows::given_up(settled).filter(|_| !settled.is_operational) {
            let before = self.given_up.as_ref().map_or(0, |before| before.messages);
            self.given_up = Some(GivenUp {
                messages: before + given_up.messages,
                ..given_up
            });
        }
    }

    /// Its backlog is old for as long as `old`, or more.
    fn note_old_backlog(&mut self, found: &Backlog, now: u64, old: Duration) {
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

    fn forget_backlog(&mut self) {
        self.backlog = None;
        self.grown = None;
    }

    /// Everything that users do not know, and from when on they may be told.
    fn news(&self) -> Vec<(OperationalEvent, u64)> {
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

    fn happened(&self, event: OperationalEvent, url_key: i32, at: i64) -> Happened {
        let mut happened = Happened {
            event,
            url_key,
            since: None,
            error: None,
            message_id: None,
            attempts: None,
            messages: None,
            pending: None,
            at: time::text(at),
        };
        let failing = self.failing.as_ref();
        match event {
            OperationalEvent::UrlFailing => {
                happened.since = failing.map(|failing| time::text(failing.since));
                happened.error = failing.map(|failing| failing.error.clone());
            }
            OperationalEvent::UrlRecovered => happened.since = self.told_since.map(time::text),
            OperationalEvent::UrlDisabled => {
                happened.since = failing.map(|failing| time::text(failing.since));
                happened.error.clone_from(&self.disabled);
            }
            OperationalEvent::MessageFailed => {
                let given_up = self.given_up.as_ref();
                happened.error = given_up.map(|given_up| given_up.error.clone());
                happened.message_id = given_up.map(|given_up| given_up.message_id);
                happened.attempts = given_up.map(|given_up| given_up.attempts);
                happened.messages = given_up.map(|given_up| given_up.messages);
            }
            OperationalEvent::BacklogGrowing => {
                let grown = self.grown.as_ref();
                happened.since = grown.map(|grown| time::text(grown.oldest));
                happened.pending = grown.and_then(|grown| u64::try_from(grown.messages).ok());
            }
        }
        happened
    }

    /// Users were told.
    fn told(&mut self, event: OperationalEvent, now: u64) {
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
    fn postpone(&mut self, event: OperationalEvent, now: u64) {
        let quiet = match event {
            OperationalEvent::UrlFailing => &mut self.quiet.failing,
            OperationalEvent::UrlRecovered => &mut self.quiet.recovered,
            OperationalEvent::UrlDisabled => &mut self.quiet.disabled,
            OperationalEvent::MessageFailed => &mut self.quiet.given_up,
            OperationalEvent::BacklogGrowing => &mut self.quiet.grown,
        };
        *quiet = now + AGAIN_NANOS;
    }

    fn may_be_forgotten(&self, now: u64) -> bool {
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
}

/// See the module.
pub(super) struct Operational {
    store: OperationalMessages,
    urls: HashMap<i32, Url>,
    /// When those with news may be told of, and the URL.
    waiting: BTreeSet<(u64, i32)>,
    forget_from: usize,
}

/// What is so once the transaction is committed.
#[derive(Default)]
pub(super) struct Draft {
    urls: HashMap<i32, Url>,
    pub told: Told,
}

impl Operational {
    pub fn new() -> Self {
        Self {
            store: OperationalMessages::new(),
            urls: HashMap::new(),
            waiting: BTreeSet::new(),
            forget_from: REMEMBERED,
        }
    }

    /// The last worker wrote that the URL fails: it has told of that.
    pub fn fails_since(&mut self, url_key: i32, since: i64, error: &str) {
        let url = self.urls.entry(url_key).or_default();
        url.told_since = Some(since);
        url.failing = Some(Failing {
            since,
            error: error.to_owned(),
        });
    }

    /// Takes in what waits at all URLs that are called.
    pub fn note_backlogs(&mut self, backlogs: &[Backlog], now: u64) {
        let old = old_backlog();
        let old_since = clock::now() - i64::try_from(old.as_micros()).unwrap_or(i64::MAX / 4);
        let found = backlogs.iter().filter(|found| found.oldest < old_since);
        let found: HashMap<i32, &Backlog> = found.map(|found| (found.url_key, found)).collect();
        for url_key in found.keys() {
            self.urls.entry(*url_key).or_default();
        }
        for (url_key, url) in &mut self.urls {
            match found.get(url_key) {
                Some(found) => url.note_old_backlog(found, now, old),
                None => url.forget_backlog(),
            }
            if url.waits_until.is_none() && url.grown.is_some() {
                let from = url.quiet.grown.max(now);
                url.waits_until = Some(from);
                self.waiting.insert((from, *url_key));
            }
        }
    }

    /// From when on there is something to tell of a URL that `is_locked` does not hold.
    pub fn due_at(&self, is_locked: impl Fn(i32) -> bool) -> Option<u64> {
        let mut waiting = self.waiting.iter();
        let first = waiting.find(|(_, url_key)| !is_locked(*url_key));
        first.map(|(at, _)| *at)
    }

    /// Writes what users are not told of, among it what these calls came to. In a transaction.
    pub fn write<'a>(
        &self,
        settled: impl Iterator<Item = &'a Settled>,
        switched_off: &[(i32, String)],
        in_scope: impl Fn(i32) -> bool,
        now: u64,
    ) -> Draft {
        let mut draft = Draft::default();
        for settled in settled {
            let url_key = settled.url_key;
            let is_known = self.urls.contains_key(&url_key) || draft.urls.contains_key(&url_key);
            if is_known || settled.outcome.verdict != Verdict::Delivered {
                self.drafted(&mut draft, url_key).note(settled);
            }
        }
        for (url_key, why) in switched_off {
            self.drafted(&mut draft, *url_key).disabled = Some(why.clone());
        }
        for (_, url_key) in self.waiting.range(..=(now, i32::MAX)) {
            if in_scope(*url_key) {
                self.drafted(&mut draft, *url_key);
            }
        }
        self.tell(&mut draft, now);
        draft
    }

    fn drafted<'d>(&self, draft: &'d mut Draft, url_key: i32) -> &'d mut Url {
        let known = || self.urls.get(&url_key).cloned().unwrap_or_default();
        draft.urls.entry(url_key).or_insert_with(known)
    }

    /// A lock that is waited for in vain keeps nothing else from being written.
    fn tell(&self, draft: &mut Draft, now: u64) {
        let at = clock::now();
        let mut events = Vec::new();
        for (url_key, url) in &draft.urls {
            let due = url.news().into_iter().filter(|(_, from)| *from <= now);
            events.extend(due.map(|(event, _)| (*url_key, event)));
        }
        if events.is_empty() {
            return;
        }
        events.sort_unstable();
        let happened: Vec<Happened> = events
            .iter()
            .map(|(url_key, event)| draft.urls[url_key].happened(*event, *url_key, at))
            .collect();
        let told = match tx::part(|| self.store.put(&happened)) {
            Ok(told) => Some(told),
            Err(failure) if failure.is_lock_not_available() => None,
            Err(failure) => failure.raise(),
        };
        for (url_key, event) in events {
            let url = draft.urls.entry(url_key).or_default();
            match told {
                Some(_) => url.told(event, now),
                None => url.postpone(event, now),
            }
        }
        draft.told = told.unwrap_or_default();
    }

    /// The transaction is committed.
    pub fn committed(&mut self, draft: Draft, now: u64) -> Told {
        for (url_key, mut url) in draft.urls {
            if let Some(until) = url.waits_until.take() {
                self.waiting.remove(&(until, url_key));
            }
            url.waits_until = url.news().into_iter().map(|(_, from)| from).min();
            if let Some(until) = url.waits_until {
                self.waiting.insert((until, url_key));
            }
            self.urls.insert(url_key, url);
        }
        if self.urls.len() > self.forget_from {
            self.urls.retain(|_, url| !url.may_be_forgotten(now));
            self.forget_from = REMEMBERED.max(2 * self.urls.len());
        }
        draft.told
    }

    /// Tells sessions that listen. Opens a transaction.
    ///
    /// # Errors
    /// They are not told.
    pub fn notify(&self, payloads: &[String]) -> Result<(), Failure> {
        tx::transaction(|| self.store.notify(payloads))
    }
}

fn old_backlog() -> Duration {
    #[cfg(feature = "fault_injection")]
    if crate::pg::fault::is_set("impatient") {
        return Duration::from_secs(1);
    }
    OLD_BACKLOG
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn failing(since: i64) -> Option<Failing> {
        Some(Failing {
            since,
            error: "answered 500".to_owned(),
        })
    }

    fn due(url: &Url, now: u64) -> Vec<OperationalEvent> {
        let news = url.news().into_iter().filter(|(_, from)| *from <= now);
        news.map(|(event, _)| event).collect()
    }

    #[test]
    fn a_url_that_comes_and_goes_is_told_of_once_a_minute_and_as_it_is_then() {
        use OperationalEvent::{UrlFailing, UrlRecovered};
        let mut url = Url {
            failing: failing(1),
            ..Url::default()
        };
        assert_eq!(due(&url, 5), [UrlFailing]);
        url.told(UrlFailing, 5);
        assert_eq!(due(&url, 5), []);
        url.failing = None;
        assert_eq!(due(&url, 6), [UrlRecovered]);
        let recovered = url.happened(UrlRecovered, 7, 8);
        assert_eq!(recovered.since, Some(time::text(1)));
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
        let mut url = Url::default();
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
        // Not larger: the time begins anew.
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
        let mut url = Url {
            disabled: Some("the receiver answered 410 Gone".to_owned()),
            given_up: Some(GivenUp {
                url_key: 7,
                messages: 3,
                message_id: Uuid::nil(),
                attempts: 2,
                error: "answered 410".to_owned(),
            }),
            ..Url::default()
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
