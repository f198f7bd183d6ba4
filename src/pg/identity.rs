//! What tells this database from every other.

use pgrx::pg_sys;

use super::settings;
use crate::core::messages::identity::{Identity, Installation};

/// This database on this server.
pub fn here() -> Installation {
    // SAFETY: the control file has been read before any session starts, and a session's
    // database does not change.
    let (system, database) =
        unsafe { (pg_sys::GetSystemIdentifier(), pg_sys::MyDatabaseId.to_u32()) };
    Installation {
        identity: Identity {
            system,
            database,
            name: settings::identity(),
        },
        server_major: pg_sys::PG_VERSION_NUM as i32 / 10_000,
    }
}

/// Whether the current user is a superuser.
pub fn is_superuser() -> bool {
    // SAFETY: a catalog look-up in a transaction.
    unsafe { pg_sys::superuser() }
}
