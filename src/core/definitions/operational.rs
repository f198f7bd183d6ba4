//! Operational events: what happens to deliveries themselves, as an event's type and as the record
//! of its messages.
//!
//! Pure. All types have the same fields; what does not apply is null.

use serde_json::Value;
use uuid::Uuid;

use crate::core::error::{Error, Result};
use crate::core::policy::endpoint::{Endpoint, Scheme};
use crate::core::values::json_text::push_string;

use super::event::Column;

/// What an operational event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OperationalEvent {
    UrlFailing,
    UrlRecovered,
    UrlDisabled,
    MessageFailed,
    EventDisabled,
    BacklogGrowing,
}

pub const OPERATIONAL_EVENTS: [OperationalEvent; 6] = [
    OperationalEvent::UrlFailing,
    OperationalEvent::UrlRecovered,
    OperationalEvent::UrlDisabled,
    OperationalEvent::MessageFailed,
    OperationalEvent::EventDisabled,
    OperationalEvent::BacklogGrowing,
];

/// The longest error in a record: with everything escaped a notification has room for it.
const ERROR_CHARS: usize = 500;

const FIELDS: [&str; 12] = [
    "webhook_id",
    "webhook_name",
    "outgoing_url",
    "since",
    "last_error",
    "message_id",
    "attempts",
    "messages",
    "pending",
    "at",
    "event_id",
    "object_name",
];

impl OperationalEvent {
    /// `None`: the type is another one.
    pub fn parse(text: &str) -> Option<Self> {
        let mut all = OPERATIONAL_EVENTS.into_iter();
        all.find(|event| event.as_str() == text)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::UrlFailing => "webhook.urlFailing",
            Self::UrlRecovered => "webhook.urlRecovered",
            Self::UrlDisabled => "webhook.urlDisabled",
            Self::MessageFailed => "webhook.messageFailed",
            Self::EventDisabled => "webhook.eventDisabled",
            Self::BacklogGrowing => "webhook.backlogGrowing",
        }
    }
}

/// The fields of a record, as a template may name them.
pub fn columns() -> Vec<Column> {
    let numbered = FIELDS.iter().zip(1..);
    numbered
        .map(|(name, number)| Column {
            name: (*name).to_owned(),
            number,
            stored: true,
        })
        .collect()
}

/// A record as a preview shows it.
pub fn example(event: OperationalEvent) -> Value {
    let is_message = event == OperationalEvent::MessageFailed;
    let is_backlog = event == OperationalEvent::BacklogGrowing;
    let is_event = event == OperationalEvent::EventDisabled;
    let error = match event {
        OperationalEvent::BacklogGrowing | OperationalEvent::UrlRecovered => None,
        OperationalEvent::EventDisabled => Some("its table was dropped"),
        _ => Some("answered 500 Internal Server Error"),
    };
    let occurrence = Occurrence {
        webhook_id: "a1b2c3",
        webhook_name: "example",
        outgoing_url: (!is_event).then_some("https://example.com/"),
        since: (!is_message && !is_event).then_some("2026-03-06T09:30:37.197463Z"),
        last_error: error,
        message_id: is_message.then_some(Uuid::nil()),
        attempts: is_message.then_some(12),
        messages: is_message.then_some(1),
        pending: is_backlog.then_some(1_000),
        at: "2026-03-06T09:35:37.197463Z",
        event_id: is_event.then_some("d4e5f6"),
        object_name: is_event.then_some("orders"),
    };
    serde_json::from_str(&occurrence.record()).unwrap_or_default()
}

/// # Errors
/// `22023` if the argument was given: it is about rows of a table.
pub fn refuse_argument(argument: &str, is_given: bool, event_type: &str) -> Result<()> {
    if !is_given {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{argument} cannot be used with event_type \"{event_type}\""
    ))
    .with_hint(format!(
        "leave {argument} out: the event is about no table; payload_template chooses what is sent"
    )))
}

/// What happened. Times as text, in UTC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Occurrence<'a> {
    pub webhook_id: &'a str,
    pub webhook_name: &'a str,
    pub outgoing_url: Option<&'a str>,
    pub since: Option<&'a str>,
    pub last_error: Option<&'a str>,
    pub message_id: Option<Uuid>,
    pub attempts: Option<u32>,
    pub messages: Option<u64>,
    pub pending: Option<u64>,
    pub at: &'a str,
    pub event_id: Option<&'a str>,
    pub object_name: Option<&'a str>,
}

