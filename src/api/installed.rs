//! What CREATE EXTENSION does last.

use pgrx::prelude::*;

use crate::pg::commit_start;

/// The worker starts as soon as the extension is committed, and not if it is not.
#[pg_extern(sql = false)]
fn extension_installed() {
    commit_start::start_worker_at_commit();
}
