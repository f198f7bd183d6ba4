//! The trigger of an event: one of its own if it has a condition, else the one that all events
//! of its type on the table share.
//!
//! Created with the rights of the caller, who must have them on the table; dropped
//! with the owner's, because a role that may drop an event need not own its table. A
//! table that is busy for too long is an error, and nothing has changed. Where the shared
//! trigger is there, no lock on the table is needed; it goes with the last event
//! if the table is free, and else stays and captures nothing.

use std::ffi::CStr;
use std::thread::LocalKey;

use pgrx::{pg_sys, PgSqlErrorCode};

use super::citus;
use super::rows::{execute, first, query};
use super::table_label::table_label;
use super::user_table::{check_partitions, UserTable};
use crate::core::definitions::webhook::{shown, shown_up_to};
use crate::core::definitions::words::EventType;
use crate::core::error::{Error, Kind};
use crate::core::values::sql_text::{identifier, literal};
use crate::pg::local_settings::{count_statements, lock_timeout_ms, with_settings};
use crate::pg::owner::{self, as_owner};
use crate::pg::report::{is_of_class, ok_or_raise, raise, translated, Refusal};
use crate::pg::spi::{connected, with_snapshot, Arg, Query};
use crate::pg::table_locks;

/// A trigger needs a lock that waits for every writer of the table, and everybody who
/// comes later waits behind it: so not for long.
const LOCK_TIMEOUT_MS: i32 = 5_000;
const LOCK_TIMEOUT: &CStr = c"lock_timeout";
const SEARCH_PATH: &CStr = c"search_path";

/// What a trigger says of its event.
pub struct EventTrigger<'a> {
    pub id: &'a str,
    pub event_type: EventType,
    pub condition: Option<&'a str>,
}

/// Only one that calls our function: another trigger may have taken the name.
const OWN_TRIGGER: &str = "
select true
from pg_catalog.pg_trigger t
where t.tgrelid = $1
  and t.tgname = $2::pg_catalog.name
  and t.tgfoid = 'webhook.capture()'::pg_catalog.regprocedure";

const TEXT_OF_OWN: &str = "
select pg_catalog.pg_get_triggerdef(t.oid)
from pg_catalog.pg_trigger t
where t.tgrelid = $1
  and t.tgname = $2::pg_catalog.name";

const SHARED_TRIGGER: &str = "
select t.tgname::pg_catalog.text
from webhook_internal.shared_trigger($1, $2) s
join pg_catalog.pg_trigger t on t.oid = s.trigger_oid";

/// The statement that drops the trigger of an event with a condition, if the trigger is there. Only
/// one that calls our function: another trigger may have taken the name.
const DROP_OWN: &str = concat!(
    "select pg_catalog.format('drop trigger %I on %I.%I', t.tgname, n.nspname, c.relname), ",
    table_label!(),
    "
from webhook.event_def e
join pg_catalog.pg_trigger t on t.tgrelid = e.object_name
join pg_catalog.pg_class c on c.oid = t.tgrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where e.event_key = $1
  and e.condition is not null
  and t.tgname = 'webhook_' || e.id
  and t.tgfoid = 'webhook.capture()'::pg_catalog.regprocedure"
);

/// The tables of events, and the tables' partitions.
const TABLES: &str = "
select distinct c.oid
from webhook.event_def e
join pg_catalog.pg_class c on c.oid = e.object_name
where e.event_key = any ($1::pg_catalog.int4[])
order by c.oid";

const WITH_PARTITIONS: &str = "
select $1::pg_catalog.oid
union
select p.relid::pg_catalog.oid
from pg_catalog.pg_partition_tree($1) p";

/// The statements that drop triggers of a table that capture nothing: shared ones without an event,
/// or beside another one; those of events that have lost their condition. A trigger that 0.1.0 made
/// for an event that is there may still serve sessions with that library.
const SUPERFLUOUS: &str = "
select pg_catalog.format('drop trigger %I on %I.%I', t.tgname, n.nspname, c.relname)
from pg_catalog.pg_trigger t
join pg_catalog.pg_class c on c.oid = t.tgrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join (
    values (5, 'table.recordInsert', 'insert'), (17, 'table.recordUpdate', 'update'), (9, 'table.recordDelete', 'delete')
) k (trigger_type, event_type, word) on k.trigger_type = t.tgtype
left join webhook.event_def o on t.tgnargs = 1 and o.id = pg_catalog.substr(t.tgname::pg_catalog.text, 9)
                             and o.dropped_at is null and o.object_name = t.tgrelid
