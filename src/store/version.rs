//! Whether the SQL of this database and this library are of one version.
//!
//! After a new package is installed, sessions have its library before ALTER EXTENSION has
//! changed the schema; after that, sessions that loaded the old library keep it.

use pgrx::PgSqlErrorCode;

use crate::core::error::{Error, Kind, Result};
use crate::pg::report::translated;
use crate::pg::{members, owner};

const WAY_OUT: &str = "run ALTER EXTENSION webhook_ext UPDATE; if that was done, reconnect, and \
    restart the server if it preloads the library";

/// The version of this library.
pub fn of_library() -> String {
    #[cfg(feature = "fault_injection")]
    if let Some(claimed) = crate::pg::fault::claimed_version() {
        return claimed;
    }
    env!("CARGO_PKG_VERSION").to_owned()
}

/// What differs, and what to do about it; `installed` is the version of the SQL.
pub fn mismatch(installed: &str) -> Option<Error> {
    let library = of_library();
    (installed != library).then(|| {
        Error::new(
            Kind::NotInPrerequisiteState,
            format!(
                "webhook_ext {installed} is installed in this database, but the library is {library}"
            ),
        )
        .with_hint(WAY_OUT)
    })
}

/// # Errors
/// `55000` if the versions differ: a statement of this library may not fit the tables.
pub fn check() -> Result<()> {
    owner::extension()
        .and_then(members::installed_version)
        .and_then(|installed| mismatch(&installed))
        .map_or(Ok(()), Err)
}

/// Runs a statement of capture. It fits the schema of other versions as long as these have the
/// names in it; where they do not, the error says what to do.
pub fn check_names<T>(f: impl FnOnce() -> T) -> T {
    translated(f, |refusal| {
        let is_name = [
            PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
            PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
            PgSqlErrorCode::ERRCODE_UNDEFINED_FUNCTION,
        ]
        .contains(&refusal.code);
        is_name.then(|| {
            Error::new(
                Kind::NotInPrerequisiteState,
                format!(
                    "the tables of webhook_ext do not fit its library, which is {}: {}",
                    of_library(),
                    refusal.message
                ),
            )
            .with_hint(WAY_OUT)
        })
    })
}
