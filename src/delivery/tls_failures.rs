//! Describes TLS failures in sentences for the people who operate the receiver.
//!
//! rustls describes much of it by the names of its own types. Here each failure that a receiver
//! can cause has a sentence; of the rest the names are given as words.

use std::fmt::Debug;

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};

use crate::core::values::time_text::{push_timestamp, Fraction};

/// From 1970 to 2000, where PostgreSQL's timestamps begin.
const PG_EPOCH_UNIX_SECONDS: i64 = 946_684_800;
/// Names of a certificate that are listed.
const NAMES_AT_MOST: usize = 5;

/// Why a handshake or a secured connection failed, without the prefix `tls:`.
pub fn describe(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(why) => describe_certificate(why),
        Error::NoCertificatesPresented => "the server presented no certificate".to_owned(),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "the server did not answer with TLS; it may expect plain http on this port".to_owned()
        }
        Error::InvalidMessage(why) => {
            format!(
                "the server sent a message that is not valid TLS ({})",
                words(why)
            )
        }
        Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
            "the server sent a message of TLS that does not belong here".to_owned()
        }
        Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => "the server supports neither TLS 1.2 nor TLS 1.3".to_owned(),
        Error::PeerIncompatible(why) => {
            format!("the server's TLS is not compatible ({})", words(why))
        }
        Error::PeerMisbehaved(why) => {
            format!("the server violates the protocol ({})", words(why))
        }
        Error::AlertReceived(alert) => describe_alert(*alert),
        Error::DecryptError => "a message of the server cannot be decrypted".to_owned(),
        Error::PeerSentOversizedRecord => "the server sent a record that is too large".to_owned(),
        Error::FailedToGetRandomBytes => "the operating system gives no random numbers".to_owned(),
        other => words(other),
    }
}

/// Why a certificate of `webhook.ca_file` cannot be used.
pub fn describe_ca(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(CertificateError::BadEncoding) => {
            "it is not a valid X.509 certificate".to_owned()
        }
        Error::InvalidCertificate(why) => words(why),
        other => words(other),
    }
}

fn describe_certificate(error: &CertificateError) -> String {
    use CertificateError as C;
    match error {
        C::BadEncoding => "the server's certificate cannot be read".to_owned(),
        C::Expired => "the server's certificate has expired".to_owned(),
        C::ExpiredContext { not_after, .. } => {
            format!("the server's certificate expired on {}", date(*not_after))
        }
        C::NotValidYet => "the server's certificate is not valid yet".to_owned(),
        C::NotValidYetContext { not_before, .. } => format!(
            "the server's certificate is not valid yet, but from {} on",
            date(*not_before)
        ),
        C::Revoked => "the server's certificate was revoked".to_owned(),
        C::UnknownIssuer => "the server's certificate is not signed by an authority that is \
                             trusted; webhook.ca_file can name others"
            .to_owned(),
        C::NotValidForName => {
            "the server's certificate is not valid for the URL's host name".to_owned()
        }
        C::NotValidForNameContext {
            expected,
            presented,
        } => describe_names(&expected.to_str(), presented),
        C::InvalidPurpose | C::InvalidPurposeContext { .. } => {
            "the server's certificate is not one for servers (extended key usage)".to_owned()
        }
        C::BadSignature => {
            "the server's certificate is not signed by the authority that it names".to_owned()
        }
        C::UnsupportedSignatureAlgorithmContext { .. }
        | C::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "the server's certificate is signed with an algorithm that is not supported".to_owned()
        }
        C::UnhandledCriticalExtension => {
            "the server's certificate has a critical extension that is not supported".to_owned()
        }
        other => describe_rare(&format!("{other:?}")),
    }
}

/// rustls passes on what its library for certificates says by the name of a type alone, as in
/// `Other(OtherError(CaUsedAsEndEntity))`.
fn describe_rare(debug: &str) -> String {
    let name = innermost(debug);
    match name {
        "CaUsedAsEndEntity" => {
            "the server's certificate is a CA certificate, not a server's".to_owned()
        }
        "EndEntityUsedAsCa" => {
            "the server's certificate is signed by a certificate that is not a CA's".to_owned()
        }
        "UnsupportedCertVersion" => {
            "the server's certificate is not of version 3 of X.509".to_owned()
        }
        "NameConstraintViolation" => {
            "the authority may not sign certificates for this host name (name constraint)"
                .to_owned()
        }
        other => format!("the server's certificate cannot be used ({})", split(other)),
    }
}

fn describe_names(expected: &str, presented: &[String]) -> String {
    let mut text = format!("the server's certificate is not valid for name {expected}");
    if presented.is_empty() {
        text.push_str(", nor for any other");
        return text;
    }
    let listed: Vec<String> = presented
        .iter()
        .take(NAMES_AT_MOST)
        .map(|name| plain_name(name))
        .collect();
    text.push_str(", only for ");
    text.push_str(&listed.join(", "));
    if presented.len() > NAMES_AT_MOST {
        text.push_str(" and others");
    }
    text
}

