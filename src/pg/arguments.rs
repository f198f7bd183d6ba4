//! Arguments whose size a user decides: measured where they lie, then copied.
//!
//! pgrx copies an argument before the function begins, with an allocator that ends the process
//! when memory runs out. These types only point to theirs; reading one names the argument in
//! its error. A value that is too large is not even detoasted.

use std::ffi::c_int;

use pgrx::callconv::{Arg, ArgAbi};
use pgrx::nullable::Nullable;
use pgrx::pg_sys;
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use serde_json::Value;

use super::encoding;
use super::row_json::jsonb_text;
use crate::core::definitions::limits;
use crate::core::error::Result;
use crate::core::values::json_value::{self, Unreadable};

/// Most bytes of a character in an encoding that a server may have.
const CHARACTER_BYTES: usize = 4;
/// Header of an element, and the padding before it.
const ELEMENT_OVERHEAD: usize = 8;

/// A text argument; it lives as long as the call.
pub struct TextArgument(pg_sys::Datum);

/// A text[] argument.
pub struct TextListArgument(pg_sys::Datum);

/// A jsonb argument.
pub struct JsonArgument(pg_sys::Datum);

impl TextArgument {
    /// # Errors
    /// `22023` if it is longer than `most_chars`.
    pub fn read(&self, argument: &str, most_chars: usize) -> Result<String> {
        // SAFETY: the datum of a text that is not null.
        unsafe {
            if pg_sys::toast_raw_datum_size(self.0)
                > most_chars * CHARACTER_BYTES + pg_sys::VARHDRSZ
            {
                return Err(limits::too_long(argument, most_chars));
            }
            let text = text_of(self.0);
            limits::check_text(argument, &text, most_chars)?;
            Ok(text)
        }
    }
}

/// # Safety
/// `datum` is a text that is not null.
unsafe fn text_of(datum: pg_sys::Datum) -> String {
    // SAFETY: as this function's; the bytes are copied.
    unsafe {
        let packed = pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr());
        encoding::from_server(pgrx::varlena::varlena_to_byte_slice(packed))
    }
}

impl TextListArgument {
    /// # Errors
    /// `22023` if it has more than `most` elements or dimensions than one, or is larger than a
    /// list may be.
    pub fn read(&self, argument: &str, most: usize) -> Result<Vec<Option<String>>> {
        let most_bytes = limits::LIST_BYTES + most * ELEMENT_OVERHEAD;
        // SAFETY: the datum of an array of texts that is not null; what the calls give lives
        // until the end of the call.
        unsafe {
            // Only of what must be fetched: the count says more about the rest.
            let raw_bytes = pg_sys::toast_raw_datum_size(self.0);
            if raw_bytes > most_bytes.max(MOST_COUNTED_BYTES) {
                return Err(limits::list_too_large(argument));
            }
            let array: *mut pg_sys::ArrayType =
                pg_sys::pg_detoast_datum(self.0.cast_mut_ptr()).cast();
            let dimensions = (*array).ndim;
            if dimensions > 1 {
                return Err(limits::many_dimensions(argument, dimensions));
            }
            if dimensions == 0 {
                return Ok(Vec::new());
            }
            let lengths = array
                .byte_add(size_of::<pg_sys::ArrayType>())
                .cast::<c_int>();
            let count = usize::try_from(*lengths).unwrap_or_default();
            limits::check_count(argument, count, most)?;
            if raw_bytes > most_bytes {
                return Err(limits::list_too_large(argument));
            }
            Ok(elements(array))
        }
    }
}

/// Up to here an array is fetched to count its elements.
const MOST_COUNTED_BYTES: usize = 64 << 20;

