//! `webhook.create_event`.

use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys;
use pgrx::prelude::*;
use serde_json::Value;

use super::adopt::warn_if_held;
use super::doubts::tell_of_template;
use super::event_arguments::EventArguments;
use super::{operational_event, random};
use crate::core::definitions::event::{self, Fields};
use crate::core::definitions::operational::OperationalEvent;
use crate::core::definitions::webhook::required;
use crate::core::definitions::words::{EventType, ListStyle, NullStyle};
use crate::core::error::Result;
use crate::core::payloads::template;
use crate::pg::arguments::{required_word, word, JsonArgument, TextArgument, TextListArgument};
use crate::pg::owner::current_role;
use crate::pg::report::ok_or_raise;
use crate::pg::text::{texts, Text};
use crate::store::citus;
use crate::store::event_definitions::{self, NewEvent};
use crate::store::event_matching;
use crate::store::order_key;
use crate::store::user_table::{self, UserTable};
use crate::store::webhook_definitions;

/// Where names in a condition are looked up if nobody says so.
pub const CONDITION_PATH: &str = "pg_catalog, pg_temp";

/// An event as it is now.
pub type CreatedEvent = (
    String,
    String,
    String,
    Option<String>,
    Option<Vec<String>>,
    Option<Vec<String>>,
    Option<Vec<String>>,
    Option<String>,
    Option<String>,
    bool,
    TimestampWithTimeZone,
    String,
);

/// As the function returns it, column by column.
pub type EventAnswer = (
    Text,
    Text,
    Text,
    Option<Text>,
    Option<Vec<Text>>,
    Option<Vec<Text>>,
    Option<Vec<Text>>,
    Option<Text>,
    Option<Text>,
    bool,
    TimestampWithTimeZone,
    Text,
);

/// A list of names as it comes from SQL.
pub type Names = Option<Vec<Option<String>>>;

/// The arguments that say what makes a message and what is in it.
#[derive(Default)]
pub struct Wanted<'a> {
    pub event_type: Option<&'a str>,
    pub object_fields: Names,
    pub event_sources: Names,
    pub payload_fields: Names,
    pub payload_template: Option<&'a str>,
    pub condition: Option<&'a str>,
    pub enabled: Option<bool>,
    pub null_style: Option<&'a str>,
    pub list_style: Option<&'a str>,
    pub matched: Option<Value>,
    pub order_key: Names,
}

/// As 0.1.0 declares it. A session may have this library before the schema was updated: the check
/// of the version then says so.
#[pg_extern(sql = false)]
#[expect(
    clippy::too_many_arguments,
    clippy::type_complexity,
    reason = "the signature is the contract"
)]
fn create_event(
    webhook: Option<TextArgument>,
    object_name: Option<pg_sys::Oid>,
    event_type: Option<TextArgument>,
    object_fields: Option<TextListArgument>,
    event_sources: Option<TextListArgument>,
    payload_fields: Option<TextListArgument>,
    payload_template: Option<TextArgument>,
    condition: Option<TextArgument>,
    enabled: Option<bool>,
    null_style: Option<TextArgument>,
    list_style: Option<TextArgument>,
    condition_path: Option<TextArgument>,
) -> TableIterator<
    'static,
    (
        name!(id, Text),
        name!(webhook_id, Text),
        name!(event_type, Text),
        name!(object_name, Option<Text>),
        name!(object_fields, Option<Vec<Text>>),
        name!(event_sources, Option<Vec<Text>>),
        name!(payload_fields, Option<Vec<Text>>),
        name!(payload_template, Option<Text>),
        name!(condition, Option<Text>),
        name!(enabled, bool),
        name!(created_at, TimestampWithTimeZone),
        name!(created_by, Text),
    ),
> {
    TableIterator::once(created(
        webhook,
        object_name,
        event_type,
        EventArguments {
            object_fields,
            event_sources,
            payload_fields,
            payload_template,
            condition,
            enabled,
            null_style,
            list_style,
            condition_path,
            matched: None,
            order_key: None,
        },
    ))
}

#[pg_extern(sql = false)]
#[expect(
    clippy::too_many_arguments,
    clippy::type_complexity,
    reason = "the signature is the contract"
)]
fn create_event_v2(
    webhook: Option<TextArgument>,
    object_name: Option<pg_sys::Oid>,
    event_type: Option<TextArgument>,
    object_fields: Option<TextListArgument>,
    event_sources: Option<TextListArgument>,
    payload_fields: Option<TextListArgument>,
    payload_template: Option<TextArgument>,
    condition: Option<TextArgument>,
    enabled: Option<bool>,
    null_style: Option<TextArgument>,
    list_style: Option<TextArgument>,
    condition_path: Option<TextArgument>,
    r#match: Option<JsonArgument>,
    order_key: Option<TextListArgument>,
) -> TableIterator<
    'static,
    (
        name!(id, Text),
        name!(webhook_id, Text),
        name!(event_type, Text),
        name!(object_name, Option<Text>),
        name!(object_fields, Option<Vec<Text>>),
        name!(event_sources, Option<Vec<Text>>),
        name!(payload_fields, Option<Vec<Text>>),
        name!(payload_template, Option<Text>),
        name!(condition, Option<Text>),
        name!(enabled, bool),
        name!(created_at, TimestampWithTimeZone),
        name!(created_by, Text),
    ),
