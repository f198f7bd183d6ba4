//! Events as users define them.
//!
//! Definitions are written as the extension's owner; their triggers are made by
//! `event_trigger`. A dropped event stays as a tombstone, because messages still
//! name it.

use pgrx::datum::TimestampWithTimeZone;
use pgrx::{pg_sys, JsonB};

use super::change_log;
use super::event_matching::CheckedMatch;
use super::event_trigger::{self, EventTrigger};
use super::rows::{execute, first, query};
use super::user_table::UserTable;
use crate::core::definitions::event::Fields;
use crate::core::definitions::webhook::shown;
use crate::core::definitions::words::EventType;
use crate::core::error::{Error, Kind, Result};
use crate::core::payloads::template::CheckedTemplate;
use crate::pg::owner::{as_owner, current_role_oid};

/// An event before it is stored: every value is checked but the condition.
#[derive(Clone)]
pub struct NewEvent {
    pub id: String,
    pub event_type: EventType,
    pub object_fields: Option<Fields>,
    pub event_sources: Option<Vec<String>>,
    pub payload_fields: Option<Fields>,
    pub payload_template: Option<CheckedTemplate>,
    pub condition: Option<String>,
    pub matched: Option<CheckedMatch>,
    pub order_key: Option<Fields>,
    pub enabled: bool,
    pub null_style: &'static str,
    pub list_style: &'static str,
    pub created_by: String,
}

const ID_TAKEN: &str = "
select true from webhook.event_def where id = $1";

/// $9 the keys of match, which are the same however it is written, $10 the first of them: a webhook may
/// have an event for each value that there is.
macro_rules! same_event {
    ($which:literal) => {
        concat!(
            "select e.id
from webhook.event_def e
where e.webhook_key = $1
  and e.object_name = $2
  and e.event_type = $3
  and e.dropped_at is null
  and e.object_fields is not distinct from $4
  and e.event_sources is not distinct from $5
  and e.payload_fields is not distinct from $6
  and e.payload_template is not distinct from $7
  and e.condition is not distinct from $8
  and e.match_keys is not distinct from $9::pg_catalog.uuid[]
  and ",
            $which
        )
    };
}

const SAME_UNMATCHED: &str =
    same_event!("e.match_keys[1] is null and $10::pg_catalog.uuid is null");
const SAME_MATCHED: &str = same_event!("e.match_keys[1] = $10");

const INSERT: &str = "
insert into webhook.event_def (id, webhook_key, event_type, object_name, object_label, object_oid,
                               object_fields, object_attnums, event_sources, payload_fields, payload_attnums,
                               payload_template, template_fields, template_attnums,
                               condition, enabled, null_style, list_style, created_by, owner_name, owner_oid,
                               match, match_fields, match_attnums, match_kinds, match_group, match_keys,
                               order_key, order_key_attnums)
values ($1, $2, $3, $4, $5, $4, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $18, $19,
        $20, $21, $22, $23, $24, $25::pg_catalog.uuid[], $26, $27)
returning created_at";

/// Locks the webhook first, as every change of a definition does.
const BY_ID: &str = "
select e.event_key
from webhook.webhook_def w
join webhook.event_def e on e.webhook_key = w.webhook_key
where e.id = $1
  and e.dropped_at is null
for update";

/// The same without the lock, which a standby does not have.
const READ_BY_ID: &str = "
select e.event_key
from webhook.event_def e
where e.id = $1
  and e.dropped_at is null";

const OF_WEBHOOK: &str = "
select event_key
from webhook.event_def
where webhook_key = $1
  and dropped_at is null
order by event_key
for update";

const DROP: &str = "
update webhook.event_def
set dropped_at = pg_catalog.clock_timestamp(),
    modified_at = pg_catalog.clock_timestamp(),
    modified_by = $2,
    enabled = false
where event_key = $1";

/// Whether any event, also a dropped one, has this id.
pub fn id_is_taken(id: &str) -> bool {
    as_owner(|| first(ID_TAKEN, &[id.into()], |_| ()).is_some())
}

/// Stores an event of a webhook and provides its trigger.
///
/// # Errors
/// `42710` if the webhook has the same event already.
pub fn insert(
    webhook_key: i32,
    table: &UserTable,
    event: &NewEvent,
    condition_path: &str,
) -> Result<TimestampWithTimeZone> {
    refuse_duplicate(webhook_key, table, event)?;
    let owner = current_role_oid();
    let created_at = as_owner(|| insert_row(webhook_key, table, event.clone(), owner));
    change_log::event_created(&event.id, &event.created_by);
    let trigger = EventTrigger {
        id: &event.id,
        event_type: event.event_type,
        condition: event.condition.as_deref(),
    };
    event_trigger::provide(table, &trigger, condition_path);
    Ok(created_at)
}

