//! What a trigger has to do, compiled once per backend and trigger.
//!
//! A trigger is one event's own, or that of all events of its type on the table. Its rules are
//! looked up by trigger OID and dropped as soon as a definition or its
//! table changes. A trigger that no definition knows, or that sits on another
//! table than its definition says, gets no rule: it captures nothing, whichever
//! role created it. Events that match values of the row are learned as the values come
//! ([`super::learned`]).

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use pgrx::pg_sys;
use uuid::Uuid;

use super::learned::{weight, Learned};
use super::shapes::{learned_bytes, watched, Shape, Shapes};
use crate::core::definitions::matching::{self, MatchKind};
use crate::core::definitions::shard_names;
use crate::core::definitions::words::EventType;
use crate::core::error::{Error, Kind};
use crate::pg::report::{raise, warn};
use crate::pg::row_json::changed::FieldWatch;
use crate::pg::row_json::matched::RowValues;
use crate::pg::trigger::{Firing, Operation};
use crate::pg::{invalidation, owner, relation_name, settings};
use crate::store::capture_definitions::{self, CaptureDefinition, TriggerDefinitions};
use crate::store::recorded_columns::TableColumns;
use crate::store::trigger_scope::{MatchGroup, Scope};
use crate::store::{citus, identity, outbox_tables, version};

/// How a trigger captures for one event.
pub struct Rule {
    /// The extension that the definition belongs to.
    pub extension: pg_sys::Oid,
    pub event_key: i32,
    pub webhook_key: i32,
    /// Lower case; `None` accepts every source.
    pub sources: Option<Vec<String>>,
    pub shape: Rc<Shape>,
}

/// Events of a table that look at the same columns.
struct Group {
    id: Uuid,
    /// After a restore, two events of one group may be about different columns: a rename is
    /// followed by those that were updated since.
    columns: Vec<String>,
    values: RefCell<RowValues>,
}

/// How one trigger captures.
pub struct RuleSet {
    /// No other set of this process has the same.
    number: u32,
    extension: pg_sys::Oid,
    unmatched: Vec<Rc<Rule>>,
    /// What any of several unmatched events watches: most updates are over with one comparison.
    watch: Option<RefCell<FieldWatch>>,
    groups: Vec<Group>,
    scope: Option<Scope>,
    /// The relation that fires, or the table that it is a shard of.
    relation: pg_sys::Oid,
    /// Not borrowed while PostgreSQL runs.
    columns: Cell<TableColumns>,
    shapes: RefCell<Shapes>,
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

/// Beyond this, shapes that values of rows have brought are forgotten. Each partition has its own, and
/// what is forgotten too early is compiled again for row after row.
const SHAPES_AT_MOST_BYTES: usize = 16 << 20;

#[derive(Default)]
struct Cache {
    basis: Basis,
    sets: HashMap<pg_sys::Oid, Option<Rc<RuleSet>>>,
    /// The trigger that fired last: the rows of one statement follow one another.
    last: Option<(pg_sys::Oid, Option<Rc<RuleSet>>)>,
    learned: Learned,
    /// What is known holds for the running transaction alone.
    is_of_transaction: bool,
    /// Most that one value of a row has brought. There is room for twice as much, or each row with
    /// this value, among others, would compile it again.
    largest_shapes: usize,
}

impl Cache {
    fn clear(&mut self) {
        self.sets.clear();
        self.last = None;
        self.learned = Learned::default();
        self.largest_shapes = 0;
        self.is_of_transaction = false;
    }

