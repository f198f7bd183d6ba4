//! What is known of one URL.

use std::collections::HashSet;
use std::sync::Arc;

use crate::core::messages::position::{Cursor, MessagePosition};
use crate::core::messages::snapshot::Snapshot;
use crate::core::scheduling::lane::{Entry, Feed, Hold, Lane};
use crate::delivery::call::{Outcome, Target};
use crate::store::window_reader::WindowReader;
use crate::worker::definitions::WebhookRoute;
use crate::worker::message::Message;

use super::agenda::Listing;
use super::health;
use crate::core::health::UrlHealth;

/// A lane with fewer undispatched messages reads its next page.
const LOW_WATER: usize = 1000;
/// A lane does not load more due retries than this ahead …
const RETRIES_AT_MOST: usize = 64;
/// … and loads more once it has sent most of them.
const RETRIES_AGAIN: usize = RETRIES_AT_MOST / 2;

pub type MessageLane = Lane<Arc<Message>>;
pub type MessageEntry = Entry<Arc<Message>>;

/// Whether definitions have the URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    Live,
    /// Its row, or its webhook's, is gone without a tombstone: the lane keeps its place.
    Vanished,
    Dropped,
}

/// What of a URL must not be sent any more, although its lane has not come to it.
#[derive(Default)]
pub(super) struct Cancellations {
    /// Everything that this snapshot sees.
    pub before: Option<Arc<Snapshot>>,
    pub single: HashSet<MessagePosition>,
}

impl Cancellations {
    /// Whether the message was canceled while it waited for its first call. A redelivery is no
    /// such message: its row says what is to become of it.
    pub fn contains(&self, at: MessagePosition) -> bool {
        self.contains_all_of(at.xid) || self.single.contains(&at)
    }

    /// Whether everything of this transaction was canceled.
    pub fn contains_all_of(&self, xid: u64) -> bool {
        self.before.as_ref().is_some_and(|before| before.sees(xid))
    }

    /// Whether a whole window was canceled.
    pub fn contains_window(&self, end: &Snapshot) -> bool {
        let before = self.before.as_ref();
        before.is_some_and(|before| end.is_within(before))
    }
}

/// See the module.
pub(super) struct UrlState {
    pub lane: MessageLane,
    /// As it was read last; `None` if it never was.
    pub route: Option<Arc<WebhookRoute>>,
    pub target: Option<Arc<Target>>,
    pub presence: Presence,
    /// The receiver answered 410 Gone, and that is not written yet.
    pub is_gone: bool,
    pub health: UrlHealth,
    /// When a user said last that the receiver is back, as far as it was taken in.
    pub reopened_at: Option<i64>,
    pub cancellations: Cancellations,
    /// Of a lane that reads its own backlog.
    pub reader: Option<WindowReader>,
    /// Busy when the last worker ended, still to be read.
    pub recovered: Vec<MessagePosition>,
    /// Date of the first message that a lagging lane has still to read, as far as is known.
    pub oldest_behind: Option<i64>,
    /// The event without a row before whose message the lane stops.
    pub blocked_by: Option<i32>,
    /// When the next retry is due, as far as is known. `None`: none waits.
    pub next_retry_at: Option<i64>,
    /// Rows of blocked keys were locked: they are asked for again then.
    pub ask_at: Option<i64>,
    /// No room for more retries.
    pub retry_capped: bool,
    /// This machine lacked something for its last call.
    pub rests_until: u64,
    pub throttled_until: u64,
    pub awaiting_body: bool,
    pub used_at: u64,
    /// What the agenda has of it.
    pub listing: Listing,
}

impl UrlState {
    pub fn new(url_key: i32, webhook_key: i32, feed: Feed) -> Self {
        Self {
            lane: MessageLane::new(url_key, webhook_key, feed),
            route: None,
            target: None,
            presence: Presence::Vanished,
            is_gone: false,
            health: UrlHealth::default(),
            reopened_at: None,
            cancellations: Cancellations::default(),
            reader: None,
            recovered: Vec::new(),
            oldest_behind: None,
            blocked_by: None,
            next_retry_at: None,
            ask_at: None,
            retry_capped: false,
            rests_until: 0,
            throttled_until: 0,
            awaiting_body: false,
            used_at: 0,
            listing: Listing::default(),
        }
    }

