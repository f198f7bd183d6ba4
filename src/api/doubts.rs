//! What a definition is told at its creation: it is in order, and cannot work as it is.

use crate::core::definitions::words::EventType;
use crate::core::payloads::template;
use crate::core::policy::endpoint::Endpoint;
use crate::core::policy::refused_url::{opening, refused, RefusedUrl};
use crate::pg::report::notice;
use crate::pg::settings;

/// About URLs to which no call is allowed now. Names the host alone: what follows it may be a
/// credential.
pub fn tell_of_urls(urls: &[String]) {
    let settings = settings::delivery();
    let policy = &settings.allowed_networks;
    let endpoints: Vec<Endpoint> = urls
        .iter()
        .filter_map(|url| Endpoint::parse(url).ok())
        .collect();
    let opening = opening(&endpoints, policy, settings.require_https);
    for endpoint in &endpoints {
        let host = endpoint.host();
        let Some(refusal) = refused(endpoint, policy, settings.require_https) else {
            continue;
        };
        let why = match &refusal {
            RefusedUrl::PlainHttp => "plain http (webhook.require_https)",
            RefusedUrl::Address(why) => why,
        };
        notice(
            format!("calls to {host} are refused: {why}"),
            &opening.hint(endpoint, &refusal),
        );
    }
}

/// About a template that sends something else than what it seems to mean.
pub fn tell_of_template(text: &str, event_type: EventType) {
    for doubt in template::doubts(text, event_type) {
        notice(doubt.what, doubt.hint);
    }
}
