//! `webhook.update_event`.

use pgrx::datum::TimestampWithTimeZone;
use pgrx::prelude::*;

use super::create_event::{in_sql, CreatedEvent, EventAnswer, Wanted};
use super::doubts::tell_of_template;
use super::event_arguments::EventArguments;
use super::operational_event;
use crate::core::definitions::event::{self, Column};
use crate::core::definitions::operational::OperationalEvent;
use crate::core::definitions::words::{EventType, ListStyle, NullStyle};
use crate::core::error::{Error, Kind, Result};
use crate::core::payloads::template;
use crate::pg::arguments::{required_word, JsonArgument, TextArgument, TextListArgument};
use crate::pg::owner::current_role;
use crate::pg::report::ok_or_raise;
use crate::pg::text::Text;
use crate::store::event_changes::{self, EventChanges, Present};
use crate::store::event_definitions;
use crate::store::event_matching;
use crate::store::event_trigger::{self, EventTrigger};
use crate::store::order_key;
use crate::store::reach;
use crate::store::user_table::{self, UserTable};

/// As 0.1.0 declares it: see `create_event`.
#[pg_extern(sql = false)]
#[expect(
    clippy::too_many_arguments,
    clippy::type_complexity,
    reason = "the signature is the contract"
)]
fn update_event(
    event: Option<TextArgument>,
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
    TableIterator::once(updated(
        event,
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
fn update_event_v2(
    event: Option<TextArgument>,
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
    TableIterator::once(updated(
        event,
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

fn updated(event: Option<TextArgument>, arguments: EventArguments) -> EventAnswer {
    let updated = || -> Result<CreatedEvent> {
        let event = required_word(event, "event")?;
        arguments.read(None, |wanted, path| update(&event, wanted, path))
    };
    in_sql(ok_or_raise(updated()))
}

/// Changes the event with this id; checks everything before it writes.
pub fn update(event: &str, wanted: Wanted<'_>, condition_path: &str) -> Result<CreatedEvent> {
    let key = event_definitions::find(event)?;
    let present = event_changes::present(key);
    if let Some(event_type) = OperationalEvent::parse(&present.event_type) {
        let changes = operational_event::changes(event_type, wanted)?;
        return Ok(event_changes::apply(key, changes, &current_role(), false));
    }
    let table = table_if_needed(event, &present, &wanted)?;
    match &table {
        Some(table) => user_table::check_row_security(table)?,
        None if wanted.enabled == Some(true) && !present.enabled => reach::check_event(key)?,
        None => {}
    }
    let changes = checked(wanted, &present, table.as_ref())?;
    if let (Some(table), Some(wanted)) = (&table, &changes.order_key) {
        order_key::check_event(present.webhook_key, table, wanted.as_ref())?;
    }
    event_changes::refuse_duplicate(key, &changes)?;
    if let Some(Some(template)) = &changes.payload_template {
        tell_of_template(&template.text, EventType::parse(&present.event_type)?);
    }
    let fits = table
        .as_ref()
        .is_some_and(|table| fit_trigger(table, &present, &changes, condition_path));
    let takes_over = table.is_some() && present.is_abandoned;
    let updated = event_changes::apply(key, changes, &current_role(), takes_over);
    if fits {
        event_definitions::drop_superfluous_triggers(key);
    }
    Ok(updated)
}

/// Switching an event off asks for nothing; choosing what it sends, or taking it over from an
/// owner that has lost a right, asks for the rights that creating it asked for.
fn table_if_needed(
    event: &str,
    present: &Present,
    wanted: &Wanted<'_>,
) -> Result<Option<UserTable>> {
    let enabled = wanted.enabled.unwrap_or(present.enabled);
    let takes_over = wanted.enabled == Some(true) && present.is_abandoned;
    let comes_back = enabled && !present.has_trigger;
    if !wanted.says_what_is_sent() && !takes_over && !comes_back {
        return Ok(None);
    }
    match present.object.map(user_table::watchable) {
        Some(Ok(table)) => Ok(Some(table)),
        Some(Err(error)) if error.kind != Kind::UndefinedObject => Err(error),
        _ => Err(Error::new(
            Kind::UndefinedObject,
            format!("the table of event \"{event}\" was dropped"),
        )
        .with_hint("drop the event, and create one for the table that has taken its place")),
    }
}

impl Wanted<'_> {
    /// Whether anything but the status is given.
    fn says_what_is_sent(&self) -> bool {
        self.object_fields.is_some()
            || self.event_sources.is_some()
            || self.payload_fields.is_some()
            || self.payload_template.is_some()
            || self.condition.is_some()
            || self.null_style.is_some()
            || self.list_style.is_some()
            || self.matched.is_some()
            || self.order_key.is_some()
    }
}

fn checked(
    wanted: Wanted<'_>,
    present: &Present,
    table: Option<&UserTable>,
) -> Result<EventChanges> {
    let columns: Vec<Column> = table.map(user_table::columns).unwrap_or_default();
    let event_type = EventType::parse(&present.event_type)?;
    let payload_fields = wanted
        .payload_fields
        .map(|names| event::fields("payload_fields", Some(names), &columns))
        .transpose()?;
    let payload_template = wanted
        .payload_template
        .map(|text| template::checked(Some(text), &columns))
        .transpose()?;
    template::refuse_both(
        stays(payload_template.as_ref(), present.has_template),
        stays(payload_fields.as_ref(), present.has_payload_fields),
    )?;
    Ok(EventChanges {
        object_fields: wanted
            .object_fields
            .map(|names| event::object_fields(Some(names), event_type, &columns))
            .transpose()?,
        event_sources: wanted
            .event_sources
            .map(|names| event::event_sources(Some(names)))
            .transpose()?,
        payload_fields,
        payload_template,
        condition: wanted
            .condition
            .map(|text| event::condition(Some(text)).map(str::to_owned)),
        matched: match (&wanted.matched, table) {
            (Some(matched), Some(table)) => Some(event_matching::checked(
                matched, table, event_type, &columns,
            )?),
            _ => None,
        },
        order_key: wanted
            .order_key
            .map(|names| event::order_key(Some(names), &columns))
            .transpose()?,
        enabled: wanted.enabled,
        null_style: wanted
            .null_style
            .map(|style| NullStyle::parse(style).map(NullStyle::as_str))
            .transpose()?,
        list_style: wanted
            .list_style
            .map(|style| ListStyle::parse(style).map(ListStyle::as_str))
            .transpose()?,
    })
}

/// Whether the event has a value after the change.
fn stays<T>(change: Option<&Option<T>>, has_now: bool) -> bool {
    change.map_or(has_now, Option::is_some)
}

/// A condition is part of the event's own trigger; a trigger that was dropped comes back. Whether
/// another trigger captures the event from now on.
fn fit_trigger(
    table: &UserTable,
    present: &Present,
    changes: &EventChanges,
    condition_path: &str,
) -> bool {
    if changes.condition.is_none() && present.has_trigger {
        return false;
    }
    let condition = changes.condition.as_ref().unwrap_or(&present.condition);
    let trigger = EventTrigger {
        id: &present.id,
        event_type: EventType::parse(&present.event_type)
            .expect("the row was read by its own check"),
        condition: condition.as_deref(),
    };
    event_trigger::replace(table, &trigger, condition_path);
    condition.is_some() != present.condition.is_some()
}
