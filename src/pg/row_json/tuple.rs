//! Where the values of a tuple lie: `heap_deform_tuple` without the copy into
//! datums, and only as far as the last attribute that is needed.
//!
//! An image is a pointer at the stored bytes of a value, null for SQL NULL; values
//! of a type passed by value look the same as all others. Calls PostgreSQL only
//! for attributes that were added after the tuple was written. Cannot fail.

use std::ffi::{c_char, CStr};
use std::ptr;

use pgrx::pg_sys;

use super::varlena;

/// Images of short values rely on the low bytes of a datum coming first, and
/// `varlena` on the little-endian form of the length word; pgrx supports no other.
#[cfg(target_endian = "big")]
compile_error!("row_json reads PostgreSQL's little-endian tuple format only");

/// `typlen` of a variable-length value with a length header, and of a C string.
const LEN_VARLENA: i16 = -1;
const LEN_CSTRING: i16 = -2;

/// The attribute at `place`, counted from 0.
///
/// # Safety
/// `descriptor` is valid while the result is used, and `place` below its natts.
pub(in crate::pg) unsafe fn attribute<'a>(
    descriptor: pg_sys::TupleDesc,
    place: usize,
) -> &'a pg_sys::FormData_pg_attribute {
    // SAFETY: attributes follow the descriptor, from version 18 on behind an
    // array of natts compact ones.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        let attributes = (*descriptor).attrs.as_ptr();
        #[cfg(feature = "pg18")]
        let attributes = (*descriptor)
            .compact_attrs
            .as_ptr()
            .add((*descriptor).natts as usize)
            .cast::<pg_sys::FormData_pg_attribute>();
        &*attributes.add(place)
    }
}

/// The number of a live column by its name.
///
/// # Safety
/// `descriptor` is valid.
pub(in crate::pg) unsafe fn column_number(
    descriptor: pg_sys::TupleDesc,
    name: &str,
) -> Option<i16> {
    // SAFETY: places are below natts.
    unsafe {
        (0..(*descriptor).natts as usize)
            .map(|place| attribute(descriptor, place))
            .find(|column| !column.attisdropped && name_of(column) == name)
            .map(|column| column.attnum)
    }
}

/// The name of the column with this number.
///
/// # Safety
/// `descriptor` is valid and has the column.
pub(in crate::pg) unsafe fn column_name(descriptor: pg_sys::TupleDesc, number: i16) -> String {
    // SAFETY: as this function's.
    name_of(unsafe { attribute(descriptor, number as usize - 1) })
}

fn name_of(column: &pg_sys::FormData_pg_attribute) -> String {
    // SAFETY: a name is NUL-terminated within its fixed length.
    let name = unsafe { CStr::from_ptr(column.attname.data.as_ptr()) };
    crate::pg::encoding::from_server(name.to_bytes())
}

/// How values of a type lie one behind the other.
#[derive(Clone, Copy)]
pub(super) struct Storage {
    len: i16,
    /// Alignment in bytes less one.
    mask: usize,
}

impl Storage {
    pub(super) fn new(len: i16, align: c_char) -> Self {
        let align_bytes = match align as u8 {
            b'c' => 1,
            b's' => 2,
            b'i' => 4,
            _ => align_of::<f64>(),
        };
        Self {
            len,
            mask: align_bytes - 1,
        }
    }

    /// Where the value starts that follows the one that ends at `offset`. A short
    /// varlena is not aligned, and is told from padding by its first byte.
    ///
    /// # Safety
    /// A value of this type follows at `data + offset`, or behind padding.
    #[inline(always)]
    pub(super) unsafe fn start(self, data: *const u8, offset: usize) -> usize {
        // SAFETY: at least one byte of padding or value follows.
        if self.len == LEN_VARLENA && unsafe { *data.add(offset) } != 0 {
            return offset;
        }
        (offset + self.mask) & !self.mask
    }

