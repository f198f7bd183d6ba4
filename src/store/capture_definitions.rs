//! What capture needs to know of events.
//!
//! Read under the latest snapshot: a session may keep what it has read beyond a transaction whose
//! own snapshot is older than a definition.

use pgrx::pg_sys;
use uuid::Uuid;

use super::citus;
use super::definition_changes::definition_tables;
use super::order_key::OrderKey;
use super::recorded_columns::{Recorded, TableColumns};
use super::trigger_scope::{groups, shared_table, MatchGroup, Scope};
use crate::core::definitions::words::{EventType, ListStyle, NullStyle};
use crate::pg::owner::as_owner;
use crate::pg::spi::{connected, with_snapshot, Arg, Query, Row};
use crate::pg::xact;

/// An event as the trigger needs it. Fields by their present names.
pub struct CaptureDefinition {
    pub id: String,
    pub event_key: i32,
    pub webhook_key: i32,
    pub event_type: EventType,
    /// Event and webhook are switched on and not dropped.
    pub active: bool,
    /// The relation asked for is the event's table or in its partition tree.
    pub covers_relation: bool,
    pub sources: Option<Vec<String>>,
    pub watched_fields: Option<Vec<String>>,
    pub payload_fields: Option<Vec<String>>,
    pub payload_template: Option<String>,
    /// The columns the template names: as it writes them, and as they are called now.
    pub template_fields: Vec<(String, String)>,
    /// The columns whose values it matches, as they are called now.
    pub matched_columns: Vec<String>,
    pub null_style: NullStyle,
    pub list_style: ListStyle,
    /// Of an event whose webhook keeps the order of keys.
    pub order_key: Option<OrderKey>,
    /// It was there before the running transaction began.
    pub is_older: bool,
    /// The right on the table that the event's owner has lost.
    pub lost_rights: Option<String>,
    object: Option<pg_sys::Oid>,
    /// Of an event with a trigger of its own: it has a condition.
    has_condition: bool,
    has_match: bool,
}

/// What a trigger captures for.
#[derive(Default)]
pub struct TriggerDefinitions {
    /// The trigger is that of one event.
    pub is_own: bool,
    /// Events that look at no column.
    pub unmatched: Vec<CaptureDefinition>,
    pub groups: Vec<MatchGroup>,
    pub scope: Option<Scope>,
    pub columns: TableColumns,
    /// The relation to ask [`matching`] for.
    pub relation: pg_sys::Oid,
    /// Another node captures the changes of this placement.
    pub is_elsewhere: bool,
    /// The definition tables and the events' table: a change of one makes this stale.
    pub depends_on: Vec<pg_sys::Oid>,
}

macro_rules! definitions {
    ($more:literal, $which:literal) => {
        concat!(
            "select e.event_key,
       e.webhook_key,
       e.event_type,
       e.enabled and w.enabled and e.dropped_at is null and w.dropped_at is null,
       e.object_name::pg_catalog.oid = $2
           or exists (select from pg_catalog.pg_partition_ancestors($2::pg_catalog.regclass) a
                      where a.relid = e.object_name),
       (select pg_catalog.array_agg(pg_catalog.lower(s)) from pg_catalog.unnest(e.event_sources) s),
       e.null_style,
       e.list_style,
       e.payload_template,
       e.id,
       e.object_name::pg_catalog.oid,
       e.object_oid,
       e.object_fields, e.object_attnums,
       e.payload_fields, e.payload_attnums,
       e.template_fields, e.template_attnums,
       e.created_at < pg_catalog.now()",
            $more,
            "
from webhook.event_def e
join webhook.webhook_def w using (webhook_key)
",
            $which
        )
    };
}

const EVENT_OF_FIRST_RELEASE: &str = definitions!(
    ", null::pg_catalog.text[], null::pg_catalog.int2[], true, false, null::pg_catalog.oid,
       null::pg_catalog.text[], null::pg_catalog.int2[]",
    "where e.id = $1"
);