fn refuse_duplicate(webhook_key: i32, table: &UserTable, event: &NewEvent) -> Result<()> {
    let names = |fields: &Option<Fields>| fields.as_ref().map(|f| f.names.clone());
    let key = event.matched.as_ref().and_then(|m| m.keys.first());
    let statement = match key {
        None => SAME_UNMATCHED,
        Some(_) => SAME_MATCHED,
    };
    let same: Option<String> = as_owner(|| {
        first(
            statement,
            &[
                webhook_key.into(),
                table.oid.into(),
                event.event_type.as_str().into(),
                names(&event.object_fields).into(),
                event.event_sources.clone().into(),
                names(&event.payload_fields).into(),
                event
                    .payload_template
                    .as_ref()
                    .map(|t| t.text.clone())
                    .into(),
                event.condition.clone().into(),
                event.matched.as_ref().map(CheckedMatch::key_texts).into(),
                key.map(|key| pgrx::Uuid::from_bytes(*key.as_bytes()))
                    .into(),
            ],
            |row| row.value(1),
        )
    });
    match same {
        None => Ok(()),
        Some(id) => Err(is_the_same(&id)),
    }
}

/// The error of an event that another one makes needless.
pub fn is_the_same(id: &str) -> Error {
    Error::new(
        Kind::DuplicateObject,
        format!("event \"{id}\" of this webhook is the same"),
    )
    .with_hint("each change would be sent twice: drop that event first, or make this one differ")
}

fn insert_row(
    webhook_key: i32,
    table: &UserTable,
    event: NewEvent,
    owner: pg_sys::Oid,
) -> TimestampWithTimeZone {
    let (object_fields, object_attnums) = split(event.object_fields);
    let (payload_fields, payload_attnums) = split(event.payload_fields);
    let (template, template_fields) = event.payload_template.map(|t| (t.text, t.fields)).unzip();
    let (template_fields, template_attnums) = split(template_fields);
    let matched = MatchParams::of(event.matched);
    let (order_key, order_key_attnums) = split(event.order_key);
    first(
        INSERT,
        &[
            event.id.into(),
            webhook_key.into(),
            event.event_type.as_str().into(),
            table.oid.into(),
            table.label.as_str().into(),
            object_fields.into(),
            object_attnums.into(),
            event.event_sources.into(),
            payload_fields.into(),
            payload_attnums.into(),
            template.into(),
            template_fields.into(),
            template_attnums.into(),
            event.condition.into(),
            event.enabled.into(),
            event.null_style.into(),
            event.list_style.into(),
            event.created_by.into(),
            owner.into(),
            matched.json.into(),
            matched.fields.into(),
            matched.numbers.into(),
            matched.kinds.into(),
            matched.group.into(),
            matched.keys.into(),
            order_key.into(),
            order_key_attnums.into(),
        ],
        |row| row.value(1),
    )
    .expect("an INSERT of one row returns it")
}

/// The columns of `match`.
pub(super) struct MatchParams {
    pub json: Option<JsonB>,
    pub fields: Option<Vec<String>>,
    pub numbers: Option<Vec<i16>>,
    pub kinds: Option<Vec<String>>,
    pub group: Option<pgrx::Uuid>,
    pub keys: Option<Vec<String>>,
}

impl MatchParams {
    pub fn of(matched: Option<CheckedMatch>) -> Self {
        let json = matched.as_ref().map(CheckedMatch::to_json);
        let keys = matched.as_ref().map(CheckedMatch::key_texts);
        let group = matched.as_ref().map(|m| *m.group.as_bytes());
        let (fields, kinds) = matched.map(|m| (m.fields, m.kinds)).unzip();
        let (fields, numbers) = split(fields);
        Self {
            json,
            fields,
            numbers,
            kinds,
            group: group.map(pgrx::Uuid::from_bytes),
            keys,
        }
    }
}

fn split(fields: Option<Fields>) -> (Option<Vec<String>>, Option<Vec<i16>>) {
    fields.map(|f| (f.names, f.numbers)).unzip()
}

/// The key of the event with this id; it and its webhook are locked.
pub fn find(event: &str) -> Result<i32> {
    as_owner(|| first(BY_ID, &[event.into()], |row| row.value(1)))
        .ok_or_else(|| no_such_event(event))
}

/// The key of an event that is only read.
pub fn look_up(event: &str) -> Result<i32> {
    as_owner(|| first(READ_BY_ID, &[event.into()], |row| row.value(1)))
        .ok_or_else(|| no_such_event(event))
}

fn no_such_event(event: &str) -> Error {
    Error::new(
        Kind::UndefinedObject,
        format!("event \"{}\" does not exist", shown(event)),
    )
    .with_hint("the view webhook.events lists ids")
}

/// The keys of a webhook's events; they are locked.
pub fn of_webhook(webhook_key: i32) -> Vec<i32> {
    as_owner(|| query(OF_WEBHOOK, &[webhook_key.into()], |row| row.value(1)))
}

/// Drops the triggers of an event's table that no event needs any more, if the table is free.
pub fn drop_superfluous_triggers(event_key: i32) {
    as_owner(|| event_trigger::drop_superfluous(&[event_key]));
}

/// Leaves tombstones, and drops the triggers that no other event needs.
pub fn drop(event_keys: &[i32], by: &str) {
    as_owner(|| {
        change_log::events_dropped(event_keys, by);
        for key in event_keys {
            event_trigger::drop_own(*key);
            execute(DROP, &[(*key).into(), by.into()]);
        }
        event_trigger::drop_superfluous(event_keys);
    });
}
