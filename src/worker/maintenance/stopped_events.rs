//! Tells users of events that make no more messages.
//!
//! A column that an event needs is dropped, or its table, or its trigger is disabled: no call of the extension does
//! that, so that nobody is told. Events are looked at when their table or definition changes, and all
//! of them, page by page, when a worker starts and when roles, settings or more has changed than was noted. What
//! users were told is written down, so that they are told once. An event that stops again within a
//! minute is told of after that minute. What fails is tried again.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::mem;
use std::time::{Duration, Instant};

use pgrx::pg_sys;

use crate::core::values::time_text::utc_text;
use crate::pg::tx::{self, Failure};
use crate::pg::{clock, invalidation};
use crate::store::operational_messages::{OperationalMessages, Told};
use crate::store::stopped_events::{StoppedEvent, StoppedEvents};
use crate::worker::locks::{Locks, Work};
use crate::worker::time::Ticker;

/// A page takes two to four milliseconds, in which nothing is sent.
const PAGE: usize = 20;
/// Finding out which events to look at takes as long for one as for all of a table: 0.1 s where there are
/// 100,000.
const KEYS_AT_ONCE: usize = 20_000;
const NEXT_PAGE: Duration = Duration::from_millis(100);
/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// Between two beginnings of a look at all events, which changed roles and settings ask for, and more changes
/// than were noted.
const ALL_AGAIN_AFTER: Duration = Duration::from_secs(600);
/// Between two tellings of one event.
const QUIET: Duration = Duration::from_secs(60);

/// See the module.
pub(super) struct StoppedEventWatch {
    store: StoppedEvents,
    messages: OperationalMessages,
    next_look: Instant,
    look: Option<Look>,
    all_since: Instant,
    /// All are to be looked at once more, but not too soon.
    all_again: bool,
    roles: u64,
    /// What has changed since the look began that goes on.
    changed: Changed,
    /// Users were told of these a moment ago.
    told: BTreeMap<i32, Instant>,
    /// Of these they are to be told.
    postponed: BTreeSet<i32>,
}

/// Which events may have stopped.
#[derive(Default)]
struct Changed {
    events: BTreeSet<i32>,
    webhooks: BTreeSet<i32>,
    tables: HashSet<pg_sys::Oid>,
}

/// Goes on in pages.
enum Look {
    All {
        after: i32,
    },
    At {
        changed: Changed,
        /// The next ones, in order.
        keys: VecDeque<i32>,
        /// There are more after this one.
        more_after: Option<i32>,
    },
}

/// What a page came to.
struct Found {
    /// Its last event, if the page was full.
    full_up_to: Option<i32>,
    tables: HashSet<pg_sys::Oid>,
    stopped: Vec<StoppedEvent>,
    resumed: Vec<StoppedEvent>,
    postponed: BTreeSet<i32>,
    told: Told,
}

impl Changed {
    fn is_empty(&self) -> bool {
        self.events.is_empty() && self.webhooks.is_empty() && self.tables.is_empty()
    }

    /// In a transaction.
    fn keys(&self, store: &StoppedEvents, after: i32) -> Vec<i32> {
        let events = Vec::from_iter(self.events.iter().copied());
        let webhooks = Vec::from_iter(self.webhooks.iter().copied());
        let tables = Vec::from_iter(self.tables.iter().copied());
        let at = (&*events, &*webhooks, &*tables);
        store.keys(at, after, KEYS_AT_ONCE as i64)
    }
}

impl Look {
    const ALL: Self = Self::All { after: 0 };

    fn at(changed: Changed) -> Self {
        Self::At {
            changed,
            keys: VecDeque::new(),
            more_after: Some(0),
        }
    }

    /// Which keys are to be read first.
    fn missing_keys(&self) -> Option<(&Changed, i32)> {
        match self {
            Self::At {
                changed,
                keys,
                more_after: Some(after),
            } if keys.is_empty() => Some((changed, *after)),
            _ => None,
        }
    }

    /// `None`: there is nothing to look at.
    fn with_keys(self, read: Vec<i32>) -> Option<Self> {
        let Self::At { changed, .. } = self else {
            return Some(self);
        };
        let last = read.last().copied()?;
        Some(Self::At {
            changed,
            more_after: (read.len() == KEYS_AT_ONCE).then_some(last),
            keys: read.into(),
        })
    }

    /// In a transaction.
    fn page(&self, store: &StoppedEvents) -> Vec<StoppedEvent> {
        match self {
            Self::All { after } => store.after(*after, PAGE as i64),
            Self::At { keys, .. } => store.of(&Vec::from_iter(keys.iter().copied().take(PAGE))),
        }
    }

    /// After a page.
    fn rest(self, full_up_to: Option<i32>) -> Option<Self> {
        match self {
            Self::All { .. } => full_up_to.map(|after| Self::All { after }),
            Self::At {
                changed,
                mut keys,
                more_after,
            } => {
                keys.drain(..keys.len().min(PAGE));
                let is_over = keys.is_empty() && more_after.is_none();
                (!is_over).then_some(Self::At {
                    changed,
                    keys,
                    more_after,
                })
            }
        }
    }
}

impl StoppedEventWatch {
    pub fn new() -> Self {
        Self {
            store: StoppedEvents::new(),
            messages: OperationalMessages::new(),
            next_look: Instant::now() + PAUSE,
            look: Some(Look::ALL),
            all_since: Instant::now(),
            all_again: false,
            roles: invalidation::role_generation(),
            changed: Changed::default(),
            told: BTreeMap::new(),
            postponed: BTreeSet::new(),
        }
    }

