//! Which databases there are, for a process that is connected to none.

use pgrx::pg_sys;

/// datconnlimit of a database whose DROP was interrupted.
const INVALID_DATABASE: i32 = -2;

/// The databases that take connections, but for templates: a process in one would be in
/// the way of CREATE DATABASE. In a transaction.
pub fn connectable() -> Vec<pg_sys::Oid> {
    let mut found = Vec::new();
    // SAFETY: a scan of a shared catalog, as one row after the other; each is looked at
    // before the next one is fetched. An error leaves through the caller's transaction,
    // which closes what is open.
    unsafe {
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        let catalog = pg_sys::table_open(pg_sys::DatabaseRelationId, lock);
        let scan = pg_sys::table_beginscan_catalog(catalog, 0, std::ptr::null_mut());
        loop {
            let tuple = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
            if tuple.is_null() {
                break;
            }
            let database = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>();
            let is_fit = database.datallowconn
                && !database.datistemplate
                && database.datconnlimit != INVALID_DATABASE;
            if is_fit {
                found.push(database.oid);
            }
        }
        pg_sys::heap_endscan(scan);
        pg_sys::table_close(catalog, lock);
    }
    found
}
