//! May the worker work in this database?

use std::cell::{Cell, RefCell};
use std::collections::HashSet;

use pgrx::pg_sys;

use crate::pg::spi::Query;

/// What the worker finds when it looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The extension is there, in the version of this library.
    Ready,
    /// `webhook.stop_worker()` was called.
    Stopped,
    /// There is no extension here.
    Gone,
    /// The SQL and this library are of different versions: nothing is safe to touch.
    Unfit,
    /// The extension was dropped and created anew: what the worker knows is of the old one.
    Replaced,
}

const EXTENSION: &str = "
select e.extversion, e.oid
from pg_catalog.pg_extension e
where e.extname = 'webhook_ext'";

const CONTROL: &str = "
select k.worker_stopped
from webhook.control k";

/// A change of one of these is a reason to look again (the view `busy` stands for what users cancel
/// and redeliver); a table with events may have got
/// another name.
const TABLES: &str = "
select c.oid
from pg_catalog.pg_class c
where c.relnamespace = 'webhook'::pg_catalog.regnamespace
  and c.relname in ('webhook_def', 'secret_def', 'url_def', 'event_def', 'control', 'busy')
union
select e.object_name::pg_catalog.oid
from webhook.event_def e
where e.object_name is not null";

thread_local! {
    static RELATIONS: RefCell<HashSet<pg_sys::Oid>> = RefCell::default();
}

/// Called by the relcache callback, at almost any time.
pub fn concerns(relation: pg_sys::Oid) -> bool {
    RELATIONS.with(|relations| {
        relations
            .try_borrow()
            .map_or(true, |relations| relations.contains(&relation))
    })
}

/// Kept plans of this file's statements.
pub struct Lifecycle {
    extension: Query,
    control: Query,
    tables: Query,
    /// The extension that was found first.
    known: Cell<Option<pg_sys::Oid>>,
    warned: Cell<bool>,
}

impl Lifecycle {
    pub fn new() -> Self {
        Self {
            extension: Query::new(EXTENSION),
            control: Query::new(CONTROL),
            tables: Query::new(TABLES),
            known: Cell::new(None),
            warned: Cell::new(false),
        }
    }

    /// Once per process: the versions stay as they are for a while.
    fn warn_of(&self, version: &str) {
        if !self.warned.replace(true) {
            pgrx::warning!(
                "webhook_ext {version} is installed in this database, but the library is {}: \
                 run ALTER EXTENSION webhook_ext UPDATE or install the library that fits",
                env!("CARGO_PKG_VERSION")
            );
        }
    }

    /// In a transaction.
    pub fn standing(&self) -> Standing {
        let (mut version, mut oid) = (None, None);
        self.extension.read(&[], |row| {
            version = row.text(0);
            oid = row.oid(1);
        });
        let Some(version) = version else {
            return Standing::Gone;
        };
        if version != env!("CARGO_PKG_VERSION") {
            self.warn_of(&version);
            return Standing::Unfit;
        }
        if self
            .known
            .replace(oid)
            .is_some_and(|known| oid != Some(known))
        {
            return Standing::Replaced;
        }
        let mut tables = HashSet::new();
        self.tables.read(&[], |row| tables.extend(row.oid(0)));
        RELATIONS.with_borrow_mut(|known| *known = tables);
        let mut stopped = false;
        self.control
            .read(&[], |row| stopped = row.bool(0).unwrap_or(false));
        if stopped {
            Standing::Stopped
        } else {
            Standing::Ready
        }
    }
}