macro_rules! definitions_now {
    ($which:literal) => {
        definitions!(
            ", e.match_fields, e.match_attnums, e.condition is not null, e.match_group is not null,
       case when w.delivery_order = 'key' then coalesce(
           pg_catalog.pg_partition_root(e.object_name)::pg_catalog.oid, e.object_name::pg_catalog.oid
       ) end, e.order_key, e.order_key_attnums",
            $which
        )
    };
}

const EVENT_BY_ID: &str = definitions_now!("where e.id = $1");

const UNMATCHED: &str = definitions_now!(
    "where e.object_name = $1
  and e.event_type = $3
  and e.match_group is null
  and e.condition is null
  and e.dropped_at is null
order by e.event_key"
);

/// The index is asked by itself: other conditions would tempt the planner to read all events. For most
/// values there is none.
const KEYS: &str = "
select d.event_key
from webhook.event_def d
where d.match_keys @> $1
  and d.dropped_at is null";

const MATCHING: &str = definitions_now!(
    "where e.event_key = any ($1)
  and e.object_name = $3
  and e.event_type = $4
  and case when $5 = 0 then e.condition is null else e.event_key = $5 end
order by e.event_key"
);

/// Whether events can match values; those of 0.1.0 cannot.
const HAS_MATCH: &str = "
select exists (
    select
    from pg_catalog.pg_attribute a
    where a.attrelid = 'webhook.event_def'::pg_catalog.regclass
      and a.attname = 'match_group'
      and not a.attisdropped
)";

/// Whether the schema knows of owners; that of 0.1.0 does not. Asks for a table in schema `webhook` that is as old:
/// beside 0.1.0 a schema `webhook_internal` is another role's.
const HAS_OWNERS: &str = "
select pg_catalog.to_regclass('webhook.def_origin') is not null";

const MADE_BY: &str = "
select t.xmin::pg_catalog.text::pg_catalog.int8
from pg_catalog.pg_trigger t
where t.oid = $1";

/// Whether an event is one of a table, or was until lately.
const IS_OF_TABLE: &str = "
select e.dropped_at is not null
       or coalesce(e.object_name = $2, false)
       or exists (select from pg_catalog.pg_partition_ancestors($2::pg_catalog.regclass) a where a.relid = e.object_name)
from webhook.event_def e
where e.id = $1";

const LOST_RIGHTS: &str = "
select o.lost_rights
from webhook_internal.event_owner o
where o.event_key = $1";

thread_local! {
    static OF_FIRST_RELEASE: Query = const { Query::new(EVENT_OF_FIRST_RELEASE) };
    static BY_ID: Query = const { Query::new(EVENT_BY_ID) };
    static WITHOUT_MATCH: Query = const { Query::new(UNMATCHED) };
    static HAVING_KEY: Query = const { Query::new(KEYS) };
    static BY_KEYS: Query = const { Query::new(MATCHING) };
    static MATCHES: Query = const { Query::new(HAS_MATCH) };
    static OWNERS: Query = const { Query::new(HAS_OWNERS) };
    static NEW: Query = const { Query::new(MADE_BY) };
    static KNOWN: Query = const { Query::new(IS_OF_TABLE) };
    static RIGHTS: Query = const { Query::new(LOST_RIGHTS) };
}

/// Loads the event with this id as seen from `relation`; `None` if there is none, or
/// if its row cannot be used.
pub fn load(event_id: &str, relation: pg_sys::Oid) -> Option<CaptureDefinition> {
    reading(|| by_id(event_id, citus::logical(relation).table))
}

/// Loads what a trigger captures for. `argument` is its only one, if it has one.
pub fn of_trigger(
    trigger: pg_sys::Oid,
    argument: Option<&str>,
    event_type: EventType,
    relation: pg_sys::Oid,
) -> TriggerDefinitions {
    reading(|| {
        let logical = citus::logical(relation);
        let mut found = TriggerDefinitions {
            relation: logical.table,
            is_elsewhere: !logical.is_captured_here,
            ..TriggerDefinitions::default()
        };
        let own = argument.and_then(|id| by_id(id, logical.table));
        if let Some(own) = own.filter(|own| own.has_condition) {
            found.depends_on.extend(own.object);
            found.set_own(own);
        } else if is_true(&MATCHES) {
            found.set_shared(trigger, event_type);
        }
        found.depends_on.extend(definition_tables());
        found
    })
}

