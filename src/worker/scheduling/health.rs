//! How the last calls to a URL ended, as `webhook.queue` shows it.
//!
//! Written with the state of the lane. Of a URL that is forgotten because it is idle it is
//! remembered until the state is in the base table; of one that fails, until it succeeds.

use crate::delivery::call::{Outcome, Verdict};
use crate::worker::time;

/// Times in microseconds since 2000-01-01 UTC, each that of the start of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UrlHealth {
    /// The first call that failed after the last success.
    pub failing_since: Option<i64>,
    pub last_success_at: Option<i64>,
    pub last_error_at: Option<i64>,
    /// Of the last call, if it failed.
    pub error: Option<String>,
}

impl UrlHealth {
    /// A call ended. What was not sent says nothing about the URL.
    pub fn note(&mut self, outcome: &Outcome) {
        let called_at = time::pg_micros(outcome.called_at);
        match outcome.verdict {
            Verdict::Delivered => {
                self.failing_since = None;
                self.error = None;
                self.last_success_at = self.last_success_at.max(Some(called_at));
            }
            Verdict::Failed | Verdict::Gone => {
                self.failing_since.get_or_insert(called_at);
                self.error = Some(error_text(outcome));
                self.last_error_at = self.last_error_at.max(Some(called_at));
            }
            Verdict::TooLarge | Verdict::Unrenderable | Verdict::NotAttempted | Verdict::Local => {}
        }
    }

    pub fn is_failing(&self) -> bool {
        self.failing_since.is_some()
    }
}

fn error_text(outcome: &Outcome) -> String {
    let code = || outcome.http_code.map(|code| format!("HTTP {code}"));
    let detail = outcome.detail.clone().or_else(code);
    detail.unwrap_or_else(|| "the call failed".to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use uuid::Uuid;

    fn ended(verdict: Verdict, at_s: u64, detail: &str) -> Outcome {
        Outcome {
            token: 1,
            call_id: Uuid::nil(),
            called_at: time::system_time(i64::try_from(at_s * 1_000_000).unwrap()),
            duration: Duration::from_millis(1),
            message_size: 2,
            http_code: None,
            response: String::new(),
            detail: Some(detail.to_owned()),
            retry_after: None,
            verdict,
            failure_class: None,
            ends_run: true,
        }
    }

    #[test]
    fn a_failure_lasts_from_its_first_call_to_the_next_success() {
        let mut health = UrlHealth::default();
        health.note(&ended(Verdict::Delivered, 10, ""));
        health.note(&ended(Verdict::Failed, 20, "refused"));
        health.note(&ended(Verdict::TooLarge, 25, "large"));
        health.note(&ended(Verdict::Failed, 30, "HTTP 500"));
        let expected = UrlHealth {
            failing_since: Some(20_000_000),
            last_success_at: Some(10_000_000),
            last_error_at: Some(30_000_000),
            error: Some("HTTP 500".to_owned()),
        };
        assert_eq!(health, expected);
        health.note(&ended(Verdict::Delivered, 40, ""));
        let expected = UrlHealth {
            failing_since: None,
            last_success_at: Some(40_000_000),
            last_error_at: Some(30_000_000),
            error: None,
        };
        assert_eq!(health, expected);
    }
}