where t.tgrelid = $1
  and t.tgfoid = 'webhook.capture()'::pg_catalog.regprocedure
  and t.tgparentid = 0
  and case
          when t.tgnargs = 0 then pg_catalog.starts_with(t.tgname::pg_catalog.text, 'webhook_' || k.word || '_')
          else t.tgnargs = 1
               and t.tgname::pg_catalog.text ~ '^webhook_[a-z0-9]{6}$'
               and pg_catalog.encode(t.tgargs, 'escape')
                   = pg_catalog.substr(t.tgname::pg_catalog.text, 9) || E'\\\\000'
      end
  and case
          when o.condition is not null then false
          when t.tgqual is not null then true
          when not exists (
              select
              from webhook.event_def e
              where e.object_name = t.tgrelid
                and e.event_type = k.event_type
                and e.condition is null
                and e.dropped_at is null
          ) then true
          else o.id is null and t.oid <> (select s.trigger_oid from webhook_internal.shared_trigger(t.tgrelid, k.event_type) s)
      end";

/// Sees to it that the event's trigger is there: with the caller's rights, and with the caller's
/// names in the condition.
pub fn provide(table: &UserTable, event: &EventTrigger<'_>, condition_path: &str) {
    ok_or_raise(check_partitions(table));
    check_path(condition_path);
    match event.condition {
        Some(_) => run("create", table, event, condition_path),
        None => provide_shared(table, event),
    }
}

/// The same for an event that is there, whose trigger was dropped or whose condition changes.
/// Writers need not leave the table for it, only wait.
pub fn replace(table: &UserTable, event: &EventTrigger<'_>, condition_path: &str) {
    ok_or_raise(check_partitions(table));
    check_path(condition_path);
    if event.condition.is_none() {
        if exists(table, event.id) {
            // No statement that runs may have asked one of the two triggers and not the other.
            with_lock_timeout(table, || table_locks::lock_for_trigger(table.oid));
        }
        provide_shared(table, event);
    } else if exists(table, event.id) {
        if shared(table, event.event_type).as_deref() == Some(&own_name(event.id)) {
            // 0.1.0 made it for this event, and others have come to share it.
            with_lock_timeout(table, || create_shared(table, event));
        }
        run("create or replace", table, event, condition_path);
    } else {
        run("create", table, event, condition_path);
    }
}

thread_local! {
    static SHARED: Query = const { Query::new(SHARED_TRIGGER) };
    static OBSOLETE: Query = const { Query::new(SUPERFLUOUS) };
}

/// What a statement finds under the latest snapshot: that of a transaction may be older than an
/// event or a trigger.
fn texts_now(statement: &'static LocalKey<Query>, args: &[Arg<'_>]) -> Vec<String> {
    let mut found = Vec::new();
    with_snapshot(|| {
        connected(|| statement.with(|query| query.read(args, |row| found.extend(row.text(0)))));
    });
    found
}

fn own_name(event_id: &str) -> String {
    format!("webhook_{event_id}")
}

/// Whether the table has the event's own trigger.
fn exists(table: &UserTable, event_id: &str) -> bool {
    let name = own_name(event_id);
    as_owner(|| first(OWN_TRIGGER, &[table.oid.into(), name.into()], |_| ()).is_some())
}

/// The name of the table's shared trigger, if it is there now, whatever this transaction's snapshot.
fn shared(table: &UserTable, event_type: EventType) -> Option<String> {
    let arguments = [Arg::Oid(table.oid), Arg::Text(Some(event_type.as_str()))];
    as_owner(|| texts_now(&SHARED, &arguments).pop())
}

fn provide_shared(table: &UserTable, event: &EventTrigger<'_>) {
    with_lock_timeout(table, || {
        table_locks::keep_triggers(table.oid);
        if shared(table, event.event_type).is_none() {
            table_locks::lock_for_trigger(table.oid);
            // Another session may have made it meanwhile.
            if shared(table, event.event_type).is_none() {
                create_shared(table, event);
            }
        }
    });
}

/// Named after the event that needs it first, so that no partition has one of the same name.
fn create_shared(table: &UserTable, event: &EventTrigger<'_>) {
    let change = change_of(event.event_type);
    let statement = format!(
        "create trigger {name} after {change} on {table} for each row execute function webhook.capture()",
        name = identifier(&format!("webhook_{change}_{}", event.id)),
        table = table.quoted
    );
    execute(&statement, &[]);
}

