//! Text, JSON and their lists between SQL and Rust, whatever the encoding of the database.
//!
//! pgrx takes every text for UTF-8: elsewhere it panics at an argument and writes the bytes of
//! another encoding. So functions and statements of this crate take and give these types; in
//! between everything is a `String`.

use std::ops::Deref;

use pgrx::callconv::{Arg, ArgAbi, BoxRet, FcInfo};
use pgrx::datum::{DatumWithOid, Interval, TimestampWithTimeZone, UnboxDatum};
use pgrx::nullable::Nullable;
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::{pg_sys, FromDatum, IntoDatum, JsonB};

use super::encoding;
use super::spi::text_datum;

/// A text.
#[derive(Clone, Debug)]
pub struct Text(pub String);

/// A jsonb.
#[derive(Clone, Debug)]
pub struct Json(pub serde_json::Value);

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// A jsonb that nobody looks into, by its text.
#[derive(Clone, Debug)]
pub struct JsonText(pub String);

/// A list as SQL takes it.
pub fn texts(list: Vec<String>) -> Vec<Text> {
    list.into_iter().map(Text).collect()
}

impl FromDatum for Text {
    unsafe fn from_polymorphic_datum(
        datum: pg_sys::Datum,
        is_null: bool,
        _type: pg_sys::Oid,
    ) -> Option<Self> {
        (!is_null).then(|| {
            // SAFETY: the caller asks for text, so the datum is one; the bytes are copied.
            unsafe {
                let packed = pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr());
                Self(encoding::from_server(pgrx::varlena::varlena_to_byte_slice(
                    packed,
                )))
            }
        })
    }
}

impl IntoDatum for Text {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        Some(text_datum(&self.0))
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::TEXTOID
    }
}

impl FromDatum for Json {
    unsafe fn from_polymorphic_datum(
        datum: pg_sys::Datum,
        is_null: bool,
        _type: pg_sys::Oid,
    ) -> Option<Self> {
        if is_null {
            return None;
        }
        // SAFETY: the caller asks for jsonb, so the datum is one.
        let text = unsafe { json_text(datum) };
        Some(Self(
            serde_json::from_str(&text).expect("PostgreSQL prints JSON"),
        ))
    }
}

impl IntoDatum for Json {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        json_datum(&self.0.to_string())
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::JSONBOID
    }
}

impl FromDatum for JsonText {
    unsafe fn from_polymorphic_datum(
        datum: pg_sys::Datum,
        is_null: bool,
        _type: pg_sys::Oid,
    ) -> Option<Self> {
        // SAFETY: the caller asks for jsonb, so the datum is one.
        (!is_null).then(|| Self(unsafe { json_text(datum) }))
    }
}

impl IntoDatum for JsonText {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        json_datum(&self.0)
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::JSONBOID
    }
}

/// # Safety
/// `datum` is a jsonb that is not null.
unsafe fn json_text(datum: pg_sys::Datum) -> String {
    // SAFETY: as this function's; the text is copied.
    unsafe {
        let printed =
            pgrx::direct_function_call::<&std::ffi::CStr>(pg_sys::jsonb_out, &[Some(datum)]);
        encoding::from_server(printed.expect("a jsonb has a text").to_bytes())
    }
}

fn json_datum(text: &str) -> Option<pg_sys::Datum> {
    let bytes = encoding::to_server(text).into_owned();
    let text = std::ffi::CString::new(bytes).expect("JSON escapes NUL");
    // SAFETY: the argument of jsonb_in is a C string that outlives the call.
    unsafe {
        pgrx::direct_function_call_as_datum(pg_sys::jsonb_in, &[text.as_c_str().into_datum()])
    }
}

