//! Text of the server's encoding as UTF-8, byte for byte the same in a UTF-8
//! database.
//!
//! Never fails: a byte sequence without a UTF-8 form is replaced, because an odd
//! character must not make the user's statement fail.

use pgrx::pg_sys;

use super::limited::{LimitedText, Written};
use crate::pg::encoding::{convert_pieces, NO_CHARACTER};

const UTF8: i32 = pg_sys::pg_enc::PG_UTF8 as i32;

pub(super) enum ServerText {
    Utf8,
    /// SQL_ASCII, or an encoding that PostgreSQL cannot convert: bytes of any meaning.
    Unknown,
    Converted {
        encoding: i32,
        procedure: pg_sys::Oid,
        /// Bytes of its longest character, which UTF-8 may have in one.
        longest_character: usize,
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
                    longest_character: pg_sys::pg_encoding_max_length(encoding).max(1) as usize,
                },
            }
        }
    }

    /// Bytes that so many bytes of text have in UTF-8 at least.
    pub(super) fn least_len(&self, bytes: usize) -> usize {
        match self {
            Self::Utf8 | Self::Unknown => bytes,
            Self::Converted {
                longest_character, ..
            } => bytes / longest_character,
        }
    }

    /// Appends text as a JSON string.
    #[inline(always)]
    pub(super) fn push_string(&self, out: &mut LimitedText, text: &[u8]) -> Written {
        match self {
            Self::Utf8 => out.push_string(text),
            _ if text.is_ascii() => out.push_string(text),
            _ => {
                out.push(b'"')?;
                self.each_piece(text, |piece| out.push_escaped(piece))?;
                out.push(b'"')
            }
        }
    }

    /// Appends text as it is.
    pub(super) fn push_plain(&self, out: &mut LimitedText, text: &[u8]) -> Written {
        match self {
            Self::Utf8 => out.push_bytes(text),
            _ if text.is_ascii() => out.push_bytes(text),
            _ => self.each_piece(text, |piece| out.push_bytes(piece)),
        }
    }

    /// Gives the text in UTF-8 to `take`, one piece after the other.
    fn each_piece(&self, text: &[u8], mut take: impl FnMut(&[u8]) -> Written) -> Written {
        match self {
            Self::Utf8 => take(text),
            Self::Unknown => text.utf8_chunks().try_for_each(|chunk| {
                take(chunk.valid().as_bytes())?;
                if chunk.invalid().is_empty() {
                    return Ok(());
                }
                take(NO_CHARACTER)
            }),
            Self::Converted {
                encoding,
                procedure,
                ..
            } => convert_pieces(*procedure, (*encoding, UTF8), text, take),
        }
    }
}
