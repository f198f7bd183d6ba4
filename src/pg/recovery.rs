//! Whether this server is a standby, where the extension neither runs nor writes.

use pgrx::pg_sys;

use crate::core::error::{Error, Kind, Result};

/// True on a standby until it is promoted.
pub fn is_in_progress() -> bool {
    // SAFETY: reads a flag in shared memory.
    unsafe { pg_sys::RecoveryInProgress() }
}

/// # Errors
/// `55000` on a standby: `what`, like "cannot start the webhook worker", during recovery.
pub fn check_is_over(what: &str) -> Result<()> {
    if !is_in_progress() {
        return Ok(());
    }
    Err(Error::new(
        Kind::NotInPrerequisiteState,
        format!("{what} during recovery"),
    )
    .with_hint(
        "this server is a standby and delivers nothing before its promotion: call this on the \
         primary",
    ))
}
