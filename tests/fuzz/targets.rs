//! What is read from users, receivers and stored values, and what must hold of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use ureq::http::{HeaderName, HeaderValue, Uri};
use uuid::Uuid;

use super::fuzz;
use crate::core::messages::oversize::Oversize;
use crate::core::payloads::default_payload::{DefaultPayload, PayloadConstants};
use crate::core::payloads::template::render::{MessageParts, TemplateConstants, TemplatePayload};
use crate::core::payloads::template::Template;
use crate::core::policy::address::AddressPolicy;
use crate::core::policy::endpoint::{Endpoint, Scheme};
use crate::core::policy::headers;
use crate::core::policy::redaction::Redactions;
use crate::core::policy::retry::{parse_retry_after, Schedule, MAX_RETRY_AFTER};
use crate::core::policy::secret::Secret;
use crate::core::values::hstore_image;
use crate::core::values::hstore_text::push_hstore;
use crate::core::values::json_text::is_json_number;
use crate::core::values::jsonb_image::{self, Token};
use crate::core::values::number_text::{numeric_room, push_numeric};
use crate::core::values::time_text::{self, Fraction};

const ROOM: usize = 1 << 20;

pub(super) const JSON_WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "\\u0000",
    "\\ud83d",
    "\\udc00",
    "null",
    "true",
    "1e9",
    "-0.5",
    "{}",
    "[]",
    "\"a\":",
    "\u{e9}",
    "\n",
    "[@field:a]",
    "[@old:a]",
    "[@out-hook:secret]",
    "[@out-hook:changedFields]",
    "[@",
    "]",
    "[[[[[[[[",
    "{\"a\":{\"a\":",
];

fn constants<'a>(names: [&'a str; 3], fields: &'a [String]) -> TemplateConstants<'a> {
    TemplateConstants {
        payload: PayloadConstants {
            event_id: "e",
            webhook_id: "w",
            account_id: names[0],
            token: names[1],
            event_type: "table.recordUpdate",
            object_name: names[2],
        },
        object_fields: fields,
        integration_url: names[0],
    }
}

fn parts<'a>(record: &'a [u8], old: &'a [u8], changed: &'a str) -> MessageParts<'a> {
    MessageParts {
        message_id: Uuid::from_u128(1),
        call_id: Uuid::from_u128(2),
        event_date_micros: 0,
        record,
        old_record: Some(old),
        changed: Some(changed),
        actor: Some("someone\""),
        source: Some("REST\n"),
    }
}

fn rendered(template: &Template, message: &MessageParts<'_>) -> Result<Vec<u8>, String> {
    let fields = ["a".to_owned(), "\"b".to_owned()];
    let payload = TemplatePayload::compile(template, &constants(["x\"", "y\\", "z\n"], &fields));
    let mut out = Vec::new();
    let _ = payload.fits(message.record);
    let size = payload.render(message, ROOM, &mut out)?;
    assert!(
        size > ROOM || size == out.len(),
        "{size} bytes are {}",
        out.len()
    );
    Ok(out)
}

