//! `webhook.message`: everything about one message.
//!
//! Body and headers are rendered as the worker does it, from what is stored and the present
//! definition. Roles that do not administer webhooks see neither rows nor bodies.

use pgrx::datum::TimestampWithTimeZone;
use pgrx::prelude::*;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::core::error::{Error, Kind, Result};
use crate::core::messages::order_keys::OrderKeys;
use crate::core::messages::oversize::Oversize;
use crate::core::payloads::body::Body;
use crate::core::payloads::default_payload::PayloadConstants;
use crate::core::payloads::template::render::{MessageParts, TemplateConstants};
use crate::core::policy::headers::{CONTENT_TYPE, USER_AGENT};
use crate::core::policy::masked_headers;
use crate::core::policy::redaction::MASK;
use crate::core::policy::secret::Secret;
use crate::pg::report::ok_or_raise;
use crate::pg::settings;
use crate::pg::text::{texts, Json, JsonText, Text};
use crate::store::message_details::{self, Definition, LastCall, MessageRow, Records};
use crate::store::{caller, citus};

const NOT_CALLED: Uuid = Uuid::nil();

#[pg_extern(sql = false)]
#[expect(clippy::type_complexity, reason = "the signature is the contract")]
fn message(
    message_id: Option<pgrx::Uuid>,
) -> TableIterator<
    'static,
    (
        name!(message_id, pgrx::Uuid),
        name!(event_id, Option<Text>),
        name!(webhook_id, Option<Text>),
        name!(webhook_name, Option<Text>),
        name!(event_type, Option<Text>),
        name!(object_name, Option<Text>),
        name!(event_date, TimestampWithTimeZone),
        name!(source, Option<Text>),
        name!(actor, Option<Text>),
        name!(status, Text),
        name!(record, Option<JsonText>),
        name!(old_record, Option<JsonText>),
        name!(changed, Option<Vec<Text>>),
        name!(headers, Json),
        name!(body, Option<Text>),
        name!(deliveries, JsonText),
        name!(definition_changed, bool),
        name!(detail, Option<Text>),
    ),
> {
    let id = ok_or_raise(given(message_id));
    let details = ok_or_raise(Details::of(id));
    let Details {
        message, records, ..
    } = details;
    TableIterator::once((
        id,
        message.event_id.map(Text),
        message.webhook_id.map(Text),
        message.webhook_name.map(Text),
        message.event_type.map(Text),
        message.object_name.map(Text),
        message.event_date,
        message.source.map(Text),
        message.actor.map(Text),
        message.status.into(),
        records.record_json,
        records.old_record_json,
        details.changed.map(texts),
        Json(details.headers),
        details.body.map(Text),
        details.deliveries,
        details.definition_changed,
        details.detail.map(Text),
    ))
}

fn given(message_id: Option<pgrx::Uuid>) -> Result<pgrx::Uuid> {
    message_id.ok_or_else(|| {
        Error::invalid("message_id is null").with_hint("the view webhook.messages lists them")
    })
}

struct Details {
    message: MessageRow,
    records: Records,
    changed: Option<Vec<String>>,
    headers: Value,
    body: Option<String>,
    deliveries: JsonText,
    definition_changed: bool,
    detail: Option<String>,
}

impl Details {
    fn of(id: pgrx::Uuid) -> Result<Self> {
        let message = message_details::find(id).ok_or_else(|| unknown(id))?;
        let is_admin = caller::is_admin();
        let call = message_details::last_call(id);
        let since = call
            .as_ref()
            .map_or(message.event_date, |call| call.called_at);
        let definition = message_details::definition(&message, since);
        let (changed, oversize) = changed(&message);
        let mut notes = Vec::new();
        // What was not sent yet will be sent as it is shown.
        let was_sent = call.is_some() || message.status != "pending";
        let changed_at = definition
            .as_ref()
            .and_then(|found| found.changed_at.as_deref());
        let changed_at = changed_at.filter(|_| was_sent);
        notes.extend(changed_at.map(|at| {
            format!("the webhook or event was changed at {at}, after the last call: what was sent may differ")
        }));
        let (mut records, mut body) = (Records::none(), None);
        if is_admin {
            records = stored(id, &message, oversize).unwrap_or_else(|why| {
                notes.push(why);
                Records::none()
            });
            match (&records.record, &definition) {
                (Some(record), Some(definition)) => {
                    match rendered(id, &message, definition, call.as_ref(), record, &records) {
                        Ok((text, note)) => {
                            body = Some(text);
                            notes.extend(note.map(str::to_owned));
                        }
                        Err(why) => notes.push(why),
                    }
                }
                (Some(_), None) => notes.push("the webhook has no row any more".to_owned()),
                (None, _) => {}
            }
        } else {
            notes.push("rows and bodies are shown to members of webhook_admin".to_owned());
        }
        Ok(Self {
            headers: headers(id, definition.as_ref(), call.as_ref()),
            deliveries: message_details::deliveries(id, &message, is_admin),
            definition_changed: changed_at.is_some(),
            detail: (!notes.is_empty()).then(|| notes.join("; ")),
            message,
            records,
            changed,
            body,
        })
    }
}

impl Records {
    fn none() -> Self {
        Self {
            record: None,
            old_record: None,
            record_json: None,
            old_record_json: None,
        }
    }
}

