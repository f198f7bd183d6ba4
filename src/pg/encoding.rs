//! Text between the server's encoding and Rust's UTF-8.
//!
//! In a UTF-8 database both directions are free. A byte sequence that has no
//! UTF-8 form (possible in SQL_ASCII databases) is replaced, never refused, and so is
//! a character that the server's encoding does not have: neither must stop a delivery.

use std::borrow::Cow;
use std::ffi::CString;

use pgrx::pg_sys;

const UTF8: i32 = pg_sys::pg_enc::PG_UTF8 as i32;

/// Longest form of one byte in another encoding; PostgreSQL's `MAX_CONVERSION_GROWTH`.
const GROWTH: usize = 4;

/// Stands for a character that the other encoding does not have. Not U+FFFD, which
/// could not be stored in the database's own encoding.
const REPLACEMENT: u8 = b'?';

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
    let converted = in_encoding(bytes, |server| (server, UTF8));
    String::from_utf8_lossy(&converted).into_owned()
}

/// UTF-8 text in the server's encoding.
pub fn to_server<T: AsRef<[u8]> + ?Sized>(text: &T) -> Cow<'_, [u8]> {
    in_encoding(text.as_ref(), |server| (UTF8, server))
}

/// A statement or a setting's value in the server's encoding. Nothing of ours holds NUL.
pub fn to_server_cstring(text: &str) -> CString {
    CString::new(to_server(text).into_owned()).unwrap_or_default()
}

/// For a message that pgrx raises: it knows no encoding but UTF-8, so what is not ASCII is
/// written as Rust writes it.
pub fn readable_anywhere(text: String) -> String {
    if server_is_utf8() || text.is_ascii() {
        return text;
    }
    let shown = text.chars().map(|c| match c {
        c if c.is_ascii() => c.to_string(),
        c => c.escape_unicode().to_string(),
    });
    shown.collect()
}

/// `from_to` names both encodings, given that of the server.
fn in_encoding(bytes: &[u8], from_to: impl Fn(i32) -> (i32, i32)) -> Cow<'_, [u8]> {
    if server_is_utf8() || bytes.is_ascii() || !can_convert() {
        return Cow::Borrowed(bytes);
    }
    // SAFETY: the encoding is a constant of the database; the conversion is looked up in a
    // transaction.
    let (procedure, from_to) = unsafe {
        let (from, to) = from_to(pg_sys::GetDatabaseEncoding());
        (pg_sys::FindDefaultConversionProc(from, to), (from, to))
    };
    match procedure {
        // SQL_ASCII: bytes of any meaning.
        pg_sys::InvalidOid => Cow::Borrowed(bytes),
        procedure => Cow::Owned(convert(procedure, from_to, bytes)),
    }
}

/// Converts by a procedure that leads `from` one encoding `to` another; what cannot be is
/// replaced.
pub fn convert(procedure: pg_sys::Oid, (from, to): (i32, i32), bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() * 2);
    let mut rest = bytes;
    while !rest.is_empty() {
        let converted = convert_prefix(procedure, (from, to), rest, &mut out);
        rest = &rest[converted..];
        if !rest.is_empty() {
            out.push(REPLACEMENT);
            // SAFETY: at least one byte is there; a character that would reach
            // beyond the end is cut below.
            let len = unsafe { pg_sys::pg_encoding_mblen(from, rest.as_ptr().cast()) };
            rest = &rest[(len.max(1) as usize).min(rest.len())..];
        }
    }
    out
}

/// Converts up to the first character that cannot be; returns the bytes it read.
fn convert_prefix(
    procedure: pg_sys::Oid,
    (from, to): (i32, i32),
    bytes: &[u8],
    out: &mut Vec<u8>,
) -> usize {
    // PostgreSQL reads less than a quarter of the room it is given.
    let room = (bytes.len() + 2) * GROWTH;
    let start = out.len();
    out.resize(start + room, 0);
    // SAFETY: source and destination are as long as said; errors are not raised.
    let converted = unsafe {
        pg_sys::pg_do_encoding_conversion_buf(
            procedure,
            from,
            to,
            bytes.as_ptr().cast_mut(),
            bytes.len() as i32,
            out[start..].as_mut_ptr(),
            room as i32,
            true,
        )
    };
    let written = out[start..].iter().position(|&byte| byte == 0);
    out.truncate(start + written.unwrap_or(room));
    converted.clamp(0, bytes.len() as i32) as usize
}
