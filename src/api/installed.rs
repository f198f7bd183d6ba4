//! What CREATE EXTENSION and ALTER EXTENSION … UPDATE do last.

use pgrx::prelude::*;

use crate::pg::commit_start;

/// The worker starts, or looks again, as soon as the extension is committed, and not if it is not.
#[pg_extern(sql = false)]
fn extension_installed() {
    // One that runs may be about to leave, because the extension was dropped a moment ago.
    commit_start::start_worker_at_commit();
    commit_start::tell_worker_at_commit();
}