/// rustls gives `DnsName("a.example")` and the like.
fn plain_name(name: &str) -> String {
    let inner = name.split_once('(').map_or(name, |(_, inner)| inner);
    inner.trim_end_matches(')').trim_matches('"').to_owned()
}

fn describe_alert(alert: AlertDescription) -> String {
    use AlertDescription as A;
    match alert {
        A::CertificateRequired | A::NoCertificate => {
            "the server asks for a client certificate, which is not supported".to_owned()
        }
        A::ProtocolVersion => "the server supports neither TLS 1.2 nor TLS 1.3".to_owned(),
        A::UnrecognisedName => "the server does not know the URL's host name".to_owned(),
        A::HandshakeFailure | A::InsufficientSecurity => {
            "the server found no parameters of TLS that both sides support".to_owned()
        }
        other => format!(
            "the server ended the connection with alert \"{}\"",
            words(&other)
        ),
    }
}

fn date(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let micros = seconds
        .saturating_sub(PG_EPOCH_UNIX_SECONDS)
        .saturating_mul(1_000_000);
    let mut text = Vec::new();
    push_timestamp(&mut text, micros, Fraction::IfNotZero);
    format!("{} UTC", String::from_utf8_lossy(&text).replace('T', " "))
}

/// The name of a value's variant as words: `NoCipherSuitesInCommon` is `no cipher suites in
/// common`.
fn words(value: &impl Debug) -> String {
    split(innermost(&format!("{value:?}")))
}

/// Of `A(B(C))` the `C`; of `C(7)` and `C { x: 1 }` the `C`.
fn innermost(debug: &str) -> &str {
    debug
        .split('(')
        .map(|part| part.trim_end_matches(')'))
        .map(|part| part.split([' ', ')']).next().unwrap_or_default())
        .take_while(|part| part.starts_with(|c: char| c.is_ascii_uppercase()))
        .last()
        .unwrap_or("unknown")
}

fn split(name: &str) -> String {
    let mut text = String::with_capacity(name.len() + 8);
    let mut before = None;
    for c in name.chars() {
        let begins_word =
            c.is_ascii_uppercase() && before.is_some_and(|b: char| !b.is_ascii_uppercase());
        if begins_word {
            text.push(' ');
        }
        text.push(c.to_ascii_lowercase());
        before = Some(c);
    }
    text
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::ServerName;
    use rustls::PeerMisbehaved;

    use super::*;

    fn time(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds))
    }

    #[test]
    fn a_failure_of_the_certificate_says_what_is_wrong_with_it() {
        use CertificateError as C;
        let cases = [
            (
                C::ExpiredContext {
                    time: time(1_700_000_000),
                    not_after: time(1_577_836_800),
                },
                "the server's certificate expired on 2020-01-01 00:00:00 UTC",
            ),
            (
                C::NotValidYetContext {
                    time: time(1_700_000_000),
                    not_before: time(32_472_144_000),
                },
                "the server's certificate is not valid yet, but from 2999-01-01 00:00:00 UTC on",
            ),
            (
                C::NotValidForNameContext {
                    expected: ServerName::try_from("a.example").unwrap(),
                    presented: vec!["DnsName(\"b.example\")".to_owned(), "IpAddress(10.0.0.1)".to_owned()],
                },
                "the server's certificate is not valid for name a.example, only for b.example, 10.0.0.1",
            ),
            (
                C::NotValidForNameContext {
                    expected: ServerName::try_from("a.example").unwrap(),
                    presented: Vec::new(),
                },
                "the server's certificate is not valid for name a.example, nor for any other",
            ),
            (
                C::UnknownRevocationStatus,
                "the server's certificate cannot be used (unknown revocation status)",
            ),
        ];
        for (error, text) in cases {
            assert_eq!(describe(&Error::InvalidCertificate(error)), text);
        }
    }

    #[test]
    fn what_rustls_names_by_its_types_is_said_in_words() {
        let cases = [
            (
                Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon),
                "the server's TLS is not compatible (no cipher suites in common)",
            ),
            (
                Error::PeerMisbehaved(PeerMisbehaved::DuplicateServerHelloExtensions),
                "the server violates the protocol (duplicate server hello extensions)",
            ),
            (
                Error::InvalidMessage(InvalidMessage::MissingData("ServerHello")),
                "the server sent a message that is not valid TLS (missing data)",
            ),
            (
                Error::AlertReceived(AlertDescription::InternalError),
                "the server ended the connection with alert \"internal error\"",
            ),
            (Error::HandshakeNotComplete, "handshake not complete"),
        ];
        for (error, text) in cases {
            assert_eq!(describe(&error), text);
        }
    }

    #[test]
    fn the_innermost_name_is_found() {
        for (debug, name) in [
            ("Other(OtherError(CaUsedAsEndEntity))", "CaUsedAsEndEntity"),
            ("Unknown(77)", "Unknown"),
            ("MissingData(\"ServerHello\")", "MissingData"),
            ("Context { time: UnixTime(3) }", "Context"),
            ("", "unknown"),
        ] {
            assert_eq!(innermost(debug), name, "{debug}");
        }
    }
}
