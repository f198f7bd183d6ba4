//! Resolves a URL's host and applies the address policy.
//!
//! ureq calls the resolver for every request, also with an open connection, and dials exactly
//! the addresses it returns. So the checked address is the one that is dialled, and a name that
//! changes to a private address is refused at the next request. If one address of a name is
//! denied, none is returned.

use std::fmt;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;
use ureq::{Error, Timeout};

use super::client::ClientConfig;
use super::failure_class::FailureClass;
use super::local::{is_local, local_failure};
use super::names::{NameFailure, Names};
use super::ongoing::Ongoing;

/// Why a call is refused before it is dialled; the text becomes the call's detail.
#[derive(Debug)]
pub struct Refused {
    pub why: String,
    pub class: FailureClass,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for Refused {}

fn refuse(why: String, class: FailureClass) -> Error {
    Error::Other(Box::new(Refused { why, class }))
}

/// Resolves a host, then checks each of its addresses against the policy.
#[derive(Debug)]
pub struct PolicyResolver {
    pub config: Arc<ClientConfig>,
    pub names: Arc<Names>,
    pub ongoing: Arc<Ongoing>,
}

impl Resolver for PolicyResolver {
    fn resolve(
        &self,
        uri: &Uri,
        _config: &Config,
        _timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let host = uri.host().ok_or(Error::HostNotFound)?;
        let is_https = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        match literal(host) {
            Some(address) => self.judged(&[address], port, is_https),
            None => self.judged(&self.look_up(host)?, port, is_https),
        }
    }
}

impl PolicyResolver {
    fn look_up(&self, host: &str) -> Result<Arc<[IpAddr]>, Error> {
        self.names
            .addresses(host, || self.ongoing.remaining())
            .map_err(|failure| match failure {
                NameFailure::TimedOut => Error::Timeout(Timeout::Resolve),
                NameFailure::Local(why) => local_failure(why),
                NameFailure::Unknown(why) => refuse(
                    format!("host name {host} cannot be resolved: {why}"),
                    FailureClass::Connect,
                ),
            })
    }

    fn judged(
        &self,
        addresses: &[IpAddr],
        port: u16,
        is_https: bool,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let mut judged = self.empty();
        for &address in addresses {
            self.judge(address, port, is_https)?;
            // Beyond ureq's 16 addresses one more would not help either.
            let _ = judged.try_push(SocketAddr::new(address, port));
        }
        Ok(judged)
    }

