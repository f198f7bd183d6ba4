//! Settings for the time of one action, and how a user's SQL is looked at before
//! it runs.

use std::ffi::CStr;

use pgrx::pg_sys;

use super::encoding::to_server_cstring;

/// Ends a nest level of settings: those set since get their old values back. After an
/// error PostgreSQL does it itself when the transaction is rolled back.
struct NestLevel(i32);

impl NestLevel {
    fn new() -> Self {
        // SAFETY: counts up a backend-local level.
        Self(unsafe { pg_sys::NewGUCNestLevel() })
    }

    fn set(&self, name: &CStr, value: &str) {
        let value = to_server_cstring(value);
        // SAFETY: both strings are NUL-terminated; the value is copied. An invalid value
        // raises an error.
        unsafe {
            pg_sys::set_config_option(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_USERSET,
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_SAVE,
                true,
                0,
                false,
            );
        }
    }

    /// What the code inside has set for the session stays.
    fn end(self) {
        // SAFETY: the level was opened by `new` and everything inside has ended.
        unsafe { pg_sys::AtEOXact_GUC(true, self.0) }
    }

    /// What the code inside has set is undone.
    fn undo(self) {
        // SAFETY: as above.
        unsafe { pg_sys::AtEOXact_GUC(false, self.0) }
    }
}

/// Runs `f` with other values of settings that any user may set.
pub fn with_settings<T>(settings: &[(&CStr, &str)], f: impl FnOnce() -> T) -> T {
    let level = NestLevel::new();
    for (name, value) in settings {
        level.set(name, value);
    }
    let result = f();
    level.end();
    result
}

/// The same for code of others: no setting that it changes outlives it.
pub fn with_settings_undone<T>(settings: &[(&CStr, &str)], f: impl FnOnce() -> T) -> T {
    let level = NestLevel::new();
    for (name, value) in settings {
        level.set(name, value);
    }
    let result = f();
    level.undo();
    result
}

/// `lock_timeout` of this session in milliseconds; 0 waits without limit.
pub fn lock_timeout_ms() -> i32 {
    // SAFETY: a plain setting.
    unsafe { pg_sys::LockTimeout }
}

/// How many statements a text holds. Raises PostgreSQL's syntax error if it is none.
pub fn count_statements(sql: &str) -> usize {
    let sql = to_server_cstring(sql);
    // SAFETY: the parser copies what it keeps; the list is only counted.
    unsafe {
        let statements = pg_sys::raw_parser(sql.as_ptr(), pg_sys::RawParseMode::RAW_PARSE_DEFAULT);
        if statements.is_null() {
            0
        } else {
            (*statements).length as usize
        }
    }
}
