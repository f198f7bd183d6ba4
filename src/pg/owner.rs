//! Acting with the rights of the extension's owner, or of a table's.
//!
//! The functions that users call run with the users' rights, and no user may
//! touch the tables with the secrets. So each access to them is wrapped here;
//! whatever else the function does (creating a trigger, for one) keeps the
//! rights of the caller. Nothing that runs inside [`as_owner`] may execute what a
//! user wrote; what a table's owner wrote runs inside [`as_table_owner`].

use pgrx::pg_sys;

use super::local_settings::{with_settings, with_settings_undone};
use super::members;
use super::report::{ok_or_raise, raise};
use crate::core::error::{Error, Kind};

/// Whatever the session's search_path holds, no object of a user's may be found.
const OWN_NAMES: (&std::ffi::CStr, &str) = (c"search_path", "pg_catalog, pg_temp");

/// Plans are kept, and a table may have been empty when its plan was made: each statement has an
/// index that fits. What has none seems so costly then that it would be compiled.
const OWN_PLANS: [(&std::ffi::CStr, &str); 2] = [(c"enable_seqscan", "off"), (c"jit", "off")];

/// Puts the caller's identity back, also when an error unwinds.
struct Caller {
    user: pg_sys::Oid,
    context: i32,
}

impl Drop for Caller {
    fn drop(&mut self) {
        // SAFETY: the values that were read when the guard was made.
        unsafe { pg_sys::SetUserIdAndSecContext(self.user, self.context) }
    }
}

impl Caller {
    /// From now on `role` acts, until the guard is dropped.
    fn replaced_by(role: pg_sys::Oid, flags: u32) -> Self {
        let mut caller = Self {
            user: pg_sys::InvalidOid,
            context: 0,
        };
        // SAFETY: plain reads and writes of backend-local state. An abort of the
        // transaction or subtransaction restores it as well.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&mut caller.user, &mut caller.context);
            pg_sys::SetUserIdAndSecContext(role, caller.context | flags as i32);
        }
        caller
    }
}

/// Runs `f` as the owner of the extension's tables.
pub fn as_owner<T>(f: impl FnOnce() -> T) -> T {
    // Inside a transaction or the look-up fails with an error, before anything changed.
    let owner = owner();
    // The flag forbids that the code inside changes roles by itself.
    let _caller = Caller::replaced_by(owner, pg_sys::SECURITY_LOCAL_USERID_CHANGE);
    let [no_scan, no_jit] = OWN_PLANS;
    with_settings(&[OWN_NAMES, no_scan, no_jit], f)
}

/// Runs `f` as the owner of a user's table. To evaluate a row of it (the check of a domain, a
/// policy, a cast, an output function) runs code of this owner, which gets no other rights than
/// it has already: it cannot change roles, and leaves no setting, no temporary object and no
/// deferred trigger behind that the caller would run into later.
pub fn as_table_owner<T>(table: pg_sys::Oid, f: impl FnOnce() -> T) -> T {
    let owner = owner_of(table).unwrap_or_else(|| {
        raise(
            Error::new(Kind::UndefinedObject, "the table was dropped meanwhile")
                .with_hint("the view webhook.events lists events and their tables"),
        )
    });
    let flags = pg_sys::SECURITY_RESTRICTED_OPERATION | pg_sys::SECURITY_LOCAL_USERID_CHANGE;
    let _caller = Caller::replaced_by(owner, flags);
    with_settings_undone(&[OWN_NAMES], f)
}

/// Whether policies of the table decide which of its rows the caller sees.
pub fn row_security_applies(table: pg_sys::Oid) -> bool {
    // SAFETY: catalog look-ups in a transaction; a table that is gone has no policies. It
    // asks for the current user, and raises nothing.
    let applies = unsafe { pg_sys::check_enable_rls(table, pg_sys::InvalidOid, true) };
    applies == pg_sys::CheckEnableRlsResult::RLS_ENABLED as i32
}

/// The extension in this database, `None` if there is none.
pub fn extension() -> Option<pg_sys::Oid> {
    // SAFETY: a catalog look-up in a transaction; the name is NUL-terminated.
    let oid = unsafe { pg_sys::get_extension_oid(c"webhook_ext".as_ptr(), true) };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

/// Whether this database has an extension of that name.
pub fn has_extension(name: &std::ffi::CStr) -> bool {
    // SAFETY: a catalog look-up in a transaction; the name is NUL-terminated.
    unsafe { pg_sys::get_extension_oid(name.as_ptr(), true) != pg_sys::InvalidOid }
}

/// The owner of `webhook.webhook_def`, if all that statements name is the extension's.
fn owner() -> pg_sys::Oid {
    let Some(extension) = extension() else {
        raise(missing("extension webhook_ext"));
    };
    ok_or_raise(members::check(extension));
    let owner = relation(c"webhook_def").and_then(owner_of);
    owner.unwrap_or_else(|| raise(missing("table webhook.webhook_def")))
}

/// A relation of schema `webhook`, `None` if there is none of this name.
pub fn relation(name: &std::ffi::CStr) -> Option<pg_sys::Oid> {
    // SAFETY: catalog look-ups in a transaction; the names are NUL-terminated.
    let relation = unsafe {
        let schema = pg_sys::get_namespace_oid(c"webhook".as_ptr(), true);
        pg_sys::get_relname_relid(name.as_ptr(), schema)
    };
    (relation != pg_sys::InvalidOid).then_some(relation)
}

/// `None` if there is no such relation.
fn owner_of(relation: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: a catalog look-up in a transaction; the tuple is released before its
    // contents could go, and the owner is copied out of it.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(
            pg_sys::SysCacheIdentifier::RELOID as i32,
            pg_sys::Datum::from(relation),
        );
        if tuple.is_null() {
            return None;
        }
        let class = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>();
        let owner = (*class).relowner;
        pg_sys::ReleaseSysCache(tuple);
        Some(owner)
    }
}

fn missing(what: &str) -> Error {
    Error::new(
        Kind::NotInPrerequisiteState,
        format!("{what} does not exist"),
    )
    .with_hint("reinstall the extension webhook_ext in this database")
}

/// The role whose rights count now.
pub fn current_role_oid() -> pg_sys::Oid {
    // SAFETY: reads a variable of this backend.
    unsafe { pg_sys::GetUserId() }
}

/// The name of the role whose rights count now.
pub fn current_role() -> String {
    // SAFETY: the current user exists; its name is copied out of PostgreSQL's memory.
    unsafe {
        let name = pg_sys::GetUserNameFromId(pg_sys::GetUserId(), false);
        super::encoding::from_server(std::ffi::CStr::from_ptr(name).to_bytes())
    }
}
