//! What each URL has to say: how its lane fares, and whether its address may be called.

use super::{fault, note, Check, ServerFacts, UrlFacts};
use crate::core::policy::address::AddressPolicy;
use crate::core::policy::endpoint::{Endpoint, Scheme};

pub(super) fn url_state(url: &UrlFacts) -> Check {
    let address = &url.url;
    let error = url.last_error.as_deref().unwrap_or("unknown");
    let waiting = url.pending + url.retrying;
    match url.state.as_str() {
        "disabled" => fault(
            "url_state",
            format!("{address} is switched off: {error}; webhook.resume_webhook() opens it again"),
        ),
        "backing_off" => fault(
            "url_state",
            format!(
                "{address} fails, {waiting} wait for it, the next call is a probe at {}: {error}",
                url.next_attempt_at.as_deref().unwrap_or("any moment")
            ),
        ),
        "blocked" => fault(
            "url_state",
            format!("{address} takes no new messages, {waiting} wait for it: {error}"),
        ),
        "throttled" => note(
            "url_state",
            format!("{address} is slowed down by call_throttling: {waiting} wait for it"),
        ),
        "paused" => note(
            "url_state",
            format!("{address} is paused: {waiting} wait for it"),
        ),
        _ if url.retrying > 0 => note(
            "url_state",
            format!(
                "{address} is called; {} wait for a retry, the last error: {error}",
                url.retrying
            ),
        ),
        _ => note(
            "url_state",
            format!("{address} is called; {waiting} wait for it"),
        ),
    }
}

pub(super) fn url_address(url: &UrlFacts, server: &ServerFacts) -> Check {
    const NAME: &str = "url_address";
    let text = &url.url;
    let Ok(endpoint) = Endpoint::parse(text) else {
        return fault(NAME, format!("{text} cannot be read: replace it"));
    };
    let literal = endpoint.literal_address();
    let may_be_plain = match literal {
        Some(address) => server.policy.is_explicitly_allowed(address),
        None => server.policy != AddressPolicy::default(),
    };
    if endpoint.scheme() == Scheme::Http && server.require_https && !may_be_plain {
        let bad = format!(
            "{text} is plain http, which goes only into webhook.allowed_networks: \
             use https, or name the receiver's network there"
        );
        return fault(NAME, bad);
    }
    match literal.map(|address| server.policy.judge(address)) {
        Some(Err(refusal)) => fault(NAME, format!("{text}: {refusal}")),
        Some(Ok(())) => note(NAME, format!("{text}: the address may be called")),
        None => note(
            NAME,
            format!("{text}: its addresses are judged when it is called"),
        ),
    }
}
