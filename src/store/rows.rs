//! Statements of the functions that users call. A session keeps their plans: one that defines
//! thousands of webhooks runs each thousands of times.
//!
//! Read and write go one way, so a statement sees what those before it wrote; but on a
//! standby, where nothing can be written, what reads goes the way that takes no
//! transaction id. An error of PostgreSQL unwinds to the caller's transaction. Column
//! types are those the statement declares; a mismatch is a bug here and says so.

use std::cell::RefCell;
use std::collections::HashMap;

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::{self, PgOid};
use pgrx::spi::{OwnedPreparedStatement, SpiClient, SpiHeapTupleData, SpiTupleTable};
use pgrx::Spi;

use super::version;
use crate::pg::confidential;
use crate::pg::encoding::to_server_cstring;
use crate::pg::report::ok_or_raise;
use crate::pg::text::{datums, Column, Param};
use crate::pg::{owner, recovery};

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
    Spi::connect_mut(|client| match plan(client, sql, args) {
        Some(plan) => rows(client.update(plan, None, args).expect(TAKES)),
        None => rows(client.update(text, None, args).expect(TAKES)),
    })
}

/// Plans of a session that defines many webhooks; others have few.
const MOST_PLANS: usize = 200;
/// A plan that was made while there were few rows may read all of them by any index, and is kept
/// until the table is analysed, which is not before the session's statement ends. So a session that
/// inserts much plans again, each time it has inserted so many times as much as before.
const GROWTH: u32 = 8;

/// Plans by statement, made for one extension: constants in them may name its objects.
#[derive(Default)]
struct Plans {
    extension: Option<pg_sys::Oid>,
    inserts: u32,
    /// Never freed: a process that ends may no longer call PostgreSQL for it.
    by_statement: HashMap<String, &'static OwnedPreparedStatement>,
}

thread_local! {
    static PLANS: RefCell<Plans> = RefCell::default();
}

/// The kept plan of a statement that PostgreSQL plans.
fn plan(
    client: &SpiClient<'_>,
    sql: &str,
    args: &[DatumWithOid<'_>],
) -> Option<&'static OwnedPreparedStatement> {
    let verbs = ["select", "insert", "update", "delete", "with"];
    let first = sql.split_whitespace().next()?;
    if !verbs.contains(&first) {
        return None;
    }
    let extension = owner::extension();
    let known = PLANS.with_borrow_mut(|plans| {
        if first == "insert" {
            plans.inserts = plans.inserts.saturating_add(1);
        }
        let has_grown = first == "insert" && is_step(plans.inserts);
        if has_grown || plans.extension != extension || plans.by_statement.len() >= MOST_PLANS {
            plans.extension = extension;
            plans.by_statement.clear();
        }
        plans.by_statement.get(sql).copied()
    });
    if known.is_some() {
        return known;
    }
    let types: Vec<PgOid> = args.iter().map(|arg| arg.oid().into()).collect();
    let text = to_server_cstring(sql);
    let made = client.prepare_mut(text.as_c_str(), &types).expect(TAKES);
    let made: &'static _ = Box::leak(Box::new(made.keep()));
    PLANS.with_borrow_mut(|plans| plans.by_statement.insert(sql.to_owned(), made));
    Some(made)
}

/// Whether it is a power of [`GROWTH`].
fn is_step(inserts: u32) -> bool {
    inserts > 1 && inserts.is_power_of_two() && inserts.ilog2().is_multiple_of(GROWTH.ilog2())
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
        let args = datums(args);
        let answer = match plan(client, sql, args) {
            Some(plan) => client.update(plan, None, args),
            None => client.update(text.as_c_str(), None, args),
        };
        answer.expect(TAKES).next().map(|row| read(&Row(row)))
    })
}

/// Runs a statement without an answer.
pub fn execute(sql: &str, args: &[Param]) {
    query(sql, args, |_| ());
}
