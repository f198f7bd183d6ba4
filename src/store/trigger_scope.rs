//! Which events a trigger captures for, and the columns of the row that they look at.
//!
//! Read with the settings of [`super::capture_definitions`], under the latest snapshot.

use pgrx::pg_sys;
use uuid::Uuid;

use crate::core::definitions::matching::MatchKind;
use crate::core::definitions::words::EventType;
use crate::pg::spi::{Arg, Query, Row};

/// Events that look at the same columns of the row.
pub struct MatchGroup {
    pub id: Uuid,
    /// By their present names, in the order in which the values are hashed.
    pub columns: Vec<(String, MatchKind)>,
}

/// Which events a trigger captures for.
#[derive(Clone, Copy)]
pub struct Scope {
    /// The table of the events.
    pub object: pg_sys::Oid,
    pub event_type: EventType,
    /// The only event, for a trigger of its own.
    pub event_key: Option<i32>,
}

impl Scope {
    pub fn key_or_zero(&self) -> i32 {
        self.event_key.unwrap_or(0)
    }
}

/// Each group once, by a step in the index to the next one, and only those whose columns are there
/// with comparable types.
const GROUPS: &str = "
with recursive g (match_group, object_oid, match_attnums, match_fields, match_kinds) as (
    (
        select e.match_group, e.object_oid, e.match_attnums, e.match_fields, e.match_kinds
        from webhook.event_def e
        where e.object_name = $1
          and e.event_type = $2
          and e.dropped_at is null
          and e.match_group is not null
          and case when $3 = 0 then e.condition is null else e.event_key = $3 end
        order by e.match_group, e.object_oid, e.match_attnums
        limit 1
    )
    union all
    select n.match_group, n.object_oid, n.match_attnums, n.match_fields, n.match_kinds
    from g
    cross join lateral (
        select e.match_group, e.object_oid, e.match_attnums, e.match_fields, e.match_kinds
        from webhook.event_def e
        where e.object_name = $1
          and e.event_type = $2
          and e.dropped_at is null
          and (e.match_group, e.object_oid, e.match_attnums) > (g.match_group, g.object_oid, g.match_attnums)
          and case when $3 = 0 then e.condition is null else e.event_key = $3 end
        order by e.match_group, e.object_oid, e.match_attnums
        limit 1
    ) n
)
select distinct g.match_group, p.names, g.match_kinds
from g
cross join lateral (
    select webhook.present_columns($1::pg_catalog.regclass, g.object_oid, g.match_fields, g.match_attnums)
) p (names)
where webhook.columns_present($1::pg_catalog.regclass, g.object_oid, g.match_fields, g.match_attnums)
  and g.match_kinds = array(
          select webhook_internal.match_kind(a.atttypid, a.attcollation)
          from pg_catalog.unnest(p.names) with ordinality as f (name, place)
          join pg_catalog.pg_attribute a on a.attrelid = $1 and a.attname = f.name
          where a.attnum > 0
            and not a.attisdropped
          order by f.place
      )";

/// The table that a trigger was created on, if it is the shared one of this event type there. Those of
/// partitions come from it.
const SHARED_TABLE: &str = "
with recursive up (trigger_oid, parent, object) as (
    select t.oid, t.tgparentid, t.tgrelid
    from pg_catalog.pg_trigger t
    where t.oid = $1
    union all
    select t.oid, t.tgparentid, t.tgrelid
    from up
    join pg_catalog.pg_trigger t on t.oid = up.parent
)
select up.object
from up
cross join lateral webhook_internal.shared_trigger(up.object, $2) s
where up.parent = 0
  and up.trigger_oid = s.trigger_oid";

thread_local! {
    static BY_TABLE: Query = const { Query::new(GROUPS) };
    static SHARED: Query = const { Query::new(SHARED_TABLE) };
}

/// The table whose shared trigger this is; `None` if it is none.
pub fn shared_table(trigger: pg_sys::Oid, event_type: EventType) -> Option<pg_sys::Oid> {
    let args = [Arg::Oid(trigger), Arg::Text(Some(event_type.as_str()))];
    let mut object = None;
    SHARED.with(|query| query.read(&args, |row| object = row.oid(0)));
    object
}

/// The groups of the events in this scope.
pub fn groups(scope: Scope) -> Vec<MatchGroup> {
    let args = [
        Arg::Oid(scope.object),
        Arg::Text(Some(scope.event_type.as_str())),
        Arg::I32(scope.key_or_zero()),
    ];
    let mut found = Vec::new();
    BY_TABLE.with(|query| query.read(&args, |row| found.extend(group(row))));
    found
}

fn group(row: &Row<'_>) -> Option<MatchGroup> {
    let kinds = row.text_array(2)?.into_iter();
    let kinds: Option<Vec<MatchKind>> = kinds.map(|word| MatchKind::parse(&word)).collect();
    Some(MatchGroup {
        id: row.uuid(0)?,
        columns: row.text_array(1)?.into_iter().zip(kinds?).collect(),
    })
}
