//! Names of relations from PostgreSQL's caches, which no other extension filters.

use std::ffi::CStr;

use pgrx::pg_sys;

use super::encoding;

/// The schema and the name of a relation, `None` if it is gone. In a transaction.
pub fn of(relation: pg_sys::Oid) -> Option<(pg_sys::Oid, String)> {
    // SAFETY: look-ups in the relation cache's catalog; the name is a copy in the current context, freed
    // after it was copied again.
    unsafe {
        let name = pg_sys::get_rel_name(relation);
        if name.is_null() {
            return None;
        }
        let copied = encoding::from_server(CStr::from_ptr(name).to_bytes());
        pg_sys::pfree(name.cast());
        Some((pg_sys::get_rel_namespace(relation), copied))
    }
}
