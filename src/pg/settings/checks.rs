//! Hooks of the settings: why PostgreSQL refuses a value, and what a new value changes.

use std::cell::Cell;
use std::ffi::{c_char, c_void, CStr, CString};
use std::io::Read;
use std::path::Path;

use pgrx::{pg_guard, pg_sys};

use crate::core::definitions::limits;
use crate::core::error::{system_text, Error, Kind, Result};
use crate::core::messages::standby::parse_slot_names;
use crate::core::policy::address::AddressPolicy;
use crate::core::policy::retry::Schedule;

/// Most bytes of a character in any encoding of a server.
const CHARACTER_BYTES: usize = 4;

/// More of `webhook.ca_file` is not looked at when it is set. All public authorities take 0.3 MB.
const CA_FILE_BYTES: u64 = 4 << 20;

thread_local! {
    /// A value that was there before the library is not refused when the library is loaded: every
    /// session that loads it would be warned.
    pub(super) static ARE_DEFINED: Cell<bool> = const { Cell::new(false) };
}

/// What was decided under the old name is decided again.
#[pg_guard]
pub(super) unsafe extern "C-unwind" fn on_new_identity(_value: *const c_char, _extra: *mut c_void) {
    crate::pg::invalidation::mark_stale();
}

#[pg_guard]
pub(super) unsafe extern "C-unwind" fn check_source(
    value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: PostgreSQL passes a NUL-terminated string.
    unsafe {
        let source = CStr::from_ptr(*value);
        // A text that is far too long is not looked at, and not repeated in the message.
        let is_far_too_long = source.count_bytes() > limits::SOURCE_CHARS * CHARACTER_BYTES;
        let text = if is_far_too_long {
            "".into()
        } else {
            source.to_string_lossy()
        };
        let error = match limits::check_source(&text) {
            Ok(_) if !is_far_too_long => return true,
            Ok(_) => limits::too_long("webhook.source", limits::SOURCE_CHARS),
            Err(error) => error,
        };
        pg_sys::GUC_check_errmsg_string = kept(&error.message);
        pg_sys::GUC_check_errhint_string = kept(&error.hint.unwrap_or_default());
        false
    }
}

#[pg_guard]
pub(super) unsafe extern "C-unwind" fn check_retry_schedule(
    value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: PostgreSQL passes a NUL-terminated string.
    unsafe { check(*value, |text| Schedule::parse(text).map(drop)) }
}

#[pg_guard]
pub(super) unsafe extern "C-unwind" fn check_allowed_networks(
    value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: as above.
    unsafe { check(*value, |text| AddressPolicy::parse(text).map(drop)) }
}

#[pg_guard]
pub(super) unsafe extern "C-unwind" fn check_standby_slots(
    value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: as above.
    unsafe { check(*value, |text| parse_slot_names(text).map(drop)) }
}

/// Checks the file when the setting is changed by a statement. At a reload it is not checked: the
/// worker reports a file that it cannot use, and continues with the public roots.
#[pg_guard]
pub(super) unsafe extern "C-unwind" fn check_ca_file(
    value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: as above; a variable of this process.
    unsafe {
        if !ARE_DEFINED.get() || !pg_sys::IsTransactionState() {
            return true;
        }
        check(*value, has_certificates)
    }
}

fn has_certificates(path: &str) -> Result<()> {
    if path.is_empty() {
        return Ok(());
    }
    let refused = |why: String| {
        Err(Error::new(Kind::InvalidParameter, why)
            .with_hint("name a PEM file that the server's account can read, by its absolute path"))
    };
    if !Path::new(path).is_absolute() {
        return refused("the path is not absolute".to_owned());
    }
    match read_start(path) {
        Err(error) => refused(format!("the file cannot be read: {}", system_text(&error))),
        Ok(start) if !start.contains("-----BEGIN CERTIFICATE-----") => {
            refused("the file contains no certificate in PEM format".to_owned())
        }
        Ok(_) => Ok(()),
    }
}

fn read_start(path: &str) -> std::io::Result<String> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::ErrorKind::InvalidInput.into());
    }
    let mut start = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(CA_FILE_BYTES).read_to_end(&mut start)?;
    Ok(String::from_utf8_lossy(&start).into_owned())
}

/// Says through PostgreSQL's own variables why a value is refused.
unsafe fn check(value: *const c_char, parse: impl FnOnce(&str) -> Result<()>) -> bool {
    // SAFETY: the value is NUL-terminated. The texts are allocated where PostgreSQL expects
    // them: it throws the context away after it has reported.
    unsafe {
        let text = CStr::from_ptr(value).to_string_lossy();
        let Err(error) = parse(&text) else {
            return true;
        };
        pg_sys::GUC_check_errdetail_string = kept(&error.message);
        if let Some(hint) = &error.hint {
            pg_sys::GUC_check_errhint_string = kept(hint);
        }
        false
    }
}

/// A copy where PostgreSQL allocates such texts itself; it frees them with its report.
///
/// # Safety
/// Called from a check hook.
unsafe fn kept(text: &str) -> *mut c_char {
    let text = CString::new(text).unwrap_or_default();
    // SAFETY: the context lives as long as the process.
    unsafe { pg_sys::MemoryContextStrdup(pg_sys::ErrorContext, text.as_ptr()) }
}
