//! One value of one type as JSON, straight from its stored bytes.
//!
//! Which way is decided once per column, by the type's identity and never by its
//! name: a user's type that calls itself `text` is not `text`. A domain is its
//! base type.

use std::ffi::{c_char, c_int, CStr};
use std::ptr;

use base64::engine::general_purpose::STANDARD as BASE64;
use base64::Engine;
use pgrx::pg_sys;

use crate::core::definitions::words::NullStyle;
use crate::core::values::json_text::{push_i64, push_string_bytes};
use crate::core::values::number_text::{numeric_room, push_money, push_numeric};
use crate::core::values::time_text::{
    push_date, push_interval, push_time, push_timestamp, push_timetz, Fraction,
};

use super::array::Array;
use super::composite::Composite;
use super::documents::{push_hstore, push_jsonb};
use super::limited::{LimitedText, Written};
use super::output::OutputFunction;
use super::varlena;
use super::{money, Surroundings};

pub(super) const NULL: &[u8] = b"null";
const EMPTY_STRING: &[u8] = b"\"\"";

const UUID_LEN: usize = 16;
/// Before which of its bytes a uuid has a hyphen.
const UUID_HYPHENS: [usize; 4] = [4, 6, 8, 10];
const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Room for the longest value of a type of fixed length: an interval with all its parts.
const FIXED_ROOM: usize = 128;
/// What an output function prints of a value has at least a byte for so many stored ones: a
/// point has 16 bytes and prints as `(0,0),`. A type of a user may print less.
const BUILTIN_BYTES_PER_BYTE: usize = 4;
const OTHER_BYTES_PER_BYTE: usize = 8;
/// `xml_out` leaves out the encoding that a document declares.
const XML_DECLARATION: usize = 64;
/// Bytes of bytea that are encoded at once: no padding in between.
const BASE64_PIECE: usize = 3 * 4096;
const BITS_PER_BYTE: usize = 8;

/// Room for the longest shortest form, from shortest_dec.h.
const SHORTEST_FLOAT_LEN: usize = 32;

extern "C" {
    /// PostgreSQL's shortest form of a float (common/shortest_dec.h). They write
    /// at most 25 bytes, return how many and cannot raise an error, so they need
    /// no guard.
    fn double_to_shortest_decimal_buf(value: f64, result: *mut c_char) -> c_int;
    fn float_to_shortest_decimal_buf(value: f32, result: *mut c_char) -> c_int;
}

pub(super) enum Render {
    Int2,
    Int4,
    Int8,
    Oid,
    Float4,
    Float8,
    Numeric,
    Money {
        decimals: u8,
    },
    Bool,
    Date,
    Timestamp {
        zone: &'static [u8],
    },
    Time,
    Timetz,
    Interval,
    Text,
    Name,
    Char,
    Uuid,
    Bytea,
    Bits,
    Json,
    Jsonb,
    Hstore(OutputFunction),
    Array(Box<Array>),
    Composite(Box<Composite>),
    /// Everything else, as a string.
    Output {
        function: OutputFunction,
        /// Stored bytes without text.
        textless: usize,
        bytes_per_byte: usize,
    },
}

impl Render {
    pub(super) fn for_type(type_id: pg_sys::Oid, surroundings: &mut Surroundings) -> Self {
        let mut typmod = -1;
        // SAFETY: a column's type exists; a domain's base type does, too.
        let base = unsafe { pg_sys::getBaseTypeAndTypmod(type_id, &mut typmod) };
        Self::for_builtin(base, surroundings).unwrap_or_else(|| Self::for_other(base, surroundings))
    }

