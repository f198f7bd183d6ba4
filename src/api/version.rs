//! `webhook.version`: what is loaded and what is installed.

use pgrx::prelude::*;

use crate::store::version;

#[pg_extern(sql = false)]
fn library_version() -> String {
    version::described()
}
