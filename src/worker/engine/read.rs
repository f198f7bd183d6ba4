//! New messages, backlogs and retries, read in one short transaction and handed to the lanes.

use std::collections::{HashMap, HashSet};
use std::mem;

use super::{Engine, KeyWrites};
use crate::pg::{clock, invalidation, tx};
use crate::store::retries::{DueRetry, WaitingRetry};
use crate::worker::definitions::{Changes, Known};
use crate::worker::locks::Work;
use crate::worker::reading::{Next, TailPage};
use crate::worker::scheduling::{Accepted, Loaded, KEYS_AT_ONCE, RETRY_LOOK_MICROS};

/// Pages read in one transaction, all lanes together: it must stay short.
const PAGES_A_LOOK: usize = 4;
/// Lanes looked at in one transaction: one that joins the tail reads nothing.
const LANES_A_LOOK: usize = 64;
/// Empty windows that one lane may pass in one transaction.
const WINDOWS_A_LOOK: usize = 64;
/// URLs whose retries are read in one transaction.
const RETRYING_URLS_A_LOOK: usize = 500;
/// A statement's result stays until its transaction ends: so many bytes are read in one.
const BODIES_AT_ONCE: usize = 16 << 20;

impl Engine {
    /// In a transaction, each part for itself: what is locked stops nothing that is not. `true`
    /// if there may be more for the tail.
    pub(super) fn read_what_is_due(&mut self, tail_is_due: bool) -> bool {
        let wants_tail = tail_is_due || self.reader.standbys_want_tail();
        // Also what standbys have confirmed is not known any more if this fails.
        let mut more = wants_tail;
        self.read_owed();
        if tail_is_due || self.wants_outbox() {
            let read = self.try_part(Work::Outbox, |engine| {
                // Before anything that comes after them.
                engine.requeue_recovered();
                engine.read_bodies();
                wants_tail && engine.read_tail(tail_is_due)
            });
            more = read.unwrap_or(more);
        }
        if self.wants_backlog() {
            self.try_part(Work::Backlogs, Self::read_backlogs);
        }
        // Last: what was read above may be a reason to ask.
        if self.may_read_retries() {
            let read = self.try_part(Work::Retries, |engine| {
                engine.read_due_retries();
                engine.read_waiting();
            });
            if read.is_none() {
                self.forget_blocked_keys();
            }
            if mem::take(&mut self.retries_are_locked) {
                self.locks.failed(Work::Retries, self.ticker.now());
            }
        }
        for url_key in &self.key_writes.released {
            self.scheduler.expect_retry(*url_key, clock::now());
        }
        more
    }

    /// The reading transaction was committed, and with it what it wrote of lanes that keep the
    /// order of each key, or did.
    pub(super) fn reading_is_committed(&mut self) {
        self.key_writes = KeyWrites::default();
    }

    /// It was not: lanes have learned what is not so.
    pub(super) fn reading_failed(&mut self) {
        self.forget_blocked_keys();
        for url_key in mem::take(&mut self.key_writes.released) {
            if let Some(webhook_key) = self.scheduler.webhook_of(url_key) {
                self.definitions.read_again(Changes::of(webhook_key));
            }
        }
    }

    fn forget_blocked_keys(&mut self) {
        for url_key in mem::take(&mut self.key_writes.told) {
            self.scheduler.forget_blocked_keys(url_key);
        }
    }

    /// Whether something of the outbox is to be read, but for what may have been committed.
    pub(super) fn wants_outbox(&self) -> bool {
        self.scheduler.wants_bodies()
            || self.recovered_go_first()
            || self.reader.standbys_want_tail()
    }

    pub(super) fn may_read_retries(&self) -> bool {
        let now = clock::now();
        (self.scheduler.wants_retries(now) || self.scheduler.any_asking(now))
            && self.may_try(Work::Retries)
            && !self.recovered_go_first()
    }

    /// Messages that were busy when the last worker ended are not read yet: nothing that comes
    /// after them is.
    pub(super) fn recovered_go_first(&self) -> bool {
        self.reader.has_passed_barrier() && self.scheduler.wants_recovered()
    }

