//! Which events a session has found for values of rows, and for which there are none.
//!
//! Bounded: when it is full it is emptied, and what is still needed is learned again. One value with
//! many rules leaves room for as many more.

use std::collections::HashMap;
use std::rc::Rc;

use super::rules::Rule;

/// About 10 MB together with the rules.
const MOST_VALUES: usize = 50_000;
const MOST_BYTES: usize = 4 << 20;
const MOST_RULES: usize = 50_000;
/// So many bytes of sources count as one rule.
const RULE_BYTES: usize = 200;

/// See the module. A key is the trigger, the columns and the values.
#[derive(Default)]
pub struct Learned {
    rules: HashMap<Box<[u8]>, Rc<[Rc<Rule>]>>,
    key_bytes: usize,
    rule_count: usize,
    /// The most of one value.
    largest_count: usize,
}

impl Learned {
    pub fn get(&self, key: &[u8]) -> Option<Rc<[Rc<Rule>]>> {
        self.rules.get(key).cloned()
    }

    /// Whether rules of this [`weight`] fit. There is room for any on their own.
    pub fn has_room(&self, key: &[u8], weight: usize) -> bool {
        let most_rules = MOST_RULES.max(2 * self.largest_count.max(weight));
        self.rules.len() < MOST_VALUES
            && self.key_bytes + key.len() <= MOST_BYTES
            && self.rule_count + weight <= most_rules
    }

    pub fn insert(&mut self, key: &[u8], rules: &Rc<[Rc<Rule>]>, weight: usize) {
        // Forgotten without room: memory that is short is no error of the user's statement.
        if self.rules.try_reserve(1).is_err() {
            return;
        }
        let mut copy = Vec::new();
        if copy.try_reserve_exact(key.len()).is_err() {
            return;
        }
        copy.extend_from_slice(key);
        self.key_bytes += key.len();
        self.rule_count += weight;
        self.largest_count = self.largest_count.max(weight);
        self.rules.insert(copy.into_boxed_slice(), rules.clone());
    }

    pub fn clear(&mut self) {
        *self = Self {
            largest_count: self.largest_count,
            ..Self::default()
        };
    }
}

/// As how many rules one with these sources counts.
pub fn weight(sources: Option<&[String]>) -> usize {
    let sources = sources.into_iter().flatten();
    1 + sources.map(String::len).sum::<usize>() / RULE_BYTES
}
