//! Statements of the functions that users call: seldom run, so neither kept nor fast.
//!
//! Read and write go one way, so a statement sees what those before it wrote. An
//! error of PostgreSQL unwinds to the caller's transaction. Column types are those
//! the statement declares; a mismatch is a bug here and says so.

use pgrx::spi::SpiHeapTupleData;
use pgrx::Spi;

use crate::pg::encoding::to_server_cstring;
use crate::pg::text::{datums, Column, Param};

/// One row of an answer; columns are counted from 1.
pub struct Row<'a>(SpiHeapTupleData<'a>);

impl Row<'_> {
    /// A column that may be NULL.
    pub fn get<T: Column>(&self, column: usize) -> Option<T> {
        let stored = self
            .0
            .get(column)
            .expect("the statement declares this type for this column");
        stored.map(T::from_stored)
    }

    /// A column that is never NULL.
    pub fn value<T: Column>(&self, column: usize) -> T {
        self.get(column)
            .expect("the statement never gives NULL for this column")
    }
}

/// Runs a statement and reads each row of its answer.
pub fn query<T>(sql: &str, args: &[Param], read: impl Fn(&Row<'_>) -> T) -> Vec<T> {
    let sql = to_server_cstring(sql);
    Spi::connect_mut(|client| {
        client
            .update(sql.as_c_str(), None, datums(args))
            .expect("SPI takes the statements of this crate")
            .map(|row| read(&Row(row)))
            .collect()
    })
}

/// The first row of the answer.
pub fn first<T>(sql: &str, args: &[Param], read: impl Fn(&Row<'_>) -> T) -> Option<T> {
    query(sql, args, read).into_iter().next()
}

/// Runs a statement without an answer.
pub fn execute(sql: &str, args: &[Param]) {
    query(sql, args, |_| ());
}
