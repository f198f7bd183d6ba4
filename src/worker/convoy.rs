//! Lanes that lag in the same window read it together.
//!
//! A lane that reads for itself passes over the messages of all other webhooks: with a
//! thousand lagging lanes every message would be passed over a thousand times. A convoy
//! reads each page once, whole, and each lane takes what is its own. A lane that falls
//! behind the others (its queue is full) reads alone to the end of the window.
//!
//! Runs in the reading transaction of the worker; a failure there leaves every lane at
//! the position it had, so that the page is read again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::engine::Engine;
use crate::core::lane::Feed;
use crate::core::position::{Position, Window};
use crate::store::outbox::{StoredMessage, WindowReader};

/// Passing over a message takes about 0.15 µs, reading one some 4 µs: where fewer lanes
/// would take part in a page, each is better off alone.
const LANES_AT_LEAST: usize = 16;

/// A lane of a convoy and the id after which it reads.
struct Member {
    url_key: i32,
    webhook_key: i32,
    after_id: i64,
}

impl Engine {
    /// Reads the next page for the largest group of these lanes that stand in one window.
    /// Returns the lanes that travel together, whether the page reached them or not.
    pub fn read_convoy(&mut self, hungry: &[i32]) -> HashSet<i32> {
        if hungry.len() < LANES_AT_LEAST {
            return HashSet::new();
        }
        self.enter_windows(hungry);
        let Some((window, mut members)) = self.largest_convoy(hungry) else {
            return HashSet::new();
        };
        let first = self.convoy_start(&window, &members);
        members.retain(|member| member.after_id >= first);
        let together = members.iter().map(|member| member.url_key).collect();
        let mut reader = self.convoy_reader(&Position { window, id: first });
        let page = self.stores.outbox.next_page(&mut reader, true);
        self.make_durable(&page, &Arc::clone(reader.window()));
        self.share(page, members, &reader);
        self.convoy = (!reader.is_done()).then_some(reader);
        together
    }

    /// Where the last page ended, as long as a lane stands there: a lane that was left
    /// behind does not call the others back. Else with the hindmost.
    fn convoy_start(&self, window: &Arc<Window>, members: &[Member]) -> i64 {
        let going_on = self.convoy.as_ref().map(WindowReader::position);
        let going_on = going_on.filter(|at| at.window == *window).map(|at| at.id);
        let ids = || members.iter().map(|member| member.after_id);
        going_on
            .filter(|id| ids().any(|after| after == *id))
            .or_else(|| ids().min())
            .unwrap_or(0)
    }

    /// Lanes that have finished a window go to the start of their next one, to find
    /// themselves in company there.
    fn enter_windows(&mut self, lanes: &[i32]) {
        for url_key in lanes {
            let is_between = self.lanes.get(url_key).is_some_and(
                |lane| matches!(lane.feed(), Feed::Own(position) if position.window_is_done()),
            );
            if !is_between || self.readers.contains_key(url_key) {
                continue;
            }
            if let Some(reader) = self.backlog_reader(*url_key) {
                self.give_page(*url_key, Vec::new(), &reader);
            }
        }
    }

    fn largest_convoy(&self, lanes: &[i32]) -> Option<(Arc<Window>, Vec<Member>)> {
        let mut convoys: HashMap<_, (Arc<Window>, Vec<Member>)> = HashMap::new();
        for url_key in lanes.iter().filter(|key| !self.readers.contains_key(key)) {
            let Some(lane) = self.lanes.get(url_key) else {
                continue;
            };
            let Feed::Own(position) = lane.feed() else {
                continue;
            };
            if position.window_is_done() {
                continue;
            }
            let window = &position.window;
            let (shared, members) = convoys
                .entry((window.from.xmax, window.to.xmax, window.tick))
                .or_insert_with(|| (Arc::clone(window), Vec::new()));
            if shared == window {
                members.push(Member {
                    url_key: *url_key,
                    webhook_key: lane.webhook_key,
                    after_id: position.id,
                });
            }
        }
        let largest = convoys
            .into_values()
            .max_by_key(|(_, members)| members.len());
        largest.filter(|(_, members)| members.len() >= LANES_AT_LEAST)
    }

    /// The reader that the last convoy left, if it stands where this one goes on.
    fn convoy_reader(&mut self, position: &Position) -> WindowReader {
        self.convoy
            .take()
            .filter(|reader| reader.position() == *position)
            .unwrap_or_else(|| WindowReader::new(position, None))
    }

    /// Gives each lane what is its own. Those that stand beyond the page are passed later.
    fn share(&mut self, page: Vec<StoredMessage>, members: Vec<Member>, reader: &WindowReader) {
        let end = reader.position();
        let mut by_webhook: HashMap<i32, Vec<StoredMessage>> = HashMap::new();
        for stored in page {
            by_webhook
                .entry(stored.webhook_key)
                .or_default()
                .push(stored);
        }
        let reached: Vec<Member> = members
            .into_iter()
            .filter(|member| member.after_id < end.id)
            .collect();
        let is_worthwhile = reached.len() >= LANES_AT_LEAST;
        for member in reached {
            let messages = by_webhook
                .get(&member.webhook_key)
                .map_or(&[][..], Vec::as_slice);
            let own = messages
                .iter()
                .filter(|stored| stored.at.id > member.after_id)
                .cloned()
                .collect();
            self.give_page(member.url_key, own, reader);
            if !is_worthwhile && !reader.is_done() {
                let alone = WindowReader::new(&end, Some(member.webhook_key));
                self.readers.insert(member.url_key, alone);
            }
        }
    }
}
