//! An outgoing URL: checked, normalised, and the only form that is ever dialled.
//!
//! Two readers of one URL must not disagree on its host, so the text the user
//! typed is parsed once, as browsers do, and everything after works on the
//! normalised result. Pure; it resolves nothing. Whether the address may be
//! called is decided later, by [`crate::core::policy::address`].

use std::net::IpAddr;

use url::{Host, Url};

use crate::core::error::{Error, Result};

/// Longer URLs are cut or refused by common servers and proxies.
pub const MAX_URL_BYTES: usize = 2048;

/// RFC 1035: what a resolver can be asked for.
const MAX_HOST_BYTES: usize = 253;

/// How much of a refused URL an error message repeats.
const SHOWN_CHARS: usize = 120;

/// The two schemes a message may travel by.
// Read by tests and benchmarks, as are the methods below: the client dials the text.
#[allow(dead_code)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

/// A normalised http or https URL.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    url: Url,
}

#[allow(dead_code)]
impl Endpoint {
    /// Checks and normalises a URL: punycode host, every spelling of an IP
    /// address as the plain one, default port left out.
    ///
    /// # Errors
    /// Another scheme than http and https, user name or password, a fragment,
    /// control characters or white space, no usable host, port 0, or more than
    /// [`MAX_URL_BYTES`] bytes.
    pub fn parse(text: &str) -> Result<Self> {
        check_text(text)?;
        let url = Url::parse(text)
            .map_err(|reason| refuse(text, &format!("is not a URL: {reason}"), WRITE_LIKE))?;
        check_parts(text, &url)?;
        check_host(text, &url)?;
        if url.as_str().len() > MAX_URL_BYTES {
            return Err(too_long(text));
        }
        Ok(Self { url })
    }

    /// The normalised URL, as stored and as dialled.
    pub fn as_str(&self) -> &str {
        self.url.as_str()
    }

    pub fn scheme(&self) -> Scheme {
        match self.url.scheme() {
            "https" => Scheme::Https,
            _ => Scheme::Http,
        }
    }

    /// The host as written in the URL; an IPv6 address is in brackets.
    pub fn host(&self) -> &str {
        self.url.host_str().expect("an endpoint has a host")
    }

    /// The address, if the host is one and needs no resolver.
    pub fn literal_address(&self) -> Option<IpAddr> {
        match self.url.host()? {
            Host::Domain(_) => None,
            Host::Ipv4(address) => Some(IpAddr::V4(address)),
            Host::Ipv6(address) => Some(IpAddr::V6(address)),
        }
    }

    pub fn port(&self) -> u16 {
        self.url
            .port_or_known_default()
            .expect("http and https have default ports")
    }
}

const WRITE_LIKE: &str = "write it like https://example.com/path";

fn check_text(text: &str) -> Result<()> {
    if text.len() > MAX_URL_BYTES {
        return Err(too_long(text));
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(refuse(
            text,
            "holds white space or control characters",
            "percent-encode them, for example a space as %20",
        ));
    }
    Ok(())
}

fn check_parts(text: &str, url: &Url) -> Result<()> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refuse(text, "is neither http nor https", WRITE_LIKE));
    }
    if !url.username().is_empty() || url.password().is_some() {
        // The value may hold a password, so it is not repeated.
        return Err(
            Error::invalid("outgoing_urls: a URL holds a user name or password")
                .with_hint("send credentials with headers, for example {\"Authorization\": \"…\"}"),
        );
    }
    if url.fragment().is_some() {
        return Err(refuse(
            text,
            "holds a fragment",
            "leave out the # and what follows it: it is never sent",
        ));
    }
    if url.port() == Some(0) {
        return Err(refuse(text, "names port 0", "name a port from 1 to 65535"));
    }
    Ok(())
}