    /// More has changed than was told, or a setting that stops events.
    pub fn anything_changed(&mut self) {
        self.all_again = true;
    }

    pub fn is_due(&self) -> bool {
        Instant::now() >= self.next_look
    }

    /// How long until the next page, if there is one.
    pub fn due_in(&self) -> Option<Duration> {
        let left = self.next_look.saturating_duration_since(Instant::now());
        self.look.as_ref().map(|_| left)
    }

    /// The definitions of these webhooks have changed.
    pub fn webhooks_changed(&mut self, webhook_keys: &BTreeSet<i32>) {
        self.changed.webhooks.extend(webhook_keys);
    }

    /// Opens a transaction if there is something to look at.
    pub fn look_if_due(&mut self, locks: &mut Locks, ticker: Ticker) -> Option<Told> {
        let now = Instant::now();
        if now < self.next_look {
            return None;
        }
        self.next_look = now + PAUSE;
        if !locks.may_try(Work::StoppedEvents, ticker.now()) {
            return None;
        }
        self.note_changes(now);
        self.begin(now);
        let look = self.look.as_ref()?;
        let result = match look.missing_keys() {
            Some((changed, after)) => {
                let keys = tx::transaction(|| changed.keys(&self.store, after));
                keys.map(|keys| self.take_keys(keys))
            }
            None => self
                .look_at_page(look)
                .map(|found| Some(self.accept(found, now))),
        };
        match result {
            Ok(told) => {
                locks.succeeded(Work::StoppedEvents);
                if self.look.is_some() {
                    self.next_look = now + NEXT_PAGE;
                }
                told
            }
            Err(failure) if failure.is_lock_not_available() => {
                locks.failed(Work::StoppedEvents, ticker.now());
                None
            }
            Err(failure) => {
                pgrx::warning!(
                    "could not look for events that make no messages: {}",
                    failure.message
                );
                None
            }
        }
    }

    fn take_keys(&mut self, keys: Vec<i32>) -> Option<Told> {
        self.look = self.look.take().and_then(|look| look.with_keys(keys));
        None
    }

    fn look_at_page(&self, look: &Look) -> Result<Found, Failure> {
        invalidation::note_all_while(|| {
            tx::transaction(|| self.find(look)).inspect(|found| {
                for table in &found.tables {
                    invalidation::note_changes_of(*table);
                }
            })
        })
    }

    fn note_changes(&mut self, now: Instant) {
        match invalidation::take_changed_tables().relations() {
            Some(tables) => self.changed.tables.extend(tables),
            None => self.all_again = true,
        }
        let roles = invalidation::role_generation();
        self.all_again |= roles != self.roles;
        self.roles = roles;
        self.told.retain(|_, at| now.duration_since(*at) < QUIET);
        let told = &self.told;
        let due = self.postponed.iter().filter(|key| !told.contains_key(key));
        self.changed.events.extend(due);
        self.postponed.retain(|key| told.contains_key(key));
    }

    /// Begins the next look, if the last one is over.
    fn begin(&mut self, now: Instant) {
        if self.look.is_some() {
            return;
        }
        if self.all_again && now.duration_since(self.all_since) >= ALL_AGAIN_AFTER {
            self.all_again = false;
            self.all_since = now;
            self.look = Some(Look::ALL);
        } else if !self.changed.is_empty() {
            self.look = Some(Look::at(mem::take(&mut self.changed)));
        }
    }

    /// A page of the look, with what follows from it. In a transaction.
    fn find(&self, look: &Look) -> Found {
        let events = look.page(&self.store);
        #[cfg(feature = "fault_injection")]
        crate::pg::fault::delay_if("slow_look", Duration::from_secs(2));
        let last = events.last().filter(|_| events.len() == PAGE);
        let mut found = Found {
            full_up_to: last.map(|event| event.event_key),
            tables: events.iter().filter_map(|event| event.table).collect(),
            stopped: Vec::new(),
            resumed: Vec::new(),
            postponed: BTreeSet::new(),
            told: Told::default(),
        };
        for event in events {
            match (&event.reason, &event.told) {
                (Some(_), None) if self.told.contains_key(&event.event_key) => {
                    found.postponed.insert(event.event_key);
                }
                (Some(_), None) => found.stopped.push(event),
                (None, Some(_)) => found.resumed.push(event),
                _ => {}
            }
        }
        self.store.mark(found.stopped.iter());
        let resumed = found.resumed.iter().map(|event| event.event_key);
        self.store.forget(&Vec::from_iter(resumed));
        if !found.stopped.is_empty() {
            let at = utc_text(clock::now());
            found.told = self.messages.put_stopped(&found.stopped, &at);
        }
        found
    }

    /// The transaction is committed.
    fn accept(&mut self, found: Found, now: Instant) -> Told {
        let look = self.look.take();
        self.look = look.and_then(|look| look.rest(found.full_up_to));
        self.postponed.extend(found.postponed);
        for event in found.stopped {
            pgrx::warning!(
                "{} makes no more messages: {}",
                label(&event),
                event.reason.as_deref().unwrap_or_default()
            );
            self.told.insert(event.event_key, now);
        }
        for event in found.resumed {
            pgrx::log!("{} makes messages again, or is no more", label(&event));
        }
        found.told
    }
}

fn label(event: &StoppedEvent) -> String {
    format!(
        "event {} of webhook \"{}\" on {}",
        event.id,
        event.webhook_name,
        event
            .object_name
            .as_deref()
            .unwrap_or("a table that is gone")
    )
}
