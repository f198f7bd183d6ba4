//! Text of the server's encoding as UTF-8, byte for byte the same in a UTF-8
//! database.
//!
//! Never fails: a byte sequence without a UTF-8 form is replaced, because an odd
//! character must not make the user's statement fail.

use std::borrow::Cow;

use pgrx::pg_sys;

use crate::pg::encoding::convert;

const UTF8: i32 = pg_sys::pg_enc::PG_UTF8 as i32;

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
            } => Cow::Owned(convert(*procedure, (*encoding, UTF8), bytes)),
        }
    }
}
