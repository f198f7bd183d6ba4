//! `webhook.retry_now`, `redeliver`, `redeliver_failed`, `cancel` and `cancel_pending`.

use pgrx::datum::TimestampWithTimeZone;
use pgrx::prelude::*;
use serde_json::json;

use super::everywhere::argument;
use super::{adopt, everywhere};
use crate::core::definitions::limits::PATH_CHARS;
use crate::core::definitions::status;
use crate::core::definitions::webhook::{required, shown as shown_text};
use crate::core::error::{Error, Kind, Result};
use crate::pg::arguments::{list, required_word, text, TextArgument, TextListArgument};
use crate::pg::commit_start;
use crate::pg::owner::current_role;
use crate::pg::report::ok_or_raise;
use crate::store::deliveries::{self, FoundMessage};
use crate::store::redelivery::{self, Window};
use crate::store::{change_log, reach, webhook_definitions, worker_switch};

/// So many failed messages are taken up by one statement …
const PART: i64 = 20_000;
/// … and progress is told after about so many.
const TELL_AFTER: i64 = 100_000;

#[pg_extern(sql = false)]
fn redeliver(message_id: Option<pgrx::Uuid>) -> i32 {
    ok_or_raise(adopt::check_is_not_held("redeliver a message"));
    let call = |id| format!("webhook.redeliver('{id}')");
    let (id, message) = match ok_or_raise(found_here_or(message_id, call)) {
        FoundWhere::Here(id, message) => (id, message),
        FoundWhere::OnOtherNodes(calls) => return i32::try_from(calls).unwrap_or(i32::MAX),
    };
    if !message.is_live {
        ok_or_raise::<()>(Err(Error::new(
            Kind::NotInPrerequisiteState,
            format!("the webhook of message {} was dropped", shown(id)),
        )
        .with_hint(
            "only messages of webhooks in the view webhook.webhooks can be redelivered",
        )));
    }
    ok_or_raise(reach::check_message(
        message.webhook_key,
        message.event_key,
        message.captured_at,
    ));
    let calls = deliveries::redeliver(id, &message);
    log_message(id, &message, "redeliver", calls);
    wake();
    i32::try_from(calls).unwrap_or(i32::MAX)
}

#[pg_extern(sql = false)]
fn redeliver_failed(
    webhook: Option<TextArgument>,
    since: Option<TimestampWithTimeZone>,
    until: Option<TimestampWithTimeZone>,
) -> i64 {
    ok_or_raise(adopt::check_is_not_held("redeliver messages"));
    let key = ok_or_raise(key_of(webhook));
    let mut told = 0;
    let total = deliveries::redeliver_failed(key, since, until, None, PART, |so_far| {
        if so_far - told >= TELL_AFTER {
            told = so_far;
            pgrx::notice!("{so_far} failed messages queued so far");
        }
    });
    let details = json!({
        "calls": total,
        "since": since.map(|at| at.to_iso_string()),
        "until": until.map(|at| at.to_iso_string()),
    });
    change_log::webhook_happened(key, "redeliver_failed", details, &current_role());
    wake();
    let call = format!(
        "webhook.redeliver_failed({}, {}, {})",
        argument(Some(&webhook_definitions::id_of(key))),
        moment(since),
        moment(until)
    );
    total + everywhere::sum(&call)
}

#[pg_extern(sql = false)]
fn redeliver_window(
    webhook: Option<TextArgument>,
    since: Option<TimestampWithTimeZone>,
    until: Option<TimestampWithTimeZone>,
    status: Option<TextListArgument>,
    outgoing_url: Option<TextArgument>,
) -> i64 {
    ok_or_raise(adopt::check_is_not_held("redeliver messages"));
    let read = || -> Result<_> {
        let since = required("since", since)?;
        let statuses = status::ended(&required(
            "status",
            list(status, "status", status::ENDED.len())?,
        )?)?;
        let outgoing_url = text(outgoing_url, "outgoing_url", PATH_CHARS)?;
        let key = key_of(webhook)?;
        let url_keys = urls(key, outgoing_url.as_deref())?;
        Ok((key, since, statuses, url_keys, outgoing_url))
    };
    let (key, since, statuses, url_keys, outgoing_url) = ok_or_raise(read());
    let mut details = json!({
        "since": since.to_iso_string(),
        "until": until.map(|at| at.to_iso_string()),
        "status": statuses,
        "outgoing_url": outgoing_url,
    });
    let asked = statuses.clone();
    let (mut total, mut told) = (0, 0);
    let mut tell = |so_far: i64| {
        if so_far - told >= TELL_AFTER {
            told = so_far;
            pgrx::notice!("{so_far} calls queued so far");
        }
    };
    // These have an index.
    if statuses.contains(&status::FAILED) {
        let urls = Some(&*url_keys);
        total += deliveries::redeliver_failed(key, Some(since), until, urls, PART, &mut tell);
    }
    let others: Vec<&'static str> = statuses
        .into_iter()
        .filter(|status| *status != status::FAILED)
        .collect();
    if !others.is_empty() {
        let window = Window {
            webhook_key: key,
            since,
            until,
            statuses: &others,
            url_keys: &url_keys,
        };
        let failed = total;
        total += redelivery::redeliver_window(&window, PART, |so_far| tell(failed + so_far));
    }
    details["calls"] = total.into();
    change_log::webhook_happened(key, "redeliver", details, &current_role());
    wake();
    let listed: Vec<&str> = asked.iter().map(|status| &**status).collect();
    let call = format!(
        "webhook.redeliver({}, {}, {}, '{{{}}}', {})",
        argument(Some(&webhook_definitions::id_of(key))),
        moment(Some(since)),
        moment(until),
        listed.join(","),
        argument(outgoing_url.as_deref())
    );
    total + everywhere::sum(&call)
}

