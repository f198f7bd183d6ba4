//! Growing a `Vec` to a size that data decides.
//!
//! Rust's own growth aborts the process when memory runs out, and the postmaster then restarts
//! all sessions. Here it is an error of the statement, as with PostgreSQL's allocator.

use pgrx::PgSqlErrorCode;

/// Makes room for so many more elements; raises `53200` if there is no memory.
#[inline]
pub fn reserve<T>(vec: &mut Vec<T>, additional: usize) {
    if vec.try_reserve(additional).is_err() {
        out_of_memory(additional.saturating_mul(size_of::<T>()));
    }
}

/// As [`reserve`], without room for later growth.
#[inline]
pub fn reserve_exact<T>(vec: &mut Vec<T>, additional: usize) {
    if vec.try_reserve_exact(additional).is_err() {
        out_of_memory(additional.saturating_mul(size_of::<T>()));
    }
}

/// Appends a copy of `more`; raises `53200` if there is no memory.
#[inline]
pub fn extend<T: Copy>(vec: &mut Vec<T>, more: &[T]) {
    reserve(vec, more.len());
    vec.extend_from_slice(more);
}

#[cold]
fn out_of_memory(bytes: usize) -> ! {
    pgrx::ereport!(
        ERROR,
        PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY,
        "out of memory",
        format!("webhook_ext could not allocate {bytes} bytes")
    );
}
