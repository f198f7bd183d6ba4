//! `webhook.preview_payload`.

use pgrx::prelude::*;
use pgrx::JsonB;
use serde_json::Value;
use uuid::Uuid;

use crate::core::definitions::event::{numbered, Column};
use crate::core::definitions::operational::{self, OperationalEvent};
use crate::core::definitions::words::EventType;
use crate::core::error::{Error, Kind, Result};
use crate::core::payloads::body::Body;
use crate::core::payloads::default_payload::PayloadConstants;
use crate::core::payloads::template::render::{push_name_list, MessageParts, TemplateConstants};
use crate::core::policy::redaction::MASK;
use crate::core::policy::secret::Secret;
use crate::pg::arguments::{json, required_word, JsonArgument, TextArgument};
use crate::pg::report::ok_or_raise;
use crate::pg::row_json::LimitedText;
use crate::pg::sample_row::SampleRow;
use crate::pg::text::Text;
use crate::pg::{clock, session, settings};
use crate::store::capture_definitions::{self, CaptureDefinition};
use crate::store::previews::{self, PreviewedEvent};
use crate::store::row_parts::RowParts;
use crate::store::user_table::{self, UserTable};
use crate::store::{caller, citus};

/// A preview is no message and makes no call.
const NO_ID: Uuid = Uuid::nil();

/// What capture would keep of a change, and the body that the worker would make of it.
#[pg_extern(sql = false)]
fn preview_payload(event: Option<TextArgument>, record: Option<JsonArgument>) -> Text {
    let previewed = || -> Result<String> {
        let event = required_word(event, "event")?;
        let body = preview(&event, json(record, "record")?.map(JsonB))?;
        Ok(if caller::is_admin() {
            body
        } else {
            caller::masked(&body)
        })
    };
    ok_or_raise(previewed()).into()
}

fn preview(event: &str, record: Option<JsonB>) -> Result<String> {
    let event = previews::find(event)?;
    if let Some(event_type) = OperationalEvent::parse(&event.event_type) {
        return preview_operational(&event, event_type, record);
    }
    let (table, definition) = table_of(&event)?;
    previews::check_types(&table)?;
    let columns = user_table::columns(&table);
    let record = matching(checked_record(record, &columns)?, event.matched.as_ref());
    let event_type = EventType::parse(&event.event_type)?;
    let limit_bytes = settings::max_message_bytes();
    let kept = previews::with_sample(&table, &columns, record, |row| {
        Kept::of(row, &definition, event_type, limit_bytes)
    });
    let kept = kept.map_err(|at_least| too_large(format!("at least {at_least}"), limit_bytes))?;
    let body = compiled(&event, &table.label)?;
    let actor = session::actor();
    let source = session::source();
    let parts = MessageParts {
        record: kept.record.as_bytes(),
        old_record: kept.old_record.as_ref().map(LimitedText::as_bytes),
        changed: kept.changed.as_deref(),
        actor: actor.as_deref(),
        source: Some(&source),
        ..no_message()
    };
    rendered(&body, &parts, limit_bytes)
}

fn no_message() -> MessageParts<'static> {
    MessageParts {
        message_id: NO_ID,
        call_id: NO_ID,
        event_date_micros: clock::now(),
        record: b"",
        old_record: None,
        changed: None,
        actor: None,
        source: None,
    }
}

/// An example of what happens, with the members of `record` in the place of its own.
fn preview_operational(
    event: &PreviewedEvent,
    event_type: OperationalEvent,
    record: Option<JsonB>,
) -> Result<String> {
    let record = checked_record(record, &operational::columns())?;
    let mut example = operational::example(event_type);
    if let (Some(members), Some(given)) = (example.as_object_mut(), record.0.as_object()) {
        members.extend(given.clone());
    }
    let example = example.to_string();
    let parts = MessageParts {
        record: example.as_bytes(),
        ..no_message()
    };
    rendered(&compiled(event, "")?, &parts, settings::max_message_bytes())
}

