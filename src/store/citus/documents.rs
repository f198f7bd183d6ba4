//! Definitions as documents of a cluster: written on the coordinator, applied on each other node.

use std::cell::Cell;
use std::time::Duration;

use pgrx::pg_sys;

use super::nodes::Position;
use crate::core::error::{Error, Kind, Result};
use crate::core::policy::throttle::Part;
use crate::pg::local_settings::with_settings;
use crate::pg::owner::{self, as_owner};
use crate::pg::poll::poll_until;
use crate::pg::spi::{connected, with_snapshot, Arg, Query};
use crate::pg::text::JsonText;
use crate::pg::{process, settings, wake};
use crate::store::identity;
use crate::store::rows::{execute, first, query};
use crate::store::table_label::table_label;

const PUBLISH: &str = "
select webhook_internal.publish_cluster_document($1, $2)";

/// Every document that is not what the definitions say now.
const PUBLISH_ALL: &str = "
select webhook_internal.publish_cluster_document(k.kind, k.key)
from (
    select n.kind, n.key
    from webhook_internal.cluster_document_now n
    union
    select d.kind, d.key
    from webhook_internal.cluster_document d
    where d.kind <> 'cluster'
) k
order by pg_catalog.array_position(array['webhook_def', 'secret_def', 'url_def', 'event_def'], k.kind), k.key";

const PUBLISH_ACCOUNT: &str = "
insert into webhook_internal.cluster_document as d (kind, key, doc)
values ('cluster', 0, pg_catalog.jsonb_build_object('account_id', $1::pg_catalog.text))
on conflict (kind, key) do update
set doc = excluded.doc, version = d.version + 1
where d.doc is distinct from excluded.doc";

const APPLY: &str = "
select webhook_internal.apply_cluster_document($1, $2, $3)";

const NOTE_APPLIED: &str = "
insert into webhook_internal.cluster_applied (kind, key, version)
values ($1, $2, $3)
on conflict (kind, key) do update
set version = excluded.version";

const NOTE_REMOVED: &str = "
delete from webhook_internal.cluster_applied
where kind = $1
  and key = $2";

const CLUSTER_ACCOUNT: &str = "
select k.account_id
from webhook.control k";

const ANY_WITHOUT_TABLE: &str = "
select true
from webhook.event_def e
where e.dropped_at is null
  and not pg_catalog.starts_with(e.event_type, 'webhook.')
  and not exists (select from pg_catalog.pg_class c where c.oid = e.object_name)
limit 1";

const FIND_TABLES: &str = "
select webhook_internal.find_tables_again($1::pg_catalog.int8::pg_catalog.oid)";

/// The placement of the documents on this node: statements on it ask no other node.
const PLACEMENT: &str = "
select pg_catalog.format('webhook_internal.%I', 'cluster_document_' || s.shardid)
from pg_catalog.pg_dist_shard s
where s.logicalrelid = 'webhook_internal.cluster_document'::pg_catalog.regclass
  and pg_catalog.to_regclass(pg_catalog.format('webhook_internal.%I', 'cluster_document_' || s.shardid)) is not null";

/// Takes rights on the placement from roles that got them by default privileges: it has secrets. $1 the placement. A
/// query for it sees shards only where Citus hides none.
const OPEN_TO: &str = "
select pg_catalog.format(
           'revoke all on table %s from %s',
           $1,
           pg_catalog.string_agg(
               distinct case when a.grantee = 0 then 'public' else pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) end,
               ', '
           )
       )
from pg_catalog.pg_class c
cross join pg_catalog.aclexplode(c.relacl) a
where c.oid = pg_catalog.to_regclass($1)
  and a.grantee <> c.relowner
having pg_catalog.count(*) > 0";

/// Documents whose version is not the one that was applied, and before them what was applied and has no document any
/// more: its name or URL may be another one's now.
/// {} the placement.
const OUTDATED: &str = "
select coalesce(d.kind, a.kind), coalesce(d.key, a.key), d.doc::pg_catalog.text, d.version
from {} d
full join webhook_internal.cluster_applied a on a.kind = d.kind and a.key = d.key
where a.version is distinct from d.version
order by d.kind is not null,
         pg_catalog.array_position(array['cluster', 'webhook_def', 'secret_def', 'url_def', 'event_def'], d.kind), 2