    fn for_builtin(base: pg_sys::Oid, surroundings: &mut Surroundings) -> Option<Self> {
        Some(match base {
            pg_sys::INT2OID => Self::Int2,
            pg_sys::INT4OID => Self::Int4,
            pg_sys::INT8OID => Self::Int8,
            pg_sys::OIDOID => Self::Oid,
            pg_sys::FLOAT4OID => Self::Float4,
            pg_sys::FLOAT8OID => Self::Float8,
            pg_sys::NUMERICOID => Self::Numeric,
            pg_sys::MONEYOID => Self::Money {
                decimals: money::decimals(&mut surroundings.memory),
            },
            pg_sys::BOOLOID => Self::Bool,
            pg_sys::DATEOID => Self::Date,
            pg_sys::TIMESTAMPOID => Self::Timestamp { zone: b"" },
            pg_sys::TIMESTAMPTZOID => Self::Timestamp { zone: b"Z" },
            pg_sys::TIMEOID => Self::Time,
            pg_sys::TIMETZOID => Self::Timetz,
            pg_sys::INTERVALOID => Self::Interval,
            pg_sys::TEXTOID | pg_sys::VARCHAROID | pg_sys::BPCHAROID => Self::Text,
            pg_sys::NAMEOID => Self::Name,
            pg_sys::CHAROID => Self::Char,
            pg_sys::UUIDOID => Self::Uuid,
            pg_sys::BYTEAOID => Self::Bytea,
            pg_sys::JSONOID => Self::Json,
            pg_sys::JSONBOID => Self::Jsonb,
            pg_sys::BITOID | pg_sys::VARBITOID => Self::Bits,
            _ => return None,
        })
    }

    fn for_other(base: pg_sys::Oid, surroundings: &mut Surroundings) -> Self {
        if let Some(array) = Array::of_type(base) {
            return Self::Array(Box::new(array));
        }
        // SAFETY: the type exists.
        if unsafe { pg_sys::get_typtype(base) } as u8 == pg_sys::TYPTYPE_COMPOSITE {
            return Self::Composite(Box::new(Composite::of_type(base)));
        }
        let function = OutputFunction::of_type(base, &surroundings.memory);
        if belongs_to_hstore(base) {
            return Self::Hstore(function);
        }
        let (textless, bytes_per_byte) = match base {
            pg_sys::XMLOID => (XML_DECLARATION, 1),
            _ if base.to_u32() < pg_sys::FirstNormalObjectId => (0, BUILTIN_BYTES_PER_BYTE),
            _ => (0, OTHER_BYTES_PER_BYTE),
        };
        Self::Output {
            function,
            textless,
            bytes_per_byte,
        }
    }

    /// What is written for SQL NULL in a column or attribute of this type.
    pub(super) fn null_text(&self, style: NullStyle) -> &'static [u8] {
        let empty_string = matches!(
            self,
            Self::Bool
                | Self::Text
                | Self::Name
                | Self::Char
                | Self::Uuid
                | Self::Bytea
                | Self::Bits
                | Self::Output { .. }
        );
        if empty_string && style == NullStyle::Typed {
            EMPTY_STRING
        } else {
            NULL
        }
    }

    /// Whether its values can be read at any address, aligned for their type or not.
    pub(super) fn reads_unaligned(&self) -> bool {
        !matches!(
            self,
            Self::Hstore(_) | Self::Array(_) | Self::Composite(_) | Self::Output { .. }
        )
    }

    /// Appends the value.
    ///
    /// # Safety
    /// `image` is a stored value of the type, not null; a transaction is open.
    #[inline]
    pub(super) unsafe fn write(
        &mut self,
        image: *const u8,
        out: &mut LimitedText,
        surroundings: &mut Surroundings,
    ) -> Written {
        let fixed = out.room(FIXED_ROOM)?;
        // SAFETY: `image` has the layout of the variant's type.
        unsafe {
            match self {
                Self::Int2 => push_i64(fixed, read::<i16>(image).into()),
                Self::Int4 => push_i64(fixed, read::<i32>(image).into()),
                Self::Int8 => push_i64(fixed, read(image)),
                Self::Oid => push_i64(fixed, read::<u32>(image).into()),
                Self::Float4 => push_float4(fixed, read(image)),
                Self::Float8 => push_float8(fixed, read(image)),
                Self::Money { decimals } => push_money(fixed, read(image), *decimals),
                Self::Bool => fixed.extend_from_slice(if *image != 0 { b"true" } else { b"false" }),
                Self::Date => push_quoted_date(fixed, read(image)),
                Self::Timestamp { zone } => push_quoted_timestamp(fixed, read(image), zone),
                Self::Time => quoted(fixed, |out| push_time(out, read(image))),
                Self::Timetz => quoted(fixed, |out| {
                    push_timetz(out, read(image), read(image.add(size_of::<i64>())));
                }),
                Self::Interval => push_quoted_interval(fixed, image),
                Self::Uuid => push_uuid(fixed, &read::<[u8; UUID_LEN]>(image)),
                Self::Char => push_char(fixed, *image),
                _ => return self.write_variable(image, out, surroundings),
            }
        }
        Ok(())
    }

    /// # Safety
    /// As `write`.
    unsafe fn write_variable(
        &mut self,
        image: *const u8,
        out: &mut LimitedText,
        surroundings: &mut Surroundings,
    ) -> Written {
        let Surroundings { text, memory, .. } = surroundings;
        // SAFETY: as `write`.
        unsafe {
            match self {
                Self::Text => {
                    out.require(text.least_len(varlena::unfetched_len(image)))?;
                    text.push_string(out, varlena::bytes(image, memory))
                }
                Self::Numeric => push_number(out, varlena::bytes(image, memory)),
                Self::Name => text.push_string(out, CStr::from_ptr(image.cast()).to_bytes()),
                Self::Bytea => {
                    out.require(varlena::unfetched_len(image))?;
                    push_base64(out, varlena::bytes(image, memory))
                }
                Self::Bits => {
                    let bytes = varlena::unfetched_len(image).saturating_sub(size_of::<i32>());
                    out.require(bytes.saturating_sub(1) * BITS_PER_BYTE)?;
                    push_bits(out, varlena::bytes(image, memory))
                }
                Self::Json => {
                    out.require(text.least_len(varlena::unfetched_len(image)))?;
                    text.push_plain(out, varlena::bytes(image, memory))
                }
                Self::Jsonb => push_jsonb(image, out, surroundings),
                Self::Hstore(function) => push_hstore(image, function, out, surroundings),
                Self::Array(array) => array.write(image, out, surroundings),
                Self::Composite(composite) => composite.write(image, out, surroundings),
                Self::Output {
                    function,
                    textless,
                    bytes_per_byte,
                } => {
                    let stored = function.stored_len(image).saturating_sub(*textless);
                    out.require(text.least_len(stored) / *bytes_per_byte)?;
                    text.push_string(out, function.print(image, memory))
                }
                _ => unreachable!("values of fixed length are written by their caller"),
            }
        }
    }
}

