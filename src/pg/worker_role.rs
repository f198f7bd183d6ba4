//! The role that the worker's statements run as.
//!
//! The process belongs to a superuser. Code that others attach to a statement (a trigger, a function
//! in a view, an operator) runs with the statement's privileges. So each statement runs as a role
//! that has only the privileges it needs, in a security-restricted operation, which can neither
//! change roles nor leave anything behind for later. The role has no members.

use std::cell::Cell;

use pgrx::pg_sys;

use super::invalidation;
use crate::core::error::{Error, Kind, Result};

const NAME: &std::ffi::CStr = c"webhook_worker";

/// How to restore the role and its privileges.
pub const WAY_OUT: &str = "a superuser runs select webhook.create_worker_role()";

thread_local! {
    /// The role, and the generation of roles in which it was looked up.
    static FOUND: Cell<Option<(u64, pg_sys::Oid)>> = const { Cell::new(None) };
}

/// In a transaction. A role that was dropped and made again is another one.
///
/// # Errors
/// `55000` if there is no such role.
pub fn find() -> Result<pg_sys::Oid> {
    // Before the look-up, so that a change during it is not missed.
    let generation = invalidation::role_generation();
    if let Some((_, role)) = FOUND.get().filter(|(seen, _)| *seen == generation) {
        return Ok(role);
    }
    // SAFETY: a catalog look-up in a transaction; the name is NUL-terminated.
    let role = unsafe { pg_sys::get_role_oid(NAME.as_ptr(), true) };
    if role == pg_sys::InvalidOid {
        FOUND.set(None);
        return Err(refusal("does not exist"));
    }
    FOUND.set(Some((generation, role)));
    Ok(role)
}

/// The error for a role that cannot be used.
pub fn refusal(why: &str) -> Error {
    Error::new(
        Kind::NotInPrerequisiteState,
        format!("role \"webhook_worker\" {why}: {WAY_OUT}"),
    )
    .with_hint("until then nothing is sent, and what is pending stays")
}

/// From here on the transaction acts as `role`. Its end puts the session back (see `tx`), and so
/// does its abort: PostgreSQL notes at the start of a transaction who acts.
pub fn assume(role: pg_sys::Oid) {
    let flags = pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_RESTRICTED_OPERATION;
    // SAFETY: writes two variables of this process, in a transaction.
    unsafe { pg_sys::SetUserIdAndSecContext(role, flags as i32) }
}

/// The identity and the level of settings at the start of a transaction.
pub struct Session {
    user: pg_sys::Oid,
    context: i32,
    settings: i32,
}

impl Session {
    /// Right after the start of a transaction.
    pub fn begin() -> Self {
        let mut session = Self {
            user: pg_sys::InvalidOid,
            context: 0,
            settings: 0,
        };
        // SAFETY: reads variables of this process; counts up its level of settings.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&mut session.user, &mut session.context);
            session.settings = pg_sys::NewGUCNestLevel();
        }
        session
    }

    /// Right before its commit: no deferred code waits, as a security-restricted operation
    /// forbids that. What a statement set for the session is undone, or the next one would run
    /// under it.
    pub fn put_back(self) {
        // SAFETY: the level and the identity that `begin` found; all that came after has ended.
        unsafe {
            pg_sys::AtEOXact_GUC(false, self.settings);
            pg_sys::SetUserIdAndSecContext(self.user, self.context);
        }
    }
}
