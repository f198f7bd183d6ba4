//! The definitions of the webhooks that are in use, compiled for sending.
//!
//! Owns a bounded cache by webhook, what is known of missing rows, and which webhooks' views do
//! not say yet that their rows cannot be used. Takes keys and gives what is known of them; a
//! webhook is read when a message, a retry or restored state names it, and again when it changed
//! (`webhook_internal.definition_change` says which). If a read fails, the cache stays as it was and what
//! changed is asked for again.

#![forbid(unsafe_code)]

mod changes;
mod compile;
mod details;
mod missing;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use pgrx::pg_sys;

pub use changes::Changes;
use compile::Surroundings;
pub use compile::{Logged, UrlRoute, WebhookRoute};
pub use missing::Blocked;

use super::locks::Locks;
use super::time::Ticker;
use crate::core::messages::snapshot::Snapshot;
use crate::core::policy::throttle::Part;
use crate::pg::invalidation;
use crate::pg::settings::Delivery;
use crate::store::cancellations::CancellationStore;
use crate::store::definition_log::DefinitionLog;
use crate::store::outbox::StoredMessage;
use crate::store::routing::{Definitions as Rows, RoutingStore};
use details::Details;
use missing::Missing;

/// Webhooks that are kept although nothing of theirs is under way.
const CACHED_WEBHOOKS: usize = 2_000;
/// What they take in memory, about.
const CACHED_BYTES: usize = 16 << 20;
/// What is in use stays: the cache is looked through when it has grown by such a part again.
const GROWN_BY: usize = 4;

/// What is known of a webhook.
#[derive(Clone)]
pub enum Known {
    Live(Arc<WebhookRoute>),
    /// Its row is a tombstone.
    Dropped,
    /// It has no row: it was deleted by hand, or it could not be read.
    Absent,
}

impl Known {
    pub fn live(&self) -> Option<&Arc<WebhookRoute>> {
        match self {
            Self::Live(route) => Some(route),
            Self::Dropped | Self::Absent => None,
        }
    }

    /// It has a URL that takes what comes.
    fn sends(&self) -> bool {
        self.live().is_some_and(|route| route.sends())
    }

    fn bytes(&self) -> usize {
        self.live().map_or(0, |route| route.bytes)
    }
}

struct Cached {
    known: Known,
    used_at: u64,
}

/// See the module.
pub struct Definitions {
    routing: RoutingStore,
    cancellations: CancellationStore,
    log: DefinitionLog,
    surroundings: Surroundings,
    cached: HashMap<i32, Cached>,
    cached_bytes: usize,
    /// Which webhooks in the cache have events on a table.
    by_table: HashMap<pg_sys::Oid, BTreeSet<i32>>,
    /// Of these, webhooks that send what they get.
    sending: usize,
    /// Webhooks and bytes that the last look through the cache has left.
    left: (usize, usize),
    /// Webhooks that could not be read when a message named them.
    owed: BTreeSet<i32>,
    /// Counts up with each use of the cache.
    uses: u64,
    /// Changes that this snapshot sees are known. `None`: nothing was read yet.
    read_up_to: Option<Snapshot>,
    /// The log has rows that were read.
    log_has_read_rows: bool,
    /// Has to be read again, for reasons of our own.
    to_read: Changes,
    missing: Missing,
    details: Details,
}

impl Definitions {
    pub fn new(settings: &Delivery) -> Self {
        Self {
            routing: RoutingStore::new(),
            cancellations: CancellationStore::new(),
            log: DefinitionLog::new(),
            surroundings: Surroundings {
                account_id: settings.account_id.clone(),
                integration_url: settings.integration_url.clone(),
                part: Part::WHOLE,
            },
            cached: HashMap::new(),
            cached_bytes: 0,
            by_table: HashMap::new(),
            sending: 0,
            left: (0, 0),
            owed: BTreeSet::new(),
            uses: 0,
            read_up_to: None,
            log_has_read_rows: true,
            to_read: Changes::everything(),
            missing: Missing::default(),
            details: Details::default(),
        }
    }

    /// SIGHUP: bodies are compiled with the new settings.
    pub fn reconfigure(&mut self, settings: &Delivery) {
        let surroundings = &mut self.surroundings;
        surroundings.account_id.clone_from(&settings.account_id);
        surroundings
            .integration_url
            .clone_from(&settings.integration_url);
        self.read_again(Changes::everything());
    }

    /// Other nodes have come or gone with which the rates of webhooks are shared.
    pub fn share_rates(&mut self, part: Part) {
        if self.surroundings.part != part {
            self.surroundings.part = part;
            self.read_again(Changes::everything());
        }
    }

    /// What is in the cache; nothing of a webhook that is owed.
    pub fn get(&mut self, webhook_key: i32) -> Option<&Known> {
        if self.owed.contains(&webhook_key) {
            return None;
        }
        self.uses += 1;
        let cached = self.cached.get_mut(&webhook_key)?;
        cached.used_at = self.uses;
        Some(&cached.known)
    }

    /// Reads those of these webhooks that are not in the cache, in one go. In a transaction.
    pub fn need(&mut self, webhook_keys: impl IntoIterator<Item = i32>) {
        let keys: BTreeSet<i32> = webhook_keys
            .into_iter()
            .filter(|key| !self.cached.contains_key(key))
            .collect();
        self.load(&Vec::from_iter(keys));
    }

