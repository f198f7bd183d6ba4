//! The domain's errors as PostgreSQL errors.
//!
//! The only place that knows SQLSTATEs. What PostgreSQL itself raises passes
//! through untouched, unless [`translated`] replaces its text.

use std::panic::AssertUnwindSafe;

use pgrx::pg_sys::panic::{CaughtError, ErrorReport};
use pgrx::{PgLogLevel, PgSqlErrorCode, PgTryBuilder};

use super::encoding::readable_anywhere;
use crate::core::error::{Error, Kind, Result};

fn sqlstate(kind: Kind) -> PgSqlErrorCode {
    match kind {
        Kind::InvalidParameter => PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
        Kind::UndefinedObject => PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
        Kind::DuplicateObject => PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT,
        Kind::InsufficientPrivilege => PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        Kind::WrongObjectType => PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
        Kind::NotInPrerequisiteState => PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        Kind::LockNotAvailable => PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE,
    }
}

fn report_of(error: Error) -> ErrorReport {
    let message = readable_anywhere(error.message);
    let mut report = ErrorReport::new(sqlstate(error.kind), message, "");
    if let Some(detail) = error.detail {
        report = report.set_detail(readable_anywhere(detail));
    }
    if let Some(hint) = error.hint {
        report = report.set_hint(readable_anywhere(hint));
    }
    report
}

/// Raises an error of the domain.
pub fn raise(error: Error) -> ! {
    report_of(error).report(PgLogLevel::ERROR);
    unreachable!("an ERROR does not return")
}

/// Writes the same to the log, where no statement can fail with it.
pub fn warn(error: Error) {
    report_of(error).report(PgLogLevel::WARNING);
}

/// Tells the client something that stops nothing.
pub fn notice(message: String, hint: &str) {
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
        readable_anywhere(message),
        "",
    )
    .set_hint(readable_anywhere(hint.to_owned()))
    .report(PgLogLevel::NOTICE);
}

/// The value, or the error raised.
pub fn ok_or_raise<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|error| raise(error))
}

/// PostgreSQL's error for a failed statement of the extension.
pub struct Refusal {
    pub code: PgSqlErrorCode,
    pub message: String,
    pub hint: Option<String>,
}

/// The first two of the five characters of an SQLSTATE, six bits each.
const CLASS_BITS: isize = 0xfff;

impl Refusal {
    /// Whether the SQLSTATE is of the same class as `other`.
    pub fn is_of_class(&self, other: PgSqlErrorCode) -> bool {
        is_of_class(self.code, other)
    }
}

/// Whether two SQLSTATEs are of one class.
pub fn is_of_class(code: PgSqlErrorCode, other: PgSqlErrorCode) -> bool {
    code as isize & CLASS_BITS == other as isize & CLASS_BITS
}

/// Runs `f`; an error of PostgreSQL that `translate` has words for is raised in those
/// words, any other as it is. Either way the transaction fails.
pub fn translated<T>(f: impl FnOnce() -> T, translate: impl Fn(&Refusal) -> Option<Error>) -> T {
    let translate = AssertUnwindSafe(translate);
    PgTryBuilder::new(AssertUnwindSafe(f))
        .catch_others(move |caught| {
            if let CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) = &caught {
                let refusal = Refusal {
                    code: report.sql_error_code(),
                    message: report.message().to_owned(),
                    hint: report.hint().map(str::to_owned),
                };
                if let Some(error) = translate(&refusal) {
                    raise(error);
                }
            }
            caught.rethrow()
        })
        .execute()
}