limit $1";

const MISSED_BY_EVENTS: &str = concat!(
    "select true
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join webhook.event_def e on e.object_label = ",
    table_label!(),
    "
where c.oid = $1
  and e.dropped_at is null
  and not exists (select from pg_catalog.pg_class o where o.oid = e.object_name)
limit 1"
);

/// Longer than the worker's pause between two looks.
const WORKER_SEES_WITHIN: Duration = Duration::from_secs(5);
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// A page for a node that is new: its worker does other things in between.
const AT_ONCE: i64 = 500;

thread_local! {
    /// Definitions change, and are not made here.
    static APPLYING: Cell<bool> = const { Cell::new(false) };
    static MISSED: Query = const { Query::new(MISSED_BY_EVENTS) };
}

/// A definition as a node of the cluster takes it.
pub struct Document {
    pub kind: String,
    pub key: i32,
    /// `None`: it was removed.
    pub body: Option<(String, i64)>,
}

/// # Errors
/// `55000` on a node of a cluster that is not its coordinator.
pub fn check_definitions_are_made_here() -> Result<()> {
    if APPLYING.get() || process::is_worker() {
        return Ok(());
    }
    let elsewhere = as_owner(|| {
        (Position::here() == Position::OtherNode).then(|| super::coordinator().unwrap_or_default())
    });
    elsewhere.map_or(Ok(()), |coordinator| {
        Err(Error::new(
            Kind::NotInPrerequisiteState,
            "webhooks of a cluster are defined on its coordinator",
        )
        .with_hint(format!(
            "call the function on the coordinator, {coordinator}"
        )))
    })
}

/// Tells the other nodes of a definition that has changed here, if this is a coordinator.
pub fn publish(kind: &str, key: i32) {
    as_owner(|| {
        if Position::here() == Position::Coordinator {
            execute(PUBLISH, &[kind.into(), key.into()]);
        }
    });
}

/// Makes all documents what the definitions are now. As the owner.
pub fn publish_all(account_id: &str) {
    close_placement();
    execute(PUBLISH_ACCOUNT, &[account_id.into()]);
    execute(PUBLISH_ALL, &[]);
}

/// The `accountId` of messages that this database sends.
pub fn account_id() -> String {
    let of_cluster = as_owner(|| first(CLUSTER_ACCOUNT, &[], |row| row.get(1)).flatten());
    settings::set_cluster_account(of_cluster);
    settings::account_id()
}

/// What a document says becomes the definition of this node. The coordinator's is the one that it came from.
pub fn apply(document: &Document) {
    as_owner(|| {
        if Position::here() != Position::Coordinator {
            apply_as_owner(document);
        }
    });
}

fn apply_as_owner(document: &Document) {
    let (kind, key) = (document.kind.as_str(), document.key);
    let body = document.body.as_ref();
    if body.is_some() {
        identity::record_origin();
    }
    if kind == "cluster" {
        // The first one, in the transaction that makes the placement.
        close_placement();
    }
    applying(|| {
        let text = body.map(|(text, _)| JsonText(text.clone()));
        execute(APPLY, &[kind.into(), key.into(), text.into()]);
        match body {
            Some((_, version)) => {
                execute(NOTE_APPLIED, &[kind.into(), key.into(), (*version).into()]);
            }
            None => execute(NOTE_REMOVED, &[kind.into(), key.into()]),
        }
    });
}

/// Definitions that `f` changes are not made here: a document says so, or it is an operation on what this node has
/// to send.
pub fn applying<T>(f: impl FnOnce() -> T) -> T {
    APPLYING.set(true);
    let _ended = Applied;
    f()
}

struct Applied;

impl Drop for Applied {
    fn drop(&mut self) {
        APPLYING.set(false);
    }
}

