//! Transactions of the worker.
//!
//! pgrx's own wrapper leaves a failed transaction open; this one aborts it and
//! returns the error as a value, so that one bad statement costs one cycle and
//! never the process. Not for use inside a user's session.

use std::panic::AssertUnwindSafe;

use pgrx::pg_sys::panic::CaughtError;
use pgrx::{pg_sys, PgSqlErrorCode, PgTryBuilder};

use super::spi;

/// Why a transaction was rolled back.
#[derive(Debug)]
pub struct Failure {
    pub message: String,
    code: PgSqlErrorCode,
}

impl Failure {
    fn from_caught(error: &CaughtError) -> Self {
        let report = match error {
            CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => report,
            CaughtError::RustPanic { ereport, .. } => ereport,
        };
        Self {
            message: report.message().to_owned(),
            code: report.sql_error_code(),
        }
    }

    /// Somebody else held a lock, and it was not waited for.
    pub fn is_lock_not_available(&self) -> bool {
        self.code == PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE
    }
}

/// Runs `f` in a transaction of its own with SPI connected and one snapshot for
/// everything it reads.
pub fn transaction<T>(f: impl FnOnce() -> T) -> Result<T, Failure> {
    PgTryBuilder::new(AssertUnwindSafe(|| {
        begin();
        let result = spi::connected(f);
        commit();
        Ok(result)
    }))
    .catch_others(|error| {
        let failure = Failure::from_caught(&error);
        abort();
        Err(failure)
    })
    .catch_rust_panic(|error| {
        let failure = Failure::from_caught(&error);
        abort();
        Err(failure)
    })
    .execute()
}

fn begin() {
    // SAFETY: called outside a transaction, on the main thread of the worker.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
    }
}

fn commit() {
    // SAFETY: pairs with `begin`. Without the report autovacuum never sees what
    // the worker writes.
    unsafe {
        pg_sys::PopActiveSnapshot();
        pg_sys::CommitTransactionCommand();
        pg_sys::pgstat_report_stat(false);
    }
}

fn abort() {
    // SAFETY: after a caught error the transaction is still open; this ends it,
    // which also drops its snapshots, locks and SPI connection.
    unsafe {
        pg_sys::AbortCurrentTransaction();
        pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
    }
}
