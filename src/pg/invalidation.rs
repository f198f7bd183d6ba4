//! Cached definitions and when they are stale.
//!
//! A change of a definition invalidates the relcache entry of one table, which
//! takes no lock. PostgreSQL tells a backend when it locks a table the next time, so not one that
//! goes on writing in a transaction: it asks by itself, once a statement. The callback may run at
//! almost any point, so it only sets flags.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;

use pgrx::pg_sys;
use pgrx::prelude::*;

/// Says whether a relation's invalidation matters.
pub type Concerns = fn(pg_sys::Oid) -> bool;

thread_local! {
    static REGISTERED: Cell<bool> = const { Cell::new(false) };
    static GENERATION: Cell<u64> = const { Cell::new(1) };
    /// The same without what this process has changed in definitions.
    static CATALOGS: Cell<u64> = const { Cell::new(1) };
    /// Counts up whenever a role or a membership may have changed.
    static ROLES: Cell<u64> = const { Cell::new(1) };
    static LISTENS_TO_ROLES: Cell<bool> = const { Cell::new(false) };
    static LISTENS_TO_ENUMS: Cell<bool> = const { Cell::new(false) };
    static CONCERNS: Cell<Option<Concerns>> = const { Cell::new(None) };
    /// Relations whose invalidation counts, beside those that `CONCERNS` names.
    static WATCHED: RefCell<HashSet<pg_sys::Oid>> = RefCell::default();
    /// The invalidation of any relation counts.
    static WATCHES_ALL: Cell<bool> = const { Cell::new(false) };
    /// Which relations were invalidated since [`take_noted`].
    static NOTED: Cell<Noted> = const { Cell::new(Noted::NONE) };
    /// Tables with events, whatever of them is cached.
    static TABLES_WITH_EVENTS: RefCell<HashSet<pg_sys::Oid>> = RefCell::default();
    /// Which of them were changed since [`take_changed_tables`].
    static CHANGED_TABLES: Cell<Noted> = const { Cell::new(Noted::NONE) };
    /// Any table counts as one of them.
    static NOTES_ALL: Cell<bool> = const { Cell::new(false) };
    /// When the statement began in which we last asked.
    static ASKED_IN: Cell<i64> = const { Cell::new(i64::MIN) };
}

/// So many relations are noted one by one: a callback may not allocate.
const NOTED_AT_MOST: usize = 32;

/// Relations that were invalidated.
#[derive(Clone, Copy)]
pub struct Noted {
    relations: [pg_sys::Oid; NOTED_AT_MOST],
    count: usize,
}

impl Noted {
    const NONE: Self = Self {
        relations: [pg_sys::InvalidOid; NOTED_AT_MOST],
        count: 0,
    };

    /// `None`: too many, or it was not told which.
    pub fn relations(&self) -> Option<&[pg_sys::Oid]> {
        self.relations.get(..self.count)
    }

    fn add(&mut self, relation: pg_sys::Oid) {
        if relation == pg_sys::InvalidOid {
            self.count = usize::MAX;
        }
        if self
            .relations()
            .is_none_or(|known| known.contains(&relation))
        {
            return;
        }
        if let Some(place) = self.relations.get_mut(self.count) {
            *place = relation;
        }
        // Past the end it says that there were too many.
        self.count += 1;
    }
}

/// Which of the relations that count were invalidated since the last call.
pub fn take_noted() -> Noted {
    NOTED.replace(Noted::NONE)
}

/// From now on a change of this table is noted for [`take_changed_tables`].
pub fn note_changes_of(table: pg_sys::Oid) {
    register_once();
    TABLES_WITH_EVENTS.with_borrow_mut(|tables| tables.insert(table));
}

/// Notes changes of any table while `f` finds out which to name to [`note_changes_of`]: one may change after
/// it was read and before it is named.
pub fn note_all_while<T>(f: impl FnOnce() -> T) -> T {
    struct Noting;
    impl Drop for Noting {
        fn drop(&mut self) {
            NOTES_ALL.set(false);
        }
    }
    register_once();
    NOTES_ALL.set(true);
    let _noting = Noting;
    f()
}

/// Which of the tables that [`note_changes_of`] named were changed since the last call, or their
/// triggers, or the rights on them.
pub fn take_changed_tables() -> Noted {
    CHANGED_TABLES.replace(Noted::NONE)
}

extern "C-unwind" {
    // access/xact.h. Returns a variable and cannot fail, so it is called as it is, without
    // pgrx's boundary around it: capture asks for each row.
    fn GetCurrentStatementStartTimestamp() -> pg_sys::TimestampTz;
}

/// Counts up whenever a relation that `concerns` says yes to was invalidated.
/// A cache remembers the generation it was filled in.
pub fn generation() -> u64 {
    GENERATION.get()
}

/// Counts up whenever what a cache knows of relations and schemas may be stale. Rows of definitions
/// that this process has changed do not count.
pub fn catalog_generation() -> u64 {
    CATALOGS.get()
}

/// Counts up whenever any role, or any membership in one, may have changed.
pub fn role_generation() -> u64 {
    if !LISTENS_TO_ROLES.replace(true) {
        for cache in [
            pg_sys::SysCacheIdentifier::AUTHOID,
            pg_sys::SysCacheIdentifier::AUTHMEMMEMROLE,
        ] {
            // SAFETY: a static callback without an argument.
            unsafe {
                pg_sys::CacheRegisterSyscacheCallback(
                    cache as i32,
                    Some(on_role_change),
                    pg_sys::Datum::from(0usize),
                );
            }
        }
    }
    ROLES.get()
}

