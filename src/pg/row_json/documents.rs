//! `jsonb` and `hstore`, read from their stored form: so a large one is written as far as the
//! limit allows, without the text that its output function would make of it first.

use pgrx::pg_sys;

use crate::core::definitions::words::{ListStyle, NullStyle};
use crate::core::values::hstore_image;
use crate::core::values::hstore_text::push_hstore as push_hstore_text;
use crate::core::values::jsonb_image::{self, Token};
use crate::core::values::varlena_header::plain_within;
use crate::pg::encoding::from_server;
use crate::pg::growth;

use super::limited::{LimitedText, TooLarge, Written, LONGEST_ESCAPE};
use super::memory::RowMemory;
use super::output::OutputFunction;
use super::render::{push_number, NULL};
use super::server_text::ServerText;
use super::varlena;
use super::Surroundings;

/// A stored jsonb has at most so many bytes for one of its text: 12 for the number `0, `.
const JSONB_BYTES_PER_BYTE: usize = 4;
/// A stored hstore has at most 8 bytes beside the texts of a pair, and JSON has at least 6.
const HSTORE_BYTES_PER_BYTE: usize = 2;

/// # Safety
/// `image` is a jsonb, not null; a transaction is open.
pub(super) unsafe fn push_jsonb(
    image: *const u8,
    out: &mut LimitedText,
    surroundings: &mut Surroundings,
) -> Written {
    let Surroundings { text, memory, .. } = surroundings;
    // SAFETY: as this function's.
    let bytes = unsafe {
        let stored = text.least_len(varlena::unfetched_len(image));
        out.require(stored / JSONB_BYTES_PER_BYTE)?;
        varlena::bytes(image, memory)
    };
    let walked = jsonb_image::walk(bytes, |token| match token {
        Token::Plain(bytes) => out.push_bytes(bytes),
        Token::String(bytes) => text.push_string(out, bytes),
        Token::Number(image) => {
            let number = plain_within(image).unwrap_or_else(|| damaged("jsonb"));
            push_number(out, number)
        }
    });
    walked.unwrap_or_else(|| damaged("jsonb"))
}

/// The text of a jsonb, if it has up to `limit_bytes` in UTF-8.
///
/// # Safety
/// `datum` is a jsonb, not null; a transaction is open.
pub unsafe fn jsonb_text(datum: pg_sys::Datum, limit_bytes: usize) -> Result<String, TooLarge> {
    let mut surroundings = Surroundings {
        nulls: NullStyle::Null,
        lists: ListStyle::Array,
        text: ServerText::of_database(),
        memory: RowMemory::new(),
        depth: 0,
    };
    let mut out = LimitedText::default();
    out.begin(limit_bytes);
    // SAFETY: as this function's.
    unsafe { push_jsonb(datum.cast_mut_ptr(), &mut out, &mut surroundings)? };
    out.end()?;
    Ok(out.into_string())
}

#[cold]
fn damaged(kind: &str) -> ! {
    pgrx::ereport!(
        ERROR,
        pgrx::PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
        format!("a value of type {kind} is damaged")
    );
}

/// # Safety
/// `image` is an hstore, not null, and `function` its output function; a transaction is open.
pub(super) unsafe fn push_hstore(
    image: *const u8,
    function: &mut OutputFunction,
    out: &mut LimitedText,
    surroundings: &mut Surroundings,
) -> Written {
    let Surroundings { text, memory, .. } = surroundings;
    // SAFETY: as this function's.
    let bytes = unsafe {
        let stored = text.least_len(varlena::unfetched_len(image));
        out.require(stored / HSTORE_BYTES_PER_BYTE)?;
        varlena::bytes(image, memory)
    };
    let Some(pairs) = hstore_image::pairs(bytes) else {
        // SAFETY: as this function's.
        return unsafe { push_printed_hstore(image, function, out, surroundings) };
    };
    out.push(b'{')?;
    for (place, pair) in pairs.enumerate() {
        let (key, value) = pair.unwrap_or_else(|| damaged("hstore"));
        if place > 0 {
            out.push(b',')?;
        }
        text.push_string(out, key)?;
        out.push(b':')?;
        match value {
            Some(value) => text.push_string(out, value)?,
            None => out.push_bytes(NULL)?,
        }
    }
    out.push(b'}')
}

/// A value of the form before PostgreSQL 9.0, by way of its text.
///
/// # Safety
/// As [`push_hstore`].
#[cold]
unsafe fn push_printed_hstore(
    image: *const u8,
    function: &mut OutputFunction,
    out: &mut LimitedText,
    surroundings: &mut Surroundings,
) -> Written {
    // SAFETY: as this function's.
    let printed = unsafe { function.print(image, &mut surroundings.memory) };
    let text = from_server(printed);
    out.require(text.len() / HSTORE_BYTES_PER_BYTE)?;
    let mut object = Vec::new();
    growth::reserve(&mut object, text.len() * LONGEST_ESCAPE);
    if push_hstore_text(&mut object, text.as_bytes()) {
        out.push_bytes(&object)
    } else {
        out.push_string(text.as_bytes())
    }
}