fn rendered(body: &Body, parts: &MessageParts<'_>, limit_bytes: usize) -> Result<String> {
    let mut out = Vec::new();
    let size = body.render(parts, limit_bytes, &mut out);
    let size = size.map_err(Error::invalid)?;
    if size > limit_bytes {
        return Err(too_large(size.to_string(), limit_bytes));
    }
    Ok(String::from_utf8(out).expect("records and templates are UTF-8"))
}

fn too_large(size: String, limit_bytes: usize) -> Error {
    Error::invalid(format!(
        "the message has {size} bytes, webhook.max_message_size allows {limit_bytes}"
    ))
    .with_hint("raise webhook.max_message_size, or let the event send fewer fields")
}

fn table_of(event: &PreviewedEvent) -> Result<(UserTable, CaptureDefinition)> {
    let dropped = || {
        Error::new(
            Kind::UndefinedObject,
            format!("the table of event \"{}\" was dropped", event.id),
        )
        .with_hint("drop the event, and create one for the table that has taken its place")
    };
    let oid = event.object.ok_or_else(dropped)?;
    let table = user_table::watchable(oid)?;
    let definition = capture_definitions::load(&event.id, oid).ok_or_else(dropped)?;
    Ok((table, definition))
}

/// Columns that the table does not have would be passed over in silence.
fn checked_record(record: Option<JsonB>, columns: &[Column]) -> Result<JsonB> {
    let record = record.unwrap_or_else(|| JsonB(serde_json::json!({})));
    let Some(members) = record.0.as_object() else {
        return Err(Error::invalid("record is not a JSON object")
            .with_hint("give columns and their values, as in '{\"id\": 7}'"));
    };
    numbered("record", members.keys().cloned().collect(), columns)?;
    Ok(record)
}

/// The record, with a value that the event matches in each column that it leaves out.
fn matching(mut record: JsonB, matched: Option<&JsonB>) -> JsonB {
    let wanted = matched.and_then(|matched| matched.0.as_object());
    if let (Some(columns), Some(wanted)) = (record.0.as_object_mut(), wanted) {
        for (name, values) in wanted {
            let value = match values {
                Value::Array(list) => list.first().unwrap_or(&Value::Null),
                value => value,
            };
            columns.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
    record
}

/// What capture keeps of a change.
struct Kept {
    record: LimitedText,
    old_record: Option<LimitedText>,
    changed: Option<String>,
}

impl Kept {
    /// Or the size that is too large.
    fn of(
        row: &mut SampleRow,
        definition: &CaptureDefinition,
        event_type: EventType,
        limit_bytes: usize,
    ) -> std::result::Result<Self, usize> {
        let styles = (definition.null_style, definition.list_style);
        let parts = RowParts::of(definition, |name| row.column(name));
        let old_record = match event_type {
            EventType::Insert => None,
            EventType::Update => Some(row.before(&parts.old, styles, limit_bytes)?),
            EventType::Delete => Some(row.after(Some(&parts.old), styles, limit_bytes)?),
        };
        let lists_changes = parts.lists_changes && event_type == EventType::Update;
        Ok(Self {
            record: row.after(parts.sent.as_deref(), styles, limit_bytes)?,
            old_record,
            changed: lists_changes.then(|| name_list(&row.changed_names())),
        })
    }
}

fn name_list(names: &[String]) -> String {
    let mut list = Vec::new();
    push_name_list(&mut list, names.iter().map(String::as_str));
    String::from_utf8(list).expect("names are UTF-8")
}

fn compiled(event: &PreviewedEvent, object_name: &str) -> Result<Body> {
    let token = match caller::is_admin() {
        true => Secret::parse(&event.secret)?.token(),
        false => MASK.to_owned(),
    };
    Body::compile(
        event.payload_template.as_deref(),
        &TemplateConstants {
            payload: PayloadConstants {
                event_id: &event.id,
                webhook_id: &event.webhook_id,
                account_id: &citus::account_id(),
                token: &token,
                event_type: &event.event_type,
                object_name,
            },
            object_fields: event.object_fields.as_deref().unwrap_or_default(),
            integration_url: &settings::integration_url(),
        },
    )
}