    /// Whether webhooks that could not be read may be tried again.
    pub(super) fn may_read_owed(&self) -> bool {
        !self.definitions.owed().is_empty() && self.may_try(Work::Webhooks)
    }

    /// Whether a lane that keeps the order can be told at once what waits.
    pub(super) fn may_read_waiting(&self) -> bool {
        self.scheduler.any_asking(clock::now())
            && self.may_try(Work::Retries)
            && !self.recovered_go_first()
    }

    /// Whether a lane wants to read for itself.
    pub(super) fn wants_backlog(&self) -> bool {
        !self.scheduler.memory_is_exhausted()
            && self.reader.has_passed_barrier()
            && !self.scheduler.wants_recovered()
            && self.scheduler.wants_page()
    }

    /// Lanes that stall must not keep those from reading that could go on.
    pub(super) fn make_room_for_backlogs(&mut self) {
        if self.scheduler.memory_is_exhausted() && self.scheduler.wants_page() {
            self.scheduler.make_room();
        }
    }

    /// Reads the next page of new messages. `true` if there may be more.
    fn read_tail(&mut self, is_due: bool) -> bool {
        if self.scheduler.memory_is_exhausted() && !self.scheduler.make_room() {
            return true;
        }
        let known = invalidation::generation();
        let Some(mut page) = self.reader.tail_page(is_due, self.delivery_is_on) else {
            return false;
        };
        if known != invalidation::generation() {
            let noted = self.definitions.noted();
            self.read_definitions();
            self.definitions.read_noted_again(noted);
        }
        self.need_for(&page.messages);
        if self.is_wanted(&page) {
            self.reader.read_bodies(&mut page);
            self.need_for(&page.messages);
        }
        let more = self.route(page);
        let scheduler = &self.scheduler;
        self.definitions.trim(|key| scheduler.has_webhook(key));
        more
    }

    /// Whether a message of the page can be sent at once.
    fn is_wanted(&mut self, page: &TailPage) -> bool {
        let delivery_is_on = self.delivery_is_on;
        page.messages.iter().any(|stored| {
            let known = self.definitions.get(stored.webhook_key);
            let route = known.and_then(Known::live);
            delivery_is_on && route.is_some_and(|route| self.scheduler.takes(route))
        })
    }

    fn route(&mut self, mut page: TailPage) -> bool {
        let messages = mem::take(&mut page.messages);
        let mut webhooks = HashSet::new();
        let mut accepted = Accepted::default();
        let any = !messages.is_empty();
        let settler = &mut self.settler;
        for stored in messages {
            let webhook_key = stored.webhook_key;
            settler.count_message(stored.event_key);
            webhooks.insert(webhook_key);
            let arrived = |url_key| settler.count_arrival(url_key);
            match self.definitions.get(webhook_key) {
                Some(Known::Dropped) => {}
                Some(Known::Live(route)) if !route.urls.is_empty() => {
                    let event = route.events.get(&stored.event_key);
                    let window = &page.window;
                    accepted.add(self.scheduler.accept(route, event, stored, window, arrived));
                }
                Some(Known::Live(_) | Known::Absent) => {
                    self.scheduler.keep_place(&stored, &page.window, arrived);
                    self.definitions.webhook_is_missing(webhook_key);
                }
                // It could not be read now.
                None => self.scheduler.keep_place(&stored, &page.window, arrived),
            }
        }
        self.reader.finish_tail_page(
            page,
            webhooks,
            any.then_some((accepted.is_taken, accepted.is_awaited)),
        )
    }

    /// Gives lanes that lag their next pages.
    fn read_backlogs(&mut self) {
        let mut pages = PAGES_A_LOOK;
        for url_key in self.scheduler.next_lagging(LANES_A_LOOK) {
            if pages == 0 || self.scheduler.memory_is_exhausted() {
                return;
            }
            if self.read_backlog_of(url_key) {
                pages -= 1;
            }
        }
    }

