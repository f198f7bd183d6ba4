//! What CREATE EXTENSION and ALTER EXTENSION … UPDATE do last.

use pgrx::prelude::*;

use crate::pg::commit_start;

/// The worker starts, or looks again, as soon as the extension is committed, and not if it is not.
#[pg_extern(sql = false)]
fn extension_installed() {
    commit_start::wake_worker_at_commit();
}
