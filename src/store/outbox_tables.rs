//! Which outbox table writers append to.

use std::cell::Cell;

use pgrx::pg_sys;

use super::version;
use crate::core::error::{Error, Kind};
use crate::pg::invalidation;
use crate::pg::owner::{self, as_owner};
use crate::pg::report::raise;
use crate::pg::spi::{connected, with_snapshot, Query};

/// The places capture writes to.
#[derive(Clone, Copy)]
pub struct OutboxTables {
    /// The extension that they belong to.
    pub extension: pg_sys::Oid,
    pub outbox: pg_sys::Oid,
    pub flush_sequence: pg_sys::Oid,
    /// An administrator stopped the worker: capture must not start it.
    pub worker_stopped: bool,
}

const CURRENT: &str = "
select k.tableoid,
       'outbox_' || k.outbox_number,
       c.oid,
       'webhook.outbox_flush_seq'::pg_catalog.regclass::pg_catalog.oid,
       k.worker_stopped
from webhook.control k
left join pg_catalog.pg_class c
  on c.relname = 'outbox_' || k.outbox_number
 and c.relnamespace = 'webhook'::pg_catalog.regnamespace";

thread_local! {
    static QUERY: Query = const { Query::new(CURRENT) };
    static CACHED: Cell<Option<(u64, Option<OutboxTables>)>> = const { Cell::new(None) };
}

/// The current tables; looked up again after any change of the definitions or of the table.
/// `None` if there is no extension (any more).
pub fn current() -> Option<OutboxTables> {
    let generation = invalidation::generation();
    if let Some((filled_in, tables)) = CACHED.get() {
        if filled_in == generation {
            return tables;
        }
    }
    let tables = owner::extension().map(|extension| version::check_names(|| look_up(extension)));
    CACHED.set(Some((generation, tables)));
    tables
}

/// The current table, [`pg_sys::InvalidOid`] if there is no extension.
pub fn current_outbox() -> pg_sys::Oid {
    current().map_or(pg_sys::InvalidOid, |tables| tables.outbox)
}

/// What a row of [`CURRENT`] says.
struct Found {
    control: Option<pg_sys::Oid>,
    name: Option<String>,
    outbox: Option<pg_sys::Oid>,
    flush_sequence: Option<pg_sys::Oid>,
    worker_stopped: Option<bool>,
}

fn look_up(extension: pg_sys::Oid) -> OutboxTables {
    let mut found = None;
    as_owner(|| {
        with_snapshot(|| {
            connected(|| {
                QUERY.with(|query| {
                    query.read(&[], |row| {
                        found = Some(Found {
                            control: row.oid(0),
                            name: row.text(1),
                            outbox: row.oid(2),
                            flush_sequence: row.oid(3),
                            worker_stopped: row.bool(4),
                        });
                    });
                });
            });
        });
    });
    let Some(found) = found else {
        raise(no_row());
    };
    // A session may write without any rule, and so without anything else to listen to.
    found.control.into_iter().for_each(invalidation::watch);
    found.outbox.into_iter().for_each(invalidation::watch);
    match (found.outbox, found.flush_sequence) {
        (Some(outbox), Some(flush_sequence)) => OutboxTables {
            extension,
            outbox,
            flush_sequence,
            worker_stopped: found.worker_stopped.unwrap_or(false),
        },
        _ => raise(no_table(&found.name.unwrap_or_default())),
    }
}

fn no_row() -> Error {
    Error::new(Kind::NotInPrerequisiteState, "webhook.control has no row").with_hint(
        "insert into webhook.control default values; it then takes the first outbox table",
    )
}

fn no_table(name: &str) -> Error {
    Error::new(
        Kind::NotInPrerequisiteState,
        format!("table webhook.{name} does not exist"),
    )
    .with_hint("restore the table, or drop and create the extension webhook_ext")
}
