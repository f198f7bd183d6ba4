//! The retry table of a lane that keeps the order of each key, as the worker's statements see it.

use super::*;
use crate::core::scheduling::lane::keys::as_stored;

/// Blocked keys that are asked for together.
const KEYS_AT_ONCE: usize = 2;
/// Retries that are loaded together …
const HEADS_AT_ONCE: usize = 2;
/// … and of each of their keys so many that follow.
const FOLLOWING_AT_MOST: usize = 3;

impl World {
    /// What was held back is written with the next settlement.
    pub fn take_held_back(&mut self) {
        let fate = Fate::Waits(match self.rules.order {
            DeliveryOrder::Key => NEVER,
            _ => self.now_micros(),
        });
        let held_back = self.lane.take_held_back().into_iter();
        self.outcomes.extend(held_back.map(|entry| Known {
            at: entry.at,
            attempts: entry.attempts,
            fate,
        }));
    }

    /// Messages wait for others of their keys no longer.
    pub fn release_held_back(&mut self) {
        let now = self.now_micros();
        for waiting in self.stored.retries.values_mut() {
            waiting.next_at = if waiting.next_at == NEVER {
                now
            } else {
                waiting.next_at
            };
        }
        for known in &mut self.outcomes {
            if matches!(known.fate, Fate::Waits(NEVER)) {
                known.fate = Fate::Waits(now);
            }
        }
    }

    pub fn change_order(&mut self, order: DeliveryOrder) {
        if self.rules.switches {
            self.take_held_back();
            self.rules.order = order;
            self.read_definitions();
        }
    }

    /// The positions of what waits for a key, in their order.
    fn waiting_for(&self, key: u64) -> Vec<MessagePosition> {
        let waiting = self.stored.retries.keys();
        let waiting = waiting.map(|(id, xid)| MessagePosition { xid: *xid, id: *id });
        waiting
            .filter(|at| self.stream.keys(*at).iter().any(|of| of == key))
            .collect()
    }

    fn is_first_of_its_keys(&self, at: MessagePosition) -> bool {
        let mut keys = self.stream.keys(at).iter();
        keys.all(|key| self.waiting_for(key).first() == Some(&at))
    }

    fn waiting(&mut self, at: MessagePosition) -> &mut Waiting {
        self.stored.retries.get_mut(&(at.id, at.xid)).unwrap()
    }

    pub fn read_retries_by_key(&mut self) {
        if self.lane.wants_blocked_keys() {
            let wanted = self.lane.blocked_keys_wanted();
            let keys = self.all_keys().into_iter().take(wanted);
            self.lane.learn_blocked_keys(keys.collect());
        }
        let asked = self.lane.keys_to_ask(KEYS_AT_ONCE);
        self.ask(&asked);
        if let Some(from) = self.lane.unknown_keys_from() {
            let page: Vec<u64> = self
                .all_keys()
                .into_iter()
                .filter(|key| as_stored(*key) >= from)
                .take(KEYS_AT_ONCE)
                .collect();
            self.ask(&page);
            let last = page.last().filter(|_| page.len() == KEYS_AT_ONCE);
            self.lane
                .asked_unknown_keys(last.map(|key| as_stored(*key) + 1));
        }
        self.load_due_by_key();
    }

    fn all_keys(&self) -> Vec<u64> {
        let waiting = self.stored.retries.keys();
        let waiting = waiting.map(|(id, xid)| MessagePosition { xid: *xid, id: *id });
        let keys = waiting.flat_map(|at| self.stream.keys(at).iter());
        let mut keys = Vec::from_iter(keys.collect::<BTreeSet<u64>>());
        keys.sort_unstable_by_key(|key| as_stored(*key));
        keys
    }

    /// The first of each of these keys is due now, unless it has a date.
    fn ask(&mut self, asked: &[u64]) {
        let now = self.now_micros();
        for key in asked {
            let first = self.waiting_for(*key).first().copied();
            let Some(first) = first.filter(|first| self.is_first_of_its_keys(*first)) else {
                continue;
            };
            let waiting = self.waiting(first);
            waiting.next_at = if waiting.next_at == NEVER {
                now
            } else {
                waiting.next_at
            };
        }
        let still: Vec<u64> = asked
            .iter()
            .copied()
            .filter(|key| !self.waiting_for(*key).is_empty())
            .collect();
        self.lane.learn_keys(asked, |key| still.contains(&key));
    }

    fn load_due_by_key(&mut self) {
        let now = self.now_micros();
        let mut due: Vec<(i64, MessagePosition)> = self
            .stored
            .retries
            .iter()
            .filter(|(_, waiting)| waiting.next_at <= now)
            .map(|((id, xid), waiting)| (waiting.next_at, MessagePosition { xid: *xid, id: *id }))
            .collect();
        due.sort_unstable();
        for (_, at) in due.into_iter().take(HEADS_AT_ONCE) {
            if !self.is_first_of_its_keys(at) {
                self.waiting(at).next_at = NEVER;
                self.lane.ask_again(self.stream.keys(at));
                continue;
            }
            self.load_with_keys(at);
            if self.lane.is_under_way(at) {
                for key in self.stream.keys(at).iter() {
                    self.load_following(key, at);
                }
            }
        }
    }

    fn load_following(&mut self, key: u64, head: MessagePosition) {
        let now = self.now_micros();
        let behind = self.waiting_for(key).into_iter();
        for at in behind.filter(|at| *at != head).take(FOLLOWING_AT_MOST) {
            let next_at = self.waiting(at).next_at;
            let has_other_key = self.stream.keys(at).iter().count() > 1;
            if has_other_key || (next_at != NEVER && next_at > now) {
                return;
            }
            self.load_with_keys(at);
        }
    }

    fn load_with_keys(&mut self, at: MessagePosition) {
        let attempts = self.waiting(at).attempts;
        let keys = self.stream.keys(at);
        self.lane.retry(entry(at, None, keys, attempts, true));
    }
}
