//! Which outbox table writers append to.

use std::cell::Cell;

use pgrx::pg_sys;

use crate::core::error::{Error, Kind};
use crate::pg::invalidation;
use crate::pg::owner::as_owner;
use crate::pg::report::raise;
use crate::pg::spi::{connected, with_snapshot, Query};

/// The places capture writes to.
#[derive(Clone, Copy)]
pub struct OutboxTables {
    pub outbox: pg_sys::Oid,
    pub flush_sequence: pg_sys::Oid,
    /// An administrator stopped the worker: capture must not start it.
    pub worker_stopped: bool,
}

const CURRENT: &str = "
select c.oid,
       'webhook.outbox_flush_seq'::pg_catalog.regclass::pg_catalog.oid,
       k.worker_stopped
from webhook.control k
join pg_catalog.pg_class c
  on c.relname = 'outbox_' || k.outbox_number
 and c.relnamespace = 'webhook'::pg_catalog.regnamespace";

thread_local! {
    static QUERY: Query = const { Query::new(CURRENT) };
    static CACHED: Cell<Option<(u64, OutboxTables)>> = const { Cell::new(None) };
}

/// The current tables; looked up again after any change of the definitions.
pub fn current() -> OutboxTables {
    let generation = invalidation::generation();
    if let Some((filled_in, tables)) = CACHED.get() {
        if filled_in == generation {
            return tables;
        }
    }
    let tables = look_up();
    CACHED.set(Some((generation, tables)));
    tables
}

fn look_up() -> OutboxTables {
    let mut found = None;
    as_owner(|| {
        with_snapshot(|| {
            connected(|| {
                QUERY.with(|query| {
                    query.read(&[], |row| {
                        found = Some(OutboxTables {
                            outbox: row.oid(0)?,
                            flush_sequence: row.oid(1)?,
                            worker_stopped: row.bool(2)?,
                        });
                        Some(())
                    });
                });
            });
        });
    });
    found.unwrap_or_else(|| raise(no_row()))
}

fn no_row() -> Error {
    Error::new(Kind::NotInPrerequisiteState, "webhook.control has no row").with_hint(
        "insert into webhook.control default values; it then takes the first outbox table",
    )
}