    /// Reads these webhooks, whether they are in the cache or not. In a transaction.
    pub fn load(&mut self, webhook_keys: &[i32]) {
        if webhook_keys.is_empty() {
            return;
        }
        // Which tables they watch is not known before.
        invalidation::watch_all_while(|| {
            let rows = self.routing.load(webhook_keys);
            let canceled = self.cancellations.newest(webhook_keys);
            let mut found = self.compile(rows, canceled);
            for key in webhook_keys {
                let known = found.remove(key).unwrap_or(Known::Absent);
                self.details.note(*key, &known);
                self.missing.webhook_was_read(*key, &known);
                self.remember(*key, known);
            }
        });
    }

    fn compile(&self, rows: Rows, canceled: Vec<(i32, Snapshot)>) -> HashMap<i32, Known> {
        let canceled = canceled
            .into_iter()
            .map(|(url_key, before)| (url_key, Arc::new(before)))
            .collect();
        compile::compile(rows, &canceled, &self.surroundings)
    }

    fn remember(&mut self, webhook_key: i32, known: Known) {
        self.forget(webhook_key);
        if let Some(route) = known.live() {
            for table in &route.tables {
                let watching = self.by_table.entry(*table).or_default();
                if watching.is_empty() {
                    invalidation::watch(*table);
                }
                watching.insert(webhook_key);
            }
        }
        self.cached_bytes += known.bytes();
        self.sending += usize::from(known.sends());
        self.uses += 1;
        let cached = Cached {
            known,
            used_at: self.uses,
        };
        self.cached.insert(webhook_key, cached);
    }

    fn forget(&mut self, webhook_key: i32) {
        let Some(cached) = self.cached.remove(&webhook_key) else {
            return;
        };
        self.cached_bytes = self.cached_bytes.saturating_sub(cached.known.bytes());
        self.sending -= usize::from(cached.known.sends());
        let Some(route) = cached.known.live() else {
            return;
        };
        for table in &route.tables {
            let Some(watching) = self.by_table.get_mut(table) else {
                continue;
            };
            watching.remove(&webhook_key);
            if watching.is_empty() {
                self.by_table.remove(table);
                invalidation::unwatch(*table);
            }
        }
    }

    /// Frees what the cache holds beyond its bounds, the longest unused first; what `is_in_use`
    /// stays.
    pub fn trim(&mut self, is_in_use: impl Fn(i32) -> bool) {
        let (webhooks, bytes) = self.left;
        let most_webhooks = CACHED_WEBHOOKS.max(webhooks + webhooks / GROWN_BY);
        let most_bytes = CACHED_BYTES.max(bytes + bytes / GROWN_BY);
        if self.cached.len() <= most_webhooks && self.cached_bytes <= most_bytes {
            return;
        }
        self.forget_unused(is_in_use);
        self.left = (self.cached.len(), self.cached_bytes);
    }

    fn forget_unused(&mut self, is_in_use: impl Fn(i32) -> bool) {
        let unused = self.cached.iter().filter(|(key, _)| !is_in_use(**key));
        let mut oldest: Vec<(u64, i32)> =
            unused.map(|(key, cached)| (cached.used_at, *key)).collect();
        oldest.sort_unstable();
        // Half of it, so that the next webhook does not have to look again.
        let (webhooks, bytes) = (CACHED_WEBHOOKS / 2, CACHED_BYTES / 2);
        for (_, key) in oldest {
            if self.cached.len() <= webhooks && self.cached_bytes <= bytes {
                return;
            }
            self.forget(key);
        }
    }

    /// What was canceled in the same way for single messages, and what nobody has noted yet, is
    /// read with these statements.
    pub fn cancellations(&self) -> &CancellationStore {
        &self.cancellations
    }

    /// What has to be read for the messages of a page: webhooks that are not in the cache, and
    /// those whose definitions came with a message. The worker is woken before it hears of a
    /// definition, so an event may be newer than its webhook in the cache, or have another body.
    pub fn wanted_for(&mut self, page: &[StoredMessage]) -> BTreeSet<i32> {
        let mut wanted = BTreeSet::new();
        for stored in page {
            let webhook_key = stored.webhook_key;
            let is_known = match self.cached.get(&webhook_key).map(|cached| &cached.known) {
                None => self.owed.contains(&webhook_key),
                Some(Known::Dropped | Known::Absent) => true,
                Some(Known::Live(route)) => match route.events.get(&stored.event_key) {
                    Some(event) => event.fits(stored),
                    None => !self.missing.look_for(stored.event_key),
                },
            };
            if !is_known {
                wanted.insert(webhook_key);
            }
        }
        wanted
    }

    /// These webhooks could not be read. They count as unknown until they are read and applied.
    pub fn owe(&mut self, webhook_keys: BTreeSet<i32>) {
        webhook_keys.iter().for_each(|key| self.forget(*key));
        self.owed.extend(webhook_keys);
    }

    /// What [`Definitions::owe`] was told and is still to be read.
    pub fn owed(&self) -> &BTreeSet<i32> {
        &self.owed
    }

    /// These were read and applied.
    pub fn owes_no_more(&mut self, webhook_keys: &BTreeSet<i32>) {
        self.owed.retain(|key| !webhook_keys.contains(key));
    }

    /// Whether any webhook that was used of late sends what it gets.
    pub fn any_sends(&self) -> bool {
        self.sending > 0
    }

    /// See [`details`].
    pub fn show_details_if_due(&mut self, locks: &mut Locks, ticker: Ticker) {
        self.details.show(&self.routing, locks, ticker);
    }
}
