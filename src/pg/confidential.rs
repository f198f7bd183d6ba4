//! Handing a statement a value that no plan, parameter list or log shows.
//!
//! Parameters of a nested statement are constants in its plan, and `auto_explain` logs both. A
//! transition table has neither: the plan says that it is read, not what it holds.

use pgrx::pg_sys;

use super::spi::text_datum;

/// Names the one column of [`PASSED`].
const VALUE: &std::ffi::CStr = c"value";
/// What statements call the relation. It goes before any table of that name.
const PASSED: &std::ffi::CStr = c"passed";
/// In memory whatever its size: a temporary file would outlive the statement.
const MAX_KB: i32 = i32::MAX / 2;
const NO_TYPMOD: i32 = -1;
const NO_DIMENSIONS: i32 = 0;

/// Makes the relation `passed (value text)` of one row, for the statements of the open SPI
/// connection. It goes when that ends.
pub fn pass(value: Option<&str>) {
    // SAFETY: called between SPI_connect and SPI_finish, so all that is allocated lives as long
    // as the connection; descriptor and values have the one column.
    unsafe {
        let descriptor = pg_sys::CreateTemplateTupleDesc(1);
        pg_sys::TupleDescInitEntry(
            descriptor,
            1,
            VALUE.as_ptr(),
            pg_sys::TEXTOID,
            NO_TYPMOD,
            NO_DIMENSIONS,
        );
        let store = pg_sys::tuplestore_begin_heap(false, false, MAX_KB);
        let mut nulls = [value.is_none()];
        let mut values = [value.map_or(pg_sys::Datum::null(), text_datum)];
        pg_sys::tuplestore_putvalues(store, descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
        let relation = pg_sys::palloc0(size_of::<pg_sys::EphemeralNamedRelationData>())
            .cast::<pg_sys::EphemeralNamedRelationData>();
        (*relation).md.name = PASSED.as_ptr().cast_mut();
        (*relation).md.tupdesc = descriptor;
        (*relation).md.enrtype = pg_sys::EphemeralNameRelationType::ENR_NAMED_TUPLESTORE;
        (*relation).md.enrtuples = 1.0;
        (*relation).reldata = store.cast();
        let code = pg_sys::SPI_register_relation(relation);
        if code != pg_sys::SPI_OK_REL_REGISTER as i32 {
            pgrx::error!("SPI_register_relation returned {code}");
        }
    }
}
