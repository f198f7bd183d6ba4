//! The worker's state between its transactions.
//!
//! The main thread owns all of it: the lanes, where the tail stands, what waits to
//! be settled. Threads see only jobs. The steps live in files of their own: `tail`,
//! `backlog` and `fifo` read, `dispatch` sends, `settle` writes.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::bodies::{Bodies, Wanted};
use super::locks::{Locks, Work};
use super::message::Message;
use super::notices::Notices;
use super::recount::Recount;
use super::routes::{Routes, WebhookRoute};
use super::shortage::Shortage;
use super::standbys::Standbys;
use super::tail::Tail;
use super::throttling::LetGo;
use super::time::Ticker;
use super::unroutable::{kept_webhook, place_keeper, Unroutable};
use super::unsettled::Settlement;
use super::upkeep::Upkeep;
use super::wall_clock::WallClock;
use super::withdrawals::Withdrawals;
use crate::core::lane::{Entry, Feed, Hold, Lane};
use crate::core::position::Coordinate;
use crate::core::retry::MAX_RETRY_AFTER;
use crate::core::throttle::Throttle;
use crate::delivery::client::ClientConfig;
use crate::delivery::pool::Pool;
use crate::delivery::tls::check_ca_pem;
use crate::pg::clock;
use crate::pg::settings::Delivery;
use crate::store::blockers::BlockerStore;
use crate::store::ledger::{LedgerStore, Restored};
use crate::store::outbox::OutboxReader;
use crate::store::routing::RoutingStore;
use crate::store::settlement::SettlementStore;
use crate::store::shared_windows::SharedWindows;
use crate::store::window_reader::WindowReader;
use crate::store::withdrawals::WithdrawalStore;

/// Undispatched messages in memory, all lanes together.
const QUEUED_MESSAGES: usize = 20_000;
/// Their bodies.
const QUEUED_BYTES: usize = 24 << 20;

pub type MessageLane = Lane<Arc<Message>>;
pub type MessageEntry = Entry<Arc<Message>>;

/// The statements of the worker.
pub struct Stores {
    pub outbox: OutboxReader,
    pub ledger: LedgerStore,
    pub settlement: SettlementStore,
    pub routing: RoutingStore,
    pub withdrawals: WithdrawalStore,
    pub blockers: BlockerStore,
}

impl Stores {
    pub fn new() -> Self {
        Self {
            outbox: OutboxReader::new(),
            ledger: LedgerStore::new(),
            settlement: SettlementStore::new(),
            routing: RoutingStore::new(),
            withdrawals: WithdrawalStore::new(),
            blockers: BlockerStore::new(),
        }
    }
}

/// See the module.
pub struct Engine {
    pub stores: Stores,
    pub settings: Delivery,
    pub routes: Routes,
    pub lanes: BTreeMap<i32, MessageLane>,
    /// Readers of lanes that read their own backlog.
    pub readers: HashMap<i32, WindowReader>,
    pub shared_windows: SharedWindows,
    pub throttles: HashMap<i32, Throttle>,
    /// Calls of throttled webhooks, by token, until it is known when they arrived.
    pub let_go: HashMap<u64, LetGo>,
    pub tail: Tail,
    pub standbys: Standbys,
    pub pool: Pool,
    pub settlement: Settlement,
    pub withdrawals: Withdrawals,
    pub unroutable: Unroutable,
    /// URLs that are neither live nor dropped.
    pub vanished: HashSet<i32>,
    pub upkeep: Upkeep,
    pub recount: Recount,
    pub wall_clock: WallClock,
    /// Work that other sessions' locks hold up.
    pub locks: Locks,
    /// Webhooks whose views do not say yet that their rows cannot be used, or can again.
    pub details_are_due: bool,
    /// A retry that cannot be sent any more could not be given up.
    pub retries_are_locked: bool,
    /// What `webhook.worker.detail` says.
    pub notices: Notices,
    pub ticker: Ticker,
    /// Messages that were busy when the last worker ended, by lane, still to be read.
    pub interrupted: HashMap<i32, Vec<Coordinate>>,
    /// Date of the first message that a lagging lane has still to read, as far as is known.
    pub oldest_behind: HashMap<i32, i64>,
    pub queued: Queued,
    /// Messages whose bodies are read next, so that they can be sent.
    pub bodiless: VecDeque<Wanted>,
    pub bodies: Bodies,
    pub shortage: Shortage,
    /// Of bodies that are no large ones.
    pub bytes_in_flight: usize,
    pub next_retry_at: Option<i64>,
    /// Lanes that had no room for more retries when those were read last.
    pub crowded: Vec<i32>,
    pub next_throttled: Option<u64>,
    pub next_token: u32,
    /// Lagging lanes read in turn, beginning here.
    pub first_lane: usize,
    /// The lane whose turn it is to call.
    pub next_served: i32,
    pub throttled: HashSet<i32>,
}