    /// `true` if a page was read.
    fn read_backlog_of(&mut self, url_key: i32) -> bool {
        for _ in 0..WINDOWS_A_LOOK {
            let Some(backlog) = self.scheduler.backlog(url_key) else {
                return false;
            };
            let (position, webhook_key) = (&backlog.position, backlog.webhook_key);
            let next = match backlog.reader {
                Some(reader) => Next::Window(reader),
                None => self.reader.next_of_backlog(position, webhook_key),
            };
            let window = match next {
                Next::Window(window) => window,
                Next::Join => {
                    self.scheduler.join_tail(url_key);
                    return false;
                }
                Next::Wait => return false,
            };
            let end = &window.window().to;
            let is_canceled = self.scheduler.is_window_canceled(url_key, end);
            let page = self.reader.backlog_page(window, is_canceled);
            self.report_missing(url_key, page.missing);
            let is_read = !page.messages.is_empty() || !page.reader.is_done();
            let blocked_by = self
                .scheduler
                .take_page(url_key, page.messages, &page.reader);
            if let Some(event_key) = blocked_by {
                self.definitions.event_is_missing(webhook_key, event_key);
                self.settler.be_due();
                return true;
            }
            if !page.reader.is_done() {
                self.scheduler.keep_reader(url_key, page.reader);
            }
            if is_read {
                return true;
            }
        }
        true
    }

    /// Rows of messages are gone: the outbox was changed by hand.
    fn report_missing(&self, url_key: i32, messages: usize) {
        if messages > 0 {
            pgrx::warning!(
                "{}: {messages} messages are not sent, because they are no longer in webhook_internal.outbox",
                self.scheduler.label(url_key)
            );
        }
    }

    /// Messages that were busy when the last worker ended go first.
    fn requeue_recovered(&mut self) {
        if !self.reader.has_passed_barrier() {
            return;
        }
        for (url_key, positions) in self.scheduler.recovered() {
            let mut found = self.reader.at(&positions, false);
            self.report_missing(url_key, positions.len().saturating_sub(found.len()));
            found.sort_unstable_by_key(|stored| stored.at.id);
            for (webhook_key, event_key) in self.scheduler.requeue_recovered(url_key, found) {
                self.definitions.event_is_missing(webhook_key, event_key);
                self.settler.be_due();
            }
        }
    }

    /// Reads the bodies of large messages that are about to be sent.
    fn read_bodies(&mut self) {
        let mut bytes = 0;
        while bytes < BODIES_AT_ONCE {
            let Some(wanted) = self.scheduler.next_wanted_body() else {
                return;
            };
            bytes += wanted.size;
            let url_key = wanted.url_key;
            let body = self.reader.at(&[wanted.at], true).pop();
            self.report_missing(url_key, usize::from(body.is_none()));
            if self.scheduler.give_body(wanted, body) {
                self.settler.change_backlog(url_key, -1);
            }
        }
    }

    /// Loads the retries that are due.
    fn read_due_retries(&mut self) {
        let now = clock::now();
        let url_keys = self.scheduler.retries_due(now, RETRYING_URLS_A_LOOK);
        if url_keys.is_empty() {
            return;
        }
        let (by_key, others): (Vec<i32>, Vec<i32>) =
            (url_keys.iter()).partition(|url_key| self.scheduler.orders_keys(**url_key));
        if !others.is_empty() {
            let due = self.reader.due_retries(&others, now);
            self.load_retries(&due);
        }
        if !by_key.is_empty() {
            self.read_due_by_key(&by_key, now);
        }
        let next = self.reader.next_due(&url_keys);
        self.scheduler.learn_next_retries(&url_keys, &next, now);
    }

    /// Loads the retries of lanes that keep the order of each key: those that are due, and behind
    /// them what may follow.
    fn read_due_by_key(&mut self, url_keys: &[i32], now: i64) {
        let (due, behind) = self.reader.due_by_key(url_keys, now);
        for retry in &behind {
            self.scheduler.is_behind(retry);
        }
        self.load_retries(&due);
        let scheduler = &self.scheduler;
        let under_way = |retry: &DueRetry| scheduler.is_under_way(retry.url_key, retry.at);
        let heads: Vec<DueRetry> = due.into_iter().filter(under_way).collect();
        if !heads.is_empty() {
            let following = self.reader.following(&heads, now);
            self.load_retries(&following);
        }
    }

