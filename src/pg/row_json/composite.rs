//! Values of composite types as nested objects.
//!
//! A composite type can change while a table uses it, without notice to that
//! table, so each value asks the type cache whether the type still is the one
//! compiled for.

use pgrx::pg_sys;

use super::fields::Fields;
use super::limited::{LimitedText, Written};
use super::varlena;
use super::Surroundings;

/// Composite types that a column can have carry no type modifier.
const NO_TYPMOD: i32 = -1;

/// A stored composite has at most so many bytes for one of its JSON: beside a header, 8 for a
/// bigint `"n":0,`.
const BYTES_PER_BYTE: usize = 5;

pub(super) struct Composite {
    type_id: pg_sys::Oid,
    compiled: Option<Compiled>,
}

struct Compiled {
    /// The type cache's number for one state of the type.
    state: u64,
    fields: Fields,
}

impl Composite {
    pub(super) fn of_type(type_id: pg_sys::Oid) -> Self {
        Self {
            type_id,
            compiled: None,
        }
    }

    /// # Safety
    /// `image` is a value of the type; a transaction is open.
    pub(super) unsafe fn write(
        &mut self,
        image: *const u8,
        out: &mut LimitedText,
        surroundings: &mut Surroundings,
    ) -> Written {
        // SAFETY: as this function's.
        surroundings.nested(|surroundings| unsafe { self.write_nested(image, out, surroundings) })
    }

    /// # Safety
    /// As `write`.
    unsafe fn write_nested(
        &mut self,
        image: *const u8,
        out: &mut LimitedText,
        surroundings: &mut Surroundings,
    ) -> Written {
        // SAFETY: as this function's; a composite value starts with a tuple header.
        unsafe {
            out.require(varlena::unfetched_len(image) / BYTES_PER_BYTE)?;
            let header = varlena::aligned(image, &mut surroundings.memory);
            let row_type = RowType::look_up(self.type_id);
            self.fields(&row_type, surroundings).write(
                row_type.0,
                header.cast_mut().cast(),
                out,
                surroundings,
            )
        }
    }

    /// # Safety
    /// As `write`.
    unsafe fn fields(
        &mut self,
        row_type: &RowType,
        surroundings: &mut Surroundings,
    ) -> &mut Fields {
        // SAFETY: the type cache has just looked the type up.
        let state = unsafe { pg_sys::assign_record_type_identifier(self.type_id, NO_TYPMOD) };
        self.compiled.take_if(|compiled| compiled.state != state);
        let compiled = self.compiled.get_or_insert_with(|| Compiled {
            state,
            // SAFETY: the descriptor is held.
            fields: unsafe { Fields::compile(row_type.0, None, surroundings) },
        });
        &mut compiled.fields
    }
}

/// The descriptor of a composite type, held until dropped.
struct RowType(pg_sys::TupleDesc);

impl RowType {
    /// # Safety
    /// The type is composite; a transaction is open.
    unsafe fn look_up(type_id: pg_sys::Oid) -> Self {
        // SAFETY: as this function's.
        Self(unsafe { pg_sys::lookup_rowtype_tupdesc(type_id, NO_TYPMOD) })
    }
}

impl Drop for RowType {
    fn drop(&mut self) {
        // After an error the transaction's end gives it back; to do so here could
        // raise a second error while the first is on its way.
        // SAFETY: still held, and counted unless the count is negative.
        unsafe {
            if !std::thread::panicking() && (*self.0).tdrefcount >= 0 {
                pg_sys::DecrTupleDescRefCount(self.0);
            }
        }
    }
}