/// How much undispatched messages hold in memory.
#[derive(Default)]
pub struct Queued {
    pub messages: usize,
    pub bytes: usize,
}

impl Queued {
    pub fn add(&mut self, message: &Message) {
        self.messages += 1;
        self.bytes += message.held_bytes();
    }

    pub fn remove(&mut self, message: &Message) {
        self.messages = self.messages.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(message.held_bytes());
    }

    pub fn is_exhausted(&self) -> bool {
        self.messages >= QUEUED_MESSAGES || self.bytes >= QUEUED_BYTES
    }
}

impl Engine {
    pub fn new(
        stores: Stores,
        settings: Delivery,
        pool: Pool,
        restored: &Restored,
    ) -> Result<Self, String> {
        let ticker = Ticker::start();
        let mut engine = Self {
            stores,
            routes: Routes::default(),
            lanes: BTreeMap::new(),
            readers: HashMap::new(),
            shared_windows: SharedWindows::default(),
            throttles: HashMap::new(),
            let_go: HashMap::new(),
            tail: Tail::restored(&restored.tail),
            standbys: Standbys::new(&settings.standby_slots),
            pool,
            settlement: Settlement::new(restored.tail.seq),
            withdrawals: Withdrawals::default(),
            unroutable: Unroutable::default(),
            vanished: HashSet::new(),
            upkeep: Upkeep::new(),
            recount: Recount::new(),
            wall_clock: WallClock::new(ticker),
            locks: Locks::default(),
            details_are_due: false,
            retries_are_locked: false,
            notices: Notices::default(),
            ticker,
            interrupted: HashMap::new(),
            oldest_behind: HashMap::new(),
            queued: Queued::default(),
            bodiless: VecDeque::new(),
            bodies: Bodies::default(),
            shortage: Shortage::default(),
            bytes_in_flight: 0,
            // Something may be due already.
            next_retry_at: Some(i64::MIN),
            crowded: Vec::new(),
            next_throttled: None,
            next_token: 0,
            first_lane: 0,
            next_served: 0,
            throttled: HashSet::new(),
            settings,
        };
        for state in &restored.lanes {
            let durable = state.durable()?;
            let feed = durable.position.map_or(Feed::Tail, Feed::Own);
            engine
                .oldest_behind
                .extend(state.oldest.map(|oldest| (state.u, oldest)));
            // The webhook is filled in when the definitions are loaded.
            let mut lane = MessageLane::new(state.u, kept_webhook(state.u).unwrap_or(0), feed);
            if let Some(until) = state.until {
                lane.be_silent_until(ticker.now() + silence_left(until, clock::now()));
            }
            engine.lanes.insert(state.u, lane);
            if !durable.busy.is_empty() {
                engine.interrupted.insert(state.u, durable.busy);
            }
        }
        Ok(engine)
    }

