//! What a lane asks the retry table about its keys, and what it learns.

use super::{as_stored, Lane, OrderKeys};

impl<M> Lane<M> {
    /// Whether all blocked keys are to be asked for.
    pub fn wants_blocked_keys(&self) -> bool {
        self.keys.as_ref().is_some_and(|keys| keys.is_unknown)
    }

    /// Keys that the lane knows to be blocked.
    pub fn blocked_keys(&self) -> usize {
        self.keys.as_ref().map_or(0, |keys| keys.blocked.len())
    }

    /// How many keys a lane wants to be told of, one more than it keeps.
    pub fn blocked_keys_wanted(&self) -> usize {
        self.keys
            .as_ref()
            .map_or(0, |keys| keys.blocked_at_most + 1)
    }

    /// The table's answer: the keys of rows that wait, in the table's order.
    pub fn learn_blocked_keys(&mut self, mut told: Vec<u64>) {
        let Some(keys) = &mut self.keys else {
            return;
        };
        keys.is_unknown = false;
        keys.is_cut = told.len() > keys.blocked_at_most;
        keys.unknown_from = told.get(keys.blocked_at_most).map(|key| as_stored(*key));
        told.truncate(keys.blocked_at_most);
        keys.blocked.retain(|_, blocked| !blocked.is_quiet());
        keys.to_ask.clear();
        for key in told {
            if keys.block(key).is_quiet() {
                keys.to_ask.insert(key);
            }
        }
        self.dirty = true;
        self.advance();
    }

    /// Whether the table has to be asked about keys of this lane.
    pub fn has_keys_to_ask(&self) -> bool {
        let keys = self.keys.as_ref().filter(|keys| !keys.is_unknown);
        keys.is_some_and(|keys| !keys.to_ask.is_empty() || keys.unknown_from.is_some())
    }

    /// Blocked keys from here on are not known: what waits for them is to be asked for as well,
    /// page by page.
    pub fn unknown_keys_from(&self) -> Option<i64> {
        let keys = self.keys.as_ref().filter(|keys| !keys.is_unknown)?;
        keys.unknown_from
    }

    /// The keys of such a page were asked for; `None`: it was the last.
    pub fn asked_unknown_keys(&mut self, next_from: Option<i64>) {
        if let Some(keys) = &mut self.keys {
            keys.unknown_from = next_from;
        }
    }

    /// Blocked keys of which nothing is under way: the first message that waits for each is due
    /// now, unless it has a date, and a key that none waits for is free.
    pub fn keys_to_ask(&self, most: usize) -> Vec<u64> {
        let keys = self.keys.as_ref().filter(|keys| !keys.is_unknown);
        let to_ask = keys.map(|keys| keys.to_ask.iter().take(most).copied());
        to_ask.into_iter().flatten().collect()
    }

    /// The answer to [`Lane::keys_to_ask`]: which of them messages still wait for.
    pub fn learn_keys(&mut self, asked: &[u64], is_waited_for: impl Fn(u64) -> bool) {
        let Some(keys) = &mut self.keys else {
            return;
        };
        for key in asked {
            keys.to_ask.remove(key);
            let is_quiet = keys.blocked.get(key).is_some_and(|key| key.is_quiet());
            if is_quiet && !is_waited_for(*key) {
                keys.blocked.remove(key);
            }
        }
        self.advance();
    }

    /// A retry was given up, or its row says something else than the lane expects: what waits
    /// for its keys is asked for again.
    pub fn ask_again(&mut self, of: OrderKeys) {
        let Some(keys) = &mut self.keys else {
            return;
        };
        for key in of.iter() {
            if keys.block(key).is_quiet() {
                keys.to_ask.insert(key);
            }
        }
        self.advance();
    }
}