    /// Tells a lane that keeps the order of each key which keys messages wait for, and has the
    /// first of each be due.
    fn ask_keys(&mut self, url_key: i32, now: i64) {
        if let Some(wanted) = self.scheduler.blocked_keys_wanted(url_key) {
            let keys = self.reader.blocked_keys(url_key, i64::MIN, wanted);
            self.scheduler.learn_blocked_keys(url_key, keys);
        }
        self.key_writes.told.push(url_key);
        self.scheduler.ask_now(url_key);
        let asked = self.scheduler.keys_to_ask(url_key);
        let answer = self.reader.ask_keys(url_key, &asked);
        self.scheduler.learn_keys(url_key, &asked, &answer, now);
        if let Some(from) = self.scheduler.unknown_keys_from(url_key) {
            let page = self.reader.blocked_keys(url_key, from, KEYS_AT_ONCE);
            let answer = self.reader.ask_keys(url_key, &page);
            self.scheduler.learn_keys(url_key, &page, &answer, now);
            self.scheduler.asked_unknown_keys(url_key, &page, &answer);
        }
    }

    /// Tells lanes that keep the order what waits, and loads what is due and first in the order.
    fn read_waiting(&mut self) {
        let now = clock::now();
        let asking = self.scheduler.asking(now);
        let (by_key, url_keys): (Vec<i32>, Vec<i32>) =
            (asking.into_iter()).partition(|url_key| self.scheduler.orders_keys(*url_key));
        for url_key in by_key {
            self.ask_keys(url_key, now);
        }
        if url_keys.is_empty() {
            return;
        }
        let not_before = now + RETRY_LOOK_MICROS;
        let waiting = self.reader.waiting_retries(&url_keys, not_before);
        let mut first: HashMap<i32, i64> = HashMap::new();
        for row in &waiting {
            first.entry(row.retry.url_key).or_insert(row.next_at);
        }
        for url_key in url_keys {
            let first = first.get(&url_key).copied();
            if self.scheduler.tell_what_waits(url_key, first, now) {
                self.settler.be_due();
            }
        }
        self.load_retries(&first_due(&waiting, now));
    }

    /// Hands retries to their lanes, in this order.
    fn load_retries(&mut self, due: &[DueRetry]) {
        if due.is_empty() {
            return;
        }
        let found = self.reader.messages_of(due);
        let mut lost: Vec<&DueRetry> = Vec::new();
        for retry in due {
            let stored = found.get(&retry.at).cloned();
            match self.scheduler.load_retry(retry, stored) {
                Loaded::Taken => {}
                Loaded::Lost => lost.push(retry),
                Loaded::Blocked {
                    webhook_key,
                    event_key,
                } => {
                    self.definitions.event_is_missing(webhook_key, event_key);
                    self.settler.be_due();
                }
            }
        }
        self.give_up(&lost);
    }

    /// The outbox was emptied by hand: what cannot be sent any more must not hold what can.
    fn give_up(&mut self, lost: &[&DueRetry]) {
        if lost.is_empty() {
            return;
        }
        let why = "the message or its event is no longer there";
        let places: Vec<_> = lost.iter().map(|retry| (retry.url_key, retry.at)).collect();
        match tx::part(|| self.reader.give_up(&places, why)) {
            Ok(()) => pgrx::warning!(
                "{} calls of webhook messages are not repeated: their messages are no longer in webhook_internal.outbox",
                lost.len()
            ),
            Err(failure) if failure.is_lock_not_available() => {
                self.retries_are_locked = true;
                return;
            }
            Err(failure) => failure.raise(),
        }
        for retry in lost {
            self.scheduler.retry_is_lost(retry.url_key, retry.keys);
        }
    }
}

/// Of each URL those that are due before the first that is not. `waiting` is sorted by URL and
/// place in the order.
fn first_due(waiting: &[WaitingRetry], now_pg: i64) -> Vec<DueRetry> {
    let mut stopped_at = None;
    let mut due = Vec::new();
    for row in waiting {
        if stopped_at == Some(row.retry.url_key) {
            continue;
        }
        if row.next_at <= now_pg {
            due.push(row.retry.clone());
        } else {
            stopped_at = Some(row.retry.url_key);
        }
    }
    due
}