    fn judge(&self, address: IpAddr, port: u16, is_https: bool) -> Result<(), Error> {
        let policy = &self.config.policy;
        policy
            .judge(address)
            .map_err(|refusal| refuse(refusal.to_string(), FailureClass::Other))?;
        if self.config.require_https && !is_https && !policy.is_explicitly_allowed(address) {
            return Err(refuse(
                format!("plain http to {address} is not allowed (webhook.require_https, webhook.allowed_networks)"),
                FailureClass::Other,
            ));
        }
        if port == self.config.refused_socket && is_of_this_host(address)? {
            return Err(refuse(
                format!(
                    "{} is this PostgreSQL server",
                    SocketAddr::new(address, port)
                ),
                FailureClass::Other,
            ));
        }
        Ok(())
    }
}

fn literal(host: &str) -> Option<IpAddr> {
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    bare.parse().ok()
}

/// Whether the address belongs to this host: only then can a socket be bound to it. Called for
/// one port only, so its cost does not matter.
fn is_of_this_host(address: IpAddr) -> Result<bool, Error> {
    let address = address.to_canonical();
    if address.is_loopback() || address.is_unspecified() {
        return Ok(true);
    }
    match UdpSocket::bind(SocketAddr::new(address, 0)) {
        Ok(_) => Ok(true),
        Err(error) if is_local(&error) => Err(local_failure(error)),
        Err(error) => Ok(error.kind() != ErrorKind::AddrNotAvailable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::policy::address::AddressPolicy;
    use crate::core::policy::endpoint::Endpoint;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    const POSTGRES_PORT: u16 = 5432;

    fn resolver(allowed: &str, addresses: &'static [&'static str]) -> PolicyResolver {
        let ongoing = Ongoing::new(u64::MAX);
        ongoing.begin(Instant::now() + Duration::from_secs(5), false);
        PolicyResolver {
            config: Arc::new(ClientConfig {
                policy: AddressPolicy::parse(allowed).unwrap(),
                require_https: true,
                refused_socket: POSTGRES_PORT,
                ..ClientConfig::default()
            }),
            names: Arc::new(Names::with_look_up(Box::new(|_| {
                Ok(addresses.iter().map(|text| text.parse().unwrap()).collect())
            }))),
            ongoing: Arc::new(ongoing),
        }
    }

    fn resolve(resolver: &PolicyResolver, url: &str) -> Result<Vec<String>, String> {
        let config = ureq::Agent::config_builder().build();
        resolver
            .resolve(&url.parse().unwrap(), &config, NextTimeout::default())
            .map(|found| found.iter().map(SocketAddr::to_string).collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn all_addresses_of_a_name_must_pass() {
        let good = resolver("", &["1.1.1.1", "2606:4700::1111"]);
        assert_eq!(
            resolve(&good, "https://a.example/").unwrap(),
            ["1.1.1.1:443", "[2606:4700::1111]:443"]
        );
        let mixed = resolver("", &["1.1.1.1", "10.0.0.1"]);
        let error = resolve(&mixed, "https://a.example/").unwrap_err();
        assert!(
            error.contains("address 10.0.0.1 is not allowed: private network"),
            "{error}"
        );
    }

    #[test]
    fn a_literal_is_judged_too() {
        let resolver = resolver("", &[]);
        for url in [
            "https://127.0.0.1/",
            "https://[::1]/",
            "https://[::ffff:10.0.0.1]/",
            "https://169.254.169.254/",
        ] {
            assert!(
                resolve(&resolver, url)
                    .unwrap_err()
                    .contains("is not allowed"),
                "{url}"
            );
        }
        assert_eq!(
            resolve(&resolver, "https://8.8.8.8:8443/").unwrap(),
            ["8.8.8.8:8443"]
        );
    }

    /// One address of each denied IPv4 range.
    const DENIED: [[u8; 4]; 18] = [
        [0, 1, 2, 3],
        [10, 1, 2, 3],
        [100, 64, 0, 1],
        [100, 100, 100, 200],
        [127, 0, 0, 1],
        [168, 63, 129, 16],
        [169, 254, 169, 254],
        [172, 31, 255, 255],
        [192, 0, 0, 192],
        [192, 0, 2, 1],
        [192, 88, 99, 1],
        [192, 168, 1, 1],
        [198, 19, 0, 1],
        [198, 51, 100, 7],
        [203, 0, 113, 7],
        [224, 0, 0, 1],
        [240, 0, 0, 1],
        [255, 255, 255, 255],
    ];

    /// As a URL may spell it, and what resolvers of other libraries take for the same.
    fn spellings([a, b, c, d]: [u8; 4]) -> Vec<String> {
        let number = u32::from_be_bytes([a, b, c, d]);
        let (low, lower) = (number & 0xff_ffff, number & 0xffff);
        let (high, tail) = (number >> 16, number & 0xffff);
        vec![
            format!("{a}.{b}.{c}.{d}"),
            format!("{a}.{b}.{c}.{d}."),
            format!("{number}"),
            format!("{number:#x}"),
            format!("{number:#X}"),
            format!("0{number:o}"),
            format!("{a:#x}.{b:#x}.{c:#x}.{d:#x}"),
            format!("0{a:o}.0{b:o}.0{c:o}.0{d:o}"),
            format!("{a}.{low}"),
            format!("{a}.{b}.{lower}"),
            format!("{a}.0x{b:x}.0{c:o}.{d}"),
            format!("{a}%2e{b}%2E{c}.{d}"),
            format!("{a}\u{3002}{b}\u{ff0e}{c}\u{ff61}{d}"),
            format!("[::ffff:{a}.{b}.{c}.{d}]"),
            format!("[::ffff:{high:x}:{tail:x}]"),
            format!("[0:0:0:0:0:FFFF:{high:04X}:{tail:04X}]"),
            format!("[::{a}.{b}.{c}.{d}]"),
            format!("[64:ff9b::{a}.{b}.{c}.{d}]"),
            format!("[2002:{high:x}:{tail:x}::1]"),
        ]
    }

    #[test]
    fn every_spelling_of_every_denied_range_is_refused() {
        let resolver = resolver("", &[]);
        for address in DENIED {
            for host in spellings(address) {
                // What cannot be stored cannot be called.
                let Ok(endpoint) = Endpoint::parse(&format!("https://{host}/")) else {
                    panic!("{host} is an address");
                };
                let refused = resolve(&resolver, endpoint.as_str());
                assert!(
                    refused
                        .as_ref()
                        .is_err_and(|why| why.contains("is not allowed")),
                    "{host}: {refused:?}"
                );
            }
        }
    }

    /// What was judged is what is dialled, whatever the name's server says next.
    #[test]
    fn a_name_that_changes_is_looked_up_once_for_a_call() {
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        let names = Names::with_look_up(Box::new(move |_| {
            let address = match counter.fetch_add(1, Ordering::SeqCst) {
                0 => "1.1.1.1",
                _ => "10.0.0.1",
            };
            Ok(vec![address.parse().unwrap()])
        }));
        let mut resolver = resolver("", &[]);
        resolver.names = Arc::new(names);
        let url = "https://changing.example/";
        assert_eq!(resolve(&resolver, url).unwrap(), ["1.1.1.1:443"]);
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        // Another spelling of the name is looked up by itself, and judged by itself.
        let error = resolve(&resolver, "https://changing.example./").unwrap_err();
        assert!(error.contains("address 10.0.0.1 is not allowed"), "{error}");
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn plain_http_goes_only_into_allowed_networks() {
        let resolver = resolver("127.0.0.0/8", &["1.1.1.1"]);
        let error = resolve(&resolver, "http://a.example/").unwrap_err();
        assert!(
            error.contains("plain http to 1.1.1.1 is not allowed"),
            "{error}"
        );
        assert_eq!(
            resolve(&resolver, "http://127.0.0.1:81/").unwrap(),
            ["127.0.0.1:81"]
        );
    }

    #[test]
    fn our_own_server_is_never_called() {
        let resolver = resolver("0.0.0.0/0, ::/0", &[]);
        for host in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "[::1]",
            "[::ffff:127.0.0.1]",
        ] {
            let error =
                resolve(&resolver, &format!("https://{host}:{POSTGRES_PORT}/")).unwrap_err();
            assert!(
                error.contains("is this PostgreSQL server"),
                "{host}: {error}"
            );
        }
        assert!(resolve(&resolver, "https://127.0.0.1:5433/").is_ok());
        assert!(resolve(&resolver, "https://8.8.8.8:5432/").is_ok());
    }
}
