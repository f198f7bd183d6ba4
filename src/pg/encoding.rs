//! Text between the server's encoding and Rust's UTF-8.
//!
//! In a UTF-8 database both directions are free. A byte sequence that has no
//! UTF-8 form (possible in SQL_ASCII databases) is replaced, never refused, and so is
//! a character that the server's encoding does not have: neither must stop a delivery.

use std::borrow::Cow;
use std::convert::Infallible;
use std::ffi::CString;

use pgrx::pg_sys;

use super::growth;

const UTF8: i32 = pg_sys::pg_enc::PG_UTF8 as i32;

/// Longest form of one byte in another encoding; PostgreSQL's `MAX_CONVERSION_GROWTH`.
const GROWTH: usize = 4;

/// So many bytes are converted at once. After a character that cannot be, only a few, because
/// each conversion ends at the next one; then twice as many each time.
const LONGEST_PIECE: usize = 4096;
const SHORTEST_PIECE: usize = 16;

/// Replaces a character that the other encoding lacks. Not U+FFFD, which
/// could not be stored in the database's own encoding.
const REPLACEMENT: u8 = b'?';

/// U+FFFD, for bytes of a database whose encoding is not known.
pub const NO_CHARACTER: &[u8] = "\u{FFFD}".as_bytes();

/// Whether text that was read from the server is what is stored there. Where the encoding is known,
/// each character is one of Unicode's.
pub fn was_read_exactly(text: &str) -> bool {
    server_is_utf8() || !text.contains(char::REPLACEMENT_CHARACTER)
}

pub fn server_is_utf8() -> bool {
    // SAFETY: reads a process-wide setting.
    unsafe { pg_sys::GetDatabaseEncoding() == UTF8 }
}

/// Most bytes of a character in the server's encoding that may be one byte in UTF-8.
pub fn bytes_a_character() -> usize {
    if server_is_utf8() {
        return 1;
    }
    // SAFETY: reads a constant of this database.
    unsafe { pg_sys::pg_database_encoding_max_length() }.max(1) as usize
}

/// PostgreSQL converts with a function that it looks up, so only in a transaction. What
/// the worker reads outside of one is a setting: as written in the file.
fn can_convert() -> bool {
    // SAFETY: reads the state of this process.
    unsafe { pg_sys::IsTransactionState() }
}

/// Bytes in the server's encoding as Rust text.
pub fn from_server(bytes: &[u8]) -> String {
    match in_encoding(bytes, |server| (server, UTF8)) {
        Cow::Borrowed(bytes) => lossy(bytes),
        Cow::Owned(bytes) => {
            String::from_utf8(bytes).unwrap_or_else(|error| lossy(error.as_bytes()))
        }
    }
}

/// A copy in which each sequence that is no UTF-8 is replaced.
fn lossy(bytes: &[u8]) -> String {
    let mut text = Vec::new();
    growth::reserve_exact(&mut text, bytes.len());
    for chunk in bytes.utf8_chunks() {
        growth::extend(&mut text, chunk.valid().as_bytes());
        if !chunk.invalid().is_empty() {
            growth::extend(&mut text, NO_CHARACTER);
        }
    }
    // SAFETY: each piece is valid UTF-8.
    unsafe { String::from_utf8_unchecked(text) }
}

/// UTF-8 text in the server's encoding.
pub fn to_server<T: AsRef<[u8]> + ?Sized>(text: &T) -> Cow<'_, [u8]> {
    in_encoding(text.as_ref(), |server| (UTF8, server))
}

/// A statement or a setting's value in the server's encoding. No text of the extension holds NUL.
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
fn convert(procedure: pg_sys::Oid, from_to: (i32, i32), bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    growth::reserve(&mut out, bytes.len());
    let all: Result<(), Infallible> = convert_pieces(procedure, from_to, bytes, |piece| {
        growth::extend(&mut out, piece);
        Ok(())
    });
    let Ok(()) = all;
    out
}

/// As [`convert`], a piece at a time: so the time is linear in the length of the text, memory
/// does not depend on it, and the statement can be canceled. `take` may end it.
pub fn convert_pieces<E>(
    procedure: pg_sys::Oid,
    (from, to): (i32, i32),
    bytes: &[u8],
    mut take: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut room = Vec::with_capacity(room_for(bytes.len().min(LONGEST_PIECE)));
    let mut rest = bytes;
    let mut longest = LONGEST_PIECE;
    while !rest.is_empty() {
        pgrx::check_for_interrupts!();
        let piece = &rest[..rest.len().min(longest)];
        let converted = convert_prefix(procedure, (from, to), piece, &mut room);
        take(&room)?;
        rest = &rest[converted..];
        if converted == piece.len() {
            longest = (longest * 2).min(LONGEST_PIECE);
            continue;
        }
        let stopped_at = character_len(from, rest);
        let is_cut = converted > 0 && converted + stopped_at > piece.len();
        // What only the end of the piece cut in two is whole in the next one.
        if !is_cut || rest.len() < stopped_at {
            take(&[REPLACEMENT])?;
            rest = &rest[stopped_at.min(rest.len())..];
            longest = SHORTEST_PIECE;
        }
    }
    Ok(())
}

/// Bytes of the character that `text`, which is not empty, starts with; it may be cut.
fn character_len(encoding: i32, text: &[u8]) -> usize {
    // The length may depend on the second byte.
    if text.len() == 1 {
        return 1;
    }
    // SAFETY: two bytes are there, and no encoding looks further.
    let len = unsafe { pg_sys::pg_encoding_mblen(encoding, text.as_ptr().cast()) };
    len.max(1) as usize
}

/// PostgreSQL reads less than a quarter of the room it is given.
fn room_for(bytes: usize) -> usize {
    (bytes + 2) * GROWTH
}

/// Converts up to the first character that cannot be, into `out`; returns the bytes it read.
fn convert_prefix(
    procedure: pg_sys::Oid,
    (from, to): (i32, i32),
    bytes: &[u8],
    out: &mut Vec<u8>,
) -> usize {
    let room = room_for(bytes.len());
    out.clear();
    out.resize(room, 0);
    // SAFETY: source and destination are as long as said, and no longer than a piece; errors
    // are not raised.
    let converted = unsafe {
        pg_sys::pg_do_encoding_conversion_buf(
            procedure,
            from,
            to,
            bytes.as_ptr().cast_mut(),
            bytes.len() as i32,
            out.as_mut_ptr(),
            room as i32,
            true,
        )
    };
    let written = out.iter().position(|&byte| byte == 0);
    out.truncate(written.unwrap_or(room));
    converted.clamp(0, bytes.len() as i32) as usize
}