fn with_lock_timeout(table: &UserTable, f: impl FnOnce()) {
    let timeout = lock_timeout();
    translated(
        || on_shards(|| with_settings(&[(LOCK_TIMEOUT, &timeout)], f)),
        |refusal| lock_refused(refusal, &table.label),
    );
}

/// Citus makes and drops triggers on the shards of a table only where a setting allows it.
fn on_shards<T>(f: impl FnOnce() -> T) -> T {
    if owner::has_extension(c"citus") {
        with_settings(&[(c"citus.enable_unsafe_triggers", "on")], f)
    } else {
        f()
    }
}

fn run(verb: &str, table: &UserTable, event: &EventTrigger<'_>, condition_path: &str) {
    let statement = trigger_statement(verb, table, event);
    let translate = |refusal: &Refusal| {
        lock_refused(refusal, &table.label)
            .or_else(|| condition_refused(refusal, event))
            .or_else(|| right_refused(refusal, table))
    };
    let timeout = lock_timeout();
    let settings = [
        (LOCK_TIMEOUT, timeout.as_str()),
        (SEARCH_PATH, condition_path),
    ];
    let is_one_expression =
        || event.condition.is_none_or(is_enclosed) && count_statements(&statement) == 1;
    if !translated(is_one_expression, translate) {
        raise(not_one_expression(event));
    }
    let is_sharded = as_owner(|| citus::is_sharded(table.oid));
    let create = || match is_sharded {
        true => create_on_shards(&statement, table, event, &settings),
        false => with_settings(&settings, || execute(&statement, &[])),
    };
    translated(|| on_shards(create), translate);
}

/// Nodes look up the names in a condition with other settings: they get the text that PostgreSQL makes of it,
/// where each name that needs it has its schema.
fn create_on_shards(
    statement: &str,
    table: &UserTable,
    event: &EventTrigger<'_>,
    settings: &[(&CStr, &str)],
) {
    let name = own_name(event.id);
    let drop = format!(
        "drop trigger if exists {} on {}",
        identifier(&name),
        table.quoted
    );
    let lock_timeout = &settings[..1];
    if exists(table, event.id) {
        with_settings(lock_timeout, || execute(&drop, &[]));
    }
    let here_alone = [settings, &[(c"citus.enable_ddl_propagation", "off")]].concat();
    with_settings(&here_alone, || execute(statement, &[]));
    let canonical: Option<String> = with_settings(&[(SEARCH_PATH, "pg_catalog")], || {
        first(TEXT_OF_OWN, &[table.oid.into(), name.into()], |row| {
            row.value(1)
        })
    });
    with_settings(&here_alone, || execute(&drop, &[]));
    with_settings(lock_timeout, || {
        execute(&canonical.unwrap_or_default(), &[])
    });
}

/// Whether the condition ends where its parentheses do: one that a role wrote into the table by
/// hand would else name the trigger's function. A text that is no SQL at all raises an error.
fn is_enclosed(condition: &str) -> bool {
    count_statements(&format!("select (\n{condition}\n)")) == 1
}

/// PostgreSQL reads the list; its error would not say which argument is meant.
fn check_path(condition_path: &str) {
    translated(
        || with_settings(&[(SEARCH_PATH, condition_path)], || ()),
        |refusal| {
            Some(
                Error::invalid(format!(
                    "condition_path \"{}\" is not a list of schemas",
                    shown(condition_path)
                ))
                .with_detail(shown_up_to(&refusal.message, SHOWN_MESSAGE_CHARS))
                .with_hint("leave condition_path out: it is the search_path of the session"),
            )
        },
    );
}

/// The condition stands on lines of its own, so that a comment in it ends where it does.
fn trigger_statement(verb: &str, table: &UserTable, event: &EventTrigger<'_>) -> String {
    let change = change_of(event.event_type);
    let when = match event.condition {
        Some(condition) => format!("when (\n{condition}\n) "),
        None => String::new(),
    };
    format!(
        "{verb} trigger {name} after {change} on {table} for each row {when}\
         execute function webhook.capture({id})",
        name = identifier(&format!("webhook_{}", event.id)),
        id = literal(event.id),
        table = table.quoted
    )
}

fn change_of(event_type: EventType) -> &'static str {
    match event_type {
        EventType::Insert => "insert",
        EventType::Update => "update",
        EventType::Delete => "delete",
    }
}

