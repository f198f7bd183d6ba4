//! What users are told of URLs: operational events.
//!
//! Owns what they were told last. What calls came to is compared with that in the transaction that
//! writes it, so that a crash loses none. At most one of a kind for a URL and minute: what is
//! different after that minute is told then. Messages of operational events that fail are not told of, so that
//! two webhooks that watch each other do not keep each other busy.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::rows;
use crate::core::health::news::{Backlog, Happened, UrlNews};
use crate::delivery::call::Verdict;
use crate::pg::clock;
use crate::pg::tx::{self, Failure};
use crate::store::operational_messages::{OperationalMessages, Told};
use crate::worker::settled::Settled;

/// A backlog is old if its oldest message waits for longer than this, and grows if it has more
/// messages after as long a time.
const OLD_BACKLOG: Duration = Duration::from_secs(300);
/// More URLs that are healthy and were told of are looked through for those that may be forgotten.
const REMEMBERED: usize = 1_000;

/// One URL.
#[derive(Clone, Default)]
struct Url {
    news: UrlNews,
    /// Its entry among those that wait.
    waits_until: Option<u64>,
}

fn note(news: &mut UrlNews, settled: &Settled) {
    if !settled.url_is_live {
        return;
    }
    match settled.outcome.verdict {
        Verdict::Delivered => news.delivered(),
        Verdict::Failed | Verdict::Gone if !settled.is_operational => {
            let error = rows::last_error(settled).unwrap_or_default();
            news.fails(settled.failing_since, error);
        }
        _ => {}
    }
    if let Some(given_up) = rows::given_up(settled).filter(|_| !settled.is_operational) {
        news.gave_up(given_up);
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
        url.news.was_told_to_fail(since, error.to_owned());
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
                Some(found) => url.news.note_old_backlog(found, now, old),
                None => url.news.forget_backlog(),
            }
            if let (None, Some(from)) = (url.waits_until, url.news.grown_due_at()) {
                let from = from.max(now);
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
                note(&mut self.drafted(&mut draft, url_key).news, settled);
            }
        }
        for (url_key, why) in switched_off {
            self.drafted(&mut draft, *url_key)
                .news
                .is_disabled(why.clone());
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
            let due = url.news.news().into_iter().filter(|(_, from)| *from <= now);
            events.extend(due.map(|(event, _)| (*url_key, event)));
        }
        if events.is_empty() {
            return;
        }
        events.sort_unstable();
        let happened: Vec<Happened> = events
            .iter()
            .map(|(url_key, event)| draft.urls[url_key].news.happened(*event, *url_key, at))
            .collect();
        let told = match tx::part(|| self.store.put(&happened)) {
            Ok(told) => Some(told),
            Err(failure) if failure.is_lock_not_available() => None,
            Err(failure) => failure.raise(),
        };
        for (url_key, event) in events {
            let url = draft.urls.entry(url_key).or_default();
            match told {
                Some(_) => url.news.told(event, now),
                None => url.news.postpone(event, now),
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
            url.waits_until = url.news.due_at();
            if let Some(until) = url.waits_until {
                self.waiting.insert((until, url_key));
            }
            self.urls.insert(url_key, url);
        }
        if self.urls.len() > self.forget_from {
            self.urls.retain(|_, url| !url.news.may_be_forgotten(now));
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