impl Occurrence<'_> {
    /// The record of its messages.
    pub fn record(&self) -> String {
        self.object(Vec::new())
    }

    /// The same with its type, for NOTIFY.
    pub fn notification(&self, event: OperationalEvent) -> String {
        let mut out = Vec::new();
        push_text(&mut out, "event_type", Some(event.as_str()));
        self.object(out)
    }

    fn object(&self, mut out: Vec<u8>) -> String {
        let url = self.outgoing_url.map(origin);
        let error = self.last_error.map(cut);
        let message_id = self.message_id.map(|id| id.to_string());
        push_text(&mut out, "webhook_id", Some(self.webhook_id));
        push_text(&mut out, "webhook_name", Some(self.webhook_name));
        push_text(&mut out, "outgoing_url", url.as_deref());
        push_text(&mut out, "since", self.since);
        push_text(&mut out, "last_error", error);
        push_text(&mut out, "message_id", message_id.as_deref());
        push_number(&mut out, "attempts", self.attempts.map(u64::from));
        push_number(&mut out, "messages", self.messages);
        push_number(&mut out, "pending", self.pending);
        push_text(&mut out, "at", Some(self.at));
        push_text(&mut out, "event_id", self.event_id);
        push_text(&mut out, "object_name", self.object_name);
        out.push(b'}');
        String::from_utf8(out).expect("made of texts")
    }
}

fn push_key(out: &mut Vec<u8>, key: &str) {
    out.push(if out.is_empty() { b'{' } else { b',' });
    push_string(out, key);
    out.push(b':');
}

fn push_text(out: &mut Vec<u8>, key: &str, value: Option<&str>) {
    push_key(out, key);
    match value {
        Some(text) => push_string(out, text),
        None => out.extend_from_slice(b"null"),
    }
}

fn push_number(out: &mut Vec<u8>, key: &str, value: Option<u64>) {
    push_key(out, key);
    let text = value.map_or_else(|| "null".to_owned(), |number| number.to_string());
    out.extend_from_slice(text.as_bytes());
}

/// Path and query may be credentials; the server log leaves them out, too.
fn origin(url: &str) -> String {
    Endpoint::parse(url).map_or_else(
        |_| String::new(),
        |endpoint| {
            let scheme = match endpoint.scheme() {
                Scheme::Http => "http",
                Scheme::Https => "https",
            };
            format!("{scheme}://{}:{}", endpoint.host(), endpoint.port())
        },
    )
}

fn cut(text: &str) -> &str {
    let end = text.char_indices().nth(ERROR_CHARS);
    &text[..end.map_or(text.len(), |(at, _)| at)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NOTIFY takes less than 8000 bytes.
    const NOTIFICATION_BYTES: usize = 8000;

    #[test]
    fn every_type_is_read_back_and_is_none_of_a_table() {
        for event in OPERATIONAL_EVENTS {
            assert_eq!(OperationalEvent::parse(event.as_str()), Some(event));
            assert!(event.as_str().starts_with("webhook."));
        }
        for other in [
            "webhook.test",
            "table.recordInsert",
            "webhook.urlfailing",
            "",
        ] {
            assert_eq!(OperationalEvent::parse(other), None);
        }
    }

    #[test]
    fn a_record_has_every_field_and_no_path() {
        let occurrence = Occurrence {
            webhook_id: "a1b2c3",
            webhook_name: "o\"rders",
            outgoing_url: Some("https://hooks.example.com/hidden?key=hidden"),
            last_error: Some("answered 500"),
            at: "now",
            ..Occurrence::default()
        };
        let record: serde_json::Value = serde_json::from_str(&occurrence.record()).unwrap();
        let fields: Vec<String> = columns().into_iter().map(|column| column.name).collect();
        let members = record.as_object().unwrap();
        assert_eq!(members.len(), fields.len());
        assert!(fields.iter().all(|field| members.contains_key(field)));
        assert_eq!(members["outgoing_url"], "https://hooks.example.com:443");
        assert!(members["since"].is_null());
    }

    #[test]
    fn the_longest_notification_fits() {
        let name = "\u{10ffff}".repeat(100);
        // Each quoted, and with quotes in it, which JSON escapes.
        let table = format!("{0}.{0}", "\"".repeat(128));
        let error = "\u{1}".repeat(10_000);
        let url = format!("https://{}.example/", "a.".repeat(110));
        let occurrence = Occurrence {
            webhook_id: "a1b2c3",
            webhook_name: &name,
            outgoing_url: Some(&url),
            since: Some("2026-03-06T09:30:37.197463Z"),
            last_error: Some(&error),
            message_id: Some(Uuid::max()),
            attempts: Some(u32::MAX),
            messages: Some(u64::MAX),
            pending: Some(u64::MAX),
            at: "2026-03-06T09:30:37.197463Z",
            event_id: Some("d4e5f6"),
            object_name: Some(&table),
        };
        let text = occurrence.notification(OperationalEvent::MessageFailed);
        assert!(text.len() < NOTIFICATION_BYTES, "{}", text.len());
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
    }
}
