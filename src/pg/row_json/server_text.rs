//! Text of the server's encoding as UTF-8, byte for byte the same in a UTF-8
//! database.
//!
//! Never fails: a byte sequence without a UTF-8 form is replaced, because an odd
//! character must not make the user's statement fail.

use std::borrow::Cow;

use pgrx::pg_sys;

const UTF8: i32 = pg_sys::pg_enc::PG_UTF8 as i32;

/// Longest UTF-8 form of one byte of another encoding; PostgreSQL's
/// `MAX_CONVERSION_GROWTH`.
const GROWTH: usize = 4;

/// Stands for a character that has no UTF-8 form. Not U+FFFD, which could not be
/// stored in the database's own encoding.
const REPLACEMENT: u8 = b'?';

pub(super) enum ServerText {
    Utf8,
    /// SQL_ASCII, or an encoding that PostgreSQL cannot convert: bytes of any meaning.
    Unknown,
    Converted {
        encoding: i32,
        procedure: pg_sys::Oid,
    },
}

impl ServerText {
    pub(super) fn of_database() -> Self {
        // SAFETY: the encoding is a constant of the database; the conversion is
        // looked up in a transaction.
        unsafe {
            let encoding = pg_sys::GetDatabaseEncoding();
            if encoding == UTF8 {
                return Self::Utf8;
            }
            if encoding == pg_sys::pg_enc::PG_SQL_ASCII as i32 {
                return Self::Unknown;
            }
            match pg_sys::FindDefaultConversionProc(encoding, UTF8) {
                pg_sys::InvalidOid => Self::Unknown,
                procedure => Self::Converted {
                    encoding,
                    procedure,
                },
            }
        }
    }

    #[inline(always)]
    pub(super) fn to_utf8<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        match self {
            Self::Utf8 => Cow::Borrowed(bytes),
            _ if bytes.is_ascii() => Cow::Borrowed(bytes),
            Self::Unknown => match String::from_utf8_lossy(bytes) {
                Cow::Borrowed(_) => Cow::Borrowed(bytes),
                Cow::Owned(text) => Cow::Owned(text.into_bytes()),
            },
            Self::Converted {
                encoding,
                procedure,
            } => Cow::Owned(convert(*procedure, *encoding, bytes)),
        }
    }
}

fn convert(procedure: pg_sys::Oid, encoding: i32, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() * 2);
    let mut rest = bytes;
    while !rest.is_empty() {
        let converted = convert_prefix(procedure, encoding, rest, &mut out);
        rest = &rest[converted..];
        if !rest.is_empty() {
            out.push(REPLACEMENT);
            // SAFETY: at least one byte is there; a character that would reach
            // beyond the end is cut below.
            let len = unsafe { pg_sys::pg_encoding_mblen(encoding, rest.as_ptr().cast()) };
            rest = &rest[(len.max(1) as usize).min(rest.len())..];
        }
    }
    out
}

/// Converts up to the first character that cannot be; returns the bytes it read.
fn convert_prefix(procedure: pg_sys::Oid, encoding: i32, bytes: &[u8], out: &mut Vec<u8>) -> usize {
    // PostgreSQL reads less than a quarter of the room it is given.
    let room = (bytes.len() + 2) * GROWTH;
    let start = out.len();
    out.resize(start + room, 0);
    // SAFETY: source and destination are as long as said; errors are not raised.
    let converted = unsafe {
        pg_sys::pg_do_encoding_conversion_buf(
            procedure,
            encoding,
            UTF8,
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
