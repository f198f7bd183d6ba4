//! URLs that no call can reach under the present settings, as far as their text shows.
//!
//! Pure: no name is resolved, so what a name's addresses are is left to the call.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::address::{is_guarded, AddressPolicy};
use super::endpoint::{Endpoint, Scheme};

/// Stands for the address of a name, which only the call resolves.
const EXAMPLE_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3));

/// Why calls to this URL are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefusedUrl {
    /// Its scheme.
    PlainHttp,
    /// Its host, in the words of the policy.
    Address(String),
}

/// A line of postgresql.conf that allows calls to URLs that are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    line: String,
    /// A host is a name: the line has [`EXAMPLE_ADDRESS`] where its address belongs.
    has_example: bool,
}

impl Opening {
    /// What to do about one of these URLs. A metadata service is not offered for copying.
    pub fn hint(&self, endpoint: &Endpoint, refusal: &RefusedUrl) -> String {
        if known_addresses(endpoint).iter().any(is_guarded) {
            return "give another URL".into();
        }
        let instead = match refusal {
            RefusedUrl::PlainHttp => "use https",
            RefusedUrl::Address(_) => "give another URL",
        };
        let place = if self.has_example {
            format!(", with the receiver's address for {EXAMPLE_ADDRESS},")
        } else {
            String::new()
        };
        format!(
            "{instead}, or put this line into postgresql.conf{place} and reload: {}",
            self.line
        )
    }
}

/// The line with what the policy allows now and the addresses of those URLs that are refused.
pub fn opening<'a>(
    endpoints: impl IntoIterator<Item = &'a Endpoint>,
    policy: &AddressPolicy,
    require_https: bool,
) -> Opening {
    let mut networks: Vec<String> = policy.networks().collect();
    let mut has_example = false;
    for endpoint in endpoints {
        if refused(endpoint, policy, require_https).is_none() {
            continue;
        }
        let mut addresses = known_addresses(endpoint);
        if addresses.is_empty() {
            has_example = true;
            addresses.push(EXAMPLE_ADDRESS);
        }
        let offered = addresses.iter().filter(|address| !is_guarded(address));
        for address in offered.map(IpAddr::to_string) {
            if !networks.contains(&address) {
                networks.push(address);
            }
        }
    }
    Opening {
        line: format!("webhook.allowed_networks = '{}'", networks.join(", ")),
        has_example,
    }
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

    fn opened(urls: &[&str], allowed: &str) -> Opening {
        let endpoints: Vec<_> = urls
            .iter()
            .map(|url| Endpoint::parse(url).unwrap())
            .collect();
        opening(&endpoints, &AddressPolicy::parse(allowed).unwrap(), true)
    }

    #[test]
    fn the_line_to_copy_keeps_what_is_allowed_and_names_what_is_refused() {
        let urls = [
            "https://10.1.2.9/",
            "http://localhost:8080/",
            "https://localhost/",
            "https://example.com/",
        ];
        let Opening { line, has_example } = opened(&urls, "10.0.0.1,fd00::/8");
        let networks = "10.0.0.1, fd00::/8, 10.1.2.9, 127.0.0.1, ::1";
        assert_eq!(line, format!("webhook.allowed_networks = '{networks}'"));
        assert!(!has_example);
    }

    #[test]
    fn the_line_to_copy_makes_the_calls_possible() {
        for url in [
            "https://10.1.2.9/",
            "http://localhost/",
            "http://8.8.8.8/",
            "http://[::1]/",
        ] {
            let Opening { line, has_example } = opened(&[url], "");
            let allowed = line.split('\'').nth(1).unwrap();
            assert_eq!((reason(url, allowed), has_example), (None, false), "{line}");
        }
    }

    #[test]
    fn a_hint_says_what_to_put_for_a_name_and_opens_no_metadata_service() {
        let hint = |url: &str| {
            let endpoint = Endpoint::parse(url).unwrap();
            let refusal = refused(&endpoint, &AddressPolicy::default(), true).unwrap();
            opened(&[url, "https://10.0.0.1/"], "").hint(&endpoint, &refusal)
        };
        assert!(hint("http://example.com/")
            .contains("with the receiver's address for 10.1.2.3, and reload"));
        assert_eq!(hint("https://169.254.169.254/"), "give another URL");
        assert_eq!(
            opened(&["https://[fe80::1]/"], "").line,
            "webhook.allowed_networks = ''"
        );
    }
}
