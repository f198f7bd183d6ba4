//! The part of the contract that is declared but not built yet: each function says so.
//!
//! Their arguments stand in `sql/functions.sql`; nothing looks at them.

use pgrx::prelude::*;

use crate::core::error::{Error, Kind};
use crate::pg::report::raise;

fn not_yet(function: &str) -> ! {
    raise(
        Error::new(
            Kind::FeatureNotSupported,
            format!("webhook.{function}() is not supported yet"),
        )
        .with_hint("\\df+ webhook.* shows what each function does in this version"),
    )
}

#[pg_extern(sql = false)]
fn redeliver() {
    not_yet("redeliver")
}

#[pg_extern(sql = false)]
fn redeliver_failed() {
    not_yet("redeliver_failed")
}

#[pg_extern(sql = false)]
fn cancel() {
    not_yet("cancel")
}

#[pg_extern(sql = false)]
fn cancel_pending() {
    not_yet("cancel_pending")
}