    /// The stored length of a value, header included.
    ///
    /// # Safety
    /// `image` is a value of this type.
    #[inline(always)]
    pub(super) unsafe fn len(self, image: *const u8) -> usize {
        match self.len {
            // SAFETY: a value of variable length starts with its header.
            LEN_VARLENA => unsafe { varlena::stored_len(image) },
            // SAFETY: a C string ends with NUL.
            LEN_CSTRING => unsafe { CStr::from_ptr(image.cast()) }.count_bytes() + 1,
            fixed => fixed as usize,
        }
    }

    pub(super) fn is_varlena(self) -> bool {
        self.len == LEN_VARLENA
    }
}

/// Finds the first so many attributes of the tuples of one descriptor.
pub(super) struct TupleReader {
    storage: Vec<Storage>,
    images: Vec<*const u8>,
    /// Defaults of columns that a tuple is too old to have; images point here.
    missing: Vec<pg_sys::Datum>,
}

impl TupleReader {
    /// # Safety
    /// `descriptor` is valid and has at least `count` attributes.
    pub(super) unsafe fn compile(descriptor: pg_sys::TupleDesc, count: usize) -> Self {
        let storage = (0..count).map(|place| {
            // SAFETY: `place` is below `count`.
            let column = unsafe { attribute(descriptor, place) };
            Storage::new(column.attlen, column.attalign)
        });
        Self {
            storage: storage.collect(),
            images: vec![ptr::null(); count],
            missing: vec![pg_sys::Datum::null(); count],
        }
    }

    /// The stored bytes of an attribute in the tuple read last; null for SQL NULL.
    #[inline(always)]
    pub(super) fn image(&self, place: usize) -> *const u8 {
        self.images[place]
    }

    /// The length of that image.
    ///
    /// # Safety
    /// The image is not null and its tuple still there.
    pub(super) unsafe fn image_len(&self, place: usize) -> usize {
        // SAFETY: as this function's.
        unsafe { self.storage[place].len(self.images[place]) }
    }

    pub(super) fn is_varlena(&self, place: usize) -> bool {
        self.storage[place].is_varlena()
    }

    /// # Safety
    /// `header` starts a tuple of `descriptor`, which is the one compiled from.
    /// Images are valid as long as both.
    pub(super) unsafe fn read(
        &mut self,
        descriptor: pg_sys::TupleDesc,
        header: pg_sys::HeapTupleHeader,
    ) {
        // SAFETY: a tuple is its header, the null bitmap if it has one, then from
        // t_hoff on its values in the order and alignment of the descriptor.
        unsafe {
            let stored = usize::from((*header).t_infomask2) & pg_sys::HEAP_NATTS_MASK as usize;
            let present = stored.min(self.storage.len());
            let has_nulls = u32::from((*header).t_infomask) & pg_sys::HEAP_HASNULL != 0;
            let not_null = (*header).t_bits.as_ptr();
            let data = header.cast::<u8>().add(usize::from((*header).t_hoff));
            let mut offset = 0;
            for place in 0..present {
                if has_nulls && *not_null.add(place / 8) & (1 << (place % 8)) == 0 {
                    self.images[place] = ptr::null();
                    continue;
                }
                let storage = self.storage[place];
                offset = storage.start(data, offset);
                let image = data.add(offset);
                offset += storage.len(image);
                self.images[place] = image;
            }
            for place in present..self.storage.len() {
                self.read_missing(descriptor, place);
            }
        }
    }

    /// A column added after the tuple was written has its default of that time.
    ///
    /// # Safety
    /// As `read`; `place` is below the number of attributes.
    #[cold]
    unsafe fn read_missing(&mut self, descriptor: pg_sys::TupleDesc, place: usize) {
        let mut is_null = false;
        // SAFETY: attribute numbers start at 1.
        unsafe {
            let value = pg_sys::getmissingattr(descriptor, place as i32 + 1, &mut is_null);
            self.missing[place] = value;
            self.images[place] = if is_null {
                ptr::null()
            } else if attribute(descriptor, place).attbyval {
                ptr::from_ref(&self.missing[place]).cast()
            } else {
                value.cast_mut_ptr::<u8>()
            };
        }
    }
}
