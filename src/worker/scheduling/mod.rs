//! Which URL may call now: per-URL queues, throttles, connections, each URL in turn.
//!
//! Owns what is known of each URL and the memory of what waits. Takes messages and retries
//! (`accept`, `retries`), definitions (`apply`) and the ends of calls (`calls`), and gives runs of
//! jobs, ended calls and the state of lanes that is to be written. Touches no table. A URL of
//! which nothing is known is idle and at the tail; nothing here fails.

#![forbid(unsafe_code)]

mod accept;
mod agenda;
mod apply;
mod bodies;
mod calls;
mod durable;
mod health;
mod retries;
mod starting;
mod throttles;
mod url;
mod urls;

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

pub use accept::Accepted;
pub use apply::Applied;
pub use calls::Returned;
pub use retries::{Loaded, KEYS_AT_ONCE, RETRY_LOOK_MICROS};
pub use starting::{CanceledMessage, Run};
pub use url::MessageLane;
pub use urls::HeldBackMessage;

use super::definitions::{Blocked, UrlRoute, WebhookRoute};
use super::time::Ticker;
use crate::core::policy::retry::Schedule;
use crate::pg::settings::Delivery;
use bodies::Bodies;
use throttles::Throttles;
use url::UrlState;
use urls::Urls;

/// While memory is short, lanes that stall are looked for this often.
const ROOM_EVERY_NANOS: u64 = 5_000_000;
/// While memory is short the tail waits for lanes that have moved since this long.
const PATIENCE_NANOS: u64 = 50_000_000;

/// The settings that this follows.
struct Rules {
    delivery_is_on: bool,
    max_message_bytes: usize,
    retry_schedule: Schedule,
}

impl Rules {
    fn of(settings: &Delivery) -> Self {
        Self {
            delivery_is_on: settings.on,
            max_message_bytes: settings.max_message_bytes,
            retry_schedule: settings.retry_schedule.clone(),
        }
    }
}

/// See the module.
pub struct Scheduler {
    urls: Urls,
    throttles: Throttles,
    bodies: Bodies,
    rules: Rules,
    ticker: Ticker,
    next_token: u32,
    /// Of bodies on the wire that are no large ones.
    bytes_in_flight: usize,
    /// Lanes came to them, and they were canceled before.
    canceled: Vec<CanceledMessage>,
    /// URLs that could call but for others, until the round is over.
    deferred: Vec<i32>,
    /// When any call has ended last.
    finished_at: u64,
    room_looked_for_at: u64,
    warned_of_retry_capped_at: Option<u64>,
}

impl Scheduler {
    pub fn new(settings: &Delivery, ticker: Ticker) -> Self {
        Self {
            urls: Urls::new(ticker),
            throttles: Throttles::new(ticker),
            bodies: Bodies::default(),
            rules: Rules::of(settings),
            ticker,
            next_token: 0,
            bytes_in_flight: 0,
            canceled: Vec::new(),
            deferred: Vec::new(),
            finished_at: 0,
            room_looked_for_at: 0,
            warned_of_retry_capped_at: None,
        }
    }

    /// SIGHUP; definitions are read and applied after it.
    pub fn reconfigure(&mut self, settings: &Delivery) {
        self.rules = Rules::of(settings);
    }

    /// Webhooks of which a URL is known.
    pub fn webhooks(&self) -> BTreeSet<i32> {
        self.urls.webhooks()
    }

    pub fn has_webhook(&self, webhook_key: i32) -> bool {
        self.urls.has_webhook(webhook_key)
    }

    pub fn any_lagging(&self) -> bool {
        !self.urls.agenda.lagging().is_empty()
    }

    /// Lanes that stop before a message that cannot be routed.
    pub fn blocked(&self) -> Blocked {
        let urls = self.urls.agenda.blocked();
        let states = || urls.iter().filter_map(|url_key| self.urls.get(*url_key));
        Blocked {
            events: states().filter_map(|url| url.blocked_by).collect(),
            webhooks: states().map(|url| url.lane.webhook_key).collect(),
            urls: urls.len(),
        }
    }

    /// Whether undispatched messages take all the memory they may.
    pub fn memory_is_exhausted(&self) -> bool {
        self.urls.memory.is_exhausted()
    }