#[test]
fn a_template_is_refused_or_makes_json_of_every_record() {
    let seeds = [
        r#"{"id":"[@field:a]","text":"is [@field:a], was [@old:a]","list":["[@out-hook:changedFields]",1.50]}"#,
        r#"["[@out-hook:secret]",{"a":"[@out-hook:eventDate] [@out-hook:actor]","a":null}]"#,
    ];
    let records: [&[u8]; 3] = [
        br#"{"a":{"k":[1,"\\\"]}"],"\u0000":"\ud800"},"b":"x"}"#,
        br#"{"b":1}"#,
        br#"{ "a" : "q\"uote\\" , "b" : [ ] }"#,
    ];
    fuzz("template", &seeds, JSON_WORDS, |input| {
        let text = String::from_utf8_lossy(input);
        let Ok(template) = Template::parse(&text) else {
            return;
        };
        for record in records {
            let message = parts(record, br#"{"a":-1.0}"#, r#"["a","\"b"]"#);
            let body = rendered(&template, &message).expect("the record is whole");
            let body = String::from_utf8(body).expect("the body is UTF-8");
            let read = serde_json::from_str::<serde::de::IgnoredAny>(&body);
            let too_deep = |error: &serde_json::Error| error.to_string().contains("recursion");
            assert!(
                read.is_ok() || read.as_ref().is_err_and(too_deep),
                "{body}: {read:?}"
            );
        }
    });
}

#[test]
fn a_record_is_found_damaged_or_gives_the_values_it_has() {
    let template =
        Template::parse(r#"{"v":"[@field:a]","t":"[@field:a]!","l":"[@out-hook:changedFields]"}"#)
            .unwrap();
    let seeds = [
        r#"{"a":{"k":[1,"\\\"]}"]},"b":"x"}"#,
        r#"{"b":[[[]]],"a":"\u00e9\n\/"}"#,
        r#"{"a" : 12.50 , "c":null}"#,
    ];
    fuzz("record", &seeds, JSON_WORDS, |input| {
        let text = String::from_utf8_lossy(input);
        let body = rendered(&template, &parts(input, input, &text));
        let message = parts(text.as_bytes(), b"{}", "[]");
        let whole = rendered(&template, &message);
        let Ok(Value::Object(record)) = serde_json::from_str::<Value>(&text) else {
            return drop(body);
        };
        // With a key twice, or a key with escapes, the scanner keeps its own rules.
        if text.matches("\"a\"").count() > 1 || text.contains("\\u") {
            return;
        }
        let body = whole.expect("a JSON object is a record");
        let body: Value = serde_json::from_slice(&body).expect("the body is JSON");
        let expected = record.get("a").cloned().unwrap_or(Value::Null);
        assert_eq!(body["v"], expected);
    });
}

#[test]
fn a_payload_gives_back_what_it_was_made_of() {
    fuzz(
        "payload",
        &["account|token|table", "\"|\\|\n"],
        &["|", "\"", "\\", "\0", "\u{7f}", "\u{2028}"],
        |input| {
            let text = String::from_utf8_lossy(input).into_owned();
            let mut names = text.split('|').chain(std::iter::repeat("")).take(3);
            let names = [
                names.next().unwrap(),
                names.next().unwrap(),
                names.next().unwrap(),
            ];
            let constants = constants(names, &[]).payload;
            let payload = DefaultPayload::compile(&constants);
            let record = serde_json::json!({ names[1]: names[2] }).to_string();
            let mut out = Vec::new();
            let micros = input
                .iter()
                .fold(0_i64, |sum, byte| sum.wrapping_mul(257) ^ i64::from(*byte));
            payload.render(
                Uuid::from_u128(3),
                micros % (1 << 57),
                record.as_bytes(),
                &mut out,
            );
            let body: Value = serde_json::from_slice(&out).expect("the body is JSON");
            assert_eq!(body["accountId"], names[0]);
            assert_eq!(body["secret"], names[1]);
            assert_eq!(body["objectName"], names[2]);
            assert_eq!(body["data"][0][names[1]], names[2]);
        },
    );
}

#[test]
fn stored_documents_end_whatever_their_bytes() {
    let scalar = "\u{1}\0\0P\u{3}\0\0\0abc";
    let object = "\u{1}\0\0 \u{1}\0\0\0\u{4}\0\0\0a\u{0}\0\0\0@@@@";
    fuzz(
        "stored_documents",
        &[scalar, object],
        &["\0\0\0\u{10}", "\0\0\0P", "\u{1}\0\0@"],
        |input| {
            let mut tokens = 0;
            let walked = jsonb_image::walk(input, |token| {
                tokens += 1;
                if let Token::Number(image) = token {
                    let _ = numeric_room(image);
                }
                Ok::<(), ()>(())
            });
            assert!(walked.is_none_or(|end| end.is_ok()));
            assert!(
                tokens <= 8 * input.len() + 16,
                "{tokens} tokens of {} bytes",
                input.len()
            );
            if let Some(pairs) = hstore_image::pairs(input) {
                assert!(pairs.take_while(Option::is_some).count() <= input.len());
            }
            let mut text = b"before".to_vec();
            if push_hstore(&mut text, input) && std::str::from_utf8(input).is_ok() {
                serde_json::from_slice::<Value>(&text[6..]).expect("an object");
            }
            assert!(text.starts_with(b"before"));
        },
    );
}

#[test]
fn stored_numbers_and_times_are_written_within_their_room() {
    fuzz(
        "stored_numbers",
        &["\u{0}\u{8}\u{1}\0", "\u{80}\u{1}\u{2}\0\u{3}\0\u{4}\0"],
        &["\u{0}\u{40}", "\0\0"],
        |input| {
            let mut out = Vec::new();
            let room = numeric_room(input);
            if push_numeric(&mut out, input) {
                assert!(out.len() <= room, "{} bytes in room for {room}", out.len());
            } else {
                assert!(out.is_empty());
            }
            // Digits of a number are below 10,000; others are no number of PostgreSQL's.
            let digits = input.get(2..).unwrap_or_default().chunks_exact(2);
            if digits
                .clone()
                .all(|digit| u16::from_ne_bytes([digit[0], digit[1]]) < 10_000)
                && !out.is_empty()
            {
                let unpadded = out.strip_prefix(b"-").unwrap_or(&out);
                assert!(unpadded
                    .iter()
                    .all(|byte| byte.is_ascii_digit() || *byte == b'.'));
                assert!(
                    unpadded.starts_with(b"0") || is_json_number(&out),
                    "{}",
                    out.escape_ascii()
                );
            }
            let mut bytes = [0; 16];
            bytes[..input.len().min(16)].copy_from_slice(&input[..input.len().min(16)]);
            let (micros, rest) = bytes.split_at(8);
            let micros = i64::from_ne_bytes(micros.try_into().unwrap());
            let days = i32::from_ne_bytes(rest[..4].try_into().unwrap());
            let months = i32::from_ne_bytes(rest[4..].try_into().unwrap());
            let mut text = Vec::new();
            time_text::push_date(&mut text, days);
            time_text::push_timestamp(&mut text, micros, Fraction::IfNotZero);
            time_text::push_time(&mut text, micros);
            time_text::push_timetz(&mut text, micros, days);
            time_text::push_interval(&mut text, months, days, micros);
            assert!(text.is_ascii());
        },
    );
}

#[test]
fn waiting_times_stay_within_their_limits() {
    let seeds = [
        "120",
        "Fri, 31 Dec 1999 23:59:59 GMT",
        "5s,5min,30min",
        "1e3ms, 2 h",
    ];
    let words = [
        "s",
        "ms",
        "us",
        "min",
        "h",
        "d",
        ",",
        " ",
        "-",
        "+",
        ".",
        "e",
        "9999999999999999999999",
        "inf",
        "nan",
        "GMT",
        "31 Feb",
    ];
    fuzz("waiting_times", &seeds, &words, |input| {
        let text = String::from_utf8_lossy(input);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert!(parse_retry_after(&text, now).is_none_or(|wait| wait <= MAX_RETRY_AFTER));
        if let Ok(schedule) = Schedule::parse(&text) {
            for (attempt, random) in [(0, 0), (1, u64::MAX), (u32::MAX, 7)] {
                let delay = schedule.delay(attempt, random);
                assert!(delay >= Duration::from_millis(1), "{delay:?}");
                assert!(delay <= Duration::from_secs(2 * 365 * 86_400), "{delay:?}");
            }
        }
    });
}

/// What is stored, what is dialled and what is judged are one address.
#[test]
fn a_url_has_one_reading() {
    let seeds = [
        "https://example.com/a?b=c",
        "http://127.0.0.1:8080/",
        "https://[::ffff:10.0.0.1]:1/",
        "http://0x7f.1/",
        "https://b\u{fc}cher.example./\u{e4}",
        "http:\\\\a\\b",
        "https://user:pw@host/",
        "https://a.b.c:99999/#f",
    ];
    let words = [
        "@",
        ":",
        "/",
        "\\",
        "#",
        "?",
        "[",
        "]",
        "%",
        "%2e",
        "%00",
        "..",
        ".",
        "xn--",
        "\u{3002}",
        "\u{ff0e}",
        "\u{ad}",
        "0x",
        "0177",
        "::",
        "::ffff:",
        "localhost",
        "\t",
        "\n",
        "\u{200b}",
        "@127.0.0.1",
        "1",
        "256",
    ];
    fuzz("url", &seeds, &words, |input| {
        let text = String::from_utf8_lossy(input);
        let Ok(endpoint) = Endpoint::parse(&text) else {
            return;
        };
        let stored = endpoint.as_str();
        assert_eq!(
            Endpoint::parse(stored).expect("it is stored").as_str(),
            stored
        );
        let dialled: Uri = stored
            .parse()
            .unwrap_or_else(|error| panic!("{stored}: {error}"));
        assert_eq!(dialled.host(), Some(endpoint.host()), "{stored}");
        let scheme = match endpoint.scheme() {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        assert_eq!(dialled.scheme_str(), Some(scheme));
        let default = if scheme == "https" { 443 } else { 80 };
        assert_eq!(
            dialled.port_u16().unwrap_or(default),
            endpoint.port(),
            "{stored}"
        );
        assert!(dialled
            .authority()
            .is_some_and(|authority| !authority.as_str().contains('@')));
        assert!(stored.is_ascii() && !stored.contains('#'));
        // What looks like an address is one to the standard library, too, and nothing else is.
        let bare = endpoint
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']');
        assert_eq!(
            bare.parse::<IpAddr>().ok(),
            endpoint.literal_address(),
            "{stored}"
        );
    });
}

#[test]
fn no_special_address_is_called_unless_it_is_named() {
    let seeds = [
        "10.0.0.0/8, 127.0.0.1",
        "::ffff:10.0.0.0/104",
        "fe80::1, 169.254.169.254",
        "0.0.0.0/0, ::/0",
    ];
    let words = [
        ",",
        "/",
        "/0",
        "/32",
        "/128",
        "::",
        "::ffff:",
        "169.254.",
        "100.100.100.200",
        "fd20:ce::254",
        "64:ff9b::",
    ];
    fuzz("addresses", &seeds, &words, |input| {
        let mut bytes = [0_u8; 16];
        bytes[..input.len().min(16)].copy_from_slice(&input[..input.len().min(16)]);
        let v6 = Ipv6Addr::from(bytes);
        let v4 = Ipv4Addr::from([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let nothing = AddressPolicy::default();
        let special = v4.is_private()
            || v4.is_loopback()
            || v4.is_link_local()
            || v4.is_multicast()
            || v4.is_broadcast()
            || v4.is_documentation()
            || v4.is_unspecified();
        assert!(!special || nothing.judge(v4.into()).is_err(), "{v4}");
        let global = v6.segments()[0] >> 13 == 1 || v6.to_ipv4_mapped().is_some();
        assert!(global || nothing.judge(v6.into()).is_err(), "{v6}");
        let Ok(policy) = AddressPolicy::parse(&String::from_utf8_lossy(input)) else {
            return;
        };
        for address in [
            IpAddr::V4(v4),
            IpAddr::V6(v6),
            "169.254.169.254".parse().unwrap(),
        ] {
            let mapped = match address {
                IpAddr::V4(address) => IpAddr::V6(address.to_ipv6_mapped()),
                other => other,
            };
            assert_eq!(policy.judge(address).is_ok(), policy.judge(mapped).is_ok());
            let opened = policy.judge(address).is_ok() && nothing.judge(address).is_err();
            assert!(
                !opened || policy.is_explicitly_allowed(address),
                "{address}"
            );
        }
    });
}

#[test]
fn headers_that_are_taken_can_be_sent_and_start_no_line() {
    let seeds = [
        r#"{"X-Api-Key":"k","authorization":"Bearer abc"}"#,
        r#"{"a":"b c"}"#,
    ];
    let words = [
        "\\r\\n",
        "\\u0000",
        "\\t",
        "host",
        "webhook-id",
        "\":\"",
        "\",\"",
        " ",
        ":",
        "\u{e9}",
    ];
    fuzz("headers", &seeds, &words, |input| {
        let Ok(value) = serde_json::from_slice::<Value>(input) else {
            return;
        };
        for (name, value) in headers::validate(&value).unwrap_or_default() {
            HeaderName::from_bytes(name.as_bytes()).expect("a name");
            HeaderValue::from_str(&value).expect("a value");
            assert!(!value.bytes().any(|byte| byte < 0x20 || byte == 0x7f));
            assert!(!name.to_ascii_lowercase().starts_with("webhook-"));
        }
    });
}

#[test]
fn a_masked_text_has_no_credential() {
    let seeds = [
        "credential|echo credential",
        "ab/c\"de|{\"k\":\"ab\\/c\\\"de\"}",
        "Bearer abcdefgh|abcdefgh abcd",
    ];
    fuzz(
        "masked",
        &seeds,
        &["|", " ", "***", "%", "\\", "\u{e9}"],
        |input| {
            let text = String::from_utf8_lossy(input);
            let (value, text) = text.split_once('|').unwrap_or((&text, ""));
            let mut masked = text.to_owned();
            Redactions::of([value]).mask(&mut masked, input.len() % 2 == 0);
            assert!(masked.len() <= text.len(), "{masked}");
            assert!(
                value.len() < 6 || !masked.contains(value) || value.contains("***"),
                "{masked}"
            );
            let _ = Secret::parse(text);
            let _ = Oversize::from_stored(text);
        },
    );
}
