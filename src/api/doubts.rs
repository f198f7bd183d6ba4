//! What a definition is told at its creation: it is in order, and cannot work as it is.

use crate::core::definitions::words::EventType;
use crate::core::payloads::template;
use crate::core::policy::endpoint::Endpoint;
use crate::core::policy::refused_url::{refused, RefusedUrl};
use crate::pg::report::notice;
use crate::pg::settings;

/// About URLs to which no call is allowed now. Names the host alone: what follows it may be a
/// credential.
pub fn tell_of_urls(urls: &[String]) {
    let settings = settings::delivery();
    for endpoint in urls.iter().filter_map(|url| Endpoint::parse(url).ok()) {
        let host = endpoint.host();
        match refused(
            &endpoint,
            &settings.allowed_networks,
            settings.require_https,
        ) {
            None => {}
            Some(RefusedUrl::PlainHttp) => notice(
                format!("calls to {host} are refused: plain http (webhook.require_https)"),
                "use https, or name the receiver's network in webhook.allowed_networks",
            ),
            Some(RefusedUrl::Address(why)) => notice(
                format!("calls to {host} are refused: {why}"),
                "give another URL, or name the receiver's network in webhook.allowed_networks",
            ),
        }
    }
}

/// About a template that sends something else than what it seems to mean.
pub fn tell_of_template(text: &str, event_type: EventType) {
    for doubt in template::doubts(text, event_type) {
        notice(doubt.what, doubt.hint);
    }
}
