//! Events as users define them, and their triggers.
//!
//! Definitions are written as the extension's owner. A trigger is created with the
//! rights of the caller, who must have them on the table; it is dropped with the
//! owner's, because whoever may drop an event need not own its table. A dropped
//! event stays as a tombstone, because messages still name it.

use std::ffi::CStr;

use pgrx::datum::TimestampWithTimeZone;
use pgrx::PgSqlErrorCode;

use super::rows::{execute, first, query};
use super::user_table::UserTable;
use crate::core::definition::EventType;
use crate::core::error::{Error, Kind, Result};
use crate::core::event::Fields;
use crate::core::webhook::shown;
use crate::pg::local_settings::{count_statements, lock_timeout_ms, with_settings};
use crate::pg::owner::as_owner;
use crate::pg::report::{raise, translated, Refusal};

/// A trigger needs a lock that waits for every writer of the table, and everybody who
/// comes later waits behind it: so not for long.
const LOCK_TIMEOUT_MS: i32 = 5_000;
const LOCK_TIMEOUT: &CStr = c"lock_timeout";
const SEARCH_PATH: &CStr = c"search_path";

/// An event before it is stored: every value is checked but the condition.
#[derive(Clone)]
pub struct NewEvent {
    pub id: String,
    pub event_type: EventType,
    pub object_fields: Option<Fields>,
    pub event_sources: Option<Vec<String>>,
    pub payload_fields: Option<Fields>,
    pub condition: Option<String>,
    pub enabled: bool,
    pub null_style: &'static str,
    pub list_style: &'static str,
    pub created_by: String,
}

const ID_TAKEN: &str = "
select true from webhook.event_def where id = $1";

const SAME_EVENT: &str = "
select e.id
from webhook.event_def e
where e.webhook_key = $1
  and e.object_name = $2
  and e.event_type = $3
  and e.dropped_at is null
  and e.object_fields is not distinct from $4
  and e.event_sources is not distinct from $5
  and e.payload_fields is not distinct from $6
  and e.payload_template is null
  and e.condition is not distinct from $7";

const INSERT: &str = "
insert into webhook.event_def (id, webhook_key, event_type, object_name, object_label, object_oid,
                               object_fields, object_attnums, event_sources, payload_fields, payload_attnums,
                               condition, enabled, null_style, list_style, created_by)
values ($1, $2, $3, $4, $5, $4, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
returning created_at";

/// Locks the webhook first, as every change of a definition does.
const BY_ID: &str = "
select e.event_key
from webhook.webhook_def w
join webhook.event_def e on e.webhook_key = w.webhook_key
where e.id = $1
  and e.dropped_at is null
for update";

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

/// The statement that drops the trigger of an event, if the trigger is there. Only one
/// that calls our function: another trigger may have taken the name.
const DROP_TRIGGER: &str = "
select pg_catalog.format('drop trigger %I on %I.%I', t.tgname, n.nspname, c.relname),
       case when n.nspname = 'public' then c.relname::pg_catalog.text else n.nspname || '.' || c.relname end
from webhook.event_def e
join pg_catalog.pg_trigger t on t.tgrelid = e.object_name
join pg_catalog.pg_class c on c.oid = t.tgrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where e.event_key = $1
  and t.tgname = 'webhook_' || e.id
  and t.tgfoid = 'webhook.capture()'::pg_catalog.regprocedure";

/// Whether any event, also a dropped one, has this id.
pub fn id_is_taken(id: &str) -> bool {
    as_owner(|| first(ID_TAKEN, &[id.into()], |_| ()).is_some())
}

/// Stores an event of a webhook and creates its trigger.
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
    let created_at = as_owner(|| insert_row(webhook_key, table, event.clone()));
    create_trigger(table, event, condition_path)?;
    Ok(created_at)
}

fn refuse_duplicate(webhook_key: i32, table: &UserTable, event: &NewEvent) -> Result<()> {
    let names = |fields: &Option<Fields>| fields.as_ref().map(|f| f.names.clone());
    let same: Option<String> = as_owner(|| {
        first(
            SAME_EVENT,
            &[
                webhook_key.into(),
                table.oid.into(),
                event.event_type.as_str().into(),
                names(&event.object_fields).into(),
                event.event_sources.clone().into(),
                names(&event.payload_fields).into(),
                event.condition.clone().into(),
            ],
            |row| row.value(1),
        )
    });
    match same {
        None => Ok(()),
        Some(id) => Err(Error::new(
            Kind::DuplicateObject,
            format!("event \"{id}\" of this webhook is the same"),
        )
        .with_hint(
            "each change would be sent twice: drop that event first, or make this one differ",
        )),
    }
}

fn insert_row(webhook_key: i32, table: &UserTable, event: NewEvent) -> TimestampWithTimeZone {
    let (object_fields, object_attnums) = split(event.object_fields);
    let (payload_fields, payload_attnums) = split(event.payload_fields);
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
            event.condition.into(),
            event.enabled.into(),
            event.null_style.into(),
            event.list_style.into(),
            event.created_by.into(),
        ],
        |row| row.value(1),
    )
    .expect("an INSERT of one row returns it")
}

fn split(fields: Option<Fields>) -> (Option<Vec<String>>, Option<Vec<i16>>) {
    fields.map(|f| (f.names, f.numbers)).unzip()
}

