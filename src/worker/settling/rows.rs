//! Ended calls as rows of the call log and of the retry table.

use crate::core::health::given_up::GivenUp;
use crate::delivery::call::Verdict;
use crate::store::call_log::CallRow;
use crate::store::retries::{RetryRow, RetryState};
use crate::worker::definitions::Logged;
use crate::worker::settled::Settled;
use crate::worker::time;

pub(super) fn is_logged(settled: &Settled) -> bool {
    match settled.logged {
        Logged::All => true,
        Logged::Errors => settled.outcome.verdict != Verdict::Delivered,
        Logged::None => false,
    }
}

pub(super) fn call_row(settled: &Settled) -> CallRow {
    let outcome = &settled.outcome;
    CallRow {
        call_id: outcome.call_id,
        called_at: time::pg_micros(outcome.called_at),
        message_id: settled.message_id,
        url_key: settled.url_key,
        event_key: settled.event_key,
        event_date: settled.event_date,
        attempt: i32::try_from(settled.attempts).unwrap_or(i32::MAX),
        success: outcome.verdict == Verdict::Delivered,
        webhook_id: settled.webhook_id.clone(),
        http_code: outcome.http_code.map(i32::from),
        http_response: (!outcome.response.is_empty()).then(|| outcome.response.clone()),
        detail: outcome.detail.clone(),
        message_size: i32::try_from(outcome.message_size).unwrap_or(i32::MAX),
        duration_ms: outcome.duration.as_secs_f64() * 1000.0,
    }
}

/// Whether the message has to be remembered: it failed, and its URL is in use.
pub(super) fn is_remembered(settled: &Settled) -> bool {
    settled.outcome.verdict != Verdict::Delivered && settled.url_is_live
}

pub(super) fn retry_row(settled: &Settled) -> RetryRow {
    let next_at = settled.next_at.filter(|_| !settled.is_canceled);
    RetryRow {
        url_key: settled.url_key,
        at: settled.at,
        keys: settled.keys,
        message_id: settled.message_id,
        webhook_key: settled.webhook_key,
        event_key: settled.event_key,
        event_date: settled.event_date,
        attempts: i32::try_from(settled.attempts).unwrap_or(i32::MAX),
        state: match next_at {
            _ if settled.is_canceled => RetryState::Canceled,
            Some(_) => RetryState::Waiting,
            None => RetryState::Failed,
        },
        next_at,
        last_error: last_error(settled),
    }
}

/// What is to be said if this was the message's last call.
pub(super) fn given_up(settled: &Settled) -> Option<GivenUp> {
    let is_over = settled.next_at.is_none() && !settled.is_canceled;
    (is_over && is_remembered(settled)).then(|| GivenUp {
        url_key: settled.url_key,
        messages: 1,
        message_id: settled.message_id,
        attempts: settled.attempts,
        error: last_error(settled).unwrap_or_default(),
    })
}

pub(super) fn last_error(settled: &Settled) -> Option<String> {
    let outcome = &settled.outcome;
    let code = || outcome.http_code.map(|code| format!("HTTP {code}"));
    outcome.detail.clone().or_else(code)
}

/// Whether the message has a row in the retry table that is not needed any more.
pub(super) fn ends_retry(settled: &Settled) -> bool {
    (settled.is_retry || settled.is_canceled) && settled.outcome.verdict == Verdict::Delivered
}
