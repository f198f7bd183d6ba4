//! `webhook.adopt`: a copy of a database becomes the one that captures and sends.

use pgrx::prelude::*;
use serde_json::json;

use crate::core::definitions::webhook::shown;
use crate::core::error::{Error, Kind, Result};
use crate::pg::arguments::{required_word, TextArgument};
use crate::pg::commit_start;
use crate::pg::identity::is_superuser;
use crate::pg::owner::current_role;
use crate::pg::recovery;
use crate::pg::report::{self, ok_or_raise};
use crate::store::{change_log, deliveries, identity, worker_switch};

#[pg_extern(sql = false)]
fn adopt(pending: Option<TextArgument>) {
    let forgets = ok_or_raise(checked(pending));
    if identity::copy_notice().is_none() {
        pgrx::notice!("this database is no copy: nothing is to be done");
        return;
    }
    if forgets {
        let count = deliveries::forget_pending();
        pgrx::notice!("{count} pending messages are not sent");
    }
    identity::record_move();
    let pending = if forgets { "forget" } else { "keep" };
    change_log::adopted(json!({ "pending": pending }), &current_role());
    if !worker_switch::is_stopped() {
        commit_start::wake_worker_at_commit();
    }
}

/// Whether what is pending is to be forgotten.
fn checked(pending: Option<TextArgument>) -> Result<bool> {
    recovery::check_is_over("a database cannot be adopted")?;
    if !is_superuser() {
        return Err(Error::new(
            Kind::InsufficientPrivilege,
            "permission denied to adopt a database",
        )
        .with_hint("only a superuser may let a copy of a database send messages"));
    }
    match required_word(pending, "pending")?.as_str() {
        "keep" => Ok(false),
        "forget" => Ok(true),
        other => Err(Error::invalid(format!(
            "pending \"{}\" is neither keep nor forget",
            shown(other)
        ))
        .with_hint("'keep' sends what is pending here, 'forget' does not")),
    }
}

/// Tells a user that what is defined now has no effect yet.
pub fn warn_if_held() {
    if let Some(notice) = identity::copy_notice() {
        report::warn(Error::new(Kind::NotInPrerequisiteState, notice));
    }
}

/// # Errors
/// `55000` in a copy.
pub fn check_is_not_held(what: &str) -> Result<()> {
    identity::copy_notice().map_or(Ok(()), |notice| {
        Err(
            Error::new(Kind::NotInPrerequisiteState, format!("cannot {what}"))
                .with_detail(notice)
                .with_hint("if this database is to send messages, select webhook.adopt()"),
        )
    })
}
