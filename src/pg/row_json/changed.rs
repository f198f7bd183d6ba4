//! Which fields differ between two versions of a row, by their stored bytes.
//!
//! No operator takes part, so it works for types without equality, and no user's
//! code runs. Compressed and out-of-line values count as their plain bytes; the
//! same out-of-line pointer is the same value and is not fetched.

use std::slice;

use pgrx::pg_sys;

use super::tuple::{attribute, TupleReader};
use super::varlena;

/// Compares versions of the rows of one table. Made once and kept for the life of
/// the backend, or until the table's definition changes.
pub struct FieldWatch {
    /// Places of the watched attributes, from 0.
    watched: Vec<usize>,
    /// No field is left out, so equal tuples need no look at the fields.
    watches_all: bool,
    old: TupleReader,
    new: TupleReader,
}

impl FieldWatch {
    /// `fields` are attribute numbers, `None` means every column, also ones added
    /// later (after which the table's definition has changed).
    ///
    /// # Safety
    /// `descriptor` describes the table whose rows will be compared.
    pub unsafe fn compile(descriptor: pg_sys::TupleDesc, fields: Option<&[i16]>) -> Self {
        // SAFETY: the descriptor is valid, places are below natts.
        unsafe {
            let count = (*descriptor).natts as usize;
            let watched: Vec<usize> = (0..count)
                .filter(|&place| {
                    let column = attribute(descriptor, place);
                    let named = fields.is_none_or(|numbers| numbers.contains(&column.attnum));
                    named && !column.attisdropped
                })
                .collect();
            let needed = watched.last().map_or(0, |place| place + 1);
            Self {
                watched,
                watches_all: fields.is_none(),
                old: TupleReader::compile(descriptor, needed),
                new: TupleReader::compile(descriptor, needed),
            }
        }
    }

    /// Whether any watched field differs.
    ///
    /// # Safety
    /// `old` and `new` are rows of the table that `descriptor` describes, whose
    /// definition has not changed since `compile`; a transaction with a snapshot
    /// is open.
    pub unsafe fn any_changed(
        &mut self,
        descriptor: pg_sys::TupleDesc,
        old: pg_sys::HeapTuple,
        new: pg_sys::HeapTuple,
    ) -> bool {
        // SAFETY: as this function's.
        unsafe {
            if self.watches_all && same_tuple(old, new) {
                return false;
            }
            self.read(descriptor, old, new);
            self.watched.iter().any(|&place| self.differs(place))
        }
    }

    /// The numbers of the watched attributes that differ, ascending, into `changed`,
    /// which is emptied first.
    ///
    /// # Safety
    /// As [`FieldWatch::any_changed`].
    pub unsafe fn list_changed(
        &mut self,
        descriptor: pg_sys::TupleDesc,
        old: pg_sys::HeapTuple,
        new: pg_sys::HeapTuple,
        changed: &mut Vec<i16>,
    ) {
        changed.clear();
        // SAFETY: as this function's.
        unsafe {
            self.read(descriptor, old, new);
            let different = self.watched.iter().filter(|&&place| self.differs(place));
            changed.extend(different.map(|&place| place as i16 + 1));
        }
    }

    /// # Safety
    /// As `any_changed`.
    unsafe fn read(
        &mut self,
        descriptor: pg_sys::TupleDesc,
        old: pg_sys::HeapTuple,
        new: pg_sys::HeapTuple,
    ) {
        // SAFETY: as this function's.
        unsafe {
            self.old.read(descriptor, (*old).t_data);
            self.new.read(descriptor, (*new).t_data);
        }
    }

    /// # Safety
    /// Both tuples have been read and are still there.
    #[inline]
    unsafe fn differs(&self, place: usize) -> bool {
        let (old, new) = (self.old.image(place), self.new.image(place));
        if old.is_null() || new.is_null() {
            return old.is_null() != new.is_null();
        }
        // SAFETY: images are as long as their storage says.
        unsafe {
            if self.old.is_varlena(place) {
                return !varlena::equal(old, new);
            }
            let old_len = self.old.image_len(place);
            old_len != self.new.image_len(place)
                || slice::from_raw_parts(old, old_len) != slice::from_raw_parts(new, old_len)
        }
    }
}

/// Whether two tuples are the same from their null bitmap on, as they are after an
/// UPDATE that sets what was there.
///
/// # Safety
/// Both are valid.
unsafe fn same_tuple(old: pg_sys::HeapTuple, new: pg_sys::HeapTuple) -> bool {
    // SAFETY: a tuple has t_len bytes from its header on.
    unsafe {
        let (old_header, new_header) = ((*old).t_data, (*new).t_data);
        let shape = |header: pg_sys::HeapTupleHeader| {
            (
                u32::from((*header).t_infomask2) & pg_sys::HEAP_NATTS_MASK,
                u32::from((*header).t_infomask) & pg_sys::HEAP_HASNULL,
                (*header).t_hoff,
            )
        };
        let bytes = |tuple: pg_sys::HeapTuple, header: pg_sys::HeapTupleHeader| {
            let start = (*header).t_bits.as_ptr();
            let skipped = start.offset_from_unsigned(header.cast::<u8>());
            slice::from_raw_parts(start, (*tuple).t_len as usize - skipped)
        };
        (*old).t_len == (*new).t_len
            && shape(old_header) == shape(new_header)
            && bytes(old, old_header) == bytes(new, new_header)
    }
}