/// Events of a table that this node did not have, or that was converted to another one of its name, are about it
/// once the worker has seen it: a moment after the conversion is committed. Sessions that write to the table before
/// wait for that. They do not write it themselves, because one distributed transaction may have several sessions on
/// a node, which would wait for one another. `true`: it is worth looking at the events again.
pub fn wait_for_events(table: pg_sys::Oid) -> bool {
    if !owner::has_extension(c"citus") {
        return false;
    }
    if !is_missed(table) {
        // They may have been found since the caller looked.
        return true;
    }
    match wake::running_worker() {
        Some(_) => wake::wake_worker(),
        // Where none can run, what it would do is done below.
        None => drop(wake::start_worker_now_and_then()),
    }
    let is_seen = poll_until(WORKER_SEES_WITHIN, LOOK_AGAIN_AFTER, || !is_missed(table));
    if !is_seen {
        as_owner(|| {
            while apply_outdated() {}
            find_tables_again(Some(table));
        });
    }
    true
}

/// Whether events are meant for a table that they do not know, or documents came to this node that were not applied.
fn is_missed(table: pg_sys::Oid) -> bool {
    let is_missed = as_owner(|| {
        with_snapshot(|| {
            connected(|| {
                let mut is_missed = false;
                MISSED.with(|query| query.read(&[Arg::Oid(table)], |_| is_missed = true));
                is_missed
            })
        })
    });
    is_missed || as_owner(|| Position::here() == Position::OtherNode && !outdated(1).is_empty())
}

/// Of events whose table came, or was converted to another one, the table is found; `true` if there are any. As
/// the owner.
fn find_tables_again(only: Option<pg_sys::Oid>) -> bool {
    if first(ANY_WITHOUT_TABLE, &[], |_| ()).is_none() {
        return false;
    }
    let table = only.map(|oid| i64::from(oid.to_u32()));
    applying(|| first(FIND_TABLES, &[table.into()], |row| row.value::<i64>(1))) > Some(0)
}

/// What a look at the cluster came to.
pub struct CaughtUp {
    /// There may be more documents.
    pub more: bool,
    /// Of each webhook's rate.
    pub part: Part,
}

/// Applies documents that came to this node without firing a trigger, a page of them; `None` without Citus. Of an
/// event whose table came later, the table is looked for. In a transaction of the worker.
pub fn catch_up() -> Option<CaughtUp> {
    if !owner::has_extension(c"citus") {
        return None;
    }
    as_owner(|| {
        find_tables_again(None);
        let position = Position::here();
        if position != Position::Alone {
            close_placement();
        }
        let more = position == Position::OtherNode && apply_outdated();
        let part = match position {
            Position::Alone => Part::WHOLE,
            Position::Coordinator | Position::OtherNode => super::nodes::part_of_rates(),
        };
        Some(CaughtUp { more, part })
    })
}

/// A placement is a table of its own, to which default privileges of this node apply.
fn close_placement() {
    let Some(placement) = first(PLACEMENT, &[], |row| row.value::<String>(1)) else {
        return;
    };
    let shown = (c"citus.override_table_visibility", "off");
    let revoke = with_settings(&[shown], || {
        first(OPEN_TO, &[placement.into()], |row| row.value::<String>(1))
    });
    if let Some(revoke) = revoke {
        execute(&revoke, &[]);
    }
}

/// Up to so many documents that this node has not applied.
fn outdated(limit: i64) -> Vec<Document> {
    let Some(placement) = first(PLACEMENT, &[], |row| row.value::<String>(1)) else {
        return Vec::new();
    };
    query(
        &OUTDATED.replace("{}", &placement),
        &[limit.into()],
        |row| Document {
            kind: row.value(1),
            key: row.value(2),
            body: row.get::<String>(3).zip(row.get(4)),
        },
    )
}

/// `true` if there may be more.
fn apply_outdated() -> bool {
    let documents = outdated(AT_ONCE);
    for document in &documents {
        apply_as_owner(document);
    }
    documents.len() as i64 >= AT_ONCE
}