    /// Memory is short: lanes that stall give their messages back. `false` while those that move
    /// should be waited for.
    pub fn make_room(&mut self) -> bool {
        let now = self.ticker.now();
        if now.saturating_sub(self.room_looked_for_at) >= ROOM_EVERY_NANOS {
            self.room_looked_for_at = now;
            for url_key in self.stalled(now) {
                self.urls.drop_queue(url_key);
            }
        }
        !self.urls.memory.is_exhausted()
    }

    /// URLs with messages of which no call has ended of late. One that could start calls and has
    /// none on the wire only waits for a connection: as long as others give theirs back, its turn
    /// comes.
    fn stalled(&self, now: u64) -> Vec<i32> {
        let since = now.saturating_sub(PATIENCE_NANOS);
        let others_move = self.finished_at >= since;
        let in_memory = |url: &UrlState| url.lane.queued() + url.lane.looked_ahead();
        let with_queue = self.urls.iter().filter(|(_, url)| in_memory(url) > 0);
        let stalled = with_queue.filter(|(_, url)| {
            let waits_its_turn = others_move
                && url.lane.in_flight() == 0
                && url.lane.may_start(now)
                && url.throttled_until <= now;
            !url.lane.moved_since(since) && !waits_its_turn
        });
        stalled.map(|(url_key, _)| url_key).collect()
    }

    /// All messages are read again, behind what is now to be waited for.
    pub fn drop_all_queues(&mut self) {
        let all: Vec<i32> = self.urls.iter().map(|(url_key, _)| url_key).collect();
        for url_key in all {
            self.urls.drop_queue(url_key);
            self.urls.change(url_key, |url, _| {
                url.next_retry_at = url.next_retry_at.map(|_| i64::MIN);
            });
        }
    }

    /// Takes in that time has passed: pauses may be over. Frees what is not needed.
    pub fn wake(&mut self) {
        let now = self.ticker.now();
        let awake = self.urls.agenda.awake(now);
        self.urls.list_again(&awake);
        self.urls.forget_idle();
        let urls = &self.urls;
        self.throttles.forget_idle(now, |key| urls.has_webhook(key));
        self.throttles.count_what_was_sent(now);
    }

    /// How long nothing changes by itself. `now_pg`: what due retries are held against.
    pub fn due_in(&self, now_pg: i64, may_read_retries: bool) -> Option<Duration> {
        let agenda = &self.urls.agenda;
        let retries = [agenda.next_retry_at(), agenda.next_blocked_until()];
        let retry = retries.into_iter().filter(|_| may_read_retries).flatten();
        let retry = retry
            .min()
            .map(|at| Duration::from_micros(u64::try_from(at.saturating_sub(now_pg)).unwrap_or(0)));
        let now = self.ticker.now();
        let awake = agenda.next_awake_at();
        let awake = awake.map(|at| Duration::from_nanos(at.saturating_sub(now)));
        retry.into_iter().chain(awake).min()
    }

    /// How many messages each URL holds that is at the tail, or any URL if `lagging`; they are
    /// all that it has pending if that is so. URLs that are not named hold none.
    pub fn held(&self, lagging: bool) -> HashMap<i32, Option<i64>> {
        let held = self.urls.iter().map(|(url_key, url)| {
            let count = url.lane.taken() + url.lane.queued() + url.recovered.len();
            let is_all = url.lane.is_at_tail() || lagging;
            (
                url_key,
                is_all.then(|| i64::try_from(count).unwrap_or(i64::MAX)),
            )
        });
        held.collect()
    }

    /// Of each URL that is called, and has messages before their first call, the date of the oldest.
    pub fn oldest_of_open(&self) -> Vec<(i32, i64)> {
        let open = self.urls.iter().filter(|(_, url)| url.lane.hold.is_none());
        open.filter_map(|(url_key, url)| Some((url_key, url.oldest_pending()?)))
            .collect()
    }

    /// The outbox is empty: nothing is behind.
    pub fn forget_what_is_behind(&mut self) {
        for url_key in self.urls.agenda.lagging().clone() {
            self.urls.change(url_key, |url, _| url.oldest_behind = None);
        }
    }
}