/// Appends a stored numeric, or `null` for one that is no number.
pub(super) fn push_number(out: &mut LimitedText, image: &[u8]) -> Written {
    let room = numeric_room(image).max(NULL.len());
    let out = out.room(room)?;
    if !push_numeric(out, image) {
        out.extend_from_slice(NULL);
    }
    Ok(())
}

/// `hstore` is the only type of its extension that a column can have.
fn belongs_to_hstore(type_id: pg_sys::Oid) -> bool {
    // SAFETY: catalog look-ups in an open transaction; the name is a fresh copy.
    unsafe {
        let extension = pg_sys::getExtensionOfObject(pg_sys::TypeRelationId, type_id);
        if extension == pg_sys::InvalidOid {
            return false;
        }
        let name = pg_sys::get_extension_name(extension);
        !name.is_null() && CStr::from_ptr(name) == c"hstore"
    }
}

/// # Safety
/// `image` points at a `T`, aligned or not.
#[inline(always)]
pub(super) unsafe fn read<T: Copy>(image: *const u8) -> T {
    // SAFETY: as this function's.
    unsafe { ptr::read_unaligned(image.cast()) }
}

#[inline(always)]
fn quoted(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'"');
    write(out);
    out.push(b'"');
}

fn push_float8(out: &mut Vec<u8>, value: f64) {
    if !value.is_finite() {
        return out.extend_from_slice(NULL);
    }
    let mut text = [0u8; SHORTEST_FLOAT_LEN];
    // SAFETY: the buffer is longer than the longest form.
    let len = unsafe { double_to_shortest_decimal_buf(value, text.as_mut_ptr().cast()) };
    out.extend_from_slice(&text[..len as usize]);
}

fn push_float4(out: &mut Vec<u8>, value: f32) {
    if !value.is_finite() {
        return out.extend_from_slice(NULL);
    }
    let mut text = [0u8; SHORTEST_FLOAT_LEN];
    // SAFETY: the buffer is longer than the longest form.
    let len = unsafe { float_to_shortest_decimal_buf(value, text.as_mut_ptr().cast()) };
    out.extend_from_slice(&text[..len as usize]);
}