/// Starts to listen. `concerns` must not fail, allocate or look anything up;
/// `InvalidOid` (everything is stale) always counts.
pub fn listen_once(concerns: Concerns) {
    CONCERNS.set(Some(concerns));
    register_once();
}

/// From now on a label of an enum that changes counts.
pub fn listen_to_enums() {
    if LISTENS_TO_ENUMS.replace(true) {
        return;
    }
    // SAFETY: a static callback without an argument.
    unsafe {
        pg_sys::CacheRegisterSyscacheCallback(
            pg_sys::SysCacheIdentifier::ENUMOID as i32,
            Some(on_enum_change),
            pg_sys::Datum::from(0usize),
        );
    }
}

/// From now on a schema that changes counts.
pub fn listen() {
    register_once();
}

/// From now on an invalidation of `relation` counts.
pub fn watch(relation: pg_sys::Oid) {
    register_once();
    WATCHED.with_borrow_mut(|watched| watched.insert(relation));
}

/// The invalidation of `relation` does not count any more.
pub fn unwatch(relation: pg_sys::Oid) {
    WATCHED.with_borrow_mut(|watched| watched.remove(&relation));
}

/// What `f` watches counts from now on, also if it is invalidated before `f` watches it.
pub fn watch_all_while<T>(f: impl FnOnce() -> T) -> T {
    struct Watching;
    impl Drop for Watching {
        fn drop(&mut self) {
            WATCHES_ALL.set(false);
        }
    }
    WATCHES_ALL.set(true);
    let _watching = Watching;
    f()
}

/// Called by the relcache callback, at almost any time: looks, and nothing else.
fn is_watched(relation: pg_sys::Oid) -> bool {
    if WATCHES_ALL.get() {
        return true;
    }
    let is_in = |watched: &RefCell<HashSet<pg_sys::Oid>>| {
        watched
            .try_borrow()
            .map_or(true, |watched| watched.contains(&relation))
    };
    WATCHED.try_with(is_in).unwrap_or(true)
}

fn register_once() {
    if REGISTERED.replace(true) {
        return;
    }
    // SAFETY: static callbacks without an argument.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(on_invalidation), pg_sys::Datum::from(0usize));
        // A schema that gets another name tells nothing to the tables in it.
        pg_sys::CacheRegisterSyscacheCallback(
            pg_sys::SysCacheIdentifier::NAMESPACEOID as i32,
            Some(on_schema_change),
            pg_sys::Datum::from(0usize),
        );
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_schema_change(_arg: pg_sys::Datum, _cache: i32, _hash: u32) {
    // The callback is not told which tables are in the schema.
    note(pg_sys::InvalidOid);
}

#[pg_guard]
unsafe extern "C-unwind" fn on_enum_change(_arg: pg_sys::Datum, _cache: i32, _hash: u32) {
    mark_stale();
}

#[pg_guard]
unsafe extern "C-unwind" fn on_role_change(_arg: pg_sys::Datum, _cache: i32, _hash: u32) {
    ROLES.set(ROLES.get() + 1);
}

#[pg_guard]
unsafe extern "C-unwind" fn on_invalidation(_arg: pg_sys::Datum, relation: pg_sys::Oid) {
    let concerned = relation == pg_sys::InvalidOid
        || is_watched(relation)
        || CONCERNS.get().is_some_and(|concerns| concerns(relation));
    if concerned {
        note(relation);
    }
    if relation == pg_sys::InvalidOid || NOTES_ALL.get() || has_events(relation) {
        let mut changed = CHANGED_TABLES.get();
        changed.add(relation);
        CHANGED_TABLES.set(changed);
    }
}

/// As [`is_watched`].
fn has_events(relation: pg_sys::Oid) -> bool {
    let is_in = |tables: &RefCell<HashSet<pg_sys::Oid>>| {
        tables
            .try_borrow()
            .map_or(true, |tables| tables.contains(&relation))
    };
    TABLES_WITH_EVENTS.try_with(is_in).unwrap_or(true)
}

fn note(relation: pg_sys::Oid) {
    let mut noted = NOTED.get();
    noted.add(relation);
    NOTED.set(noted);
    mark_stale();
}

/// Makes this process's own caches stale.
pub fn mark_stale() {
    CATALOGS.set(CATALOGS.get() + 1);
    GENERATION.set(GENERATION.get() + 1);
}

/// Makes this process's own caches of definitions stale, in a statement that has changed some.
pub fn mark_definitions_stale() {
    // SAFETY: in a transaction. What is read from now on sees the change.
    unsafe { pg_sys::CommandCounterIncrement() }
    GENERATION.set(GENERATION.get() + 1);
}

/// Takes in what other backends have invalidated since. Outside a transaction too.
pub fn accept() {
    // SAFETY: reads the shared queue; may call the callback above.
    unsafe { pg_sys::AcceptInvalidationMessages() }
}

/// [`accept`], once for each statement of the client.
pub fn accept_once_a_statement() {
    // SAFETY: as said at its declaration.
    let statement = unsafe { GetCurrentStatementStartTimestamp() };
    if ASKED_IN.replace(statement) != statement {
        accept();
    }
}

/// Tells every backend that what it cached about a relation is stale, when this
/// transaction commits.
pub fn invalidate(relation: pg_sys::Oid) {
    // SAFETY: a relation that is gone is no error here but in the syscache look-up,
    // so it is checked first.
    unsafe {
        let exists = pg_sys::SearchSysCacheExists(
            pg_sys::SysCacheIdentifier::RELOID as i32,
            pg_sys::Datum::from(relation),
            pg_sys::Datum::from(0usize),
            pg_sys::Datum::from(0usize),
            pg_sys::Datum::from(0usize),
        );
        if exists {
            pg_sys::CacheInvalidateRelcacheByRelid(relation);
        }
    }
}
