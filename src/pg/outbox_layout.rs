//! Whether a table is one that [`super::append`] can write.
//!
//! It forms tuples of fixed columns and fills indexes without an executor, as PostgreSQL does
//! for its catalogs. On any other table that would be memory that is read past its end, or an
//! index with wrong entries. An owner may change the outbox tables at any time, so each write
//! looks at the open relation: it costs no catalog look-up.

use std::ffi::CStr;

use pgrx::pg_sys;

use super::encoding;
use super::report::raise;
use super::row_json::attribute;
use crate::core::error::{Error, Kind};

/// outbox_N: xid, id, message_id, event_key, webhook_key, captured_at, source, actor,
/// changed, record, old_record.
const COLUMN_TYPES: [pg_sys::Oid; 11] = [
    pg_sys::XID8OID,
    pg_sys::INT8OID,
    pg_sys::UUIDOID,
    pg_sys::INT4OID,
    pg_sys::INT4OID,
    pg_sys::TIMESTAMPTZOID,
    pg_sys::TEXTOID,
    pg_sys::TEXTOID,
    pg_sys::TEXTOID,
    pg_sys::TEXTOID,
    pg_sys::TEXTOID,
];

/// Raises `55000` unless `table` is a heap with the columns of an outbox table. Columns that were
/// added and dropped again do not count.
///
/// # Safety
/// `table` is open.
pub(super) unsafe fn check_table(table: pg_sys::Relation) {
    // SAFETY: as the caller promises; places are below natts.
    unsafe {
        let class = &*(*table).rd_rel;
        let descriptor = (*table).rd_att;
        if class.relkind as u8 != pg_sys::RELKIND_RELATION {
            refuse(table, "it is not an ordinary table", RESTORE);
        }
        if class.relam != pg_sys::HEAP_TABLE_AM_OID {
            let hint = "ALTER TABLE ... SET ACCESS METHOD heap";
            refuse(table, "its access method is not heap", hint);
        }
        let count = (*descriptor).natts as usize;
        if count < COLUMN_TYPES.len() {
            refuse(table, "it lacks columns", RESTORE);
        }
        for (place, wanted) in COLUMN_TYPES.iter().enumerate() {
            let column = attribute(descriptor, place);
            if column.attisdropped || column.atttypid != *wanted {
                let name = name_of(&column.attname);
                let detail = format!("its column \"{name}\" was changed or dropped");
                refuse(table, &detail, RESTORE);
            }
        }
        for place in COLUMN_TYPES.len()..count {
            let column = attribute(descriptor, place);
            if !column.attisdropped {
                let name = name_of(&column.attname);
                let detail = format!("it has a column \"{name}\" that the extension does not know");
                refuse(table, &detail, "drop the column");
            }
        }
    }
}

const RESTORE: &str =
    "restore the table as the extension made it, or drop and create the extension webhook_ext";

/// Raises `55000` unless all indexes can be filled from the columns alone.
///
/// # Safety
/// `indexes` are the open indexes of the open `table`.
pub(super) unsafe fn check_indexes(table: pg_sys::Relation, indexes: pg_sys::CatalogIndexState) {
    // SAFETY: as the caller promises; both arrays have as many elements as there are indexes.
    unsafe {
        for place in 0..(*indexes).ri_NumIndices as usize {
            let index = *(*indexes).ri_IndexRelationDescs.add(place);
            let info = &**(*indexes).ri_IndexRelationInfo.add(place);
            // One that is not ready is not filled.
            if info.ii_ReadyForInserts {
                if let Some(reason) = unsupported(info, index) {
                    let name = name_of(&(*(*index).rd_rel).relname);
                    let detail = format!("its index \"{name}\" {reason}");
                    refuse(table, &detail, "drop the index");
                }
            }
        }
    }
}

/// # Safety
/// `info` describes the open `index`.
unsafe fn unsupported(info: &pg_sys::IndexInfo, index: pg_sys::Relation) -> Option<&'static str> {
    if !info.ii_Expressions.is_null() {
        return Some("has an expression");
    }
    if !info.ii_Predicate.is_null() {
        return Some("has a condition");
    }
    if !info.ii_ExclusionOps.is_null() {
        return Some("belongs to an exclusion constraint");
    }
    // SAFETY: as the caller promises.
    let immediate = unsafe { (*(*index).rd_index).indimmediate };
    (!immediate).then_some("belongs to a deferrable constraint")
}

/// # Safety
/// `table` is open.
unsafe fn refuse(table: pg_sys::Relation, detail: &str, hint: &str) -> ! {
    // SAFETY: as the caller promises.
    let name = name_of(unsafe { &(*(*table).rd_rel).relname });
    let message = format!("messages cannot be written to table webhook.{name}");
    raise(
        Error::new(Kind::NotInPrerequisiteState, message)
            .with_detail(detail.to_owned())
            .with_hint(hint),
    )
}

fn name_of(name: &pg_sys::NameData) -> String {
    // SAFETY: a name is NUL-terminated within its fixed length.
    let name = unsafe { CStr::from_ptr(name.data.as_ptr()) };
    encoding::from_server(name.to_bytes())
}
