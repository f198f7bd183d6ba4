//! What each URL has to say: how its last calls ended and what is due next, and whether its address
//! may be called.

use super::{fault, note, Check, ServerFacts, UrlFacts};
use crate::core::policy::endpoint::Endpoint;
use crate::core::policy::refused_url::{refused, RefusedUrl};
use crate::core::values::sql_text::literal;

pub(super) fn url_state(url: &UrlFacts, webhook: &str) -> Check {
    const NAME: &str = "url_state";
    let address = &url.url;
    let error = url.last_error.as_deref().unwrap_or("unknown");
    let waiting = url.pending + url.retrying;
    let state = url.state.as_str();
    match state {
        "disabled" => fault(
            NAME,
            format!("{address} is switched off: {error}; webhook.resume_webhook() opens it again"),
        ),
        "blocked" => fault(
            NAME,
            format!("{address} takes no new messages, {waiting} wait for it: {error}"),
        ),
        _ if url.failing_since.is_some() || matches!(state, "failing" | "backing_off") => {
            fault(NAME, failure(url, webhook, error, waiting))
        }
        "throttled" => note(
            NAME,
            format!("{address} is slowed down by call_throttling: {waiting} wait for it"),
        ),
        "paused" | "delivery_off" | "no_worker" => note(
            NAME,
            format!("{address} is not called now: {waiting} wait for it"),
        ),
        _ if url.retrying > 0 => note(
            NAME,
            format!(
                "the last call to {address} succeeded; {} wait for a retry, the next call comes {}",
                url.retrying,
                next_call(url)
            ),
        ),
        _ => note(NAME, format!("{address} is called; {waiting} wait for it")),
    }
}

fn failure(url: &UrlFacts, webhook: &str, error: &str, waiting: i64) -> String {
    let since = url.failing_since.as_deref();
    let since = since.map_or_else(String::new, |since| format!(" since {since}"));
    let next = match &url.next_attempt {
        None if waiting == 0 => "nothing waits for it".to_owned(),
        None => format!("{waiting} wait for it, and nothing is sent now"),
        Some(_) if url.state == "backing_off" => format!(
            "{waiting} wait for it, the next call is a probe {}",
            next_call(url)
        ),
        Some(_) => format!(
            "{waiting} wait for it, the next call comes {}",
            next_call(url)
        ),
    };
    let disabled_from = url
        .disabled_from
        .as_deref()
        .map_or_else(String::new, |from| {
            format!("; a failure from {from} on switches it off (disable_after)")
        });
    format!(
        "{} fails{since}: {error}; {next}{disabled_from}; {}, then call webhook.retry_now({}, {})",
        url.url,
        advice(error),
        literal(webhook),
        literal(&url.url)
    )
}

fn next_call(url: &UrlFacts) -> &str {
    url.next_attempt.as_deref().unwrap_or("later")
}

/// What usually mends a failure of this kind.
fn advice(error: &str) -> &'static str {
    let error = error.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| error.contains(word));
    if has(&[
        "allowed_networks",
        "refused address",
        "link-local",
        "private",
    ]) {
        "give it another URL, or name the receiver's network in webhook.allowed_networks"
    } else if has(&["host name", "resolv", "dns"]) {
        "check the host name of the URL, and that this server can resolve it"
    } else if has(&["certificate", "tls"]) {
        "check the receiver's certificate, and name a CA of your own in webhook.ca_file"
    } else if has(&["timed out"]) {
        "check that the receiver answers in time, or raise timeout_ms"
    } else if has(&["connection", "connect"]) {
        "check that the receiver runs, and that this server can reach it"
    } else if has(&["401", "403"]) {
        "check what the receiver asks for, and the webhook's headers"
    } else if has(&["404", "405"]) {
        "check the path of the URL"
    } else {
        "look at http_response in webhook.calls and mend the receiver"
    }
}

pub(super) fn url_address(url: &UrlFacts, server: &ServerFacts) -> Check {
    const NAME: &str = "url_address";
    let text = &url.url;
    let Ok(endpoint) = Endpoint::parse(text) else {
        return fault(NAME, format!("{text} cannot be read: replace it"));
    };
    match refused(&endpoint, &server.policy, server.require_https) {
        Some(RefusedUrl::PlainHttp) => fault(
            NAME,
            format!(
                "{text} is plain http, which goes only into webhook.allowed_networks: \
                 use https, or name the receiver's network there"
            ),
        ),
        Some(RefusedUrl::Address(refusal)) => fault(NAME, format!("{text}: {refusal}")),
        None if endpoint.literal_address().is_some() => {
            note(NAME, format!("{text}: the address may be called"))
        }
        None => note(
            NAME,
            format!("{text}: its addresses are judged when it is called"),
        ),
    }
}
