//! May the worker work in this database?

use std::cell::{Cell, RefCell};
use std::collections::HashSet;

use pgrx::pg_sys;

use super::{identity, version, worker_role};
use crate::core::error::{Error, Kind};
use crate::core::messages::identity::Provenance;
use crate::pg::members;
use crate::pg::report;
use crate::pg::settings;
use crate::pg::spi::Query;
use crate::pg::worker_role::{assume, find};

/// To a database that is held.
const ADOPT: &str =
    "to make this database the one that captures and sends: select webhook.adopt(), \
    or select webhook.adopt('forget') to send nothing of what is pending";

/// What the worker finds when it looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtensionStatus {
    /// The extension is there, in the version of this library.
    Ready,
    /// `webhook.stop_worker()` was called.
    Stopped,
    /// There is no extension here.
    Gone,
    /// The SQL and this library are of different versions, the schema is not the extension's, or
    /// the role of the worker is not there: nothing is safe to touch.
    Unusable,
    /// This database is a copy of another one and was not adopted: nothing is sent.
    Held,
    /// The extension was dropped and created again: what the worker knows is of the old one.
    Replaced,
}

const EXTENSION: &str = "
select e.extversion, e.oid
from pg_catalog.pg_extension e
where e.extname = 'webhook_ext'";

const CONTROL: &str = "
select k.worker_stopped, k.account_id
from webhook.control k";

/// A change of one of these is a reason to look again (the view `busy` stands for what users cancel
/// and redeliver).
const TABLES: &str = "
select c.oid
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname in ('webhook', 'webhook_internal')
  and c.relname in ('webhook_def', 'secret_def', 'url_def', 'event_def', 'control', 'def_origin', 'busy')";

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
    /// Why the worker must not work.
    reason: RefCell<Option<String>>,
    /// The account of the cluster is another one than before.
    account_changed: Cell<bool>,
}

impl Lifecycle {
    pub fn new() -> Self {
        Self {
            extension: Query::new(EXTENSION),
            control: Query::new(CONTROL),
            tables: Query::new(TABLES),
            known: Cell::new(None),
            reason: RefCell::new(None),
            account_changed: Cell::new(false),
        }
    }

    /// Why the worker must not work, as the last look found.
    pub fn reason(&self) -> Option<String> {
        self.reason.borrow().clone()
    }

    /// Whether settings are to be read again, because this node belongs to another cluster now.
    pub fn take_account_changed(&self) -> bool {
        self.account_changed.take()
    }

    /// Logs a reason when it is a new one.
    fn stop_because(&self, error: Error) {
        let before = self.reason.replace(Some(error.message.clone()));
        if before.as_ref() != Some(&error.message) {
            report::warn(error);
        }
    }

    /// In a transaction with the rights of the process. What is not in a catalog is read as the
    /// role of the worker.
    pub fn status(&self) -> ExtensionStatus {
        let (mut version, mut oid) = (None, None);
        self.extension.read(&[], |row| {
            version = row.text(0);
            oid = row.oid(1);
        });
        let Some(version) = version else {
            return ExtensionStatus::Gone;
        };
        if let Some(mismatch) = version::mismatch(&version) {
            self.stop_because(with_way_out(mismatch));
            return ExtensionStatus::Unusable;
        }
        if self
            .known
            .replace(oid)
            .is_some_and(|known| oid != Some(known))
        {
            return ExtensionStatus::Replaced;
        }
        if let Some(Err(refusal)) = oid.map(members::check) {
            self.stop_because(refusal);
            return ExtensionStatus::Unusable;
        }
        let role = find().and_then(|role| worker_role::check_privileges(role).map(|()| role));
        match role {
            Ok(role) => assume(role),
            Err(refusal) => {
                self.stop_because(refusal);
                return ExtensionStatus::Unusable;
            }
        }
        let mut tables = HashSet::new();
        self.tables.read(&[], |row| tables.extend(row.oid(0)));
        RELATIONS.with_borrow_mut(|known| *known = tables);
        let (mut stopped, mut account_id) = (false, None);
        self.control.read(&[], |row| {
            stopped = row.bool(0).unwrap_or(false);
            account_id = row.text(1);
        });
        if settings::set_cluster_account(account_id) {
            self.account_changed.set(true);
        }
        if stopped {
            ExtensionStatus::Stopped
        } else {
            self.status_of_copy()
        }
    }

    fn status_of_copy(&self) -> ExtensionStatus {
        match identity::for_worker() {
            Provenance::Copy(notice) => {
                let error = Error::new(Kind::NotInPrerequisiteState, notice);
                self.stop_because(error.with_hint(ADOPT));
                return ExtensionStatus::Held;
            }
            Provenance::Upgraded => {
                pgrx::log!("webhook_ext: this database was moved here by pg_upgrade");
                identity::record_move();
            }
            Provenance::Original => {}
        }
        self.reason.replace(None);
        ExtensionStatus::Ready
    }
}

/// What to do, also where only the message is shown: in `webhook.worker.detail`.
fn with_way_out(mut error: Error) -> Error {
    if let Some(hint) = error.hint.take() {
        error.message = format!("{}: {hint}", error.message);
    }
    error
}
