//! `webhook.rest`: the REST API, for any gateway that can call one function.
//!
//! Bad input is an answer, not an error; what neither is nor can be the client's doing
//! (a busy table, a server in recovery) stays an error of SQL. Whatever is checked is
//! checked before anything is written, so an answer of 400 has changed nothing.

use pgrx::datum::Interval;
use pgrx::prelude::*;
use pgrx::JsonB;
use serde_json::Value;

use super::create_event::{self, Wanted, CONDITION_PATH};
use super::create_webhook::{self, WebhookArguments};
use super::{drop, update_event, update_webhook};
use crate::core::definitions::interval::Parts;
use crate::core::definitions::limits::PATH_CHARS;
use crate::core::definitions::rest::{self, EventBody, Method, Resource, WebhookBody};
use crate::core::definitions::webhook::{required, shown};
use crate::core::definitions::words::EventType;
use crate::core::error::{Error, Kind};
use crate::pg::arguments::{json, required_word, text, JsonArgument, TextArgument};
use crate::pg::report::raise;
use crate::pg::text::Json;
use crate::store::{event_definitions, rest_answers, user_table, webhook_definitions};

const OK: i32 = 200;
const CREATED: i32 = 201;
const NO_CONTENT: i32 = 204;
const BAD_REQUEST: i32 = 400;
const NOT_FOUND: i32 = 404;
const METHOD_NOT_ALLOWED: i32 = 405;

struct Answer {
    status: i32,
    body: Option<Value>,
}

impl Answer {
    fn new(status: i32, body: Value) -> Self {
        Self {
            status,
            body: Some(body),
        }
    }

    fn failure(status: i32, message: &str) -> Self {
        Self::new(status, serde_json::json!({ "Message": message }))
    }

    fn not_found(what: &str, name: &str) -> Self {
        let name = shown(name);
        Self::failure(NOT_FOUND, &format!("{what} \"{name}\" does not exist"))
    }
}

impl From<Error> for Answer {
    fn from(error: Error) -> Self {
        match error.kind {
            Kind::InvalidParameter
            | Kind::UndefinedObject
            | Kind::DuplicateObject
            | Kind::InsufficientPrivilege
            | Kind::WrongObjectType => Self::failure(BAD_REQUEST, &rest::message(&error)),
            Kind::NotInPrerequisiteState | Kind::LockNotAvailable => raise(error),
        }
    }
}

/// `Err` is an answer, too: the one that ends the work.
type Answered = Result<Answer, Answer>;

#[pg_extern(sql = false)]
fn rest(
    method: Option<TextArgument>,
    path: Option<TextArgument>,
    body: Option<JsonArgument>,
) -> TableIterator<'static, (name!(status, i32), name!(body, Option<Json>))> {
    let answered = || -> Answered {
        let method = required_word(method, "method")?;
        let path = required("path", text(path, "path", PATH_CHARS)?)?;
        answer(&method, &path, json(body, "body")?.as_ref())
    };
    let Answer { status, body } = answered().unwrap_or_else(|ending| ending);
    TableIterator::once((status, body.map(Json)))
}

fn answer(method: &str, path: &str, body: Option<&Value>) -> Answered {
    let Some(resource) = rest::resource(path) else {
        return Err(Answer::not_found("path", path));
    };
    let Some(method) = resource.method(method) else {
        let known = resource.methods();
        return Err(Answer::failure(
            METHOD_NOT_ALLOWED,
            &format!("method \"{}\" is not one of {known}", shown(method)),
        ));
    };
    match resource {
        Resource::Webhooks => webhooks(method, body),
        Resource::Webhook(webhook) => one_webhook(method, webhook, body),
        Resource::Events(webhook) => events(method, webhook, body),
        Resource::Event(webhook, event) => one_event(method, webhook, event, body),
    }
}

fn webhooks(method: Method, body: Option<&Value>) -> Answered {
    if method == Method::Get {
        return Ok(Answer::new(OK, rest_answers::webhooks()));
    }
    let mut body = WebhookBody::read(body)?;
    body.description = body.description.filter(|text| !text.is_empty());
    body.call_throttling = body.call_throttling.filter(|calls| *calls != 0);
    let created = create_webhook::create(webhook_arguments(&body)?)?;
    let (id, .., secret, _token, _created_at, _created_by) = created;
    let mut body = rest_answers::webhook(&id).unwrap_or_default();
    body["Secret"] = secret.0.into();
    Ok(Answer::new(CREATED, body))
}

