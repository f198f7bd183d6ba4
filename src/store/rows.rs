//! Statements of the functions that users call: seldom run, so neither kept nor fast.
//!
//! Read and write go one way, so a statement sees what those before it wrote; but on a
//! standby, where nothing can be written, what reads goes the way that takes no
//! transaction id. An error of PostgreSQL unwinds to the caller's transaction. Column
//! types are those the statement declares; a mismatch is a bug here and says so.

use pgrx::spi::{SpiHeapTupleData, SpiTupleTable};
use pgrx::Spi;

use super::version;
use crate::pg::confidential;
use crate::pg::encoding::to_server_cstring;
use crate::pg::recovery;
use crate::pg::report::ok_or_raise;
use crate::pg::text::{datums, Column, Param};

const TAKES: &str = "SPI takes the statements of this crate";

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
    ok_or_raise(version::check());
    query_any_version(sql, args, read)
}

/// The same where the SQL of this database may be of another version.
pub fn query_any_version<T>(sql: &str, args: &[Param], read: impl Fn(&Row<'_>) -> T) -> Vec<T> {
    let rows = |answer: SpiTupleTable<'_>| answer.map(|row| read(&Row(row))).collect();
    let text = to_server_cstring(sql);
    let (text, args) = (text.as_c_str(), datums(args));
    if recovery::is_in_progress() {
        if !only_reads(sql) {
            ok_or_raise(recovery::check_is_over("webhooks cannot be changed"));
        }
        return Spi::connect(|client| rows(client.select(text, None, args).expect(TAKES)));
    }
    Spi::connect_mut(|client| rows(client.update(text, None, args).expect(TAKES)))
}

/// Of the statements of this crate; one that locks rows writes.
fn only_reads(sql: &str) -> bool {
    let sql = sql.trim_start();
    let reads = sql.starts_with("select") || sql.starts_with("with recursive");
    reads && !sql.contains("\nfor ")
}

/// The first row of the answer.
pub fn first<T>(sql: &str, args: &[Param], read: impl Fn(&Row<'_>) -> T) -> Option<T> {
    query(sql, args, read).into_iter().next()
}

/// The first row of the answer of a statement that writes. `passed` is what its relation
/// `passed (value text)` holds: no log and no plan shows it, whatever is logged.
pub fn first_with<T>(
    sql: &str,
    args: &[Param],
    passed: Option<&str>,
    read: impl Fn(&Row<'_>) -> T,
) -> Option<T> {
    ok_or_raise(version::check());
    ok_or_raise(recovery::check_is_over("webhooks cannot be changed"));
    let text = to_server_cstring(sql);
    Spi::connect_mut(|client| {
        confidential::pass(passed);
        let answer = client.update(text.as_c_str(), None, datums(args));
        answer.expect(TAKES).next().map(|row| read(&Row(row)))
    })
}

/// Runs a statement without an answer.
pub fn execute(sql: &str, args: &[Param]) {
    query(sql, args, |_| ());
}