> {
    TableIterator::once(created(
        webhook,
        object_name,
        event_type,
        EventArguments {
            object_fields,
            event_sources,
            payload_fields,
            payload_template,
            condition,
            enabled,
            null_style,
            list_style,
            condition_path,
            matched: r#match,
            order_key,
        },
    ))
}

fn created(
    webhook: Option<TextArgument>,
    object_name: Option<pg_sys::Oid>,
    event_type: Option<TextArgument>,
    arguments: EventArguments,
) -> EventAnswer {
    let created = || -> Result<CreatedEvent> {
        let webhook = required_word(webhook, "webhook")?;
        let event_type = word(event_type, "event_type")?;
        arguments.read(event_type.as_deref(), |wanted, path| {
            create(&webhook, object_name, wanted, path)
        })
    };
    in_sql(ok_or_raise(created()))
}

/// Checks everything, then stores the event and provides its trigger.
pub fn create(
    webhook: &str,
    object: Option<pg_sys::Oid>,
    wanted: Wanted<'_>,
    condition_path: &str,
) -> Result<CreatedEvent> {
    if let Some(event_type) = wanted.event_type.and_then(OperationalEvent::parse) {
        return operational_event::create(webhook, object, event_type, wanted);
    }
    if object.is_none() {
        wanted.event_type.map(EventType::parse).transpose()?;
    }
    let object = required("object_name", object)?;
    let (webhook_key, webhook_id) = webhook_definitions::find(webhook)?;
    let table = user_table::watchable(object)?;
    user_table::check_row_security(&table)?;
    let event = wanted.checked(&table)?;
    order_key::check_event(webhook_key, &table, event.order_key.as_ref())?;
    warn_if_held();
    citus::check_definitions_are_made_here()?;
    let created_at = event_definitions::insert(webhook_key, &table, &event, condition_path)?;
    if let Some(template) = &event.payload_template {
        tell_of_template(&template.text, event.event_type);
    }
    Ok(answer(webhook_id, table, event, created_at))
}

impl Wanted<'_> {
    fn checked(self, table: &UserTable) -> Result<NewEvent> {
        let event_type = EventType::parse(required("event_type", self.event_type)?)?;
        let columns = user_table::columns(table);
        let payload_fields = event::fields("payload_fields", self.payload_fields, &columns)?;
        let payload_template = template::checked(self.payload_template, &columns)?;
        template::refuse_both(payload_template.is_some(), payload_fields.is_some())?;
        Ok(NewEvent {
            id: random::unused_id(event_definitions::id_is_taken)?,
            event_type,
            object_fields: event::object_fields(self.object_fields, event_type, &columns)?,
            event_sources: event::event_sources(self.event_sources)?,
            payload_fields,
            payload_template,
            condition: event::condition(self.condition).map(str::to_owned),
            matched: match &self.matched {
                Some(matched) => event_matching::checked(matched, table, event_type, &columns)?,
                None => None,
            },
            order_key: event::order_key(self.order_key, &columns)?,
            enabled: self.enabled.unwrap_or(true),
            null_style: NullStyle::parse(self.null_style.unwrap_or(NullStyle::Typed.as_str()))?
                .as_str(),
            list_style: ListStyle::parse(self.list_style.unwrap_or(ListStyle::Array.as_str()))?
                .as_str(),
            created_by: current_role(),
        })
    }
}

fn answer(
    webhook_id: String,
    table: UserTable,
    event: NewEvent,
    created_at: TimestampWithTimeZone,
) -> CreatedEvent {
    let names = |fields: Option<Fields>| fields.map(|f| f.names);
    (
        event.id,
        webhook_id,
        event.event_type.as_str().to_owned(),
        Some(table.label),
        names(event.object_fields),
        event.event_sources,
        names(event.payload_fields),
        event.payload_template.map(|template| template.text),
        event.condition,
        event.enabled,
        created_at,
        event.created_by,
    )
}

/// The event as SQL takes it.
pub fn in_sql(event: CreatedEvent) -> EventAnswer {
    let (id, webhook_id, event_type, object_name, object_fields, event_sources, ..) = event;
    let (.., payload_fields, payload_template, condition, enabled, created_at, created_by) = event;
    (
        id.into(),
        webhook_id.into(),
        event_type.into(),
        object_name.map(Text),
        object_fields.map(texts),
        event_sources.map(texts),
        payload_fields.map(texts),
        payload_template.map(Text),
        condition.map(Text),
        enabled,
        created_at,
        created_by.into(),
    )
}
