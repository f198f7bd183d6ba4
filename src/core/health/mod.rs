//! How the last calls to a URL ended, as `webhook.queue` shows it, and what users are told of it.
//!
//! Written with the state of the lane. Of a URL that is forgotten because it is idle it is
//! remembered until the state is in the base table; of one that fails, until it succeeds.

pub mod given_up;
pub mod news;

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

/// What a call says about its URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    Delivered,
    Failed(String),
    /// The receiver answered 410 Gone.
    Gone(String),
    /// It was not sent.
    Unsent,
}

impl UrlHealth {
    /// A call ended that began at `called_at`.
    pub fn note(&mut self, ended: Ended, called_at: i64) {
        match ended {
            Ended::Delivered => {
                self.failing_since = None;
                self.error = None;
                self.last_success_at = self.last_success_at.max(Some(called_at));
            }
            Ended::Failed(error) | Ended::Gone(error) => {
                self.failing_since.get_or_insert(called_at);
                self.error = Some(error);
                self.last_error_at = self.last_error_at.max(Some(called_at));
            }
            Ended::Unsent => {}
        }
    }

    /// Why a URL is switched off after a call that failed, which was noted and ended at `ended_at`, if it
    /// is. `reopened_at`: when a user said that the receiver is back.
    pub fn switches_off(
        &self,
        is_gone: bool,
        ended_at: i64,
        disable_after_us: Option<i64>,
        reopened_at: Option<i64>,
    ) -> Option<String> {
        if is_gone {
            return Some(GONE.to_owned());
        }
        let since = self.failing_since?.max(reopened_at.unwrap_or(i64::MIN));
        let failed_for = ended_at.saturating_sub(since);
        (failed_for >= disable_after_us?).then(|| {
            let seconds = failed_for / MICROS_A_SECOND;
            let error = self.error.as_deref().unwrap_or_default();
            format!("no call has succeeded for {seconds} s (disable_after): {error}")
        })
    }

    pub fn is_failing(&self) -> bool {
        self.failing_since.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(error: &str) -> Ended {
        Ended::Failed(error.to_owned())
    }

    #[test]
    fn a_url_is_switched_off_once_it_has_failed_for_long_enough_without_a_success() {
        const MINUTE: Option<i64> = Some(60 * MICROS_A_SECOND);
        let mut health = UrlHealth::default();
        let mut off = |ended: Ended, at_s, after, reopened_s: Option<i64>| {
            let is_gone = matches!(ended, Ended::Gone(_));
            let at = at_s * MICROS_A_SECOND;
            health.note(ended, at);
            let reopened_at = reopened_s.map(|at| at * MICROS_A_SECOND);
            health.switches_off(is_gone, at, after, reopened_at)
        };
        let error = || failed("HTTP 500");
        assert_eq!(off(Ended::Delivered, 10, MINUTE, None), None);
        // An old success is no long failure.
        assert_eq!(off(error(), 1000, MINUTE, None), None);
        assert_eq!(off(error(), 1050, MINUTE, None), None);
        assert_eq!(off(error(), 1070, None, None), None);
        assert_eq!(off(error(), 1070, MINUTE, Some(1020)), None);
        assert_eq!(
            off(error(), 1070, MINUTE, Some(900)).as_deref(),
            Some("no call has succeeded for 70 s (disable_after): HTTP 500")
        );
        assert_eq!(off(Ended::Delivered, 1080, MINUTE, None), None);
        assert_eq!(off(error(), 1081, MINUTE, None), None);
        let gone = Ended::Gone("HTTP 410".to_owned());
        assert_eq!(off(gone, 1082, None, None).as_deref(), Some(GONE));
    }

    #[test]
    fn a_failure_lasts_from_its_first_call_to_the_next_success() {
        let mut health = UrlHealth::default();
        health.note(Ended::Delivered, 10);
        health.note(failed("refused"), 20);
        health.note(Ended::Unsent, 25);
        health.note(failed("HTTP 500"), 30);
        let expected = UrlHealth {
            failing_since: Some(20),
            last_success_at: Some(10),
            last_error_at: Some(30),
            error: Some("HTTP 500".to_owned()),
        };
        assert_eq!(health, expected);
        health.note(Ended::Delivered, 40);
        let expected = UrlHealth {
            failing_since: None,
            last_success_at: Some(40),
            last_error_at: Some(30),
            error: None,
        };
        assert_eq!(health, expected);
    }
}
