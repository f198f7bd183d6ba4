//! Operational events: `webhook.create_event` and `update_event` without a table.

use pgrx::pg_sys;

use super::adopt::warn_if_held;
use super::create_event::{CreatedEvent, Names, Wanted};
use super::doubts::tell_of_template;
use super::random;
use crate::core::definitions::event::Fields;
use crate::core::definitions::operational::{columns, refuse_argument, OperationalEvent};
use crate::core::definitions::words::{EventType, ListStyle, NullStyle};
use crate::core::error::Result;
use crate::core::payloads::template::{self, CheckedTemplate};
use crate::pg::owner::current_role;
use crate::store::event_changes::EventChanges;
use crate::store::operational_events::{self, NewOperationalEvent};
use crate::store::{event_definitions, webhook_definitions};

pub fn create(
    webhook: &str,
    object: Option<pg_sys::Oid>,
    event_type: OperationalEvent,
    wanted: Wanted<'_>,
) -> Result<CreatedEvent> {
    let (webhook_key, webhook_id) = webhook_definitions::find(webhook)?;
    refuse_argument("object_name", object.is_some(), event_type.as_str())?;
    refuse_filters(event_type, &wanted)?;
    let template = checked_template(wanted.payload_template)?;
    let null_style = wanted.null_style.unwrap_or(NullStyle::Typed.as_str());
    let list_style = wanted.list_style.unwrap_or(ListStyle::Array.as_str());
    let event = NewOperationalEvent {
        id: random::unused_id(event_definitions::id_is_taken)?,
        event_type,
        payload_template: template.map(|template| template.text),
        enabled: wanted.enabled.unwrap_or(true),
        null_style: NullStyle::parse(null_style)?.as_str(),
        list_style: ListStyle::parse(list_style)?.as_str(),
        created_by: current_role(),
    };
    warn_if_held();
    let created_at = operational_events::insert(webhook_key, &event)?;
    Ok((
        event.id,
        webhook_id,
        event_type.as_str().to_owned(),
        None,
        None,
        None,
        None,
        event.payload_template,
        None,
        event.enabled,
        created_at,
        event.created_by,
    ))
}

/// What an update may change.
pub fn changes(event_type: OperationalEvent, wanted: Wanted<'_>) -> Result<EventChanges> {
    refuse_filters(event_type, &wanted)?;
    let is_given = wanted.payload_template.is_some();
    let template = checked_template(wanted.payload_template)?;
    Ok(EventChanges {
        object_fields: None,
        event_sources: None,
        payload_fields: None,
        payload_template: is_given.then_some(template),
        condition: None,
        matched: None,
        order_key: None,
        enabled: wanted.enabled,
        null_style: (wanted.null_style)
            .map(|style| NullStyle::parse(style).map(NullStyle::as_str))
            .transpose()?,
        list_style: (wanted.list_style)
            .map(|style| ListStyle::parse(style).map(ListStyle::as_str))
            .transpose()?,
    })
}

/// They are about rows. An empty one is none.
fn refuse_filters(event_type: OperationalEvent, wanted: &Wanted<'_>) -> Result<()> {
    let has = |names: &Names| names.as_ref().is_some_and(|names| !names.is_empty());
    let matched = wanted
        .matched
        .as_ref()
        .and_then(|matched| matched.as_object());
    for (argument, is_given) in [
        ("object_fields", has(&wanted.object_fields)),
        ("event_sources", has(&wanted.event_sources)),
        ("payload_fields", has(&wanted.payload_fields)),
        (
            "condition",
            wanted.condition.is_some_and(|text| !text.is_empty()),
        ),
        (
            "match",
            matched.map_or(wanted.matched.is_some(), |matched| !matched.is_empty()),
        ),
        ("order_key", has(&wanted.order_key)),
    ] {
        refuse_argument(argument, is_given, event_type.as_str())?;
    }
    Ok(())
}

/// Its fields are no columns, so that none is stored.
fn checked_template(text: Option<&str>) -> Result<Option<CheckedTemplate>> {
    let template = template::checked(text, &columns())?;
    if let Some(template) = &template {
        tell_of_template(&template.text, EventType::Update);
    }
    Ok(template.map(|template| CheckedTemplate {
        fields: Fields::default(),
        ..template
    }))
}
