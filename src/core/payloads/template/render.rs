//! The body of a message from its event's template.
//!
//! Pure. What is the same for all messages of an event becomes literal bytes in
//! [`TemplatePayload::compile`]; compile it again when any of it changes. A message
//! then costs one look through its record and a few copies.

use uuid::Uuid;

use super::parameter::Fixed;
use super::record::{self, find_values, push_joined};
use super::{Form, Piece, Source, Template};
use crate::core::payloads::default_payload::{push_event_date, PayloadConstants};
use crate::core::values::json_text::{push_escaped, push_string};

/// What a missing value is written as.
const NULL: &[u8] = b"null";
/// A list without entries.
const EMPTY_LIST: &[u8] = b"[]";

/// What does not differ between the messages of one event.
pub struct TemplateConstants<'a> {
    pub payload: PayloadConstants<'a>,
    /// The trigger fields; none if any field triggers.
    pub object_fields: &'a [String],
    pub integration_url: &'a str,
}

/// One message, as the outbox and its call have it.
pub struct MessageParts<'a> {
    pub message_id: Uuid,
    pub call_id: Uuid,
    /// Microseconds since 2000-01-01 UTC.
    pub event_date_micros: i64,
    /// The row as a JSON object.
    pub record: &'a [u8],
    /// The row before the change, likewise.
    pub old_record: Option<&'a [u8]>,
    /// The changed fields as a JSON array of strings.
    pub changed: Option<&'a str>,
    pub actor: Option<&'a str>,
    pub source: Option<&'a str>,
}

/// A template with all constants filled in. No `Debug`: it holds the token.
pub struct TemplatePayload {
    steps: Vec<Step>,
    /// Names of the fields, escaped as records hold them.
    fields: Vec<Vec<u8>>,
    old_fields: Vec<Vec<u8>>,
    literal_len: usize,
}

enum Step {
    Literal(Vec<u8>),
    Value(Source, Form),
}

impl TemplatePayload {
    pub fn compile(template: &Template, constants: &TemplateConstants<'_>) -> Self {
        let mut steps: Vec<Step> = Vec::new();
        for piece in &template.pieces {
            let literal = match piece {
                Piece::Literal(bytes) => Some(bytes.clone()),
                Piece::Value(Source::Fixed(fixed), form) => constant(*fixed, *form, constants),
                Piece::Value(..) => None,
            };
            match (literal, piece, steps.last_mut()) {
                (Some(more), _, Some(Step::Literal(bytes))) => bytes.extend_from_slice(&more),
                (Some(bytes), _, _) => steps.push(Step::Literal(bytes)),
                (None, Piece::Value(source, form), _) => steps.push(Step::Value(*source, *form)),
                (None, Piece::Literal(_), _) => {}
            }
        }
        let literal_len = steps.iter().map(Step::literal_len).sum();
        Self {
            steps,
            fields: escaped(&template.fields),
            old_fields: escaped(&template.old_fields),
            literal_len,
        }
    }

    /// Whether the record holds every field that the template names. One that does not
    /// was captured for another template.
    pub fn fits(&self, record: &[u8]) -> bool {
        self.fields.is_empty() || record::names_all(record, &self.fields).unwrap_or(true)
    }

    /// Appends the body of one message and returns its size. A field may stand in many
    /// places, so a body beyond `limit_bytes` is only measured: it takes no more memory
    /// than its largest value.
    ///
    /// # Errors
    /// The record is not what capture writes.
    pub fn render(
        &self,
        message: &MessageParts<'_>,
        limit_bytes: usize,
        out: &mut Vec<u8>,
    ) -> Result<usize, String> {
        let values = Values::of(self, message)?;
        let likely = self.literal_len + message.record.len();
        out.reserve(likely.min(limit_bytes));
        let mut measured = 0;
        for step in &self.steps {
            if out.len() > limit_bytes {
                measured += out.len();
                out.clear();
            }
            match step {
                Step::Literal(bytes) => out.extend_from_slice(bytes),
                Step::Value(source, form) => values.push(out, *source, *form, message)?,
            }
        }
        Ok(measured + out.len())
    }
}

/// The values that a message's records hold for a template.
struct Values<'r> {
    fields: Vec<&'r [u8]>,
    old_fields: Vec<&'r [u8]>,
}

impl<'r> Values<'r> {
    fn of(payload: &TemplatePayload, message: &MessageParts<'r>) -> Result<Self, String> {
        let old_record = message.old_record.unwrap_or(b"{}");
        Ok(Self {
            fields: values(message.record, &payload.fields)
                .ok_or("the stored record is damaged")?,
            old_fields: values(old_record, &payload.old_fields)
                .ok_or("the stored old record is damaged")?,
        })
    }

    fn push(
        &self,
        out: &mut Vec<u8>,
        source: Source,
        form: Form,
        message: &MessageParts<'_>,
    ) -> Result<(), String> {
        match source {
            Source::Field(place) => push_value(out, self.fields[place], form),
            Source::Old(place) => push_value(out, self.old_fields[place], form),
            Source::Fixed(fixed) => push_fixed(out, fixed, form, message)
                .ok_or("the stored list of changed fields is damaged")?,
        }
        Ok(())
    }
}

