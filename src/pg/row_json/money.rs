//! How many decimals an amount of `money` has.
//!
//! The stored integer counts the smallest unit of the currency of `lc_monetary`,
//! so PostgreSQL itself is asked. It is asked about the value the session started
//! with: a later SET changes neither the stored amounts nor what we send.

use std::ffi::CStr;

use pgrx::pg_sys;

use crate::core::values::number_text::push_numeric;

use super::memory::RowMemory;
use super::varlena;

const LC_MONETARY: &CStr = c"lc_monetary";

pub(super) fn decimals(memory: &mut RowMemory) -> u8 {
    // SAFETY: `numeric(money)` is a function of PostgreSQL's own; one smallest
    // unit as a numeric shows as many decimals as the currency has.
    let smallest_unit = unsafe {
        let nest_level = start_with_reset_locale();
        let value = memory.within(|| {
            pg_sys::OidFunctionCall1Coll(
                pg_sys::Oid::from(pg_sys::F_NUMERIC_MONEY),
                pg_sys::InvalidOid,
                pg_sys::Datum::from(1i64),
            )
        });
        pg_sys::AtEOXact_GUC(true, nest_level);
        varlena::bytes(value.cast_mut_ptr::<u8>(), memory)
    };
    let mut text = Vec::new();
    let is_number = push_numeric(&mut text, smallest_unit);
    assert!(is_number, "a money amount is a finite number");
    let point = text.iter().position(|&byte| byte == b'.');
    point.map_or(0, |point| (text.len() - point - 1) as u8)
}

/// Gives `lc_monetary` the value it has after RESET until the nest level ends.
///
/// # Safety
/// A transaction is open.
unsafe fn start_with_reset_locale() -> i32 {
    // SAFETY: the strings belong to the settings and outlive the call.
    unsafe {
        let nest_level = pg_sys::NewGUCNestLevel();
        let current = pg_sys::GetConfigOption(LC_MONETARY.as_ptr(), false, false);
        let reset = pg_sys::GetConfigOptionResetString(LC_MONETARY.as_ptr());
        if CStr::from_ptr(current) != CStr::from_ptr(reset) {
            pg_sys::set_config_option(
                LC_MONETARY.as_ptr(),
                reset,
                pg_sys::GucContext::PGC_USERSET,
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_SAVE,
                true,
                0,
                false,
            );
        }
        nest_level
    }
}
