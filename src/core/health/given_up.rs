//! Messages that were given up, for the server log: a line a URL and minute, however many they
//! are.

use std::collections::HashMap;

use uuid::Uuid;

/// Between two lines about one URL.
const QUIET_NANOS: u64 = 60_000_000_000;
/// Failures of more URLs are not counted apart.
const URLS_AT_MOST: usize = 10_000;

/// What was given up for a URL since its last line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenUp {
    pub url_key: i32,
    pub messages: u64,
    /// Of the last of them.
    pub message_id: Uuid,
    pub attempts: u32,
    pub error: String,
}

struct Url {
    quiet_until: u64,
    unsaid: Option<GivenUp>,
}

/// See the module.
#[derive(Default)]
pub struct Failures(HashMap<i32, Url>);

impl Failures {
    /// One more message was given up, and that is written.
    pub fn add(&mut self, last: GivenUp) {
        if self.0.len() >= URLS_AT_MOST && !self.0.contains_key(&last.url_key) {
            return;
        }
        let url = self.0.entry(last.url_key).or_insert(Url {
            quiet_until: 0,
            unsaid: None,
        });
        let before = url.unsaid.as_ref().map_or(0, |unsaid| unsaid.messages);
        url.unsaid = Some(GivenUp {
            messages: before + last.messages,
            ..last
        });
    }

    /// What is to be said now.
    pub fn take_due(&mut self, now: u64) -> Vec<GivenUp> {
        let mut due = Vec::new();
        self.0.retain(|_, url| {
            if now < url.quiet_until {
                return true;
            }
            let Some(given_up) = url.unsaid.take() else {
                return false;
            };
            due.push(given_up);
            url.quiet_until = now + QUIET_NANOS;
            true
        });
        due.sort_unstable_by_key(|given_up| given_up.url_key);
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given_up(url_key: i32, messages: u64, error: &str) -> GivenUp {
        GivenUp {
            url_key,
            messages,
            message_id: Uuid::nil(),
            attempts: 3,
            error: error.to_owned(),
        }
    }

    #[test]
    fn a_url_has_a_line_a_minute_that_counts_what_came_meanwhile() {
        let mut failures = Failures::default();
        failures.add(given_up(1, 1, "answered 500"));
        failures.add(given_up(1, 1, "answered 501"));
        failures.add(given_up(2, 1, "timed out"));
        assert_eq!(
            failures.take_due(5),
            [given_up(1, 2, "answered 501"), given_up(2, 1, "timed out")]
        );
        failures.add(given_up(1, 1, "answered 502"));
        assert_eq!(failures.take_due(5 + QUIET_NANOS - 1), []);
        failures.add(given_up(1, 4, "answered 503"));
        assert_eq!(
            failures.take_due(5 + QUIET_NANOS),
            [given_up(1, 5, "answered 503")]
        );
        assert_eq!(failures.take_due(5 + 2 * QUIET_NANOS), []);
        assert!(failures.0.is_empty(), "nothing is kept of what is over");
    }
}
