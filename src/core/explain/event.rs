//! What the event, its table and its webhook have to say.

use super::{check, fault, note, trigger_name, Check, EventFacts, ServerFacts};
use crate::core::values::sql_text::literal;

pub(super) fn event_enabled(event: &EventFacts) -> Check {
    let id = literal(&event.id);
    check(
        "event_enabled",
        event.enabled,
        "the event is enabled",
        format!("the event is switched off: call webhook.update_event({id}, enabled => true)"),
    )
}

pub(super) fn webhook_enabled(event: &EventFacts) -> Check {
    let webhook = literal(&event.webhook);
    check(
        "webhook_enabled",
        event.webhook_enabled,
        "its webhook is enabled",
        format!(
            "its webhook is switched off, so nothing is captured: \
             call webhook.update_webhook({webhook}, enabled => true)"
        ),
    )
}

pub(super) fn webhook_usable(event: &EventFacts) -> Check {
    match &event.webhook_detail {
        None => note("webhook_usable", "its webhook's definition can be used"),
        Some(reason) => fault(
            "webhook_usable",
            format!(
                "its webhook's definition cannot be used: {reason}; \
                 mend it with webhook.update_webhook()"
            ),
        ),
    }
}

pub(super) fn webhook_not_paused(event: &EventFacts) -> Check {
    let webhook = literal(&event.webhook);
    check(
        "webhook_not_paused",
        !event.webhook_paused,
        "its webhook is not paused",
        format!(
            "its webhook is paused: changes are captured and wait; \
             call webhook.resume_webhook({webhook})"
        ),
    )
}

pub(super) fn table(event: &EventFacts) -> Check {
    let (id, table) = (literal(&event.id), &event.table);
    check(
        "table",
        event.table_is_there,
        &format!("the table {table} is there"),
        format!(
            "the table {table} was dropped: call webhook.drop_event({id}), \
             and create an event for the table that has taken its place"
        ),
    )
}

pub(super) fn columns(event: &EventFacts) -> Check {
    let missing = event.missing_columns.as_deref().unwrap_or_default();
    check(
        "columns",
        missing.is_empty(),
        "all columns it names are there",
        format!(
            "a column was dropped, which switches the event off: {missing}; give it other \
             columns with webhook.update_event({}, object_fields => …, payload_fields => …, order_key => …)",
            literal(&event.id)
        ),
    )
}

/// The event's owner may read the table, unless that does not matter.
pub(super) fn owner(event: &EventFacts, server: &ServerFacts) -> Check {
    let owner = event.owner.as_deref().unwrap_or("nobody");
    match &event.lost_rights {
        None => note(
            "owner",
            format!("it belongs to {owner}, who may read all rows of the table"),
        ),
        Some(lost) if !server.recheck_privileges => note(
            "owner",
            format!("{lost}; it goes on, because webhook.recheck_privileges is off"),
        ),
        Some(lost) => fault(
            "owner",
            format!(
                "{lost}, so nothing is captured: grant the right again, or let a role that has it \
                 call webhook.update_event({}, enabled => true), which takes the event over",
                literal(&event.id)
            ),
        ),
    }
}

pub(super) fn trigger(event: &EventFacts) -> Check {
    let (id, table) = (literal(&event.id), &event.table);
    let trigger = trigger_name(event);
    // Names in it may be those of before a rename, which only the trigger followed.
    let condition = match event.condition {
        Some(_) => ", condition => …",
        None => "",
    };
    let bad = match event.trigger.as_deref() {
        None => format!(
            "the trigger for this event is missing on {table}: \
             call webhook.update_event({id}, enabled => true{condition}), which creates it again"
        ),
        Some(_) if !event.trigger_is_ours => format!(
            "the trigger {trigger} on {table} does not belong to the extension: drop it, \
             then call webhook.update_event({id}, enabled => true)"
        ),
        Some("D") => format!(
            "the trigger is disabled: alter table {} enable trigger {trigger}",
            event.table_in_sql
        ),
        Some(_) => {
            return note(
                "trigger",
                format!("the trigger {trigger} is on {table} and enabled"),
            )
        }
    };
    fault("trigger", bad)
}