impl TriggerDefinitions {
    pub fn is_empty(&self) -> bool {
        self.unmatched.is_empty() && self.groups.is_empty()
    }

    fn set_own(&mut self, own: CaptureDefinition) {
        self.is_own = true;
        if !own.has_match {
            self.unmatched.push(own);
        } else if let Some(object) = own.object {
            let scope = Scope {
                object,
                event_type: own.event_type,
                event_key: Some(own.event_key),
            };
            self.groups = groups(scope);
            self.scope = Some(scope);
        }
    }

    fn set_shared(&mut self, trigger: pg_sys::Oid, event_type: EventType) {
        let Some(object) = shared_table(trigger, event_type) else {
            return;
        };
        let object = citus::logical(object).table;
        let scope = Scope {
            object,
            event_type,
            event_key: None,
        };
        self.depends_on.push(object);
        self.unmatched = all(
            &WITHOUT_MATCH,
            &[
                Arg::Oid(object),
                Arg::Oid(self.relation),
                Arg::Text(Some(event_type.as_str())),
            ],
            &mut self.columns,
        );
        self.groups = groups(scope);
        self.scope = Some(scope);
    }
}

/// The events that list a combination of values; `key` is its hash.
pub fn matching(
    key: Uuid,
    scope: Scope,
    relation: pg_sys::Oid,
    columns: &mut TableColumns,
) -> Vec<CaptureDefinition> {
    reading(|| {
        let mut keys = Vec::new();
        HAVING_KEY.with(|query| {
            query.read(&[Arg::UuidArray(&[key])], |row| keys.extend(row.i32(0)));
        });
        if keys.is_empty() {
            return Vec::new();
        }
        all(
            &BY_KEYS,
            &[
                Arg::I32Array(&keys),
                Arg::Oid(relation),
                Arg::Oid(scope.object),
                Arg::Text(Some(scope.event_type.as_str())),
                Arg::I32(scope.key_or_zero()),
            ],
            columns,
        )
    })
}

fn reading<T>(f: impl FnOnce() -> T) -> T {
    as_owner(|| with_snapshot(|| connected(f)))
}

type Statement = std::thread::LocalKey<Query>;

