//! Text between the server's encoding and Rust's UTF-8.
//!
//! In a UTF-8 database both directions are free. A byte sequence that has no
//! UTF-8 form (possible in SQL_ASCII databases) is replaced, never refused: a
//! strange character must not stop a delivery.

use std::borrow::Cow;

use pgrx::pg_sys;

const UTF8: i32 = pg_sys::pg_enc::PG_UTF8 as i32;

fn server_is_utf8() -> bool {
    // SAFETY: reads a process-wide setting.
    unsafe { pg_sys::GetDatabaseEncoding() == UTF8 }
}

/// PostgreSQL converts with a function that it looks up, so only in a transaction. What
/// the worker reads outside of one is a setting: as it stands in the file.
fn can_convert() -> bool {
    // SAFETY: reads the state of this process.
    unsafe { pg_sys::IsTransactionState() }
}

/// Bytes in the server's encoding as Rust text.
pub fn from_server(bytes: &[u8]) -> String {
    if server_is_utf8() || bytes.is_ascii() || !can_convert() {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    // SAFETY: pointer and length describe `bytes`; the result is either the same
    // pointer or a NUL-terminated copy.
    unsafe {
        let converted = pg_sys::pg_server_to_any(bytes.as_ptr().cast(), bytes.len() as i32, UTF8);
        if std::ptr::eq(converted.cast(), bytes.as_ptr()) {
            return String::from_utf8_lossy(bytes).into_owned();
        }
        std::ffi::CStr::from_ptr(converted)
            .to_string_lossy()
            .into_owned()
    }
}

/// UTF-8 text in the server's encoding.
pub fn to_server<T: AsRef<[u8]> + ?Sized>(text: &T) -> Cow<'_, [u8]> {
    let text = text.as_ref();
    if server_is_utf8() || text.is_ascii() || !can_convert() {
        return Cow::Borrowed(text);
    }
    // SAFETY: as above, in the other direction.
    unsafe {
        let converted = pg_sys::pg_any_to_server(text.as_ptr().cast(), text.len() as i32, UTF8);
        if std::ptr::eq(converted.cast(), text.as_ptr()) {
            return Cow::Borrowed(text);
        }
        Cow::Owned(std::ffi::CStr::from_ptr(converted).to_bytes().to_vec())
    }
}