pub(super) fn partitions(event: &EventFacts) -> Check {
    if let Some(deaf) = &event.deaf_partitions {
        let bad = format!(
            "on some partitions the trigger is missing or disabled: {deaf}; \
             alter table … enable trigger {}",
            trigger_name(event)
        );
        return fault("partitions", bad);
    }
    let said = match (&event.partition_of, event.is_partitioned) {
        (Some(parent), _) => format!(
            "the table is a partition of {parent}: changes made through {parent} count when they reach it"
        ),
        (None, true) => format!(
            "changes of its partitions count ({} now), also of those attached later, \
             and no longer of those that are detached",
            event.partitions
        ),
        (None, false) => "the table is not partitioned".to_owned(),
    };
    note("partitions", said)
}

pub(super) fn object_fields(event: &EventFacts) -> Check {
    let said = match (event.event_type.as_str(), &event.object_fields) {
        ("table.recordUpdate", Some(fields)) => {
            format!("an UPDATE makes a message only if the stored value of one of these changes: {fields}")
        }
        ("table.recordUpdate", None) => {
            "an UPDATE makes a message if the stored value of any column changes".to_owned()
        }
        ("table.recordDelete", _) => {
            "each DELETE of a row makes a message; TRUNCATE makes none".to_owned()
        }
        _ => "each INSERT of a row makes a message".to_owned(),
    };
    note("object_fields", said)
}

pub(super) fn condition(event: &EventFacts) -> Check {
    match &event.condition {
        None => note("condition", "there is no condition"),
        Some(condition) => note(
            "condition",
            format!("only a change for which this is true makes a message: {condition}"),
        ),
    }
}

pub(super) fn matched(event: &EventFacts) -> Check {
    if let Some(retyped) = &event.retyped_columns {
        return fault(
            "match",
            format!(
                "a column of match has another type than when it was set, which switches the event \
                 off: {retyped}; call webhook.update_event({}, match => …)",
                literal(&event.id)
            ),
        );
    }
    if let Some(unknown) = &event.unknown_values {
        return fault(
            "match",
            format!(
                "match lists values that no row has, because the enum of the column does not have them: \
                 {unknown}; call webhook.update_event({}, match => …)",
                literal(&event.id)
            ),
        );
    }
    let row = match event.event_type.as_str() {
        "table.recordDelete" => "the deleted row",
        "table.recordUpdate" => "the row after the change",
        _ => "the row",
    };
    match &event.matched {
        None => note(
            "match",
            "match is not set: the values of the row do not matter",
        ),
        Some(matched) => note(
            "match",
            format!("only if {row} has these values a message is made: {matched}"),
        ),
    }
}

pub(super) fn order_key(event: &EventFacts) -> Check {
    let said = match (event.delivery_order.as_str(), &event.order_key) {
        ("key", Some(Ok(columns))) => {
            format!("messages with the same values of these arrive in the order of the changes: {columns}")
        }
        ("key", Some(Err(reason))) => format!(
            "its webhook keeps the order of keys, but {} {reason}: all its messages arrive one after \
             the other, as if they had one key; call webhook.update_event({}, order_key => …)",
            event.table,
            literal(&event.id)
        ),
        ("key", None) => {
            "its webhook keeps the order of keys, and a column of order_key is gone".to_owned()
        }
        (order, _) => format!(
            "delivery_order of its webhook is {order}: the keys of rows do not matter"
        ),
    };
    note("order_key", said)
}

pub(super) fn privileges() -> Check {
    note(
        "privileges",
        "changes are captured for every role that may change the table; no privilege on the extension is needed",
    )
}

pub(super) fn message_size(event: &EventFacts, server: &ServerFacts) -> Check {
    let limit = server.max_message_bytes;
    check(
        "message_size",
        event.too_large == 0,
        &format!("none of the last calls was refused for its size (webhook.max_message_size is {limit} bytes)"),
        format!(
            "{} of the last calls were refused for their size (webhook.max_message_size is {limit} \
             bytes): send fewer columns with payload_fields, or raise the setting",
            event.too_large
        ),
    )
}
