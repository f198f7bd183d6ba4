//! How the last calls to a URL ended, as `webhook.queue` shows it.
//!
//! Written with the state of the lane. Of a URL that is forgotten because it is idle it is
//! remembered until the state is in the base table; of one that fails, until it succeeds.

use crate::delivery::call::{Outcome, Verdict};
use crate::worker::time;

/// Why a URL is off.
const GONE: &str = "the receiver answered 410 Gone";
const MICROS_A_SECOND: i64 = 1_000_000;

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

    /// Why a URL is switched off after this call, which was noted, if it is. `reopened_at`: when a
    /// user said that the receiver is back.
    pub fn switches_off(
        &self,
        outcome: &Outcome,
        disable_after_us: Option<i64>,
        reopened_at: Option<i64>,
    ) -> Option<String> {
        if outcome.verdict == Verdict::Gone {
            return Some(GONE.to_owned());
        }
        let since = self.failing_since?.max(reopened_at.unwrap_or(i64::MIN));
        let duration = i64::try_from(outcome.duration.as_micros()).unwrap_or(0);
        let failed_for = time::pg_micros(outcome.called_at) + duration - since;
        let is_over = failed_for >= disable_after_us?;
        (is_over && outcome.verdict == Verdict::Failed).then(|| {
            let seconds = failed_for / MICROS_A_SECOND;
            let error = self.error.as_deref().unwrap_or_default();
            format!("no call has succeeded for {seconds} s (disable_after): {error}")
        })
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
    fn a_url_is_switched_off_once_it_has_failed_for_long_enough_without_a_success() {
        const MINUTE: Option<i64> = Some(60 * MICROS_A_SECOND);
        let mut health = UrlHealth::default();
        let mut off = |verdict, at_s, after, reopened_s: Option<i64>| {
            let outcome = ended(verdict, at_s, "HTTP 500");
            health.note(&outcome);
            let reopened_at = reopened_s.map(|at| at * MICROS_A_SECOND);
            health.switches_off(&outcome, after, reopened_at)
        };
        assert_eq!(off(Verdict::Delivered, 10, MINUTE, None), None);
        // An old success is no long failure.
        assert_eq!(off(Verdict::Failed, 1000, MINUTE, None), None);
        assert_eq!(off(Verdict::Failed, 1050, MINUTE, None), None);
        assert_eq!(off(Verdict::Failed, 1070, None, None), None);
        assert_eq!(off(Verdict::Failed, 1070, MINUTE, Some(1020)), None);
        assert_eq!(off(Verdict::TooLarge, 1070, MINUTE, None), None);
        assert_eq!(
            off(Verdict::Failed, 1070, MINUTE, Some(900)).as_deref(),
            Some("no call has succeeded for 70 s (disable_after): HTTP 500")
        );
        assert_eq!(off(Verdict::Delivered, 1080, MINUTE, None), None);
        assert_eq!(off(Verdict::Failed, 1081, MINUTE, None), None);
        assert_eq!(off(Verdict::Gone, 1082, None, None).as_deref(), Some(GONE));
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
