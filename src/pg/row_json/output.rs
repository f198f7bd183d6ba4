//! Values as the output function of their type prints them.
//!
//! The function is looked up once. While it runs, the settings that output
//! functions look at have fixed values; the session's own come back in any case.
//! What the function raises goes on as it is.

use std::ffi::{c_int, CStr};

use pgrx::pg_sys;

use super::memory::RowMemory;
use super::varlena;

extern "C" {
    /// Not in pgrx's bindings: how bytea is printed.
    static mut bytea_output: c_int;
}

/// `BYTEA_OUTPUT_HEX` of bytea.h.
const BYTEA_HEX: c_int = 1;
/// Shortest text that reads back as the same float.
const SHORTEST_FLOATS: c_int = 1;

pub(super) struct OutputFunction {
    /// Boxed, because its own memory refers to it by address.
    function: Box<pg_sys::FmgrInfo>,
    by_value: bool,
    len: i16,
    utc: *mut pg_sys::pg_tz,
}

impl OutputFunction {
    pub(super) fn of_type(type_id: pg_sys::Oid, memory: &RowMemory) -> Self {
        let mut function = Box::new(pg_sys::FmgrInfo::default());
        let (mut output_id, mut is_varlena) = (pg_sys::InvalidOid, false);
        let (mut len, mut by_value, mut align) = (0, false, 0);
        // SAFETY: all pointers are to locals; the function's memory lasts as long
        // as the writer that holds this value.
        unsafe {
            pg_sys::getTypeOutputInfo(type_id, &mut output_id, &mut is_varlena);
            pg_sys::get_typlenbyvalalign(type_id, &mut len, &mut by_value, &mut align);
            pg_sys::fmgr_info_cxt(output_id, &mut *function, memory.lasting());
            Self {
                function,
                by_value,
                len,
                utc: pg_sys::pg_tzset(c"GMT".as_ptr()),
            }
        }
    }

    /// Bytes of a value of variable length that has to be detoasted to be printed, else 0.
    ///
    /// # Safety
    /// `image` is a value of the type.
    pub(super) unsafe fn stored_len(&self, image: *const u8) -> usize {
        const VARIABLE: i16 = -1;
        if self.len == VARIABLE {
            // SAFETY: as this function's.
            unsafe { varlena::unfetched_len(image) }
        } else {
            0
        }
    }

    /// The printed text, in the server's encoding and the row's memory.
    ///
    /// # Safety
    /// `image` is a value of the type; the result is not used beyond the row.
    pub(super) unsafe fn print<'a>(
        &mut self,
        image: *const u8,
        memory: &mut RowMemory,
    ) -> &'a [u8] {
        let function = &raw mut *self.function;
        // SAFETY: as this function's.
        unsafe {
            let datum = self.datum(image);
            let _settings = PlainSettings::enter(self.utc);
            let text = memory.within(|| pg_sys::OutputFunctionCall(function, datum));
            CStr::from_ptr(text).to_bytes()
        }
    }

    /// # Safety
    /// `image` is a value of the type.
    unsafe fn datum(&self, image: *const u8) -> pg_sys::Datum {
        if !self.by_value {
            return pg_sys::Datum::from(image.cast_mut());
        }
        // SAFETY: a value passed by value has 1, 2, 4 or 8 bytes.
        unsafe {
            match self.len {
                1 => pg_sys::Datum::from(image.cast::<i8>().read()),
                2 => pg_sys::Datum::from(image.cast::<i16>().read_unaligned()),
                4 => pg_sys::Datum::from(image.cast::<i32>().read_unaligned()),
                _ => pg_sys::Datum::from(image.cast::<i64>().read_unaligned()),
            }
        }
    }
}

/// The settings that output functions look at, with fixed values until dropped.
/// Set as plain variables: a change through the settings' own machinery would cost
/// more than the row, and would be visible to the session.
struct PlainSettings {
    date_style: c_int,
    date_order: c_int,
    interval_style: c_int,
    float_digits: c_int,
    bytea: c_int,
    timezone: *mut pg_sys::pg_tz,
}

impl PlainSettings {
    /// # Safety
    /// `utc` is a time zone of PostgreSQL's, which are never freed.
    unsafe fn enter(utc: *mut pg_sys::pg_tz) -> Self {
        // SAFETY: a backend has one thread that touches PostgreSQL's variables.
        unsafe {
            let saved = Self {
                date_style: pg_sys::DateStyle,
                date_order: pg_sys::DateOrder,
                interval_style: pg_sys::IntervalStyle,
                float_digits: pg_sys::extra_float_digits,
                bytea: bytea_output,
                timezone: pg_sys::session_timezone,
            };
            pg_sys::DateStyle = pg_sys::USE_ISO_DATES as c_int;
            pg_sys::DateOrder = pg_sys::DATEORDER_MDY as c_int;
            pg_sys::IntervalStyle = pg_sys::INTSTYLE_ISO_8601 as c_int;
            pg_sys::extra_float_digits = SHORTEST_FLOATS;
            bytea_output = BYTEA_HEX;
            pg_sys::session_timezone = utc;
            saved
        }
    }
}

impl Drop for PlainSettings {
    fn drop(&mut self) {
        // SAFETY: as in `enter`.
        unsafe {
            pg_sys::DateStyle = self.date_style;
            pg_sys::DateOrder = self.date_order;
            pg_sys::IntervalStyle = self.interval_style;
            pg_sys::extra_float_digits = self.float_digits;
            bytea_output = self.bytea;
            pg_sys::session_timezone = self.timezone;
        }
    }
}
