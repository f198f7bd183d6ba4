//! Acting with the rights of the extension's owner.
//!
//! The functions that users call run with the users' rights, and no user may
//! touch the tables with the secrets. So each access to them is wrapped here;
//! whatever else the function does (creating a trigger, for one) keeps the
//! rights of the caller. Nothing that runs inside may execute what a user wrote.

use pgrx::pg_sys;

use super::local_settings::with_settings;

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

/// Runs `f` as the owner of the extension's tables.
pub fn as_owner<T>(f: impl FnOnce() -> T) -> T {
    // Inside a transaction or the look-up fails with an error, before anything changed.
    let owner = owner();
    let mut caller = Caller {
        user: pg_sys::InvalidOid,
        context: 0,
    };
    // SAFETY: plain reads and writes of backend-local state; the flag forbids that the
    // code inside changes roles by itself.
    unsafe {
        pg_sys::GetUserIdAndSecContext(&mut caller.user, &mut caller.context);
        pg_sys::SetUserIdAndSecContext(
            owner,
            caller.context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32,
        );
    }
    // Whatever the session's search_path holds, no object of a user's may be found.
    with_settings(&[(c"search_path", "pg_catalog, pg_temp")], f)
}

/// The extension in this database, `None` if there is none.
pub fn extension() -> Option<pg_sys::Oid> {
    // SAFETY: a catalog look-up in a transaction; the name is NUL-terminated.
    let oid = unsafe { pg_sys::get_extension_oid(c"webhook_ext".as_ptr(), true) };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

/// The owner of `webhook.webhook_def`.
fn owner() -> pg_sys::Oid {
    // SAFETY: catalog look-ups in a transaction; the tuple is released before its
    // contents could go, and the owner is copied out of it.
    unsafe {
        let schema = pg_sys::get_namespace_oid(c"webhook".as_ptr(), false);
        let table = pg_sys::get_relname_relid(c"webhook_def".as_ptr(), schema);
        let tuple = pg_sys::SearchSysCache1(
            pg_sys::SysCacheIdentifier::RELOID as i32,
            pg_sys::Datum::from(table),
        );
        if tuple.is_null() {
            pgrx::ereport!(
                ERROR,
                pgrx::PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "table webhook.webhook_def does not exist",
                "reinstall the extension webhook_ext in this database"
            );
        }
        let class = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>();
        let owner = (*class).relowner;
        pg_sys::ReleaseSysCache(tuple);
        owner
    }
}

/// The name of the role whose rights count now.
pub fn current_role() -> String {
    // SAFETY: the current user exists; its name is copied out of PostgreSQL's memory.
    unsafe {
        let name = pg_sys::GetUserNameFromId(pg_sys::GetUserId(), false);
        super::encoding::from_server(std::ffi::CStr::from_ptr(name).to_bytes())
    }
}