/// Passes the type to and from pgrx as its datum.
macro_rules! passed {
    ($type:ident, $sql:literal) => {
        // SAFETY: the datum that is asked for is that of the type as SQL declares it.
        unsafe impl UnboxDatum for $type {
            type As<'src> = $type;

            unsafe fn unbox<'src>(datum: pgrx::datum::Datum<'src>) -> Self
            where
                Self: 'src,
            {
                // SAFETY: as above; it is not null.
                let value = unsafe { Self::from_datum(datum.sans_lifetime(), false) };
                value.expect("a datum that is not null has a value")
            }
        }

        // SAFETY: as above.
        unsafe impl<'fcx> ArgAbi<'fcx> for $type {
            unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
                // SAFETY: as above.
                let value = unsafe { arg.unbox_arg_using_from_datum() };
                value.expect("the argument is declared strict")
            }

            unsafe fn unbox_nullable_arg(arg: Arg<'_, 'fcx>) -> Nullable<Self> {
                // SAFETY: as above.
                unsafe { arg.unbox_arg_using_from_datum().into() }
            }
        }

        // SAFETY: as above.
        unsafe impl BoxRet for $type {
            unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> pgrx::datum::Datum<'fcx> {
                match self.into_datum() {
                    // SAFETY: as above.
                    Some(datum) => unsafe { fcinfo.return_raw_datum(datum) },
                    None => fcinfo.return_null(),
                }
            }
        }

        // SAFETY: the name is that of the type.
        unsafe impl SqlTranslatable for $type {
            const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!($type);
            const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
            const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> =
                Ok(SqlMappingRef::literal($sql));
            const RETURN_SQL: Result<ReturnsRef, ReturnsError> =
                Ok(ReturnsRef::One(SqlMappingRef::literal($sql)));
        }
    };
}

passed!(Text, "text");
passed!(Json, "jsonb");
passed!(JsonText, "jsonb");

/// A parameter of a statement.
#[repr(transparent)]
pub struct Param(DatumWithOid<'static>);

/// Parameters as SPI takes them.
pub fn datums(params: &[Param]) -> &[DatumWithOid<'static>] {
    // SAFETY: a parameter is laid out as what it consists of.
    unsafe { std::slice::from_raw_parts(params.as_ptr().cast(), params.len()) }
}

/// What SQL gives and takes as it is.
macro_rules! plain_params {
    ($($type:ty),* $(,)?) => {
        $(impl From<$type> for Param {
            fn from(value: $type) -> Self {
                Self(value.into())
            }
        })*
    };
}

plain_params!(
    bool,
    Option<bool>,
    i16,
    i32,
    Option<i32>,
    i64,
    Option<i64>,
    Option<Vec<i16>>,
    pg_sys::Oid,
    pgrx::Uuid,
    TimestampWithTimeZone,
    Option<TimestampWithTimeZone>,
    Interval,
    Option<Interval>,
    Option<pgrx::Uuid>,
    Vec<i32>,
    Option<Vec<i32>>,
);

/// What has another form in Rust.
macro_rules! converted_params {
    ($($type:ty: $convert:expr),* $(,)?) => {
        $(impl From<$type> for Param {
            fn from(value: $type) -> Self {
                let convert: fn($type) -> _ = $convert;
                Self(convert(value).into())
            }
        })*
    };
}

converted_params!(
    &str: |text| Text::from(text),
    Option<&str>: |text| text.map(Text::from),
    String: Text,
    Option<String>: |text| text.map(Text),
    Vec<String>: texts,
    Option<Vec<String>>: |list| list.map(texts),
    JsonText: |json| json,
    Option<JsonText>: |json| json,
    JsonB: |json| Json(json.0),
    Option<JsonB>: |json| json.map(|json| Json(json.0)),
);

/// A column of an answer, by way of its SQL type.
pub trait Column: Sized {
    type Stored: FromDatum + IntoDatum;

    fn from_stored(stored: Self::Stored) -> Self;
}

macro_rules! columns {
    ($($type:ty: $stored:ty, $convert:expr);* $(;)?) => {
        $(impl Column for $type {
            type Stored = $stored;

            fn from_stored(stored: $stored) -> Self {
                let convert: fn($stored) -> Self = $convert;
                convert(stored)
            }
        })*
    };
}

columns!(
    bool: bool, |value| value;
    i16: i16, |value| value;
    i32: i32, |value| value;
    i64: i64, |value| value;
    f64: f64, |value| value;
    pg_sys::Oid: pg_sys::Oid, |value| value;
    TimestampWithTimeZone: TimestampWithTimeZone, |value| value;
    Vec<u8>: Vec<u8>, |value| value;
    Vec<i16>: Vec<i16>, |value| value;
    String: Text, |text| text.0;
    Vec<String>: Vec<Text>, |list| list.into_iter().map(|text| text.0).collect();
    JsonB: Json, |json| JsonB(json.0);
    JsonText: JsonText, |json| json;
    pgrx::Uuid: pgrx::Uuid, |value| value;
);