    /// Forgets what values have brought, where another one does not fit. What triggers were compiled
    /// to stays.
    fn make_room(&mut self, key: &[u8], weight: usize) {
        let room = SHAPES_AT_MOST_BYTES.max(2 * self.largest_shapes);
        if learned_bytes() <= room && self.learned.has_room(key, weight) {
            return;
        }
        self.learned.clear();
        for set in self.sets.values().flatten() {
            set.shapes.borrow_mut().forget_learned();
        }
    }
}

thread_local! {
    static CACHE: RefCell<Cache> = RefCell::default();
    /// Events of which this session was told that they have stopped.
    static TOLD: RefCell<HashSet<i32>> = RefCell::default();
    /// Triggers of which this session was told that no event is known.
    static UNKNOWN: RefCell<HashSet<pg_sys::Oid>> = RefCell::default();
    static NEXT_NUMBER: Cell<u32> = const { Cell::new(0) };
    /// Scratch space for the values of the row at hand.
    static VALUES: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Called in callbacks, which may not panic.
pub fn transaction_ended() {
    let _ = CACHE.try_with(|cache| {
        if let Ok(mut cache) = cache.try_borrow_mut() {
            if cache.is_of_transaction {
                cache.clear();
            }
        }
    });
}

/// Calls `capture` with each rule that is about the row, in the order of the events.
pub fn for_each(firing: &Firing<'_>, mut capture: impl FnMut(&Rule)) {
    let Some(set) = set_of(firing) else {
        return;
    };
    if set.any_unmatched_may_apply(firing) {
        for rule in &set.unmatched {
            capture(rule);
        }
    }
    for place in 0..set.groups.len() {
        for rule in set.matching(place, firing).iter().flat_map(|r| r.iter()) {
            capture(rule);
        }
    }
}

/// The rules of the trigger that fires, `None` if it captures nothing.
fn set_of(firing: &Firing<'_>) -> Option<Rc<RuleSet>> {
    let basis = Basis::now();
    let cached = CACHE.with_borrow_mut(|cache| {
        if cache.basis != basis {
            cache.clear();
            cache.basis = basis;
        }
        let trigger = firing.trigger_oid();
        if let Some((_, set)) = cache.last.as_ref().filter(|(last, _)| *last == trigger) {
            return Some(set.clone());
        }
        let set = cache.sets.get(&trigger).cloned()?;
        cache.last = Some((trigger, set.clone()));
        Some(set)
    });
    cached.unwrap_or_else(|| load(firing))
}

fn load(firing: &Firing<'_>) -> Option<Rc<RuleSet>> {
    // Before the look-up, so that a change during it is not missed.
    invalidation::watch(firing.relation_oid());
    let before = Basis::now();
    let set = compile(firing).map(Rc::new);
    CACHE.with_borrow_mut(|cache| {
        if cache.basis == before && before == Basis::now() {
            cache.sets.insert(firing.trigger_oid(), set.clone());
            cache.is_of_transaction |= firing.relation_is_new();
        }
    });
    set
}

fn compile(firing: &Firing<'_>) -> Option<RuleSet> {
    let argument = firing.argument().map(std::ffi::CStr::to_str).transpose();
    let event_type = event_type_of(firing.operation());
    // The statements may not fit a schema of another version: the error says what to do.
    let look = || {
        version::check_names(|| {
            let (trigger, relation) = (firing.trigger_oid(), firing.relation_oid());
            capture_definitions::of_trigger(trigger, argument.ok().flatten(), event_type, relation)
        })
    };
    let mut found = look();
    if found.is_empty()
        && !is_conversion(firing, found.relation)
        && citus::wait_for_events(found.relation)
    {
        found = look();
    }
    for relation in &found.depends_on {
        invalidation::watch(*relation);
    }
    let is_named = || {
        let id = argument.ok().flatten().unwrap_or_default();
        let name = firing.trigger_name().to_str().unwrap_or_default();
        shard_names::is_named(name, &format!("webhook_{id}"))
    };
    if found.is_empty() || (found.is_own && !is_named()) {
        say_if_unknown(firing, found.relation);
        return None;
    }
    if found.is_elsewhere || is_held() {
        return None;
    }
    Some(RuleSet::of(owner::extension()?, found, firing))
}

impl RuleSet {
    fn of(extension: pg_sys::Oid, found: TriggerDefinitions, firing: &Firing<'_>) -> Self {
        let mut set = Self {
            number: NEXT_NUMBER.replace(NEXT_NUMBER.get().wrapping_add(1)),
            extension,
            unmatched: Vec::new(),
            watch: None,
            groups: found
                .groups
                .iter()
                .filter_map(|g| Group::of(g, firing))
                .collect(),
            scope: found.scope,
            relation: found.relation,
            columns: Cell::new(found.columns),
            shapes: RefCell::default(),
        };
        let applying: Vec<CaptureDefinition> = found
            .unmatched
            .into_iter()
            .filter(|definition| applies(definition, firing, found.relation))
            .collect();
        if applying.len() > 1 {
            set.watch = Some(RefCell::new(watch_of_all(&applying, firing)));
        }
        let rules = applying.into_iter().map(|d| set.rule(d, firing)).collect();
        set.unmatched = rules;
        set.shapes.borrow_mut().keep();
        set
    }

    fn any_unmatched_may_apply(&self, firing: &Firing<'_>) -> bool {
        self.watch.as_ref().is_none_or(|watch| {
            firing.operation() != Operation::Update
                || firing.fields_changed(&mut watch.borrow_mut())
        })
    }

    /// The rules of events that list the row's values; `None` if no event can.
    fn matching(&self, place: usize, firing: &Firing<'_>) -> Option<Rc<[Rc<Rule>]>> {
        let group = &self.groups[place];
        let mut key = VALUES.take();
        key.clear();
        key.extend_from_slice(&self.number.to_le_bytes());
        key.extend_from_slice(&u32::try_from(place).unwrap_or(u32::MAX).to_le_bytes());
        let prefix = key.len();
        let fits = firing.write_values(&mut group.values.borrow_mut(), &mut key);
        let rules = fits.then(|| {
            let known = CACHE.with_borrow(|cache| cache.learned.get(&key));
            known.unwrap_or_else(|| self.learn(group, &key, prefix, firing))
        });
        VALUES.set(key);
        rules
    }

    #[cold]
    fn learn(
        &self,
        group: &Group,
        key: &[u8],
        prefix: usize,
        firing: &Firing<'_>,
    ) -> Rc<[Rc<Rule>]> {
        let before = Basis::now();
        let values = group.values.borrow().canonical(&key[prefix..]);
        let hash = matching::key(group.id, values.iter().map(Option::as_deref));
        let mut columns = self.columns.take();
        let found = self.scope.map(|scope| {
            let (columns, relation) = (&mut columns, self.relation);
            version::check_names(|| capture_definitions::matching(hash, scope, relation, columns))
        });
        self.columns.set(columns);
        let applying: Vec<CaptureDefinition> = found
            .into_iter()
            .flatten()
            .filter(|definition| definition.matched_columns == group.columns)
            .filter(|definition| applies(definition, firing, self.relation))
            .collect();
        let weight = applying.iter().map(|d| weight(d.sources.as_deref())).sum();
        CACHE.with_borrow_mut(|cache| cache.make_room(key, weight));
        let bytes_before = learned_bytes();
        let rules: Rc<[Rc<Rule>]> = applying
            .into_iter()
            .map(|definition| self.rule(definition, firing))
            .collect();
        let brought = learned_bytes().saturating_sub(bytes_before);
        CACHE.with_borrow_mut(|cache| {
            if cache.basis == before && before == Basis::now() {
                cache.largest_shapes = cache.largest_shapes.max(brought);
                cache.learned.insert(key, &rules, weight);
            }
        });
        rules
    }

    fn rule(&self, definition: CaptureDefinition, firing: &Firing<'_>) -> Rc<Rule> {
        Rc::new(Rule {
            extension: self.extension,
            event_key: definition.event_key,
            webhook_key: definition.webhook_key,
            shape: self.shapes.borrow_mut().of(&definition, firing),
            sources: definition.sources,
        })
    }
}

impl Group {
    /// `None` if a partition lacks one of the columns, which none does.
    fn of(group: &MatchGroup, firing: &Firing<'_>) -> Option<Self> {
        let number = |(name, kind): &(String, _)| Some((firing.column(name)?, *kind));
        let columns: Option<Vec<_>> = group.columns.iter().map(number).collect();
        if group
            .columns
            .iter()
            .any(|(_, kind)| *kind == MatchKind::Enum)
        {
            // Values are learned by number and found by label.
            invalidation::listen_to_enums();
        }
        Some(Self {
            id: group.id,
            columns: group.columns.iter().map(|(name, _)| name.clone()).collect(),
            values: RefCell::new(firing.row_values(&columns?)),
        })
    }
}

fn applies(definition: &CaptureDefinition, firing: &Firing<'_>, table: pg_sys::Oid) -> bool {
    definition.active
        && !(definition.is_older && is_conversion(firing, table))
        && definition.covers_relation
        && definition.event_type == event_type_of(firing.operation())
        && !is_stopped(definition)
}

/// Whether the event's owner has lost the right to the rows that the event sends. Once a session
/// and event it is said why; the writer's transaction goes on.
fn is_stopped(definition: &CaptureDefinition) -> bool {
    let Some(lost) = &definition.lost_rights else {
        return false;
    };
    if !settings::recheck_privileges() {
        return false;
    }
    if TOLD.with_borrow_mut(|told| told.insert(definition.event_key)) {
        let event_id = &definition.id;
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

/// A trigger of the extension captures for no event that is known here, so its changes would be lost in silence. That is an
/// error where another session of a transaction of Citus has just made the event, else a warning, once a session.
/// What remains of events that were dropped is no loss.
fn say_if_unknown(firing: &Firing<'_>, table: pg_sys::Oid) {
    let name = firing.trigger_name().to_string_lossy();
    let Some(event_id) = shard_names::event_of(&name) else {
        return;
    };
    let is_of_table = capture_definitions::is_of_table(event_id, table);
    if is_of_table == Some(true) {
        return;
    }
    let table = relation_name::of(firing.relation_oid()).map_or(String::new(), |(_, name)| name);
    if owner::has_extension(c"citus") && capture_definitions::is_trigger_new(firing.trigger_oid()) {
        // While Citus converts a table, the session that fills a shard does not see yet whose shard it is.
        if is_of_table.is_some() && may_be_moved(firing) {
            return;
        }
        raise(
            Error::new(
                Kind::NotInPrerequisiteState,
                format!("webhook event \"{event_id}\" is not visible to this session, which writes to table \"{table}\""),
            )
            .with_hint(
                "create the event, or convert the table, in a transaction of its own; or begin this one with: \
                 set local citus.multi_shard_modify_mode = 'sequential'",
            ),
        );
    }
    if !UNKNOWN.with_borrow_mut(|told| told.insert(firing.trigger_oid())) {
        return;
    }
    warn(
        Error::new(
            Kind::NotInPrerequisiteState,
            format!("trigger \"{name}\" on table \"{table}\" captures nothing: webhook event \"{event_id}\" is not known as one of this table"),
        )
        .with_hint(
            "if the event is not needed, drop the trigger; on a node of a Citus cluster, let a superuser \
             call webhook.enable_cluster() on the coordinator",
        ),
    );
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

/// Where Citus converts a table, its rows are inserted into shards that the same transaction has made. They are no
/// changes, for events that were there before. `table`: whose shard the relation is.
fn is_conversion(firing: &Firing<'_>, table: pg_sys::Oid) -> bool {
    table != firing.relation_oid() && may_be_moved(firing)
}

fn may_be_moved(firing: &Firing<'_>) -> bool {
    firing.relation_is_new()
        && matches!(firing.operation(), Operation::Insert)
        && citus::is_new_with_root(firing.relation_oid())
}

fn event_type_of(operation: Operation) -> EventType {
    match operation {
        Operation::Insert => EventType::Insert,
        Operation::Update => EventType::Update,
        Operation::Delete => EventType::Delete,
    }
}

fn watch_of_all(definitions: &[CaptureDefinition], firing: &Firing<'_>) -> FieldWatch {
    let all: Option<Vec<Vec<i16>>> = definitions.iter().map(|d| watched(d, firing)).collect();
    firing.field_watch(all.map(|lists| lists.concat()).as_deref())
}
