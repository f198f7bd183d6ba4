//! Which addresses may be called.
//!
//! A webhook's URL is the user's choice, so without this policy a role that may
//! create a webhook could make the server talk to the network behind its own
//! firewall. The policy judges what a name was resolved to, never what was
//! typed. Pure: it resolves nothing and dials nothing. A refusal becomes a
//! failed call whose detail is the [`Refusal`]'s text.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::core::error::{Error, Result};

/// IPv4 ranges that are not public (IANA special-purpose registry, multicast,
/// and the address under which Azure serves its metadata).
const DENIED_V4: &[(Ipv4Net, &str)] = &[
    (v4([0, 0, 0, 0], 8), "this host"),
    (v4([10, 0, 0, 0], 8), "private network"),
    (v4([100, 64, 0, 0], 10), "carrier-grade NAT"),
    (v4([127, 0, 0, 0], 8), "loopback"),
    (v4([168, 63, 129, 16], 32), "cloud metadata"),
    (v4([169, 254, 0, 0], 16), "link-local"),
    (v4([172, 16, 0, 0], 12), "private network"),
    (v4([192, 0, 0, 0], 24), "protocol assignments"),
    (v4([192, 0, 2, 0], 24), "documentation"),
    (v4([192, 88, 99, 0], 24), "6to4 relay"),
    (v4([192, 168, 0, 0], 16), "private network"),
    (v4([198, 18, 0, 0], 15), "benchmarking"),
    (v4([198, 51, 100, 0], 24), "documentation"),
    (v4([203, 0, 113, 0], 24), "documentation"),
    (v4([224, 0, 0, 0], 4), "multicast"),
    (v4([240, 0, 0, 0], 4), "reserved"),
];

/// Of IPv6 only global unicast is public …
const GLOBAL_V6: Ipv6Net = v6([0x2000, 0], 3);

/// … less these parts of it.
const DENIED_V6: &[(Ipv6Net, &str)] = &[
    (v6([0x2001, 0], 23), "protocol assignments"),
    (v6([0x2001, 0xdb8], 32), "documentation"),
    (v6([0x2002, 0], 16), "6to4"),
    (v6([0x3fff, 0], 20), "documentation"),
];

/// Where credentials are handed out without asking who calls. A wide network
/// in `webhook.allowed_networks` must not open these by accident.
const LINK_LOCAL_V4: Ipv4Net = v4([169, 254, 0, 0], 16);
const LINK_LOCAL_V6: Ipv6Net = v6([0xfe80, 0], 10);
const METADATA: &[IpAddr] = &[
    // Azure
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    // nearly all
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    // Alibaba
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    // Oracle
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    // Amazon: of instances, and of pods
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0023)),
    // Google
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x0254)),
];

/// Addresses here stand for IPv4 ones, which a gateway calls: NAT64 (RFC 6052) holds them in the
/// last 32 bits, 6to4 (RFC 3056) behind the first 16.
const NAT64: Ipv6Net = v6([0x64, 0xff9b], 96);
const SIX_TO_FOUR: Ipv6Net = v6([0x2002, 0], 16);

const fn v4(octets: [u8; 4], prefix: u8) -> Ipv4Net {
    let [a, b, c, d] = octets;
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(head: [u16; 2], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(head[0], head[1], 0, 0, 0, 0, 0, 0), prefix)
}

/// An address that may not be called, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub address: IpAddr,
    pub reason: &'static str,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "address {} is not allowed: {} (webhook.allowed_networks)",
            self.address, self.reason
        )
    }
}

impl std::error::Error for Refusal {}

/// The public internet, plus what `webhook.allowed_networks` names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressPolicy {
    allowed: Vec<IpNet>,
}

impl AddressPolicy {
    /// Reads `webhook.allowed_networks`: CIDR ranges or bare addresses,
    /// separated by commas. Empty means: nothing but public addresses.
    ///
    /// # Errors
    /// An item that is neither, and a range of link-local addresses, which
    /// are only opened one by one.
    pub fn parse(text: &str) -> Result<Self> {
        let items = text.split(',').map(str::trim);
        let allowed = items
            .filter(|item| !item.is_empty())
            .map(parse_network)
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { allowed })
    }

    /// What the setting names, as it may be written there; an address has no prefix length.
    pub fn networks(&self) -> impl Iterator<Item = String> + '_ {
        self.allowed.iter().map(|network| {
            if is_single_address(network) {
                network.addr().to_string()
            } else {
                network.to_string()
            }
        })
    }

    /// Whether this address may be called.
    pub fn judge(&self, address: IpAddr) -> std::result::Result<(), Refusal> {
        if self.is_explicitly_allowed(address) {
            return Ok(());
        }
        match denial(address.to_canonical()) {
            None => Ok(()),
            Some(reason) => Err(Refusal { address, reason }),
        }
    }

    /// Whether `webhook.allowed_networks` names this address. Plain http goes
    /// nowhere else while `webhook.require_https` is on.
    pub fn is_explicitly_allowed(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let exact_only = is_guarded(&address);
        self.allowed.iter().any(|network| {
            network.contains(&address) && (!exact_only || is_single_address(network))
        })
    }
}