    /// The date of the first message that has its first call before it, as far as is known.
    pub fn oldest_pending(&self) -> Option<i64> {
        let dates = self.lane.foremost();
        let dates = dates.map(|entry| entry.message.captured_at);
        dates.chain(self.oldest_behind).min()
    }

    /// How far it has read; `None`: as far as the tail.
    pub fn own_position(&self) -> Option<&Cursor> {
        match self.lane.feed() {
            Feed::Own(position) => Some(position),
            Feed::Tail => None,
        }
    }

    pub fn hold(&self, delivery_is_on: bool) -> Option<Hold> {
        let route = self.route.as_ref();
        let is_usable = route.is_some_and(|route| route.broken.is_none());
        if self.presence != Presence::Live || self.is_gone || self.target.is_none() || !is_usable {
            Some(Hold::Disabled)
        } else if !delivery_is_on || route.is_some_and(|route| route.paused) {
            Some(Hold::Paused)
        } else {
            None
        }
    }

    pub fn is_retired(&self) -> bool {
        self.presence == Presence::Dropped && self.lane.in_flight() == 0
    }

    /// Nothing is to be done for it, and nothing is known that could not be found again.
    fn is_idle(&self, now: u64) -> bool {
        self.lane.is_idle(now)
            && self.recovered.is_empty()
            && self.cancellations.single.is_empty()
            && self.blocked_by.is_none()
            && self.next_retry_at.is_none()
            && !self.is_gone
    }

    pub fn is_full_of_retries(&self) -> bool {
        self.lane.retries_loaded() >= RETRIES_AT_MOST
    }

    /// When it may call, if not now.
    fn sleeps_until(&self, now: u64) -> Option<u64> {
        let pauses = [self.rests_until, self.throttled_until];
        let silent = self.lane.backoff_until(now);
        let pauses = pauses.into_iter().filter(|until| *until > now);
        pauses.chain(silent).min()
    }

    /// Why this call is the last one, if it is. The time of `disable_after` starts again when a user
    /// says that the receiver is back.
    pub fn switches_off(&self, outcome: &Outcome) -> Option<String> {
        let disable_after = self.route.as_ref()?.disable_after_us;
        health::switches_off(&self.health, outcome, disable_after, self.reopened_at)
    }

    /// What is to be done for it, and when.
    pub fn list(&mut self, now: u64) -> Listing {
        self.retry_capped = match self.lane.retries_loaded() {
            loaded if loaded >= RETRIES_AT_MOST => true,
            loaded => self.retry_capped && loaded >= RETRIES_AGAIN,
        };
        let lane = &self.lane;
        let is_open = lane.hold.is_none();
        let is_blocked = self.blocked_by.is_some();
        let may_read = is_open && !is_blocked;
        let sleeps_until = self.sleeps_until(now);
        let is_silent = lane.backoff_until(now).is_some();
        let takes_retries = may_read
            && !lane.keeps_order()
            && !lane.wants_blocked_keys()
            && !is_silent
            && !self.retry_capped;
        let asks_for_keys = lane.wants_blocked_keys() || lane.has_keys_to_ask();
        Listing {
            ready: is_open
                && !self.awaiting_body
                && lane.has_next()
                && sleeps_until.is_none()
                && lane.may_start(now),
            asleep_until: sleeps_until.filter(|_| is_open),
            needs_page: may_read
                && !lane.is_at_tail()
                && lane.queued() < LOW_WATER
                && lane.blocked_until().is_none()
                && !lane.is_retry_capped()
                && (lane.queued() == 0 || !is_silent),
            retry_at: self.next_retry_at.filter(|_| takes_retries),
            asks: may_read && (lane.wants_answer() || asks_for_keys && self.ask_at.is_none()),
            blocked_until: (lane.blocked_until())
                .or(self.ask_at.filter(|_| asks_for_keys))
                .filter(|_| may_read),
            retry_capped: is_open && lane.is_retry_capped(),
            unwritten: lane.dirty || lane.has_unwritten_outcomes(),
            recovered: !self.recovered.is_empty() && !is_blocked,
            blocked: is_blocked,
            lagging: !lane.is_at_tail(),
            idle_since: self.is_idle(now).then_some(self.used_at),
        }
    }

    /// What was taken and has no outcome that is written, and how much of it waits.
    pub fn busy(&self) -> Vec<MessagePosition> {
        let mut busy = self.lane.durable().busy;
        busy.extend(&self.recovered);
        busy
    }
}
