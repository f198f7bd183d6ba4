//! The REST API's requests: which resource a path names, what a body may say.
//!
//! Pure. Reads and checks the shape; what the values may be is checked where they are
//! used. A body that is wrong is an error that names the property.

use serde_json::{Map, Value};

use super::interval::{self, Parts};
use super::webhook::shown;
use crate::core::error::{Error, Result};

/// `/v2` is an alias.
const VERSIONS: [&str; 2] = ["v3", "v2"];

/// What a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource<'a> {
    Webhooks,
    Webhook(&'a str),
    Events(&'a str),
    Event(&'a str, &'a str),
}

/// What is asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Post,
    Put,
    Delete,
}

/// The resource of a path, with or without a query; `None` if there is no such path.
pub fn resource(path: &str) -> Option<Resource<'_>> {
    let path = path.split('?').next().unwrap_or_default();
    let path = path.strip_suffix('/').unwrap_or(path);
    let (version, path) = path.strip_prefix('/')?.split_once('/')?;
    if !VERSIONS.contains(&version) {
        return None;
    }
    let parts: Vec<&str> = path.split('/').collect();
    match parts[..] {
        _ if parts.contains(&"") => None,
        ["outgoingWebhooks"] => Some(Resource::Webhooks),
        ["outgoingWebhooks", webhook] => Some(Resource::Webhook(webhook)),
        ["outgoingWebhooks", webhook, "events"] => Some(Resource::Events(webhook)),
        ["outgoingWebhooks", webhook, "events", event] => Some(Resource::Event(webhook, event)),
        _ => None,
    }
}

impl Resource<'_> {
    /// The method, if this resource has it.
    pub fn method(&self, name: &str) -> Option<Method> {
        let is_list = matches!(self, Self::Webhooks | Self::Events(_));
        match (name.to_ascii_uppercase().as_str(), is_list) {
            ("GET", _) => Some(Method::Get),
            ("POST", true) => Some(Method::Post),
            ("PUT", false) => Some(Method::Put),
            ("DELETE", false) => Some(Method::Delete),
            _ => None,
        }
    }

    /// The methods it supports, for the `Allow` header of a 405 answer.
    pub fn methods(&self) -> &'static str {
        match self {
            Self::Webhooks | Self::Events(_) => "GET, POST",
            Self::Webhook(_) | Self::Event(..) => "GET, PUT, DELETE",
        }
    }
}

/// A list of texts, as the functions take it.
type Texts = Vec<Option<String>>;

/// A webhook's body. `None` was not given; null takes a value away, as an empty one does.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct WebhookBody {
    pub name: Option<String>,
    pub description: Option<String>,
    pub outgoing_urls: Option<Texts>,
    /// 0 is no limit.
    pub call_throttling: Option<i32>,
    pub enabled: Option<bool>,
    pub headers: Option<Value>,
    pub timeout_ms: Option<i32>,
    pub max_attempts: Option<i32>,
    pub max_age: Option<Parts>,
    pub max_in_flight: Option<i32>,
    pub delivery_order: Option<String>,
    pub log_level: Option<String>,
    /// Zero is never.
    pub disable_after: Option<Parts>,
}

impl WebhookBody {
    pub fn read(body: Option<&Value>) -> Result<Self> {
        let mut read = Self::default();
        for (property, value) in object(body)? {
            match property.as_str() {
                "Name" => read.name = Some(text(property, value)?),
                "Description" => read.description = Some(text_or_null(property, value)?),
                "OutgoingUrls" => read.outgoing_urls = Some(texts(property, value)?),
                "CallThrottling" => read.call_throttling = Some(number_or_null(property, value)?),
                "Enabled" => read.enabled = Some(boolean(property, value)?),
                "Headers" => read.headers = Some(object_or_null(property, value)?),
                "TimeoutMs" => read.timeout_ms = Some(number(property, value)?),
                "MaxAttempts" => read.max_attempts = Some(number(property, value)?),
                "MaxAge" => read.max_age = Some(interval(property, value)?),
                "MaxInFlight" => read.max_in_flight = Some(number(property, value)?),
                "DeliveryOrder" => read.delivery_order = Some(text(property, value)?),
                "LogLevel" => read.log_level = Some(text(property, value)?),
                "DisableAfter" if value.is_null() => read.disable_after = Some(Parts::default()),
                "DisableAfter" => read.disable_after = Some(interval(property, value)?),
                _ => {
                    let known = "Name, Description, OutgoingUrls, CallThrottling, Enabled, Headers, \
                                 TimeoutMs, MaxAttempts, MaxAge, MaxInFlight, DeliveryOrder, LogLevel, \
                                 DisableAfter";
                    return Err(unknown(property, known));
                }
            }
        }
        Ok(read)
    }
}

/// An event's body.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct EventBody {
    pub event_type: Option<String>,
    pub object_name: Option<String>,
    pub object_fields: Option<Texts>,
    pub event_sources: Option<Texts>,
    pub payload_fields: Option<Texts>,
    pub payload_template: Option<String>,
    pub matched: Option<Value>,
    pub order_key: Option<Texts>,
    pub enabled: Option<bool>,
}

