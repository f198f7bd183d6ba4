//! The default payload: the JSON body of a message whose event has no template.
//!
//! Pure and without failure. All that stays the same from message to message of
//! one event is escaped once, in [`DefaultPayload::compile`]; a message then costs
//! a few copies. Compile it again when any of the constants changes.

use uuid::Uuid;

use crate::core::values::json_text::push_string;
use crate::core::values::time_text::{push_timestamp, Fraction};

/// Length of `2026-03-06T09:30:37.197463Z`; years beyond 9999 only make the buffer grow.
const EVENT_DATE_LEN: usize = 27;

/// What does not differ between the messages of one event. `token` is what the
/// receiver may know of the secret, never the secret itself; `object_name` is
/// schema-qualified unless the schema is `public`.
pub struct PayloadConstants<'a> {
    pub event_id: &'a str,
    pub webhook_id: &'a str,
    pub account_id: &'a str,
    pub token: &'a str,
    pub event_type: &'a str,
    pub object_name: &'a str,
}

/// The constant stretches of the body, between the values that vary. No `Debug`:
/// it holds the token.
pub struct DefaultPayload {
    before_message_id: Vec<u8>,
    before_event_date: Vec<u8>,
    before_record: Vec<u8>,
}

/// Ends `"data":[…` and the body.
const AFTER_RECORD: &[u8] = b"]}";

impl DefaultPayload {
    pub fn compile(constants: &PayloadConstants<'_>) -> Self {
        let mut before_message_id = Vec::new();
        push_member(&mut before_message_id, b"{\"eventId\":", constants.event_id);
        before_message_id.extend_from_slice(b",\"messageId\":\"");

        let mut before_event_date = Vec::new();
        push_member(
            &mut before_event_date,
            b"\",\"webhookId\":",
            constants.webhook_id,
        );
        push_member(
            &mut before_event_date,
            b",\"accountId\":",
            constants.account_id,
        );
        push_member(&mut before_event_date, b",\"secret\":", constants.token);
        before_event_date.extend_from_slice(b",\"eventDate\":\"");

        let mut before_record = Vec::new();
        push_member(
            &mut before_record,
            b"\",\"eventType\":",
            constants.event_type,
        );
        push_member(
            &mut before_record,
            b",\"objectName\":",
            constants.object_name,
        );
        before_record.extend_from_slice(b",\"data\":[");

        Self {
            before_message_id,
            before_event_date,
            before_record,
        }
    }

    /// Appends the body of one message. `event_date_micros` counts microseconds
    /// since 2000-01-01 UTC, as PostgreSQL's timestamptz does; `record` is the
    /// JSON object of the row, taken as it is.
    pub fn render(
        &self,
        message_id: Uuid,
        event_date_micros: i64,
        record: &[u8],
        out: &mut Vec<u8>,
    ) {
        out.reserve(self.body_len(record.len()));
        out.extend_from_slice(&self.before_message_id);
        let mut message_id_text = Uuid::encode_buffer();
        let message_id = message_id.hyphenated().encode_lower(&mut message_id_text);
        out.extend_from_slice(message_id.as_bytes());
        out.extend_from_slice(&self.before_event_date);
        push_event_date(out, event_date_micros);
        out.extend_from_slice(&self.before_record);
        out.extend_from_slice(record);
        out.extend_from_slice(AFTER_RECORD);
    }

    /// The size of the body with a record of that many bytes, before it is
    /// rendered: enough to refuse one that is too large.
    pub fn body_len(&self, record_len: usize) -> usize {
        self.before_message_id.len()
            + uuid::fmt::Hyphenated::LENGTH
            + self.before_event_date.len()
            + EVENT_DATE_LEN
            + self.before_record.len()
            + record_len
            + AFTER_RECORD.len()
    }
}

/// Appends `2026-03-06T09:30:37.197463Z`: always UTC, always six decimals.
pub fn push_event_date(out: &mut Vec<u8>, micros_since_2000: i64) {
    push_timestamp(out, micros_since_2000, Fraction::Always);
    out.push(b'Z');
}

fn push_member(out: &mut Vec<u8>, key: &[u8], value: &str) {
    out.extend_from_slice(key);
    push_string(out, value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    const KEYS: [&str; 9] = [
        "eventId",
        "messageId",
        "webhookId",
        "accountId",
        "secret",
        "eventDate",
        "eventType",
        "objectName",
        "data",
    ];

    fn render(constants: &PayloadConstants<'_>, micros: i64, record: &str) -> String {
        let payload = DefaultPayload::compile(constants);
        let mut out = Vec::new();
        let id = Uuid::from_u128(0x0001_c5e5_97b5_4f14_8c46_b230_e5eb_827e);
        payload.render(id, micros, record.as_bytes(), &mut out);
        assert_eq!(out.len(), payload.body_len(record.len()));
        String::from_utf8(out).expect("UTF-8 in, UTF-8 out")
    }

    #[test]
    fn the_body_is_the_one_of_the_contract() {
        let body = render(
            &PayloadConstants {
                event_id: "16l7t4",
                webhook_id: "3728sh",
                account_id: "7239",
                token: "k3y",
                event_type: "table.recordUpdate",
                object_name: "customers",
            },
            826_104_637_197_463,
            r#"{"id":16,"first_name":"John"}"#,
        );
        assert_eq!(
            body,
            concat!(
                r#"{"eventId":"16l7t4","messageId":"0001c5e5-97b5-4f14-8c46-b230e5eb827e","#,
                r#""webhookId":"3728sh","accountId":"7239","secret":"k3y","#,
                r#""eventDate":"2026-03-06T09:30:37.197463Z","eventType":"table.recordUpdate","#,
                r#""objectName":"customers","data":[{"id":16,"first_name":"John"}]}"#
            )
        );
    }

    #[test]
    fn a_whole_second_still_shows_six_decimals() {
        let mut out = Vec::new();
        push_event_date(&mut out, 0);
        assert_eq!(out, b"2000-01-01T00:00:00.000000Z");
    }

    proptest! {
        #[test]
        fn whatever_the_names_are_the_body_parses_and_gives_them_back(
            names in proptest::array::uniform6(any::<String>()),
            micros in 0i64..250_000_000_000_000_000, field in any::<String>(),
        ) {
            let [event_id, webhook_id, account_id, token, event_type, object_name] = &names;
            let record = serde_json::json!({ field: 1 }).to_string();
            let body = render(
                &PayloadConstants { event_id, webhook_id, account_id, token, event_type, object_name },
                micros,
                &record,
            );
            let parsed: serde_json::Map<String, Value> = serde_json::from_str(&body).unwrap();
            prop_assert_eq!(parsed.keys().collect::<Vec<_>>(), KEYS);
            let texts: Vec<_> = [0, 2, 3, 4, 6, 7].map(|at| parsed[KEYS[at]].as_str()).into();
            let given: Vec<_> = names.iter().map(|name| Some(name.as_str())).collect();
            prop_assert_eq!(texts, given);
            prop_assert_eq!(parsed["data"].to_string(), format!("[{record}]"));
        }
    }
}