    /// Reads the definitions anew and fits the lanes to them. In a transaction.
    pub fn load_definitions(&mut self) {
        let definitions = self.stores.routing.load();
        self.routes = Routes::compile(
            definitions,
            &self.settings.account_id,
            &self.settings.integration_url,
        );
        self.details_are_due = true;
        let now = self.ticker.now();
        for (url_key, route) in &self.routes.urls {
            let keeper = self.lanes.get(&place_keeper(route.webhook_key));
            let kept = keeper.map(|lane| lane.feed().clone());
            let lane = self
                .lanes
                .entry(*url_key)
                .or_insert_with(|| MessageLane::new(*url_key, route.webhook_key, Feed::Tail));
            lane.webhook_key = route.webhook_key;
            // The lane did not know its webhook, so nothing was kept for it.
            if let (true, Some(Feed::Own(position))) = (lane.is_at_tail(), kept) {
                lane.leave_tail(position);
            }
        }
        self.find_vanished();
        self.unblock_all();
        let holds: Vec<(i32, Option<Hold>)> = self
            .lanes
            .keys()
            .map(|url_key| (*url_key, self.hold_of(*url_key)))
            .collect();
        for (url_key, hold) in holds {
            self.fit_lane(url_key, hold);
        }
        self.fit_throttles(now);
        self.load_withdrawals();
        self.forget_retired();
    }

    fn hold_of(&self, url_key: i32) -> Option<Hold> {
        let Some(url) = self.routes.urls.get(&url_key) else {
            return Some(Hold::Disabled);
        };
        let webhook = self.routes.webhooks.get(&url.webhook_key);
        let is_off = url.disabled || self.settlement.is_gone(url_key);
        if is_off || url.target.is_none() || webhook.is_none_or(|w| w.broken.is_some()) {
            Some(Hold::Disabled)
        } else if !self.settings.on || webhook.is_some_and(|w| w.paused) {
            Some(Hold::Paused)
        } else {
            None
        }
    }

    fn webhook_of(&self, url_key: i32) -> Option<&WebhookRoute> {
        let url = self.routes.urls.get(&url_key)?;
        self.routes.webhooks.get(&url.webhook_key)
    }

    fn fit_lane(&mut self, url_key: i32, hold: Option<Hold>) {
        let (max_in_flight, fifo) = self
            .webhook_of(url_key)
            .map_or((1, false), |webhook| (webhook.max_in_flight, webhook.fifo));
        let Some(lane) = self.lanes.get_mut(&url_key) else {
            return;
        };
        lane.max_in_flight = max_in_flight;
        if lane.keeps_order() != fifo {
            self.next_retry_at = Some(i64::MIN);
        }
        for entry in lane.keep_order(fifo) {
            self.queued.remove(&entry.message);
        }
        if lane.hold.is_some() && hold.is_none() {
            lane.reopen();
            self.next_retry_at = Some(i64::MIN);
        }
        if lane.hold != hold {
            lane.hold = hold;
            lane.dirty = true;
        }
        if hold.is_some() {
            self.drop_queue(url_key);
        }
    }

    /// Takes a lane's undispatched messages out of memory; it reads them again later.
    pub fn drop_queue(&mut self, url_key: i32) {
        let Some(lane) = self.lanes.get_mut(&url_key) else {
            return;
        };
        let oldest = lane.foremost().map(|entry| entry.message.captured_at).min();
        let known = self.oldest_behind.get(&url_key).copied();
        self.oldest_behind.extend(
            oldest
                .into_iter()
                .chain(known)
                .min()
                .map(|at| (url_key, at)),
        );
        for entry in lane.drop_queue() {
            self.queued.remove(&entry.message);
        }
        self.readers.remove(&url_key);
    }