impl EventBody {
    pub fn read(body: Option<&Value>) -> Result<Self> {
        let mut read = Self::default();
        for (property, value) in object(body)? {
            match property.as_str() {
                "EventType" => read.event_type = Some(text(property, value)?),
                "ObjectName" => read.object_name = Some(text(property, value)?),
                "ObjectFields" => read.object_fields = Some(texts_or_null(property, value)?),
                "EventSources" => read.event_sources = Some(texts_or_null(property, value)?),
                "CustomPayloadFields" => {
                    read.payload_fields = Some(texts_or_null(property, value)?);
                }
                "CustomPayloadTemplate" => {
                    read.payload_template = Some(text_or_null(property, value)?);
                }
                "Match" => read.matched = Some(object_or_null(property, value)?),
                "OrderKey" => read.order_key = Some(texts_or_null(property, value)?),
                "Enabled" => read.enabled = Some(boolean(property, value)?),
                _ => {
                    let known = "EventType, ObjectName, ObjectFields, EventSources, \
                                 CustomPayloadFields, CustomPayloadTemplate, Match, OrderKey, \
                                 Enabled";
                    return Err(unknown(property, known));
                }
            }
        }
        Ok(read)
    }
}

fn object(body: Option<&Value>) -> Result<&Map<String, Value>> {
    match body {
        Some(Value::Object(members)) => Ok(members),
        Some(_) => Err(Error::invalid("the body is not a JSON object")),
        None => Err(Error::invalid("the body is missing").with_hint("send a JSON object")),
    }
}

fn unknown(property: &str, known: &str) -> Error {
    Error::invalid(format!("property \"{}\" is unknown", shown(property)))
        .with_hint(format!("the properties are {known}"))
}

fn wrong(property: &str, what: &str) -> Error {
    Error::invalid(format!("{property} is not {what}"))
}

fn text(property: &str, value: &Value) -> Result<String> {
    let text = value.as_str().ok_or_else(|| wrong(property, "a string"))?;
    Ok(text.to_owned())
}

fn text_or_null(property: &str, value: &Value) -> Result<String> {
    match value {
        Value::Null => Ok(String::new()),
        _ => text(property, value),
    }
}

fn texts(property: &str, value: &Value) -> Result<Texts> {
    let strings = value.as_array().and_then(|items| {
        let items = items.iter().map(|item| item.as_str().map(str::to_owned));
        items.map(|item| item.map(Some)).collect()
    });
    strings.ok_or_else(|| wrong(property, "an array of strings"))
}

fn texts_or_null(property: &str, value: &Value) -> Result<Texts> {
    match value {
        Value::Null => Ok(Vec::new()),
        _ => texts(property, value),
    }
}

fn number_or_null(property: &str, value: &Value) -> Result<i32> {
    if value.is_null() {
        return Ok(0);
    }
    number(property, value)
}

fn number(property: &str, value: &Value) -> Result<i32> {
    let number = value.as_i64().and_then(|number| i32::try_from(number).ok());
    number.ok_or_else(|| wrong(property, "an integer"))
}

fn interval(property: &str, value: &Value) -> Result<Parts> {
    value
        .as_str()
        .and_then(interval::read)
        .ok_or_else(|| wrong(property, "an interval").with_hint("use one like \"3 days\""))
}

fn object_or_null(property: &str, value: &Value) -> Result<Value> {
    match value {
        Value::Null => Ok(Value::Object(Map::new())),
        Value::Object(_) => Ok(value.clone()),
        _ => Err(wrong(property, "a JSON object")),
    }
}

fn boolean(property: &str, value: &Value) -> Result<bool> {
    value
        .as_bool()
        .ok_or_else(|| wrong(property, "true or false"))
}

/// Arguments of the SQL functions and what the API calls them.
const PROPERTIES: [(&str, &str); 20] = [
    ("name", "Name"),
    ("description", "Description"),
    ("outgoing_urls", "OutgoingUrls"),
    ("call_throttling", "CallThrottling"),
    ("event_type", "EventType"),
    ("object_name", "ObjectName"),
    ("object_fields", "ObjectFields"),
    ("event_sources", "EventSources"),
    ("payload_fields", "CustomPayloadFields"),
    ("payload_template", "CustomPayloadTemplate"),
    ("match", "Match"),
    ("order_key", "OrderKey"),
    ("headers", "Headers"),
    ("timeout_ms", "TimeoutMs"),
    ("max_attempts", "MaxAttempts"),
    ("max_age", "MaxAge"),
    ("max_in_flight", "MaxInFlight"),
    ("delivery_order", "DeliveryOrder"),
    ("log_level", "LogLevel"),
    ("disable_after", "DisableAfter"),
];

