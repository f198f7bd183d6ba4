//! What capture needs to know of an event.

use pgrx::pg_sys;

use crate::core::definition::{EventType, ListStyle, NullStyle};
use crate::pg::owner::as_owner;
use crate::pg::spi::{connected, Query, Row};

/// An event as the trigger needs it. Fields by their present names.
pub struct CaptureDefinition {
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
    pub null_style: NullStyle,
    pub list_style: ListStyle,
    /// The right on the table that the event's owner has lost.
    pub lost_rights: Option<String>,
    /// The definition tables and the event's table: a change of one makes this stale.
    pub depends_on: Vec<pg_sys::Oid>,
}

/// Column numbers count as long as the table is the one they were recorded for (they
/// survive a rename); after a dump and restore the names count.
const EVENT_BY_ID: &str = "
select e.event_key,
       e.webhook_key,
       e.event_type,
       e.enabled and w.enabled and e.dropped_at is null and w.dropped_at is null
           and webhook.columns_present(e.object_name, e.object_oid, e.object_fields, e.object_attnums)
           and webhook.columns_present(e.object_name, e.object_oid, e.payload_fields, e.payload_attnums)
           and webhook.columns_present(e.object_name, e.object_oid, e.template_fields, e.template_attnums),
       e.object_name::pg_catalog.oid = $2
           or exists (select from pg_catalog.pg_partition_ancestors($2::pg_catalog.regclass) a
                      where a.relid = e.object_name),
       (select pg_catalog.array_agg(pg_catalog.lower(s)) from pg_catalog.unnest(e.event_sources) s),
       webhook.present_columns(e.object_name, e.object_oid, e.object_fields, e.object_attnums),
       webhook.present_columns(e.object_name, e.object_oid, e.payload_fields, e.payload_attnums),
       e.null_style,
       e.list_style,
       e.payload_template,
       e.template_fields,
       webhook.present_columns(e.object_name, e.object_oid, e.template_fields, e.template_attnums),
       e.object_name::pg_catalog.oid
from webhook.event_def e
join webhook.webhook_def w using (webhook_key)
where e.id = $1";

/// Whether the schema knows of owners; that of 0.1.0 does not.
const HAS_OWNERS: &str = "
select pg_catalog.to_regclass('webhook.event_owner') is not null";

const LOST_RIGHTS: &str = "
select o.lost_rights
from webhook.event_owner o
where o.event_key = $1";

const DEFINITION_TABLES: &str = "
select c.oid
from pg_catalog.pg_class c
where c.relnamespace = 'webhook'::pg_catalog.regnamespace
  and c.relname in ('webhook_def', 'secret_def', 'url_def', 'event_def', 'control', 'def_origin')";

thread_local! {
    static BY_ID: Query = const { Query::new(EVENT_BY_ID) };
    static TABLES: Query = const { Query::new(DEFINITION_TABLES) };
    static OWNERS: Query = const { Query::new(HAS_OWNERS) };
    static RIGHTS: Query = const { Query::new(LOST_RIGHTS) };
}

/// Loads the event with this id as seen from `relation`; `None` if there is none, or
/// if its row cannot be used.
pub fn load(event_id: &str, relation: pg_sys::Oid) -> Option<CaptureDefinition> {
    as_owner(|| {
        connected(|| {
            let mut found = None;
            BY_ID.with(|query| {
                query.read(
                    &[
                        crate::pg::spi::Arg::Text(Some(event_id)),
                        crate::pg::spi::Arg::Oid(relation),
                    ],
                    |row| found = read(row),
                );
            });
            let mut found = found?;
            found.lost_rights = lost_rights(found.event_key);
            found.depends_on.extend(definition_tables());
            Some(found)
        })
    })
}

/// What the event's owner may no longer do; nothing that the writer decides counts.
fn lost_rights(event_key: i32) -> Option<String> {
    let mut has_owners = false;
    OWNERS.with(|query| query.read(&[], |row| has_owners = row.bool(0) == Some(true)));
    let mut lost = None;
    if has_owners {
        RIGHTS.with(|query| {
            query.read(&[crate::pg::spi::Arg::I32(event_key)], |row| {
                lost = row.text(0)
            });
        });
    }
    lost
}

/// The relations whose change makes every cached definition stale.
fn definition_tables() -> Vec<pg_sys::Oid> {
    let mut tables = Vec::new();
    TABLES.with(|query| query.read(&[], |row| tables.extend(row.oid(0))));
    tables
}

fn read(row: &Row<'_>) -> Option<CaptureDefinition> {
    Some(CaptureDefinition {
        event_key: row.i32(0)?,
        webhook_key: row.i32(1)?,
        event_type: EventType::parse(&row.text(2)?).ok()?,
        active: row.bool(3)?,
        covers_relation: row.bool(4).unwrap_or(false),
        sources: row.text_array(5),
        watched_fields: row.text_array(6),
        payload_fields: row.text_array(7),
        null_style: NullStyle::parse(&row.text(8)?).ok()?,
        list_style: ListStyle::parse(&row.text(9)?).ok()?,
        payload_template: row.text(10),
        template_fields: row
            .text_array(11)
            .into_iter()
            .flatten()
            .zip(row.text_array(12).into_iter().flatten())
            .collect(),
        lost_rights: None,
        depends_on: row.oid(13).into_iter().collect(),
    })
}
