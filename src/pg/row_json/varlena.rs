//! Values of variable length: their header, and their bytes when they are stored
//! compressed or out of line.
//!
//! Reads headers by itself and calls PostgreSQL only to detoast. That fails, with
//! PostgreSQL's error, only on damaged data.

use std::ptr;

use pgrx::pg_sys;

use super::memory::RowMemory;
use crate::core::values::varlena_header::{self, Header};

/// Not set in the first byte of a plain value with a long header.
const FORM_BITS: u8 = 0x03;

const LONG_HEADER: usize = 4;
/// First byte and kind of pointer.
const EXTERNAL_HEADER: usize = 2;
const TAG_ON_DISK: u8 = 18;
/// The two high bits of a compressed value's length name the method.
const RAW_LEN_MASK: u32 = 0x3FFF_FFFF;

/// # Safety
/// `image` is a value of variable length.
#[inline(always)]
unsafe fn header(image: *const u8) -> Header {
    // SAFETY: the first byte says whether a word is there.
    unsafe { varlena_header::read(*image, || image.cast::<u32>().read_unaligned()) }
}

/// Bytes that the value takes where it is stored, header included.
///
/// # Safety
/// `image` is a value of variable length.
#[inline(always)]
pub(super) unsafe fn stored_len(image: *const u8) -> usize {
    // SAFETY: as this function's.
    unsafe {
        match header(image) {
            Header::Plain { start, len } => start + len,
            Header::Compressed { stored } => stored,
            Header::External => external_len(image),
        }
    }
}

/// # Safety
/// `image` is a pointer to a value stored elsewhere.
#[cold]
unsafe fn external_len(image: *const u8) -> usize {
    // SAFETY: the second byte says what kind of pointer follows.
    let tag = unsafe { *image.add(1) };
    EXTERNAL_HEADER
        + if tag == TAG_ON_DISK {
            size_of::<pg_sys::varatt_external>()
        } else {
            size_of::<*const u8>()
        }
}

/// The bytes behind the header, if the value is stored plain.
///
/// # Safety
/// `image` is a value of variable length that outlives the result.
#[inline(always)]
pub(super) unsafe fn plain<'a>(image: *const u8) -> Option<&'a [u8]> {
    // SAFETY: as `stored_len`.
    unsafe {
        match header(image) {
            Header::Plain { start, len } => Some(std::slice::from_raw_parts(image.add(start), len)),
            Header::Compressed { .. } | Header::External => None,
        }
    }
}

/// The bytes behind the header, detoasted into the row's memory where needed.
///
/// # Safety
/// As `plain`; the result also ends with the row.
#[inline(always)]
pub(super) unsafe fn bytes<'a>(image: *const u8, memory: &mut RowMemory) -> &'a [u8] {
    // SAFETY: as this function's.
    unsafe {
        match plain(image) {
            Some(bytes) => bytes,
            None => {
                let whole = memory.within(|| pg_sys::pg_detoast_datum_packed(as_varlena(image)));
                plain(whole.cast()).expect("a detoasted value is plain")
            }
        }
    }
}

/// The value with a long header and aligned, copied into the row's memory where needed.
///
/// # Safety
/// As `bytes`.
pub(super) unsafe fn aligned(image: *const u8, memory: &mut RowMemory) -> *const u8 {
    // SAFETY: as this function's.
    unsafe {
        if *image & FORM_BITS == 0 && image.cast::<u64>().is_aligned() {
            return image;
        }
        memory
            .within(|| {
                if *image & FORM_BITS == 0 {
                    pg_sys::pg_detoast_datum_copy(as_varlena(image))
                } else {
                    pg_sys::pg_detoast_datum(as_varlena(image))
                }
            })
            .cast()
    }
}

/// Whether two values have the same bytes, compressed or not, in line or not. The
/// same pointer is the same value; different ones are compared by length first, so
/// that next to nothing is detoasted.
///
/// # Safety
/// Both are values of variable length.
pub(super) unsafe fn equal(left: *const u8, right: *const u8) -> bool {
    // SAFETY: as this function's; lengths are those of the images.
    unsafe {
        if let (Some(left), Some(right)) = (plain(left), plain(right)) {
            return left == right;
        }
        let left_image = std::slice::from_raw_parts(left, stored_len(left));
        let right_image = std::slice::from_raw_parts(right, stored_len(right));
        if left_image == right_image {
            return true;
        }
        raw_len(left) == raw_len(right) && detoasted_equal(left, right)
    }
}

/// # Safety
/// As `equal`.
#[cold]
unsafe fn detoasted_equal(left: *const u8, right: *const u8) -> bool {
    // SAFETY: a detoasted value is plain; what was allocated for it is freed here.
    unsafe {
        let left_whole = pg_sys::pg_detoast_datum_packed(as_varlena(left));
        let right_whole = pg_sys::pg_detoast_datum_packed(as_varlena(right));
        let equal = plain(left_whole.cast()) == plain(right_whole.cast());
        for (whole, image) in [(left_whole, left), (right_whole, right)] {
            if !ptr::eq(whole.cast(), image) {
                pg_sys::pfree(whole.cast());
            }
        }
        equal
    }
}

/// Length of the value without header, detoasted.
///
/// # Safety
/// `image` is a value of variable length.
pub(super) unsafe fn raw_len(image: *const u8) -> usize {
    // SAFETY: the length of a compressed value follows its header, that of one
    // stored on disk comes first in its pointer and counts a long header.
    unsafe {
        if let Some(bytes) = plain(image) {
            return bytes.len();
        }
        if matches!(header(image), Header::Compressed { .. }) {
            let word = image.add(LONG_HEADER).cast::<u32>().read_unaligned();
            return (word & RAW_LEN_MASK) as usize;
        }
        let datum = pg_sys::Datum::from(image.cast_mut());
        pg_sys::toast_raw_datum_size(datum) - LONG_HEADER
    }
}

/// Length of the value without header if it has to be detoasted to be read, else 0.
///
/// # Safety
/// `image` is a value of variable length.
#[inline(always)]
pub(super) unsafe fn unfetched_len(image: *const u8) -> usize {
    // SAFETY: as this function's.
    unsafe {
        match plain(image) {
            Some(_) => 0,
            None => raw_len(image),
        }
    }
}

/// A slice for PostgreSQL, which takes a pointer it does not write through.
fn as_varlena(image: *const u8) -> *mut pg_sys::varlena {
    image.cast_mut().cast()
}
