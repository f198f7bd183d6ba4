//! Transactions of the worker.
//!
//! pgrx's own wrapper leaves a failed transaction open; this one aborts it and
//! returns the error as a value, so that one bad statement costs one cycle and
//! never the process. Statements run as the role of the worker. Not for use inside a user's
//! session.

use std::panic::AssertUnwindSafe;

use pgrx::pg_sys::panic::CaughtError;
use pgrx::{pg_sys, PgSqlErrorCode, PgTryBuilder};

use super::report::ok_or_raise;
use super::worker_role::{self, Session};
use super::{invalidation, spi};

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

    /// Raises it again, for an outer transaction to fail.
    pub fn raise(self) -> ! {
        pgrx::pg_sys::panic::ErrorReport::new(self.code, self.message, "")
            .report(pgrx::PgLogLevel::ERROR);
        unreachable!("an error does not return")
    }

    /// A lock of another session was in the way.
    pub fn is_lock_not_available(&self) -> bool {
        matches!(
            self.code,
            PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE
                | PgSqlErrorCode::ERRCODE_T_R_DEADLOCK_DETECTED
        )
    }
}

/// Runs `f` in a transaction of its own, as the role of the worker, with SPI connected and one
/// snapshot for everything it reads.
pub fn transaction<T>(f: impl FnOnce() -> T) -> Result<T, Failure> {
    as_process(|| {
        worker_role::assume(ok_or_raise(worker_role::find()));
        f()
    })
}

/// The same with the rights of the process: for catalogs alone, as long as it is not known
/// whether there is a role.
pub fn as_process<T>(f: impl FnOnce() -> T) -> Result<T, Failure> {
    let failed = |error: CaughtError| {
        let failure = Failure::from_caught(&error);
        abort();
        if failure.code == PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE {
            // The next look at the extension says what the role lacks.
            invalidation::mark_stale();
        }
        Err(failure)
    };
    PgTryBuilder::new(AssertUnwindSafe(|| {
        let session = begin();
        let result = spi::connected(f);
        commit(session);
        Ok(result)
    }))
    .catch_others(failed)
    .catch_rust_panic(failed)
    .execute()
}

/// Runs `f` as a part of the running transaction, under its snapshot. A part that fails is
/// undone; the transaction goes on.
pub fn part<T>(f: impl FnOnce() -> T) -> Result<T, Failure> {
    // SAFETY: plain reads of what PostgreSQL works with now; both outlive the part.
    let (context, owner) = unsafe { (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner) };
    let failed = |error: CaughtError| {
        let failure = Failure::from_caught(&error);
        // SAFETY: after a caught error the subtransaction is still the current one.
        unsafe {
            pg_sys::MemoryContextSwitchTo(context);
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
            pg_sys::MemoryContextSwitchTo(context);
            pg_sys::CurrentResourceOwner = owner;
        }
        Err(failure)
    };
    PgTryBuilder::new(AssertUnwindSafe(|| {
        // SAFETY: called inside `transaction`; the memory context is put back as PL/pgSQL does.
        unsafe {
            pg_sys::BeginInternalSubTransaction(std::ptr::null());
            pg_sys::MemoryContextSwitchTo(context);
        }
        let result = f();
        // SAFETY: ends what was begun above.
        unsafe {
            pg_sys::ReleaseCurrentSubTransaction();
            pg_sys::MemoryContextSwitchTo(context);
            pg_sys::CurrentResourceOwner = owner;
        }
        Ok(result)
    }))
    .catch_others(failed)
    .catch_rust_panic(failed)
    .execute()
}

fn begin() -> Session {
    // SAFETY: called outside a transaction, on the main thread of the worker.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
    }
    Session::begin()
}

fn commit(session: Session) {
    session.put_back();
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
    // which also drops its snapshots, locks and SPI connection, and puts back who acts.
    unsafe {
        pg_sys::AbortCurrentTransaction();
        pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
    }
}
