//! What a call says about the health of its URL.

use crate::core::health::{Ended, UrlHealth};
use crate::delivery::call::{Outcome, Verdict};
use crate::worker::time;

/// A call ended.
pub(super) fn note(health: &mut UrlHealth, outcome: &Outcome) {
    let ended = match outcome.verdict {
        Verdict::Delivered => Ended::Delivered,
        Verdict::Failed => Ended::Failed(error_text(outcome)),
        Verdict::Gone => Ended::Gone(error_text(outcome)),
        Verdict::TooLarge | Verdict::Unrenderable | Verdict::NotAttempted | Verdict::Local => {
            Ended::Unsent
        }
    };
    health.note(ended, time::pg_micros(outcome.called_at));
}

/// See [`UrlHealth::switches_off`].
pub(super) fn switches_off(
    health: &UrlHealth,
    outcome: &Outcome,
    disable_after_us: Option<i64>,
    reopened_at: Option<i64>,
) -> Option<String> {
    let is_gone = match outcome.verdict {
        Verdict::Gone => true,
        Verdict::Failed => false,
        _ => return None,
    };
    let duration = i64::try_from(outcome.duration.as_micros()).unwrap_or(0);
    let ended_at = time::pg_micros(outcome.called_at).saturating_add(duration);
    health.switches_off(is_gone, ended_at, disable_after_us, reopened_at)
}

fn error_text(outcome: &Outcome) -> String {
    let code = || outcome.http_code.map(|code| format!("HTTP {code}"));
    let detail = outcome.detail.clone().or_else(code);
    detail.unwrap_or_else(|| "the call failed".to_owned())
}