/// The extreme values stand for -infinity and infinity.
fn push_quoted_date(out: &mut Vec<u8>, days: i32) {
    if days == i32::MIN || days == i32::MAX {
        return out.extend_from_slice(NULL);
    }
    quoted(out, |out| push_date(out, days));
}

fn push_quoted_timestamp(out: &mut Vec<u8>, micros: i64, zone: &[u8]) {
    if micros == i64::MIN || micros == i64::MAX {
        return out.extend_from_slice(NULL);
    }
    quoted(out, |out| {
        push_timestamp(out, micros, Fraction::IfNotZero);
        out.extend_from_slice(zone);
    });
}

/// # Safety
/// `image` is an interval: microseconds, days, months.
unsafe fn push_quoted_interval(out: &mut Vec<u8>, image: *const u8) {
    // SAFETY: as this function's.
    let (micros, days, months) = unsafe {
        (
            read::<i64>(image),
            read::<i32>(image.add(8)),
            read::<i32>(image.add(12)),
        )
    };
    if is_infinite_interval(months, days, micros) {
        return out.extend_from_slice(NULL);
    }
    quoted(out, |out| push_interval(out, months, days, micros));
}

/// From version 17 on an interval can be infinite; before, the same bits are a
/// very long one.
fn is_infinite_interval(months: i32, days: i32, micros: i64) -> bool {
    cfg!(any(feature = "pg17", feature = "pg18"))
        && matches!(
            (months, days, micros),
            (i32::MIN, i32::MIN, i64::MIN) | (i32::MAX, i32::MAX, i64::MAX)
        )
}

fn push_uuid(out: &mut Vec<u8>, uuid: &[u8; UUID_LEN]) {
    let mut text = [b'"'; 2 * UUID_LEN + UUID_HYPHENS.len() + 2];
    let mut at = 1;
    for (place, byte) in uuid.iter().enumerate() {
        if UUID_HYPHENS.contains(&place) {
            text[at] = b'-';
            at += 1;
        }
        text[at] = HEX_DIGITS[usize::from(byte >> 4)];
        text[at + 1] = HEX_DIGITS[usize::from(byte & 15)];
        at += 2;
    }
    out.extend_from_slice(&text);
}

/// The one-byte type `"char"`: nothing for NUL, an octal escape for what is no
/// ASCII, as PostgreSQL prints it from version 16 on.
fn push_char(out: &mut Vec<u8>, byte: u8) {
    match byte {
        0 => out.extend_from_slice(EMPTY_STRING),
        1..=0x7f => push_string_bytes(out, &[byte]),
        _ => push_string_bytes(out, format!("\\{byte:o}").as_bytes()),
    }
}

fn push_base64(out: &mut LimitedText, bytes: &[u8]) -> Written {
    let len = base64::encoded_len(bytes.len(), true).unwrap_or(usize::MAX);
    out.require(len)?;
    out.push(b'"')?;
    for piece in bytes.chunks(BASE64_PIECE) {
        let len = base64::encoded_len(piece.len(), true).expect("a piece is short");
        let out = out.room(len)?;
        let start = out.len();
        out.resize(start + len, 0);
        let written = BASE64.encode_slice(piece, &mut out[start..]);
        assert_eq!(written, Ok(len), "the room is that of the encoded form");
    }
    out.push(b'"')
}

/// A string of zeros and ones, as PostgreSQL prints it. `image`: how many, then the bits from
/// the highest one of each byte on.
fn push_bits(out: &mut LimitedText, image: &[u8]) -> Written {
    let (count, bytes) = image.split_at(size_of::<i32>());
    // SAFETY: four bytes.
    let count = unsafe { read::<i32>(count.as_ptr()) }.max(0) as usize;
    out.require(count)?;
    out.push(b'"')?;
    for (place, byte) in bytes.iter().enumerate() {
        let rest = count.saturating_sub(place * BITS_PER_BYTE);
        let bits = out.room(BITS_PER_BYTE)?;
        bits.extend((0..rest.min(BITS_PER_BYTE)).map(|bit| b'0' + ((byte >> (7 - bit)) & 1)));
    }
    out.push(b'"')
}