fn unknown(id: pgrx::Uuid) -> Error {
    let id = Uuid::from_bytes(*id.as_bytes());
    Error::new(
        Kind::UndefinedObject,
        format!("message_id {id} does not exist"),
    )
    .with_hint("the view webhook.messages lists those that are not past webhook.log_retention")
}

/// The names of the fields that changed, if they were recorded; or that the row was too large.
fn changed(message: &MessageRow) -> (Option<Vec<String>>, Option<Oversize>) {
    let stored = message.changed.as_deref().unwrap_or_default();
    let (_, stored) = OrderKeys::split(stored);
    if !message.has_record {
        return (None, Oversize::from_stored(stored));
    }
    (serde_json::from_str(stored).ok(), None)
}

/// The row as it was captured, or why it is not shown.
fn stored(
    id: pgrx::Uuid,
    message: &MessageRow,
    oversize: Option<Oversize>,
) -> std::result::Result<Records, String> {
    if !message.has_record {
        return Err(oversize.map_or_else(
            || "the row of webhook_internal.outbox has no record".to_owned(),
            Oversize::detail,
        ));
    }
    // The row before the change comes on top.
    let limit_bytes = settings::max_message_bytes();
    if message.stored_bytes > 2 * limit_bytes as i64 {
        return Err(format!(
            "the stored row has {} bytes, webhook.max_message_size allows {limit_bytes}",
            message.stored_bytes
        ));
    }
    message_details::records(id).ok_or_else(|| "the message was removed meanwhile".to_owned())
}

/// The body, and what is not in it as it was sent; or why there is none.
fn rendered(
    id: pgrx::Uuid,
    message: &MessageRow,
    definition: &Definition,
    call: Option<&LastCall>,
    record: &str,
    records: &Records,
) -> std::result::Result<(String, Option<&'static str>), String> {
    let (body, note) = compiled(message, definition)?;
    if !body.fits(record.as_bytes()) {
        return Err(
            "the template names columns that the message was captured without: it was changed since"
                .to_owned(),
        );
    }
    let (_, changed) = OrderKeys::split(message.changed.as_deref().unwrap_or_default());
    let parts = MessageParts {
        message_id: Uuid::from_bytes(*id.as_bytes()),
        call_id: call.map_or(NOT_CALLED, |call| {
            Uuid::from_bytes(*call.call_id.as_bytes())
        }),
        event_date_micros: message.event_date_micros,
        record: record.as_bytes(),
        old_record: records.old_record.as_deref().map(str::as_bytes),
        changed: Some(changed).filter(|names| !names.is_empty()),
        actor: message.actor.as_deref(),
        source: message.source.as_deref(),
    };
    let limit_bytes = settings::max_message_bytes();
    let mut out = Vec::new();
    let size = body.render(&parts, limit_bytes, &mut out)?;
    if size > limit_bytes {
        return Err(format!(
            "the message has {size} bytes, webhook.max_message_size allows {limit_bytes}"
        ));
    }
    let text = String::from_utf8(out).map_err(|_| "the stored record is damaged".to_owned())?;
    Ok((text, note))
}

fn compiled(
    message: &MessageRow,
    definition: &Definition,
) -> std::result::Result<(Body, Option<&'static str>), String> {
    let is_test = message.event_key < 0;
    if !is_test && !definition.event_is_there {
        return Err("the event has no row any more".to_owned());
    }
    let (token, note) = match &definition.secret {
        Some(secret) => (
            Secret::parse(secret)
                .map_err(|error| error.message)?
                .token(),
            None,
        ),
        None => (
            MASK.to_owned(),
            Some("the webhook was dropped, and its secret with it"),
        ),
    };
    let constants = TemplateConstants {
        payload: PayloadConstants {
            event_id: message.event_id.as_deref().unwrap_or_default(),
            webhook_id: message.webhook_id.as_deref().unwrap_or_default(),
            account_id: &citus::account_id(),
            token: &token,
            event_type: message.event_type.as_deref().unwrap_or_default(),
            object_name: message.object_name.as_deref().unwrap_or_default(),
        },
        object_fields: definition.object_fields.as_deref().unwrap_or_default(),
        integration_url: &settings::integration_url(),
    };
    let body = Body::compile(definition.payload_template.as_deref(), &constants);
    Ok((body.map_err(|error| error.message)?, note))
}

/// As a request has them: of the last call what only that has. A signature is no business of who looks.
fn headers(id: pgrx::Uuid, definition: Option<&Definition>, call: Option<&LastCall>) -> Value {
    let own = definition.and_then(|found| serde_json::from_str(&found.headers).ok());
    let mut headers = match own.map(|own| masked_headers::masked(&own)) {
        Some(Value::Object(own)) => own,
        _ => Map::new(),
    };
    let mut add = |name: &str, value: String| {
        headers.insert(name.to_owned(), value.into());
    };
    add("content-type", CONTENT_TYPE.to_owned());
    add("user-agent", USER_AGENT.to_owned());
    add("webhook-id", Uuid::from_bytes(*id.as_bytes()).to_string());
    add("webhook-signature", MASK.to_owned());
    if let Some(call) = call {
        add("webhook-timestamp", call.called_at_s.to_string());
        add("webhook-attempt", call.attempt.to_string());
        let call_id = Uuid::from_bytes(*call.call_id.as_bytes());
        add("webhook-call-id", call_id.to_string());
    }
    Value::Object(headers)
}
