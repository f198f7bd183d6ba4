//! Whether the SQL of this database and this library are of one version.
//!
//! After a new package is installed, sessions have its library before ALTER EXTENSION has
//! changed the schema; after that, sessions that loaded the old library keep it.

use pgrx::{pg_sys, PgSqlErrorCode};

use crate::core::error::{Error, Kind, Result};
use crate::core::version_mismatch;
use crate::pg::report::translated;
use crate::pg::{members, owner};

/// Of a statement that does not fit: which of the two is older is not known.
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

/// The commit that the library was built from, as scripts/environment.sh names it to the builds of
/// releases. Others do without, so that a commit alone has nothing compiled again.
const COMMIT: Option<&str> = option_env!("WEBHOOK_EXT_COMMIT");

/// Library and schema, for people. Fails for no mismatch.
pub fn described() -> String {
    let schema = owner::extension().and_then(members::installed_version);
    format!(
        "webhook_ext {}, schema {}, commit {}, for PostgreSQL {}",
        of_library(),
        schema.as_deref().unwrap_or("missing"),
        COMMIT
            .filter(|commit| !commit.is_empty())
            .unwrap_or("unknown"),
        pg_sys::PG_MAJORVERSION_NUM,
    )
}

/// What differs, and what to do about it; `installed` is the version of the SQL.
pub fn mismatch(installed: &str) -> Option<Error> {
    version_mismatch::mismatch(installed, &of_library())
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