/// `columns` are those of the events' table, if they were read already.
fn all(
    statement: &'static Statement,
    args: &[Arg<'_>],
    columns: &mut TableColumns,
) -> Vec<CaptureDefinition> {
    let mut stored = Vec::new();
    statement.with(|query| query.read(args, |row| stored.extend(read(row))));
    let mut found = Vec::new();
    for event in stored {
        let table = event.definition.object;
        columns.fit(table);
        let mut definition = event.with_present_columns(columns);
        definition.lost_rights = lost_rights(definition.event_key);
        found.push(definition);
    }
    found
}

fn by_id(event_id: &str, relation: pg_sys::Oid) -> Option<CaptureDefinition> {
    let statement = if is_true(&MATCHES) {
        &BY_ID
    } else {
        &OF_FIRST_RELEASE
    };
    let args = [Arg::Text(Some(event_id)), Arg::Oid(relation)];
    all(statement, &args, &mut TableColumns::default()).pop()
}

/// Whether the running transaction has made the trigger, also under a savepoint.
pub fn is_trigger_new(trigger: pg_sys::Oid) -> bool {
    let mut is_new = false;
    let arguments = [Arg::Oid(trigger)];
    reading(|| {
        NEW.with(|query| {
            query.read(&arguments, |row| {
                is_new = row.i64(0).is_some_and(xact::is_current);
            });
        });
    });
    is_new
}

/// Whether the event with this id is one of the relation, or was until lately; `None` if there is no such event.
pub fn is_of_table(event_id: &str, relation: pg_sys::Oid) -> Option<bool> {
    let mut is_of_table = None;
    let arguments = [Arg::Text(Some(event_id)), Arg::Oid(relation)];
    reading(|| KNOWN.with(|query| query.read(&arguments, |row| is_of_table = row.bool(0))));
    is_of_table
}

fn is_true(statement: &'static Statement) -> bool {
    let mut answer = false;
    statement.with(|query| query.read(&[], |row| answer = row.bool(0) == Some(true)));
    answer
}

/// What the event's owner may no longer do; nothing that the writer decides counts.
fn lost_rights(event_key: i32) -> Option<String> {
    let mut lost = None;
    if is_true(&OWNERS) {
        RIGHTS.with(|query| query.read(&[Arg::I32(event_key)], |row| lost = row.text(0)));
    }
    lost
}

/// An event whose columns are still to be looked up.
struct StoredEvent {
    definition: CaptureDefinition,
    /// Whether the numbers of its columns are those of its table.
    by_number: bool,
    object_fields: Option<Recorded>,
    payload_fields: Option<Recorded>,
    template_fields: Option<Recorded>,
    match_fields: Option<Recorded>,
    /// Whose keys are kept in order: the table, or the root of its partition tree.
    ordered_table: Option<pg_sys::Oid>,
    order_key: Option<Recorded>,
}

impl StoredEvent {
    fn with_present_columns(mut self, columns: &TableColumns) -> CaptureDefinition {
        let definition = &mut self.definition;
        let mut present = |recorded: &Option<Recorded>| {
            let recorded = recorded.as_ref()?;
            let present = columns.present(recorded, self.by_number);
            definition.active &= present.len() == recorded.names.len();
            Some(present)
        };
        let names = |pairs: Vec<(String, String)>| pairs.into_iter().map(|(_, now)| now).collect();
        let watched_fields = present(&self.object_fields).map(names);
        let payload_fields = present(&self.payload_fields).map(names);
        let template_fields = present(&self.template_fields).unwrap_or_default();
        let matched_columns = present(&self.match_fields).map(names);
        let order_key = self.ordered_table.map(|table| OrderKey {
            table,
            columns: match &self.order_key {
                Some(_) => present(&self.order_key).map(names),
                None => columns.key().map(<[String]>::to_vec),
            },
        });
        CaptureDefinition {
            watched_fields,
            payload_fields,
            template_fields,
            matched_columns: matched_columns.unwrap_or_default(),
            order_key,
            ..self.definition
        }
    }
}

fn read(row: &Row<'_>) -> Option<StoredEvent> {
    let recorded = |names: usize| {
        Some(Recorded {
            names: row.text_array(names)?,
            numbers: row.i16_array(names + 1).unwrap_or_default(),
        })
    };
    let object = row.oid(10);
    Some(StoredEvent {
        definition: CaptureDefinition {
            event_key: row.i32(0)?,
            webhook_key: row.i32(1)?,
            event_type: EventType::parse(&row.text(2)?).ok()?,
            active: row.bool(3)?,
            covers_relation: row.bool(4).unwrap_or(false),
            sources: row.text_array(5),
            null_style: NullStyle::parse(&row.text(6)?).ok()?,
            list_style: ListStyle::parse(&row.text(7)?).ok()?,
            payload_template: row.text(8),
            id: row.text(9)?,
            object,
            is_older: row.bool(18)?,
            has_condition: row.bool(21)?,
            has_match: row.bool(22)?,
            watched_fields: None,
            payload_fields: None,
            template_fields: Vec::new(),
            matched_columns: Vec::new(),
            order_key: None,
            lost_rights: None,
        },
        by_number: object.is_some() && object == row.oid(11),
        object_fields: recorded(12),
        payload_fields: recorded(14),
        template_fields: recorded(16),
        match_fields: recorded(19),
        ordered_table: row.oid(23),
        order_key: recorded(24),
    })
}
