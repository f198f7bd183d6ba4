//! URLs that no call can reach under the present settings, as far as their text shows.
//!
//! Pure: no name is resolved, so what a name's addresses are is left to the call.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::address::AddressPolicy;
use super::endpoint::{Endpoint, Scheme};

/// Why calls to this URL are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefusedUrl {
    /// Its scheme.
    PlainHttp,
    /// Its host, in the words of the policy.
    Address(String),
}

/// `None` if calls may be made, or only resolving the name would tell.
pub fn refused(
    endpoint: &Endpoint,
    policy: &AddressPolicy,
    require_https: bool,
) -> Option<RefusedUrl> {
    let addresses = known_addresses(endpoint);
    let is_allowed = |address: &IpAddr| policy.is_explicitly_allowed(*address);
    let may_be_plain = match addresses.as_slice() {
        [] => *policy != AddressPolicy::default(),
        known => known.iter().any(is_allowed),
    };
    if let Some(refusal) = addresses
        .first()
        .filter(|_| !addresses.iter().any(is_allowed))
        .and_then(|address| policy.judge(*address).err())
    {
        return Some(RefusedUrl::Address(refusal.to_string()));
    }
    (endpoint.scheme() == Scheme::Http && require_https && !may_be_plain)
        .then_some(RefusedUrl::PlainHttp)
}

/// A literal address, or those that every resolver gives `localhost` (RFC 6761). It may give one of
/// them only.
fn known_addresses(endpoint: &Endpoint) -> Vec<IpAddr> {
    if let Some(address) = endpoint.literal_address() {
        return vec![address];
    }
    let host = endpoint.host().trim_end_matches('.');
    if host == "localhost" || host.ends_with(".localhost") {
        return vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(url: &str, allowed: &str) -> Option<String> {
        let endpoint = Endpoint::parse(url).unwrap();
        let policy = AddressPolicy::parse(allowed).unwrap();
        refused(&endpoint, &policy, true).map(|refused| match refused {
            RefusedUrl::PlainHttp => "plain".to_owned(),
            RefusedUrl::Address(why) => why,
        })
    }

    #[test]
    fn addresses_that_the_policy_denies_are_named() {
        for (url, why) in [
            ("https://169.254.169.254/latest", "link-local"),
            ("http://10.1.2.3/", "private network"),
            ("https://[::1]:8443/", "loopback"),
            ("https://0x7f000001/", "loopback"),
            ("https://localhost/", "loopback"),
            ("http://a.localhost./", "loopback"),
        ] {
            let reason = reason(url, "").unwrap_or_default();
            assert!(reason.contains(why), "{url}: {reason}");
        }
        for (url, allowed) in [
            ("https://10.1.2.3/", "10.0.0.0/8"),
            ("http://10.1.2.3/", "10.0.0.0/8"),
            ("http://localhost/", "127.0.0.1"),
            ("https://localhost/", "::1"),
            ("https://example.com/", ""),
            ("https://8.8.8.8/", ""),
        ] {
            assert_eq!(reason(url, allowed), None, "{url}");
        }
    }

    #[test]
    fn plain_http_needs_a_network_that_is_allowed() {
        let plain = Some("plain".to_owned());
        assert_eq!(reason("http://example.com/", ""), plain);
        assert_eq!(reason("http://8.8.8.8/", "10.0.0.0/8"), plain);
        assert_eq!(reason("http://example.com/", "10.0.0.0/8"), None);
        let endpoint = Endpoint::parse("http://example.com/").unwrap();
        assert_eq!(refused(&endpoint, &AddressPolicy::default(), false), None);
    }
}