    /// Lanes of dropped URLs go as soon as nothing of theirs is on the wire.
    pub fn forget_retired(&mut self) {
        let (urls, queued) = (&self.routes.urls, &mut self.queued);
        let is_missing = |url_key: &i32| self.vanished.contains(url_key);
        self.lanes.retain(|url_key, lane| {
            let stays = urls.contains_key(url_key) || is_missing(url_key) || lane.in_flight() > 0;
            if !stays {
                lane.waiting()
                    .for_each(|entry| queued.remove(&entry.message));
            }
            stays
        });
        let lanes = &self.lanes;
        self.oldest_behind
            .retain(|url_key, _| lanes.contains_key(url_key));
        self.readers
            .retain(|url_key, _| lanes.contains_key(url_key));
        self.interrupted
            .retain(|url_key, _| urls.contains_key(url_key) || is_missing(url_key));
    }

    /// The settings that the delivery threads go by.
    pub fn client_config(settings: &Delivery) -> ClientConfig {
        ClientConfig {
            policy: settings.allowed_networks.clone(),
            require_https: settings.require_https,
            max_message_size: settings.max_message_bytes,
            max_response_size: settings.max_response_bytes,
            ca_pem: settings.ca_file.as_deref().and_then(read_roots),
            refused_socket: crate::pg::process::server_port(),
            ..ClientConfig::default()
        }
    }

    /// SIGHUP: new settings for the loop and the threads.
    pub fn reload(&mut self, settings: Delivery) {
        self.pool.reconfigure(Self::client_config(&settings));
        self.wait_for_standbys(&settings.standby_slots);
        self.settings = settings;
        self.fit_connections();
    }

    /// No lane may send and nothing is on the wire: what is new can wait to be counted.
    pub fn nobody_waits(&self) -> bool {
        self.pool.in_flight() == 0
            && !self.lanes.is_empty()
            && self.lanes.values().all(|lane| lane.hold.is_some())
    }

    pub fn any_lagging(&self) -> bool {
        self.lanes.values().any(|lane| !lane.is_at_tail())
    }

    /// How long the loop may sleep for the engine's sake.
    pub fn sleep_limit(&self, now_pg: i64, longest: Duration) -> Duration {
        let now = self.ticker.now();
        let can_read = self.locks.may_try(Work::Retries, now);
        let retry = [self.next_retry_at, self.next_waiting_at()]
            .into_iter()
            .filter(|_| can_read)
            .flatten()
            .min()
            .map(|at| Duration::from_micros(u64::try_from(at.saturating_sub(now_pg)).unwrap_or(0)));
        let throttled = self
            .next_throttled
            .map(|at| Duration::from_nanos(at.saturating_sub(now)));
        let silent = self
            .lanes
            .values()
            .filter(|lane| lane.hold.is_none())
            .filter_map(|lane| lane.silent_until(now))
            .min()
            .map(|at| Duration::from_nanos(at - now));
        let settle = self.settlement.due_in(now);
        let next_try = self.locks.next_try(now);
        let locked = next_try.map(|at| Duration::from_nanos(at.saturating_sub(now)));
        let rested = self.shortage.due_in(now).map(Duration::from_nanos);
        let standbys = self.standbys.due_in(now);
        [retry, throttled, silent, settle, locked, rested, standbys]
            .into_iter()
            .flatten()
            .fold(longest, Duration::min)
    }
}

/// How much is left of a silence that the last worker kept, in nanoseconds. Not more than
/// there can be, if the clock went back meanwhile.
fn silence_left(until: i64, now: i64) -> u64 {
    let left = Duration::from_micros(u64::try_from(until.saturating_sub(now)).unwrap_or(0));
    u64::try_from(left.min(MAX_RETRY_AFTER).as_nanos()).unwrap_or(u64::MAX / 2)
}

/// The file of `webhook.ca_file`. One that cannot be used is a warning: public
/// receivers go on, the others fail with a TLS error in the log.
fn read_roots(path: &Path) -> Option<Vec<u8>> {
    let pem = std::fs::read(path).map_err(|error| error.to_string());
    let checked = pem.and_then(|pem| check_ca_pem(&pem).map(|_| pem));
    checked
        .map_err(|error| {
            pgrx::warning!("webhook.ca_file {} is not used: {error}", path.display());
        })
        .ok()
}
