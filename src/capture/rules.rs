//! What a trigger has to do, compiled once per backend and trigger.
//!
//! A rule is looked up by trigger OID and dropped as soon as a definition or its
//! table changes. A trigger that no definition knows, or that sits on another
//! table than its definition says, gets no rule: it captures nothing, whoever
//! created it.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use pgrx::pg_sys;

use crate::core::error::{Error, Kind};
use crate::pg::report::warn;
use crate::pg::row_json::changed::FieldWatch;
use crate::pg::row_json::{Field, RowWriter};
use crate::pg::trigger::{Firing, Operation};
use crate::pg::{invalidation, owner, settings};
use crate::store::capture_definitions::{self, CaptureDefinition};
use crate::store::row_parts::RowParts;
use crate::store::{identity, outbox_tables, version};

/// How one trigger captures.
pub struct Rule {
    /// The extension that the definition belongs to.
    pub extension: pg_sys::Oid,
    pub event_key: i32,
    pub webhook_key: i32,
    /// Lower case; `None` accepts every source.
    pub sources: Option<Vec<String>>,
    pub watch: RefCell<FieldWatch>,
    pub writer: RefCell<RowWriter>,
    /// Writes the row before the change, if a template asks for it.
    pub old_writer: Option<RefCell<RowWriter>>,
    /// Finds all that changed, if a template lists it.
    pub listed: Option<RefCell<FieldWatch>>,
}

/// What rules were compiled from, in numbers that grow, and the setting that decides with them.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Basis {
    definitions: u64,
    roles: u64,
    rechecks_privileges: bool,
}

impl Basis {
    fn now() -> Self {
        Self {
            definitions: invalidation::generation(),
            roles: invalidation::role_generation(),
            rechecks_privileges: settings::recheck_privileges(),
        }
    }
}

#[derive(Default)]
struct Cache {
    basis: Basis,
    rules: HashMap<pg_sys::Oid, Option<Rc<Rule>>>,
    /// The trigger that fired last: the rows of one statement follow one another.
    last: Option<(pg_sys::Oid, Option<Rc<Rule>>)>,
}

thread_local! {
    static CACHE: RefCell<Cache> = RefCell::default();
    /// Events of which this session was told that they have stopped.
    static TOLD: RefCell<HashSet<i32>> = RefCell::default();
}

/// The rule of the trigger that fires, `None` if it captures nothing.
pub fn rule_of(firing: &Firing<'_>) -> Option<Rc<Rule>> {
    let basis = Basis::now();
    let cached = CACHE.with_borrow_mut(|cache| {
        if cache.basis != basis {
            cache.rules.clear();
            cache.last = None;
            cache.basis = basis;
        }
        let trigger = firing.trigger_oid();
        if let Some((_, rule)) = cache.last.as_ref().filter(|(last, _)| *last == trigger) {
            return Some(rule.clone());
        }
        let rule = cache.rules.get(&trigger).cloned()?;
        cache.last = Some((trigger, rule.clone()));
        Some(rule)
    });
    cached.unwrap_or_else(|| load(firing))
}

fn load(firing: &Firing<'_>) -> Option<Rc<Rule>> {
    // Before the look-up, so that a change during it is not missed.
    invalidation::watch(firing.relation_oid());
    let before = Basis::now();
    let rule = compile(firing).map(Rc::new);
    CACHE.with_borrow_mut(|cache| {
        if cache.basis == before && before == Basis::now() {
            cache.rules.insert(firing.trigger_oid(), rule.clone());
        }
    });
    rule
}

fn compile(firing: &Firing<'_>) -> Option<Rule> {
    let event_id = firing.argument()?.to_str().ok()?;
    let definition = load_definition(event_id, firing)?;
    for relation in &definition.depends_on {
        invalidation::watch(*relation);
    }
    let named = firing.trigger_name().to_str() == Ok(&format!("webhook_{event_id}"));
    let applies = definition.active
        && named
        && definition.covers_relation
        && matches_operation(&definition, firing.operation());
    if !applies || is_held() || is_stopped(event_id, &definition) {
        return None;
    }
    Some(rule_from(owner::extension()?, definition, firing))
}

/// The statement may not fit a schema of another version: the error says what to do.
fn load_definition(event_id: &str, firing: &Firing<'_>) -> Option<CaptureDefinition> {
    version::check_names(|| capture_definitions::load(event_id, firing.relation_oid()))
}

/// Whether the event's owner has lost the right to the rows that the event sends. Once a session
/// and event it is said why; the writer's transaction goes on.
fn is_stopped(event_id: &str, definition: &CaptureDefinition) -> bool {
    let Some(lost) = &definition.lost_rights else {
        return false;
    };
    if !settings::recheck_privileges() {
        return false;
    }
    if TOLD.with_borrow_mut(|told| told.insert(definition.event_key)) {
        warn(
            Error::new(
                Kind::InsufficientPrivilege,
                format!("webhook event \"{event_id}\" captures nothing: {lost}"),
            )
            .with_hint(format!(
                "grant the right again, or let a role that has it call \
                 webhook.update_event('{event_id}', enabled => true), which takes the event over"
            )),
        );
    }
    true
}

/// In a copy of another database nothing is captured. Its worker says so.
fn is_held() -> bool {
    let is_copy = identity::copy_notice().is_some();
    if is_copy {
        if let Some(tables) = outbox_tables::current() {
            super::flush::ensure_worker(&tables);
        }
    }
    is_copy
}

fn matches_operation(definition: &CaptureDefinition, operation: Operation) -> bool {
    use crate::core::definition::EventType;
    matches!(
        (definition.event_type, operation),
        (EventType::Insert, Operation::Insert)
            | (EventType::Update, Operation::Update)
            | (EventType::Delete, Operation::Delete)
    )
}

fn rule_from(extension: pg_sys::Oid, definition: CaptureDefinition, firing: &Firing<'_>) -> Rule {
    let watched: Option<Vec<i16>> = definition
        .watched_fields
        .as_ref()
        .map(|names| names.iter().filter_map(|n| firing.column(n)).collect());
    let parts = RowParts::of(&definition, |name| firing.column(name));
    let writer = |fields: Option<&[Field]>| {
        RefCell::new(firing.row_writer(fields, definition.null_style, definition.list_style))
    };
    let needs_old = !parts.old.is_empty() && firing.operation() != Operation::Insert;
    let lists_changes = parts.lists_changes && firing.operation() == Operation::Update;
    Rule {
        extension,
        event_key: definition.event_key,
        webhook_key: definition.webhook_key,
        watch: RefCell::new(firing.field_watch(watched.as_deref())),
        writer: writer(parts.sent.as_deref()),
        old_writer: needs_old.then(|| writer(Some(&parts.old))),
        listed: lists_changes.then(|| RefCell::new(firing.field_watch(None))),
        sources: definition.sources,
    }
}