fn parse_network(item: &str) -> Result<IpNet> {
    let network = item
        .parse::<IpNet>()
        .or_else(|_| item.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| {
            Error::invalid(format!(
                "webhook.allowed_networks: \"{item}\" is not an address or network"
            ))
            .with_hint("write networks as 10.0.0.0/8 or fd00::/8, separated by commas")
        })?;
    let network = canonical_network(network).trunc();
    if is_link_local(network.network()) && !is_single_address(&network) && !covers_more(&network) {
        return Err(Error::invalid(format!(
            "webhook.allowed_networks: \"{item}\" is a range of link-local addresses"
        ))
        .with_hint("name each link-local address on its own, without a prefix length"));
    }
    Ok(network)
}

/// An IPv4-mapped network is meant as, and judged as, its IPv4 network.
fn canonical_network(network: IpNet) -> IpNet {
    const MAPPED_PREFIX_BITS: u8 = 96;
    match (network.network().to_canonical(), network) {
        (IpAddr::V4(address), IpNet::V6(mapped)) if mapped.prefix_len() >= MAPPED_PREFIX_BITS => {
            Ipv4Net::new(address, mapped.prefix_len() - MAPPED_PREFIX_BITS)
                .map(IpNet::V4)
                .expect("at most 128 - 96 = 32 bits are left")
        }
        _ => network,
    }
}

fn covers_more(network: &IpNet) -> bool {
    match network {
        IpNet::V4(net) => net.prefix_len() < LINK_LOCAL_V4.prefix_len(),
        IpNet::V6(net) => net.prefix_len() < LINK_LOCAL_V6.prefix_len(),
    }
}

fn is_single_address(network: &IpNet) -> bool {
    network.prefix_len() == network.max_prefix_len()
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => LINK_LOCAL_V4.contains(&address),
        IpAddr::V6(address) => LINK_LOCAL_V6.contains(&address),
    }
}

/// Whether only the address itself opens it, and no network that contains it.
pub fn is_guarded(address: &IpAddr) -> bool {
    is_link_local(*address)
        || METADATA.contains(address)
        || embedded_v4(*address).is_some_and(|address| is_guarded(&IpAddr::V4(address)))
}

/// The IPv4 address that a gateway calls instead of this one.
fn embedded_v4(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else {
        return None;
    };
    let bits = address.to_bits();
    let part = |shift: u32| u32::try_from(bits >> shift & u128::from(u32::MAX));
    let embedded = |shift| Ipv4Addr::from_bits(part(shift).unwrap_or_default());
    if NAT64.contains(&address) {
        Some(embedded(0))
    } else if SIX_TO_FOUR.contains(&address) {
        Some(embedded(80))
    } else {
        None
    }
}

/// Why an address is not public; `None` if it is.
fn denial(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => first_match(DENIED_V4, |network| network.contains(&address)),
        IpAddr::V6(address) if GLOBAL_V6.contains(&address) => {
            first_match(DENIED_V6, |network| network.contains(&address))
        }
        IpAddr::V6(address) => Some(name_of_non_global(address)),
    }
}

