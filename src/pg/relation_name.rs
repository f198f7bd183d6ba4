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

/// Whether the running transaction has created a relation.
pub fn is_new(relation: pg_sys::Oid) -> bool {
    // SAFETY: the entry of the relation cache is read and given back.
    unsafe {
        let entry = pg_sys::RelationIdGetRelation(relation);
        if entry.is_null() {
            return false;
        }
        let is_new = (*entry).rd_createSubid != 0;
        pg_sys::RelationClose(entry);
        is_new
    }
}