/// One sentence of an error, under the API's names.
pub fn message(error: &Error) -> String {
    let mut said = error.message.clone();
    let mut hint = error.hint.clone();
    for (argument, property) in PROPERTIES {
        if hint.as_deref() == Some(&format!("give a value for {argument}")) {
            hint = Some(format!("give a value for {property}"));
        }
        if let Some(rest) = error.message.strip_prefix(argument) {
            if rest.starts_with([' ', ':']) {
                said = format!("{property}{rest}");
            }
        }
    }
    for more in [&error.detail, &hint].into_iter().flatten() {
        said.push_str("; ");
        said.push_str(more);
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_name_resources_in_both_versions() {
        for (path, named) in [
            ("/v3/outgoingWebhooks", Resource::Webhooks),
            ("/v2/outgoingWebhooks/", Resource::Webhooks),
            ("/v3/outgoingWebhooks?q=1", Resource::Webhooks),
            ("/v2/outgoingWebhooks/0994on", Resource::Webhook("0994on")),
            ("/v3/outgoingWebhooks/a/events", Resource::Events("a")),
            ("/v3/outgoingWebhooks/a/events/b", Resource::Event("a", "b")),
        ] {
            assert_eq!(resource(path), Some(named), "{path}");
        }
        for path in [
            "",
            "/",
            "/v3",
            "/v1/outgoingWebhooks",
            "v3/outgoingWebhooks",
            "/v3/webhooks",
            "/v3/outgoingWebhooks//events",
            "/v3/outgoingWebhooks/a/calls",
            "/v3/outgoingWebhooks/a/events/b/c",
        ] {
            assert_eq!(resource(path), None, "{path}");
        }
    }

    #[test]
    fn lists_are_posted_to_and_single_ones_changed() {
        assert_eq!(Resource::Webhooks.method("post"), Some(Method::Post));
        assert_eq!(Resource::Webhooks.method("PUT"), None);
        assert_eq!(Resource::Webhook("a").method("PUT"), Some(Method::Put));
        assert_eq!(Resource::Webhook("a").method("POST"), None);
        assert_eq!(Resource::Event("a", "b").method("PATCH"), None);
        assert_eq!(Resource::Events("a").method("GET"), Some(Method::Get));
    }

    #[test]
    fn the_body_of_the_documents_is_read() {
        let body = json!({
            "Name": "MyTestWebhook",
            "Description": "Send messages whenever changes in table MyCustomers occur",
            "OutgoingUrls": ["https://www.test.com/a", "https://www.test.com/b"],
            "CallThrottling": 8
        });
        let read = WebhookBody::read(Some(&body)).unwrap();
        assert_eq!(read.name.as_deref(), Some("MyTestWebhook"));
        assert_eq!(read.call_throttling, Some(8));
        assert_eq!(read.outgoing_urls.map(|urls| urls.len()), Some(2));
        assert_eq!(read.enabled, None);
    }

    #[test]
    fn null_takes_away_what_can_be_taken_away() {
        let body = json!({"Description": null, "CallThrottling": null});
        let read = WebhookBody::read(Some(&body)).unwrap();
        assert_eq!(read.description.as_deref(), Some(""));
        assert_eq!(read.call_throttling, Some(0));
        let body = json!({"ObjectFields": null, "CustomPayloadTemplate": null});
        let read = EventBody::read(Some(&body)).unwrap();
        assert_eq!(read.object_fields, Some(Vec::new()));
        assert_eq!(read.payload_template.as_deref(), Some(""));
        assert!(WebhookBody::read(Some(&json!({"Name": null}))).is_err());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, said) in [
            (json!({"Nome": "x"}), "property \"Nome\" is unknown"),
            (json!({"Id": "x"}), "property \"Id\" is unknown"),
            (json!({"Name": 7}), "Name is not a string"),
            (
                json!({"OutgoingUrls": "x"}),
                "OutgoingUrls is not an array of strings",
            ),
            (
                json!({"OutgoingUrls": [null]}),
                "OutgoingUrls is not an array of strings",
            ),
            (
                json!({"CallThrottling": 1.5}),
                "CallThrottling is not an integer",
            ),
            (json!({"Enabled": "yes"}), "Enabled is not true or false"),
            (json!({"Headers": ["x"]}), "Headers is not a JSON object"),
            (json!({"TimeoutMs": null}), "TimeoutMs is not an integer"),
            (json!({"MaxAge": "soon"}), "MaxAge is not an interval"),
            (json!({"LogLevel": 1}), "LogLevel is not a string"),
            (json!([]), "the body is not a JSON object"),
        ] {
            let error = WebhookBody::read(Some(&body)).expect_err(said);
            assert_eq!(error.message, said);
        }
        assert!(EventBody::read(None).is_err());
        assert!(EventBody::read(Some(&json!({"Name": "x"}))).is_err());
    }

    #[test]
    fn messages_speak_of_properties() {
        let error = Error::invalid("call_throttling -1 is out of range").with_hint("use 1 or more");
        assert_eq!(
            message(&error),
            "CallThrottling -1 is out of range; use 1 or more"
        );
        let error = super::super::webhook::required::<()>("name", None).unwrap_err();
        assert_eq!(message(&error), "Name is null; give a value for Name");
        let error = Error::invalid("names are fine");
        assert_eq!(message(&error), "names are fine");
    }
}
