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

use crate::core::template::Template;
use crate::pg::invalidation;
use crate::pg::row_json::changed::FieldWatch;
use crate::pg::row_json::{Field, RowWriter};
use crate::pg::trigger::{Firing, Operation};
use crate::store::capture_definitions::{self, CaptureDefinition};

/// How one trigger captures.
pub struct Rule {
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

#[derive(Default)]
struct Cache {
    generation: u64,
    rules: HashMap<pg_sys::Oid, Option<Rc<Rule>>>,
}

thread_local! {
    static CACHE: RefCell<Cache> = RefCell::default();
    /// Relations whose invalidation makes the cache stale.
    static RELATIONS: RefCell<HashSet<pg_sys::Oid>> = RefCell::default();
}

/// Called by the relcache callback, at almost any time: looks, and nothing else.
pub fn concerns(relation: pg_sys::Oid) -> bool {
    RELATIONS
        .try_with(|relations| {
            relations
                .try_borrow()
                .map_or(true, |relations| relations.contains(&relation))
        })
        .unwrap_or(true)
}

/// From now on a change of `relation` makes the cached rules stale.
pub fn watch(relation: pg_sys::Oid) {
    RELATIONS.with_borrow_mut(|relations| relations.insert(relation));
}

/// The rule of the trigger that fires, `None` if it captures nothing.
pub fn rule_of(firing: &Firing<'_>) -> Option<Rc<Rule>> {
    let generation = invalidation::generation();
    let cached = CACHE.with_borrow_mut(|cache| {
        if cache.generation != generation {
            cache.rules.clear();
            cache.generation = generation;
        }
        cache.rules.get(&firing.trigger_oid()).cloned()
    });
    cached.unwrap_or_else(|| load(firing))
}

fn load(firing: &Firing<'_>) -> Option<Rc<Rule>> {
    // Before the look-up, so that a change during it is not missed.
    watch(firing.relation_oid());
    let before = invalidation::generation();
    let rule = compile(firing).map(Rc::new);
    CACHE.with_borrow_mut(|cache| {
        if cache.generation == before && before == invalidation::generation() {
            cache.rules.insert(firing.trigger_oid(), rule.clone());
        }
    });
    rule
}

fn compile(firing: &Firing<'_>) -> Option<Rule> {
    let event_id = firing.argument()?.to_str().ok()?;
    let definition = capture_definitions::load(event_id, firing.relation_oid())?;
    for relation in &definition.depends_on {
        watch(*relation);
    }
    let named = firing.trigger_name().to_str() == Ok(&format!("webhook_{event_id}"));
    let applies = definition.active
        && named
        && definition.covers_relation
        && matches_operation(&definition, firing.operation());
    applies.then(|| rule_from(definition, firing))
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

fn rule_from(definition: CaptureDefinition, firing: &Firing<'_>) -> Rule {
    let numbers =
        |names: &[String]| -> Vec<i16> { names.iter().filter_map(|n| firing.column(n)).collect() };
    let watched = definition.watched_fields.as_deref().map(numbers);
    let writer = |fields: Option<&[Field<'_>]>| {
        RefCell::new(firing.row_writer(fields, definition.null_style, definition.list_style))
    };
    let needs = Needs::of(&definition);
    let sent = match (&needs.fields, &definition.payload_fields) {
        (Some(names), _) => writer(Some(&named_fields(names, &definition, firing))),
        (None, Some(names)) => writer(Some(&own_fields(&numbers(names)))),
        (None, None) => writer(None),
    };
    let needs_old = !needs.old_fields.is_empty() && firing.operation() != Operation::Insert;
    let lists_changes = needs.changes && firing.operation() == Operation::Update;
    Rule {
        event_key: definition.event_key,
        webhook_key: definition.webhook_key,
        watch: RefCell::new(firing.field_watch(watched.as_deref())),
        writer: sent,
        old_writer: needs_old
            .then(|| writer(Some(&named_fields(&needs.old_fields, &definition, firing)))),
        listed: lists_changes.then(|| RefCell::new(firing.field_watch(None))),
        sources: definition.sources,
    }
}

/// What a template asks of the row.
#[derive(Default)]
struct Needs {
    /// `None`: there is no template.
    fields: Option<Vec<String>>,
    old_fields: Vec<String>,
    changes: bool,
}

impl Needs {
    /// A template that cannot be read (edited by hand) holds its webhook until it is
    /// mended: until then all that it may need is kept.
    fn of(definition: &CaptureDefinition) -> Self {
        let Some(text) = &definition.payload_template else {
            return Self::default();
        };
        let all = || {
            definition
                .template_fields
                .iter()
                .map(|(name, _)| name.clone())
        };
        match Template::parse(text) {
            Ok(template) => Self {
                fields: Some(template.fields().to_vec()),
                old_fields: template.old_fields().to_vec(),
                changes: template.lists_changes(),
            },
            Err(_) => Self {
                fields: Some(all().collect()),
                old_fields: all().collect(),
                changes: true,
            },
        }
    }
}

/// Columns that the record calls what the template calls them, whatever they are called now.
fn named_fields<'a>(
    names: &'a [String],
    definition: &CaptureDefinition,
    firing: &Firing<'_>,
) -> Vec<Field<'a>> {
    let present = |name: &String| {
        let known = definition.template_fields.iter().find(|(n, _)| n == name);
        known.map(|(_, present)| present.as_str())
    };
    names
        .iter()
        .filter_map(|name| {
            Some(Field {
                number: firing.column(present(name)?)?,
                name: Some(name),
            })
        })
        .collect()
}

fn own_fields(numbers: &[i16]) -> Vec<Field<'static>> {
    let field = |number: &i16| Field {
        number: *number,
        name: None,
    };
    numbers.iter().map(field).collect()
}