impl Step {
    fn literal_len(&self) -> usize {
        match self {
            Step::Literal(bytes) => bytes.len(),
            Step::Value(..) => 0,
        }
    }
}

fn escaped(names: &[String]) -> Vec<Vec<u8>> {
    let escape = |name: &String| {
        let mut key = Vec::new();
        push_escaped(&mut key, name.as_bytes());
        key
    };
    names.iter().map(escape).collect()
}

/// The values of the keys in a record; `null` for those it lacks.
fn values<'r>(record: &'r [u8], keys: &[Vec<u8>]) -> Option<Vec<&'r [u8]>> {
    let mut found = vec![NULL; keys.len()];
    if !keys.is_empty() {
        find_values(record, keys, &mut found)?;
    }
    Some(found)
}

/// What an event's messages share; `None` for what differs between them.
fn constant(fixed: Fixed, form: Form, constants: &TemplateConstants<'_>) -> Option<Vec<u8>> {
    let payload = &constants.payload;
    let mut out = Vec::new();
    match fixed {
        Fixed::EventId => push_text(&mut out, payload.event_id, form),
        Fixed::WebhookId => push_text(&mut out, payload.webhook_id, form),
        Fixed::AccountId => push_text(&mut out, payload.account_id, form),
        Fixed::Secret => push_text(&mut out, payload.token, form),
        Fixed::EventType => push_text(&mut out, payload.event_type, form),
        Fixed::ObjectName => push_text(&mut out, payload.object_name, form),
        Fixed::IntegrationUrl => push_text(&mut out, constants.integration_url, form),
        Fixed::ObjectFields => push_names(&mut out, constants.object_fields, form),
        Fixed::MessageId
        | Fixed::CallId
        | Fixed::EventDate
        | Fixed::ChangedFields
        | Fixed::Actor
        | Fixed::Source => return None,
    }
    Some(out)
}

/// What differs from message to message. `None` if the message is damaged.
fn push_fixed(
    out: &mut Vec<u8>,
    fixed: Fixed,
    form: Form,
    message: &MessageParts<'_>,
) -> Option<()> {
    match fixed {
        Fixed::MessageId => push_uuid(out, message.message_id, form),
        Fixed::CallId => push_uuid(out, message.call_id, form),
        Fixed::EventDate => in_quotes(out, form, |out| {
            push_event_date(out, message.event_date_micros);
        }),
        Fixed::ChangedFields => {
            let list = message.changed.map_or(EMPTY_LIST, str::as_bytes);
            match form {
                Form::Typed => out.extend_from_slice(list),
                Form::Text => push_joined(out, list)?,
            }
        }
        Fixed::Actor => push_text(out, message.actor.unwrap_or_default(), form),
        Fixed::Source => push_text(out, message.source.unwrap_or_default(), form),
        Fixed::EventId
        | Fixed::WebhookId
        | Fixed::AccountId
        | Fixed::Secret
        | Fixed::EventType
        | Fixed::ObjectName
        | Fixed::ObjectFields
        | Fixed::IntegrationUrl => unreachable!("filled in when the template was compiled"),
    }
    Some(())
}

fn in_quotes(out: &mut Vec<u8>, form: Form, write: impl FnOnce(&mut Vec<u8>)) {
    match form {
        Form::Text => write(out),
        Form::Typed => {
            out.push(b'"');
            write(out);
            out.push(b'"');
        }
    }
}

fn push_text(out: &mut Vec<u8>, text: &str, form: Form) {
    in_quotes(out, form, |out| push_escaped(out, text.as_bytes()));
}

fn push_uuid(out: &mut Vec<u8>, id: Uuid, form: Form) {
    let mut buffer = Uuid::encode_buffer();
    let text = id.hyphenated().encode_lower(&mut buffer);
    in_quotes(out, form, |out| out.extend_from_slice(text.as_bytes()));
}

fn push_names(out: &mut Vec<u8>, names: &[String], form: Form) {
    match form {
        Form::Text => push_escaped(out, names.join(",").as_bytes()),
        Form::Typed => push_name_list(out, names.iter().map(String::as_str)),
    }
}

/// Appends names as a JSON array of strings.
pub fn push_name_list<'a>(out: &mut Vec<u8>, names: impl Iterator<Item = &'a str>) {
    out.push(b'[');
    for (place, name) in names.enumerate() {
        if place > 0 {
            out.push(b',');
        }
        push_string(out, name);
    }
    out.push(b']');
}

/// A value of the record. Inside a string its own quotes go, what is empty is
/// nothing, and what consists of other values is its JSON text.
fn push_value(out: &mut Vec<u8>, json: &[u8], form: Form) {
    match (form, json) {
        (Form::Typed, _) => out.extend_from_slice(json),
        (Form::Text, [b'"', inside @ .., b'"']) => out.extend_from_slice(inside),
        (Form::Text, [b'{' | b'[', ..]) => push_escaped(out, json),
        (Form::Text, NULL) => {}
        (Form::Text, _) => out.extend_from_slice(json),
    }
}