/// Other characters are legal in a URL's host, but no resolver knows such a
/// name and HTTP libraries disagree on them.
fn check_host(text: &str, url: &Url) -> Result<()> {
    let Some(Host::Domain(name)) = url.host() else {
        return match url.host() {
            Some(_) => Ok(()),
            None => Err(refuse(text, "names no host", WRITE_LIKE)),
        };
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let has_empty_label = name.starts_with('.') || name.contains("..");
    if name.is_empty() || name.len() > MAX_HOST_BYTES || has_empty_label || !name.chars().all(plain)
    {
        return Err(refuse(text, "names no valid host", WRITE_LIKE));
    }
    Ok(())
}

fn too_long(text: &str) -> Error {
    refuse(
        text,
        &format!("is longer than {MAX_URL_BYTES} bytes"),
        "use a shorter URL",
    )
}

fn refuse(text: &str, reason: &str, hint: &str) -> Error {
    let shown: String = text
        .chars()
        .take(SHOWN_CHARS)
        .flat_map(char::escape_debug)
        .collect();
    Error::invalid(format!("outgoing_urls: \"{shown}\" {reason}")).with_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn normalised(text: &str) -> String {
        Endpoint::parse(text).unwrap().as_str().to_owned()
    }

    #[test]
    fn urls_are_normalised() {
        for (typed, stored) in [
            ("https://Example.COM", "https://example.com/"),
            ("HTTPS://example.com:443/a?b=c", "https://example.com/a?b=c"),
            (
                "http://example.com:8080/ä",
                "http://example.com:8080/%C3%A4",
            ),
            ("https://bücher.example/", "https://xn--bcher-kva.example/"),
            ("https://example.com/a/../b", "https://example.com/b"),
            ("https:\\\\example.com\\x", "https://example.com/x"),
        ] {
            assert_eq!(normalised(typed), stored, "{typed}");
        }
    }

    #[test]
    fn every_spelling_of_an_address_becomes_the_plain_one() {
        for typed in [
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0177.0.0.1/",
            "http://127.1/",
            "http://0x7f.1/",
            "http://127.0.0.1./",
            "http://①②⑦.0.0.1/",
            "http://%31%32%37.0.0.1/",
        ] {
            let endpoint = Endpoint::parse(typed).unwrap();
            assert_eq!(endpoint.as_str(), "http://127.0.0.1/", "{typed}");
            assert_eq!(
                endpoint.literal_address(),
                Some("127.0.0.1".parse().unwrap())
            );
        }
        let mapped = Endpoint::parse("http://[::ffff:127.0.0.1]:80/").unwrap();
        assert_eq!(
            mapped.literal_address(),
            Some("::ffff:127.0.0.1".parse().unwrap())
        );
        assert_eq!(mapped.host(), "[::ffff:7f00:1]");
    }

    #[test]
    fn parts_are_as_dialled() {
        let endpoint = Endpoint::parse("https://example.com/x").unwrap();
        assert_eq!(endpoint.scheme(), Scheme::Https);
        assert_eq!(endpoint.host(), "example.com");
        assert_eq!(endpoint.port(), 443);
        assert_eq!(endpoint.literal_address(), None);
        let plain = Endpoint::parse("http://example.com:81").unwrap();
        assert_eq!((plain.scheme(), plain.port()), (Scheme::Http, 81));
    }

    #[test]
    fn what_must_not_be_called_is_refused() {
        for (typed, reason) in [
            ("", "not a URL"),
            ("example.com/hook", "not a URL"),
            ("/hook", "not a URL"),
            ("ftp://example.com/", "neither http nor https"),
            ("file:///etc/passwd", "neither http nor https"),
            ("javascript:alert(1)", "neither http nor https"),
            ("https://user@example.com/", "user name or password"),
            ("https://user:secret@example.com/", "user name or password"),
            ("https://example.com/#top", "fragment"),
            ("https://example.com/#", "fragment"),
            ("https://example.com/a b", "white space"),
            (" https://example.com/", "white space"),
            ("https://exa\tmple.com/", "white space"),
            ("https://example.com/\r\nX: y", "white space"),
            ("https://example.com/\0", "white space"),
            ("https://example.com/\u{85}", "white space"),
            ("https://", "not a URL"),
            ("https://[::1", "not a URL"),
            ("https://[fe80::1%25eth0]/", "not a URL"),
            ("https://256.256.256.256/", "not a URL"),
            ("https://example.com:99999/", "not a URL"),
            ("https://example.com:0/", "port 0"),
            ("https://a'b.example/", "no valid host"),
            ("https://a..b/", "no valid host"),
        ] {
            let error = Endpoint::parse(typed).expect_err(typed);
            assert!(
                error.message.contains(reason),
                "{typed:?}: {}",
                error.message
            );
            assert!(error.hint.is_some(), "{typed:?}");
            assert!(!error.message.contains("secret"), "{}", error.message);
            assert!(!error.message.contains('\n'), "{}", error.message);
        }
    }

    #[test]
    fn the_length_limit_counts_the_stored_form_too() {
        let fits = format!("https://example.com/{}", "a".repeat(MAX_URL_BYTES - 20));
        assert_eq!(normalised(&fits).len(), MAX_URL_BYTES);
        assert!(Endpoint::parse(&format!("{fits}a")).is_err());
        let grows = format!("https://example.com/{}", "ä".repeat(600));
        assert!(grows.len() < MAX_URL_BYTES);
        assert!(Endpoint::parse(&grows)
            .unwrap_err()
            .message
            .contains("longer"));
    }

    proptest! {
        #[test]
        fn no_text_panics_and_the_stored_form_is_stable(text in "\\PC{0,60}") {
            for typed in [text.clone(), format!("http://{text}"), format!("https://h.example/{text}")] {
                if let Ok(endpoint) = Endpoint::parse(&typed) {
                    let again = Endpoint::parse(endpoint.as_str()).unwrap();
                    prop_assert_eq!(again.as_str(), endpoint.as_str());
                    prop_assert!(endpoint.as_str().is_ascii());
                }
            }
        }
    }
}