fn one_webhook(method: Method, webhook: &str, body: Option<&Value>) -> Answered {
    if method == Method::Get {
        return found(rest_answers::webhook(webhook), "webhook", webhook);
    }
    let key = webhook_key(webhook)?;
    match method {
        Method::Delete => {
            drop::webhook(key);
            return Ok(Answer {
                status: NO_CONTENT,
                body: None,
            });
        }
        Method::Put => {
            let body = WebhookBody::read(body)?;
            update_webhook::update(webhook, webhook_arguments(&body)?)?;
        }
        Method::Get | Method::Post => {}
    }
    found(rest_answers::webhook(webhook), "webhook", webhook)
}

fn events(method: Method, webhook: &str, body: Option<&Value>) -> Answered {
    if method == Method::Get {
        if rest_answers::webhook(webhook).is_none() {
            return Err(Answer::not_found("webhook", webhook));
        }
        return Ok(Answer::new(OK, rest_answers::events(webhook)));
    }
    webhook_key(webhook)?;
    let body = EventBody::read(body)?;
    let event_type = body.event_type.as_deref();
    let table = match body.object_name.as_deref() {
        None if event_type.is_some_and(|text| EventType::parse(text).is_err()) => None,
        object => Some(user_table::by_label(required("object_name", object)?)?),
    };
    let created = create_event::create(webhook, table, wanted(&body), CONDITION_PATH)?;
    let body = rest_answers::event(webhook, &created.0).unwrap_or_default();
    Ok(Answer::new(CREATED, body))
}

fn one_event(method: Method, webhook: &str, event: &str, body: Option<&Value>) -> Answered {
    // What only reads takes no lock, which a standby does not have.
    if method != Method::Get {
        webhook_key(webhook)?;
    }
    let Some(present) = rest_answers::event(webhook, event) else {
        if rest_answers::webhook(webhook).is_none() {
            return Err(Answer::not_found("webhook", webhook));
        }
        return Err(Answer::not_found("event", event));
    };
    match method {
        Method::Delete => {
            let key = event_definitions::find(event)?;
            drop::event(key);
            Ok(Answer {
                status: NO_CONTENT,
                body: None,
            })
        }
        Method::Put => {
            let body = EventBody::read(body)?;
            refuse_change("EventType", body.event_type.as_deref(), &present)?;
            refuse_change("ObjectName", body.object_name.as_deref(), &present)?;
            update_event::update(event, wanted(&body), CONDITION_PATH)?;
            found(rest_answers::event(webhook, event), "event", event)
        }
        Method::Get | Method::Post => Ok(Answer::new(OK, present)),
    }
}

/// A path holds the id; a name is not good enough there.
fn webhook_key(id: &str) -> Result<i32, Answer> {
    match webhook_definitions::find(id) {
        Ok((key, found)) if found == id => Ok(key),
        _ => Err(Answer::not_found("webhook", id)),
    }
}

fn found(body: Option<Value>, what: &str, name: &str) -> Answered {
    body.map(|body| Answer::new(OK, body))
        .ok_or_else(|| Answer::not_found(what, name))
}

fn refuse_change(property: &str, wanted: Option<&str>, present: &Value) -> Result<(), Answer> {
    match wanted {
        Some(wanted) if present[property] != wanted => Err(Answer::failure(
            BAD_REQUEST,
            &format!("{property} of an event cannot be changed; create another event"),
        )),
        _ => Ok(()),
    }
}

fn webhook_arguments(body: &WebhookBody) -> Result<WebhookArguments<'_>, Answer> {
    let interval = |argument: &str, parts: Option<Parts>| {
        let interval = parts.map(|parts| Interval::new(parts.months, parts.days, parts.micros));
        let refuse = |_| Error::invalid(format!("{argument} is out of range"));
        interval.transpose().map_err(refuse)
    };
    Ok(WebhookArguments {
        name: body.name.as_deref(),
        outgoing_urls: body.outgoing_urls.clone(),
        description: body.description.clone(),
        call_throttling: body.call_throttling,
        enabled: body.enabled,
        headers: body.headers.clone().map(JsonB),
        timeout_ms: body.timeout_ms,
        max_attempts: body.max_attempts,
        max_age: interval("max_age", body.max_age)?,
        max_in_flight: body.max_in_flight,
        delivery_order: body.delivery_order.as_deref(),
        log_level: body.log_level.as_deref(),
        secret: None,
        disable_after: interval("disable_after", body.disable_after)?,
    })
}

fn wanted(body: &EventBody) -> Wanted<'_> {
    Wanted {
        event_type: body.event_type.as_deref(),
        object_fields: body.object_fields.clone(),
        event_sources: body.event_sources.clone(),
        payload_fields: body.payload_fields.clone(),
        payload_template: body.payload_template.as_deref(),
        matched: body.matched.clone(),
        order_key: body.order_key.clone(),
        enabled: body.enabled,
        ..Wanted::default()
    }
}