/// # Safety
/// `array` is an array of texts with one dimension.
unsafe fn elements(array: *mut pg_sys::ArrayType) -> Vec<Option<String>> {
    let mut datums = std::ptr::null_mut();
    let mut nulls = std::ptr::null_mut();
    let mut count = 0;
    // SAFETY: as this function's; text has variable length and the alignment of an integer.
    let (datums, nulls) = unsafe {
        pg_sys::deconstruct_array(
            array,
            pg_sys::TEXTOID,
            -1,
            false,
            pg_sys::TYPALIGN_INT as std::ffi::c_char,
            &raw mut datums,
            &raw mut nulls,
            &raw mut count,
        );
        let count = count as usize;
        if count == 0 {
            return Vec::new();
        }
        (
            std::slice::from_raw_parts(datums, count),
            std::slice::from_raw_parts(nulls, count),
        )
    };
    let element = |(datum, is_null): (&pg_sys::Datum, &bool)| {
        pgrx::check_for_interrupts!();
        // SAFETY: a text of the array.
        (!is_null).then(|| unsafe { text_of(*datum) })
    };
    datums.iter().zip(nulls).map(element).collect()
}

impl JsonArgument {
    /// # Errors
    /// `22023` if it is too large or too deep.
    pub fn read(&self, argument: &str) -> Result<Value> {
        // SAFETY: the datum of a jsonb that is not null.
        let text = unsafe { jsonb_text(self.0, limits::JSON_BYTES) };
        let text = text.map_err(|_| limits::json_too_large(argument))?;
        json_value::read(&text, limits::JSON_DEPTH).map_err(|error| match error {
            Unreadable::TooDeep => limits::json_too_deep(argument),
            Unreadable::NotJson => limits::json_unreadable(argument),
        })
    }
}

/// An argument that may be null.
pub fn text(
    given: Option<TextArgument>,
    argument: &str,
    most_chars: usize,
) -> Result<Option<String>> {
    given
        .map(|given| given.read(argument, most_chars))
        .transpose()
}

/// A name, an id or another word.
pub fn word(given: Option<TextArgument>, argument: &str) -> Result<Option<String>> {
    text(given, argument, limits::WORD_CHARS)
}

/// The same where null is an error.
pub fn required_word(given: Option<TextArgument>, argument: &str) -> Result<String> {
    crate::core::definitions::webhook::required(argument, word(given, argument)?)
}

/// A list of at most so many elements.
pub fn list(
    given: Option<TextListArgument>,
    argument: &str,
    most: usize,
) -> Result<Option<Vec<Option<String>>>> {
    given.map(|given| given.read(argument, most)).transpose()
}

pub fn json(given: Option<JsonArgument>, argument: &str) -> Result<Option<Value>> {
    given.map(|given| given.read(argument)).transpose()
}

/// How pgrx passes an argument: as its datum.
macro_rules! argument {
    ($type:ident, $sql:literal) => {
        // SAFETY: the datum is that of the type as SQL declares it, and is not read here.
        unsafe impl<'fcx> ArgAbi<'fcx> for $type {
            unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
                // SAFETY: as above.
                let given = unsafe { Self::unbox_nullable_arg(arg) };
                given
                    .into_option()
                    .expect("the argument is declared strict")
            }

            unsafe fn unbox_nullable_arg(arg: Arg<'_, 'fcx>) -> Nullable<Self> {
                // SAFETY: as above.
                let datum = unsafe { arg.unbox_arg_using_from_datum::<pg_sys::Datum>() };
                datum.map($type).into()
            }
        }

        // SAFETY: the name is that of the type.
        unsafe impl SqlTranslatable for $type {
            const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!($type);
            const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
            const ARGUMENT_SQL: std::result::Result<SqlMappingRef, ArgumentError> =
                Ok(SqlMappingRef::literal($sql));
            const RETURN_SQL: std::result::Result<ReturnsRef, ReturnsError> =
                Ok(ReturnsRef::One(SqlMappingRef::literal($sql)));
        }
    };
}

argument!(TextArgument, "text");
argument!(TextListArgument, "text[]");
argument!(JsonArgument, "jsonb");