fn first_match<N>(table: &[(N, &'static str)], hit: impl Fn(&N) -> bool) -> Option<&'static str> {
    table
        .iter()
        .find(|(network, _)| hit(network))
        .map(|(_, reason)| *reason)
}

fn name_of_non_global(address: Ipv6Addr) -> &'static str {
    match address.segments()[0] {
        _ if address.is_loopback() => "loopback",
        _ if address.is_unspecified() => "this host",
        0xfc00..=0xfdff => "private network",
        0xfe80..=0xfebf => "link-local",
        0xff00..=0xffff => "multicast",
        _ => "not a global unicast address",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn policy(text: &str) -> AddressPolicy {
        AddressPolicy::parse(text).unwrap()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn every_conformance_case_is_judged_as_written() {
        let text = include_str!("../../../tests/conformance/addresses.json");
        let file: serde_json::Value = serde_json::from_str(text).unwrap();
        let cases = file["cases"].as_object().unwrap();
        assert!(cases.len() > 100, "only {} cases were read", cases.len());
        for (text, expected) in cases {
            let found = policy("").judge(address(text));
            assert_eq!(
                found.is_ok(),
                expected.as_bool().unwrap(),
                "{text}: {found:?}"
            );
        }
    }

    #[test]
    fn a_refusal_names_address_reason_and_setting() {
        assert_eq!(
            policy("")
                .judge(address("10.0.0.1"))
                .unwrap_err()
                .to_string(),
            "address 10.0.0.1 is not allowed: private network (webhook.allowed_networks)"
        );
    }

    #[test]
    fn allowed_networks_open_what_they_name_and_no_more() {
        let policy = policy(" 10.1.0.0/16, 127.0.0.1 ,fd00::/8,");
        for open in [
            "10.1.2.3",
            "127.0.0.1",
            "fd12::1",
            "::ffff:10.1.2.3",
            "8.8.8.8",
        ] {
            assert!(policy.judge(address(open)).is_ok(), "{open}");
        }
        for shut in ["10.2.0.0", "127.0.0.2", "fc00::1", "::ffff:10.2.0.1"] {
            assert!(policy.judge(address(shut)).is_err(), "{shut}");
        }
        assert!(policy.is_explicitly_allowed(address("::ffff:127.0.0.1")));
        assert!(!policy.is_explicitly_allowed(address("8.8.8.8")));
    }

    #[test]
    fn a_mapped_network_is_its_ipv4_network() {
        let policy = policy("::ffff:10.0.0.0/104");
        assert!(policy.judge(address("10.9.9.9")).is_ok());
        assert!(policy.judge(address("11.0.0.0")).is_ok());
        assert!(policy.judge(address("127.0.0.1")).is_err());
    }

    #[test]
    fn wide_networks_do_not_open_link_local_or_metadata() {
        let wide = policy("0.0.0.0/0, ::/0");
        for shut in [
            "169.254.169.254",
            "169.254.1.1",
            "168.63.129.16",
            "fe80::1",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
            "100.100.100.200",
            "192.0.0.192",
            "::ffff:100.100.100.200",
            "64:ff9b::169.254.169.254",
            "64:ff9b::100.100.100.200",
            "2002:a9fe:a9fe::1",
        ] {
            assert!(wide.judge(address(shut)).is_err(), "{shut}");
        }
        for open in [
            "127.0.0.1",
            "64:ff9b::10.0.0.1",
            "2002:a00:1::1",
            "100.100.100.201",
        ] {
            assert!(wide.judge(address(open)).is_ok(), "{open}");
        }
        let each = [
            "169.254.169.254",
            "fe80::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "100.100.100.200",
            "192.0.0.192",
            "64:ff9b::a9fe:a9fe",
        ];
        let exact = policy(&each.join(", "));
        for open in each {
            assert!(exact.judge(address(open)).is_ok(), "{open}");
        }
        assert!(exact.judge(address("169.254.169.253")).is_err());
    }

    #[test]
    fn bad_items_are_named_in_the_error() {
        for (text, bad) in [
            ("10.0.0.0/33", "10.0.0.0/33"),
            ("10.0.0.0/8, example.com", "example.com"),
            ("10", "10"),
            ("169.254.0.0/16", "169.254.0.0/16"),
            ("fe80::/64", "fe80::/64"),
            ("::ffff:169.254.0.0/112", "::ffff:169.254.0.0/112"),
        ] {
            let error = AddressPolicy::parse(text).unwrap_err();
            assert!(error.message.contains(bad), "{text}: {}", error.message);
            assert!(error.hint.is_some());
        }
    }

    proptest! {
        #[test]
        fn an_ipv4_address_and_its_mapped_form_are_judged_alike(bits: u32) {
            let plain = Ipv4Addr::from(bits);
            let policy = policy("");
            prop_assert_eq!(
                policy.judge(IpAddr::V4(plain)).is_ok(),
                policy.judge(IpAddr::V6(plain.to_ipv6_mapped())).is_ok()
            );
        }

        #[test]
        fn nothing_std_calls_private_is_public(bits: u32) {
            let address = Ipv4Addr::from(bits);
            let special = address.is_private() || address.is_loopback() || address.is_link_local()
                || address.is_multicast() || address.is_broadcast() || address.is_documentation()
                || address.is_unspecified();
            prop_assert!(!special || policy("").judge(IpAddr::V4(address)).is_err());
        }

        #[test]
        fn no_ipv6_outside_global_unicast_is_public(bits: u128) {
            let address = Ipv6Addr::from(bits);
            let public = policy("").judge(IpAddr::V6(address)).is_ok();
            let global = bits >> 125 == 0b001;
            let mapped = address.to_ipv4_mapped().is_some();
            prop_assert!(!public || global || mapped, "{}", address);
        }

        #[test]
        fn an_allowed_network_opens_exactly_its_addresses(
            base: u32, prefix in 0_u8..=32, probe: u32
        ) {
            let network = Ipv4Net::new(Ipv4Addr::from(base), prefix).unwrap();
            if let Ok(policy) = AddressPolicy::parse(&network.to_string()) {
                let probe = Ipv4Addr::from(probe);
                let guarded = is_guarded(&IpAddr::V4(probe));
                prop_assume!(!guarded);
                prop_assert_eq!(
                    policy.is_explicitly_allowed(IpAddr::V4(probe)),
                    network.contains(&probe)
                );
            }
        }
    }
}
