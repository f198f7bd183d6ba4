//! Two versions of a row that a statement made up, for previews.
//!
//! The statement and `f` run code of the table's owner: see `owner::as_table_owner`. What
//! PostgreSQL refuses is raised as it is.

use pgrx::{heap_tuple_header_get_datum_length, heap_tuple_header_get_type_id};
use pgrx::{pg_sys, Spi};

use super::encoding::to_server_cstring;
use super::row_json::changed::FieldWatch;
use super::row_json::{column_name, column_number, Field, LimitedText, RowWriter, TooLarge};
use super::text::{datums, Param};
use crate::core::definitions::words::{ListStyle, NullStyle};

/// Types of tables carry no type modifier.
const NO_TYPMOD: i32 = -1;

/// A row before and after a change; valid while the statement's answer is.
pub struct SampleRow {
    descriptor: pg_sys::TupleDesc,
    before: pg_sys::HeapTupleData,
    after: pg_sys::HeapTupleData,
}

/// Runs a statement that answers with one row of two columns, a table's row before
/// and after, and shows it to `f`.
pub fn with_sample_row<T>(sql: &str, args: &[Param], f: impl FnOnce(&mut SampleRow) -> T) -> T {
    let sql = to_server_cstring(sql);
    Spi::connect(|client| {
        let answer = client
            .select(sql.as_c_str(), Some(1), datums(args))
            .expect("SPI takes the statements of this crate")
            .first();
        let column = |place| {
            answer
                .get_datum_by_ordinal(place)
                .expect("the statement answers with two columns")
                .expect("the statement never gives NULL")
        };
        // SAFETY: both columns are rows of one table, which live as long as the answer.
        unsafe {
            let (before, after) = (tuple(column(1)), tuple(column(2)));
            let type_id = heap_tuple_header_get_type_id(after.t_data);
            let mut sample = SampleRow {
                descriptor: pg_sys::lookup_rowtype_tupdesc_copy(type_id, NO_TYPMOD),
                before,
                after,
            };
            f(&mut sample)
        }
    })
}

/// # Safety
/// `datum` is a composite value.
unsafe fn tuple(datum: pg_sys::Datum) -> pg_sys::HeapTupleData {
    // SAFETY: a composite value is a varlena that starts with a tuple header.
    unsafe {
        let header: pg_sys::HeapTupleHeader = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast();
        pg_sys::HeapTupleData {
            t_len: heap_tuple_header_get_datum_length(header) as u32,
            t_data: header,
            ..Default::default()
        }
    }
}

impl SampleRow {
    /// The number of a live column by its name.
    pub fn column(&self, name: &str) -> Option<i16> {
        // SAFETY: the descriptor is ours.
        unsafe { column_number(self.descriptor, name) }
    }

    /// The row after the change as a JSON object.
    ///
    /// # Errors
    /// Bytes that it has at least, if a message of up to `limit_bytes` cannot hold it.
    pub fn after(
        &mut self,
        fields: Option<&[Field]>,
        styles: (NullStyle, ListStyle),
        limit_bytes: usize,
    ) -> Result<LimitedText, usize> {
        let after = &raw mut self.after;
        // SAFETY: the tuple is a row of the descriptor's table.
        unsafe { written(self.descriptor, after, fields, styles, limit_bytes) }
    }

    /// The row before the change as a JSON object.
    ///
    /// # Errors
    /// As [`SampleRow::after`].
    pub fn before(
        &mut self,
        fields: &[Field],
        styles: (NullStyle, ListStyle),
        limit_bytes: usize,
    ) -> Result<LimitedText, usize> {
        let before = &raw mut self.before;
        // SAFETY: as above.
        unsafe { written(self.descriptor, before, Some(fields), styles, limit_bytes) }
    }

    /// The names of the fields that differ.
    pub fn changed_names(&mut self) -> Vec<String> {
        let mut numbers = Vec::new();
        // SAFETY: both tuples are rows of the descriptor's table.
        unsafe {
            FieldWatch::compile(self.descriptor, None).list_changed(
                self.descriptor,
                &raw mut self.before,
                &raw mut self.after,
                &mut numbers,
            );
            let name = |number: &i16| column_name(self.descriptor, *number);
            numbers.iter().map(name).collect()
        }
    }
}

/// # Safety
/// `tuple` is a row of the table that `descriptor` describes.
unsafe fn written(
    descriptor: pg_sys::TupleDesc,
    tuple: pg_sys::HeapTuple,
    fields: Option<&[Field]>,
    (nulls, lists): (NullStyle, ListStyle),
    limit_bytes: usize,
) -> Result<LimitedText, usize> {
    let mut out = LimitedText::default();
    // SAFETY: as this function's; SPI has a transaction and a snapshot.
    let written = unsafe {
        let mut writer = RowWriter::compile(descriptor, fields, nulls, lists);
        writer.write(descriptor, tuple, limit_bytes, &mut out)
    };
    match written {
        Ok(()) => Ok(out),
        Err(TooLarge) => Err(out.size()),
    }
}