fn not_one_expression(event: &EventTrigger<'_>) -> Error {
    let condition = event.condition.unwrap_or_default();
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
fn condition_refused(refusal: &Refusal, event: &EventTrigger<'_>) -> Option<Error> {
    use PgSqlErrorCode::*;
    let condition = event.condition?;
    let usual = "write a boolean expression over new and old, as in new.balance < 0";
    let (kind, usual) = match refusal.code {
        ERRCODE_UNDEFINED_COLUMN
        | ERRCODE_UNDEFINED_FUNCTION
        | ERRCODE_UNDEFINED_OBJECT
        | ERRCODE_UNDEFINED_TABLE
        | ERRCODE_INVALID_SCHEMA_NAME => (Kind::UndefinedObject, usual),
        ERRCODE_INSUFFICIENT_PRIVILEGE => (
            Kind::InsufficientPrivilege,
            "ask for the privilege that detail names, or leave it out of the condition",
        ),
        ERRCODE_STATEMENT_TOO_COMPLEX => (
            Kind::InvalidParameter,
            "nest the condition less deeply, or put it into a function",
        ),
        code if is_of_condition(code) => (Kind::InvalidParameter, usual),
        _ => return None,
    };
    let hint = refusal.hint.clone().unwrap_or_else(|| usual.to_owned());
    Some(
        Error::new(
            kind,
            format!("condition \"{}\" is not valid", shown(condition)),
        )
        .with_detail(shown_up_to(&refusal.message, SHOWN_MESSAGE_CHARS))
        .with_hint(shown_up_to(&hint, SHOWN_MESSAGE_CHARS)),
    )
}

/// What is wrong with an expression: a value it holds (22), its syntax or the rules of
/// access (42), what a trigger cannot have (0A), what it exceeds (54).
fn is_of_condition(code: PgSqlErrorCode) -> bool {
    use PgSqlErrorCode::*;
    [
        ERRCODE_DATA_EXCEPTION,
        ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION,
        ERRCODE_FEATURE_NOT_SUPPORTED,
        ERRCODE_PROGRAM_LIMIT_EXCEEDED,
    ]
    .into_iter()
    .any(|class| is_of_class(code, class))
}

/// A message of PostgreSQL may repeat the whole condition.
const SHOWN_MESSAGE_CHARS: usize = 500;

/// A partition that came after they were looked at.
fn right_refused(refusal: &Refusal, table: &UserTable) -> Option<Error> {
    (refusal.code == PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE).then(|| {
        Error::new(
            Kind::InsufficientPrivilege,
            format!(
                "object_name \"{}\": its trigger cannot be created",
                table.label
            ),
        )
        .with_detail(shown_up_to(&refusal.message, SHOWN_MESSAGE_CHARS))
        .with_hint("ask for the privilege TRIGGER on the table and on each partition of it")
    })
}

/// Drops the trigger of an event with a condition if it is there. As the extension's owner.
pub fn drop_own(event_key: i32) {
    let found: Option<(String, String)> = first(DROP_OWN, &[event_key.into()], |row| {
        (row.value(1), row.value(2))
    });
    if let Some((statement, table)) = found {
        let timeout = lock_timeout();
        translated(
            || {
                on_shards(|| {
                    with_settings(&[(LOCK_TIMEOUT, &timeout)], || execute(&statement, &[]))
                })
            },
            |refusal| lock_refused(refusal, &table),
        );
    }
}

/// Drops what captures nothing on the tables of these events, and waits for no lock. As the
/// extension's owner.
pub fn drop_superfluous(event_keys: &[i32]) {
    for table in query(TABLES, &[event_keys.to_vec().into()], |row| row.value(1)) {
        drop_superfluous_of(table);
    }
}

fn drop_superfluous_of(table: pg_sys::Oid) {
    let found = || texts_now(&OBSOLETE, &[Arg::Oid(table)]);
    if found().is_empty() || !table_locks::may_drop_triggers(table) {
        return;
    }
    let tables: Vec<pg_sys::Oid> = query(WITH_PARTITIONS, &[table.into()], |row| row.value(1));
    if !table_locks::try_lock_exclusively(&tables) {
        table_locks::release_trigger_lock(table);
        return;
    }
    // Events may have come before the lock was there.
    on_shards(|| {
        for statement in found() {
            execute(&statement, &[]);
        }
    });
}