/// With the caller's rights, and with the caller's names in the condition.
fn create_trigger(table: &UserTable, event: &NewEvent, condition_path: &str) -> Result<()> {
    let statement = trigger_statement(table, event);
    let translate = |refusal: &Refusal| {
        lock_refused(refusal, &table.label).or_else(|| condition_refused(refusal, event))
    };
    let timeout = lock_timeout();
    let settings = [
        (LOCK_TIMEOUT, timeout.as_str()),
        (SEARCH_PATH, condition_path),
    ];
    translated(
        || {
            if count_statements(&statement) != 1 {
                raise(not_one_expression(event));
            }
            with_settings(&settings, || execute(&statement, &[]));
        },
        translate,
    );
    Ok(())
}

/// The condition stands on lines of its own, so that a comment in it ends where it does.
fn trigger_statement(table: &UserTable, event: &NewEvent) -> String {
    let change = match event.event_type {
        EventType::Insert => "insert",
        EventType::Update => "update",
        EventType::Delete => "delete",
    };
    let when = match &event.condition {
        Some(condition) => format!("when (\n{condition}\n) "),
        None => String::new(),
    };
    format!(
        "create trigger webhook_{id} after {change} on {table} for each row {when}\
         execute function webhook.capture('{id}')",
        id = event.id,
        table = table.quoted
    )
}

fn not_one_expression(event: &NewEvent) -> Error {
    let condition = event.condition.as_deref().unwrap_or_default();
    Error::invalid(format!(
        "condition \"{}\" is not one expression",
        shown(condition)
    ))
    .with_hint("write a boolean expression over new and old, as in new.balance < 0")
}

fn lock_timeout() -> String {
    match lock_timeout_ms() {
        own @ 1..LOCK_TIMEOUT_MS => own.to_string(),
        _ => LOCK_TIMEOUT_MS.to_string(),
    }
}

fn lock_refused(refusal: &Refusal, table: &str) -> Option<Error> {
    (refusal.code == PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE).then(|| {
        Error::new(
            Kind::LockNotAvailable,
            format!("table \"{table}\" is busy: could not lock it within lock_timeout"),
        )
        .with_detail("a trigger can be created or dropped only while nobody writes to the table")
        .with_hint("try again when no long transaction uses the table; pg_locks shows which do")
    })
}

/// What PostgreSQL says of the condition, under the SQLSTATE of a bad argument.
fn condition_refused(refusal: &Refusal, event: &NewEvent) -> Option<Error> {
    use PgSqlErrorCode::*;
    let condition = event.condition.as_deref()?;
    let kind = match refusal.code {
        ERRCODE_UNDEFINED_COLUMN
        | ERRCODE_UNDEFINED_FUNCTION
        | ERRCODE_UNDEFINED_OBJECT
        | ERRCODE_UNDEFINED_TABLE => Kind::UndefinedObject,
        ERRCODE_SYNTAX_ERROR
        | ERRCODE_DATATYPE_MISMATCH
        | ERRCODE_INVALID_OBJECT_DEFINITION
        | ERRCODE_INVALID_TEXT_REPRESENTATION
        | ERRCODE_INVALID_DATETIME_FORMAT
        | ERRCODE_INVALID_COLUMN_REFERENCE
        | ERRCODE_FEATURE_NOT_SUPPORTED
        | ERRCODE_GROUPING_ERROR
        | ERRCODE_WINDOWING_ERROR
        | ERRCODE_AMBIGUOUS_FUNCTION
        | ERRCODE_AMBIGUOUS_COLUMN
        | ERRCODE_CANNOT_COERCE
        | ERRCODE_INDETERMINATE_DATATYPE
        | ERRCODE_WRONG_OBJECT_TYPE => Kind::InvalidParameter,
        _ => return None,
    };
    let hint = refusal.hint.clone().unwrap_or_else(|| {
        "write a boolean expression over new and old, as in new.balance < 0".to_owned()
    });
    Some(
        Error::new(
            kind,
            format!("condition \"{}\" is not valid", shown(condition)),
        )
        .with_detail(refusal.message.clone())
        .with_hint(hint),
    )
}

/// The key of the event with this id; it and its webhook are locked.
pub fn find(event: &str) -> Result<i32> {
    as_owner(|| first(BY_ID, &[event.into()], |row| row.value(1))).ok_or_else(|| {
        Error::new(
            Kind::UndefinedObject,
            format!("event \"{}\" does not exist", shown(event)),
        )
        .with_hint("the view webhook.events lists ids")
    })
}

/// The keys of a webhook's events; they are locked.
pub fn of_webhook(webhook_key: i32) -> Vec<i32> {
    as_owner(|| query(OF_WEBHOOK, &[webhook_key.into()], |row| row.value(1)))
}

/// Drops the trigger and leaves a tombstone.
pub fn drop(event_key: i32, by: &str) {
    as_owner(|| {
        drop_trigger(event_key);
        execute(DROP, &[event_key.into(), by.into()]);
    });
}

fn drop_trigger(event_key: i32) {
    let found: Option<(String, String)> = first(DROP_TRIGGER, &[event_key.into()], |row| {
        (row.value(1), row.value(2))
    });
    if let Some((statement, table)) = found {
        let timeout = lock_timeout();
        translated(
            || with_settings(&[(LOCK_TIMEOUT, &timeout)], || execute(&statement, &[])),
            |refusal| lock_refused(refusal, &table),
        );
    }
}
