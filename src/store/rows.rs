//! Statements of the functions that users call: seldom run, so neither kept nor fast.
//!
//! Read and write go one way, so a statement sees what those before it wrote. An
//! error of PostgreSQL unwinds to the caller's transaction. Column types are those
//! the statement declares; a mismatch is a bug here and says so.

use pgrx::datum::DatumWithOid;
use pgrx::spi::SpiHeapTupleData;
use pgrx::{FromDatum, IntoDatum, Spi};

/// One row of an answer; columns are counted from 1.
pub struct Row<'a>(SpiHeapTupleData<'a>);

impl Row<'_> {
    /// A column that may be NULL.
    pub fn get<T: FromDatum + IntoDatum>(&self, column: usize) -> Option<T> {
        self.0
            .get(column)
            .expect("the statement declares this type for this column")
    }

    /// A column that is never NULL.
    pub fn value<T: FromDatum + IntoDatum>(&self, column: usize) -> T {
        self.get(column)
            .expect("the statement never gives NULL for this column")
    }
}

/// Runs a statement and reads each row of its answer.
pub fn query<T>(sql: &str, args: &[DatumWithOid<'_>], read: impl Fn(&Row<'_>) -> T) -> Vec<T> {
    Spi::connect_mut(|client| {
        client
            .update(sql, None, args)
            .expect("SPI takes the statements of this crate")
            .map(|row| read(&Row(row)))
            .collect()
    })
}

/// The first row of the answer.
pub fn first<T>(sql: &str, args: &[DatumWithOid<'_>], read: impl Fn(&Row<'_>) -> T) -> Option<T> {
    query(sql, args, read).into_iter().next()
}

/// Runs a statement without an answer.
pub fn execute(sql: &str, args: &[DatumWithOid<'_>]) {
    query(sql, args, |_| ());
}