#[pg_extern(sql = false)]
fn retry_now(webhook: Option<TextArgument>, outgoing_url: Option<TextArgument>) -> i64 {
    let wanted = || -> Result<(i32, Vec<i32>, Option<String>)> {
        let outgoing_url = text(outgoing_url, "outgoing_url", PATH_CHARS)?;
        let key = key_of(webhook)?;
        Ok((key, urls(key, outgoing_url.as_deref())?, outgoing_url))
    };
    let (key, url_keys, outgoing_url) = ok_or_raise(wanted());
    let call = format!(
        "webhook.retry_now({}, {})",
        argument(Some(&webhook_definitions::id_of(key))),
        argument(outgoing_url.as_deref())
    );
    // First: what changes here is locked on the nodes until the end of this transaction.
    let elsewhere = everywhere::sum(&call);
    let due = redelivery::retry_now(key, &url_keys);
    let details = json!({ "calls": due, "outgoing_url": outgoing_url });
    change_log::webhook_happened(key, "retry_now", details, &current_role());
    wake();
    due + elsewhere
}

/// # Errors
/// `42704` if the webhook has no such URL.
fn urls(webhook_key: i32, outgoing_url: Option<&str>) -> Result<Vec<i32>> {
    let urls = redelivery::urls_in_use(webhook_key, outgoing_url);
    match outgoing_url {
        Some(url) if urls.is_empty() => Err(Error::new(
            Kind::UndefinedObject,
            format!(
                "outgoing_url \"{}\" is none of the webhook's",
                shown_text(url)
            ),
        )
        .with_hint("outgoing_urls in the view webhook.webhooks lists them")),
        _ => Ok(urls),
    }
}

#[pg_extern(sql = false)]
fn cancel(message_id: Option<pgrx::Uuid>) -> bool {
    let call = |id| format!("webhook.cancel('{id}')");
    let (id, message) = match ok_or_raise(found_here_or(message_id, call)) {
        FoundWhere::Here(id, message) => (id, message),
        FoundWhere::OnOtherNodes(canceled) => return canceled > 0,
    };
    let canceled = deliveries::cancel(id, &message);
    log_message(id, &message, "cancel", canceled);
    wake();
    canceled > 0
}

#[pg_extern(sql = false)]
fn cancel_pending(webhook: Option<TextArgument>) -> i64 {
    let key = ok_or_raise(key_of(webhook));
    let canceled = deliveries::cancel_pending(key);
    let details = json!({ "messages": canceled });
    change_log::webhook_happened(key, "cancel_pending", details, &current_role());
    wake();
    let id = webhook_definitions::id_of(key);
    canceled + everywhere::sum(&format!("webhook.cancel_pending({})", argument(Some(&id))))
}

/// Unless nothing came of it.
fn log_message(id: pgrx::Uuid, message: &FoundMessage, action: &str, calls: i64) {
    if calls > 0 {
        let details = json!({ "calls": calls });
        let by = current_role();
        change_log::message_happened(shown(id), message.webhook_key, action, details, &by);
    }
}

fn moment(at: Option<TimestampWithTimeZone>) -> String {
    argument(at.map(|at| at.to_iso_string()).as_deref())
}

fn key_of(webhook: Option<TextArgument>) -> Result<i32> {
    let (key, _) = webhook_definitions::find(&required_word(webhook, "webhook")?)?;
    Ok(key)
}

fn shown(id: pgrx::Uuid) -> uuid::Uuid {
    uuid::Uuid::from_bytes(*id.as_bytes())
}

/// Each message is on the node that has captured it.
enum FoundWhere {
    Here(pgrx::Uuid, FoundMessage),
    /// What the call came to there.
    OnOtherNodes(i64),
}

/// The message, or what the same call comes to on the other nodes of a cluster.
fn found_here_or(
    message_id: Option<pgrx::Uuid>,
    call: impl Fn(uuid::Uuid) -> String,
) -> Result<FoundWhere> {
    let here = found(message_id).map(|(id, message)| FoundWhere::Here(id, message));
    match (&here, message_id) {
        (Err(_), Some(id)) => everywhere::sum_of_message(&call(shown(id)))
            .map_or(here, |count| Ok(FoundWhere::OnOtherNodes(count))),
        _ => here,
    }
}

fn found(message_id: Option<pgrx::Uuid>) -> Result<(pgrx::Uuid, FoundMessage)> {
    let id = message_id.ok_or_else(|| {
        Error::invalid("message_id is null").with_hint("the view webhook.messages lists them")
    })?;
    let message = deliveries::find(id).ok_or_else(|| {
        Error::new(
            Kind::UndefinedObject,
            format!("message_id {} does not exist", shown(id)),
        )
        .with_hint("the view webhook.messages lists those that are not past webhook.log_retention")
    })?;
    Ok((id, message))
}

/// The worker hears of it at once, not at its next look.
fn wake() {
    if worker_switch::is_stopped() {
        // Another session may start it meanwhile.
        commit_start::tell_worker_at_commit();
    } else {
        commit_start::wake_worker_at_commit();
    }
}
