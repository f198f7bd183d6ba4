//! Arrays, read element by element from their stored form: nested JSON arrays, or
//! objects keyed by position.
//!
//! A NULL element is always `null`: the rule by type is for columns.

use pgrx::pg_sys;

use crate::core::definitions::words::ListStyle;
use crate::core::values::json_text::push_u64;

use super::limited::{LimitedText, Written};
use super::render::{read, Render, NULL};
use super::tuple::Storage;
use super::varlena;
use super::Surroundings;

/// Fields of the stored form, counted from behind the length header: number of
/// dimensions, where the data starts if there is a null bitmap, element type, then
/// the lengths and the lower bounds of the dimensions.
const NDIM: usize = 0;
const DATA_OFFSET: usize = 4;
const DIMENSIONS: usize = 12;
const BYTES_PER_DIMENSION: usize = 8;
/// The length header that offsets include and our bytes do not.
const LEN_HEADER: usize = 4;
/// Data starts at PostgreSQL's MAXALIGN.
const MAX_ALIGN: usize = align_of::<f64>();

/// Longest key of a keyed list with its quotes and colon.
const KEY_LEN: usize = 24;
/// Least JSON of an element: one character and a comma.
const LEAST_ELEMENT_LEN: usize = 2;
/// A stored array of elements of variable length has at most so many bytes for one of its JSON:
/// 36 for a composite `{"n":0},` of a bigint. Only composites without columns have more.
const BYTES_PER_BYTE: usize = 5;

pub(super) struct Array {
    element_id: pg_sys::Oid,
    /// Made with the first element: a type may be nested deeper than the stack reaches, but not
    /// its values.
    element: Option<Render>,
    storage: Storage,
    element_len: i16,
}

impl Array {
    /// `None` if the type is no array as PostgreSQL stores its own.
    pub(super) fn of_type(type_id: pg_sys::Oid) -> Option<Self> {
        let mut element_id = pg_sys::InvalidOid;
        let (mut len, mut by_value, mut align) = (0, false, 0);
        // SAFETY: all pointers are to locals.
        unsafe {
            let subscripting = pg_sys::get_typsubscript(type_id, &mut element_id);
            if subscripting != pg_sys::Oid::from(pg_sys::F_ARRAY_SUBSCRIPT_HANDLER)
                || element_id == pg_sys::InvalidOid
            {
                return None;
            }
            pg_sys::get_typlenbyvalalign(element_id, &mut len, &mut by_value, &mut align);
        }
        Some(Self {
            element_id,
            element: None,
            storage: Storage::new(len, align),
            element_len: len,
        })
    }

    /// Bytes of JSON that an array of so many stored bytes has at least.
    fn least_len(&self, stored: usize) -> usize {
        match usize::try_from(self.element_len) {
            Ok(len) => stored / len.max(1) * LEAST_ELEMENT_LEN,
            Err(_) => stored / BYTES_PER_BYTE,
        }
    }

    /// # Safety
    /// `image` is an array of this type; a transaction is open.
    pub(super) unsafe fn write(
        &mut self,
        image: *const u8,
        out: &mut LimitedText,
        surroundings: &mut Surroundings,
    ) -> Written {
        // SAFETY: as this function's.
        surroundings.nested(|surroundings| unsafe { self.write_nested(image, out, surroundings) })
    }

    /// # Safety
    /// As `write`.
    unsafe fn write_nested(
        &mut self,
        image: *const u8,
        out: &mut LimitedText,
        surroundings: &mut Surroundings,
    ) -> Written {
        // SAFETY: the stored form is as the constants above say.
        unsafe {
            out.require(self.least_len(varlena::unfetched_len(image)))?;
            let element = self
                .element
                .get_or_insert_with(|| Render::for_type(self.element_id, surroundings));
            let body = if element.reads_unaligned() {
                varlena::bytes(image, &mut surroundings.memory)
            } else {
                let whole = varlena::aligned(image, &mut surroundings.memory);
                varlena::bytes(whole, &mut surroundings.memory)
            };
            let body = body.as_ptr();
            let dimensions = read::<i32>(body.add(NDIM)).max(0) as usize;
            let lengths: Vec<i32> = (0..dimensions)
                .map(|dimension| read(body.add(DIMENSIONS + dimension * size_of::<i32>())))
                .collect();
            let mut elements = Elements::of(body, dimensions);
            let storage = self.storage;
            write_dimension(
                (element, storage),
                &lengths,
                &mut elements,
                out,
                surroundings,
            )
        }
    }
}

/// # Safety
/// `elements` points at the first element of this (sub-)array.
unsafe fn write_dimension(
    (element, storage): (&mut Render, Storage),
    lengths: &[i32],
    elements: &mut Elements,
    out: &mut LimitedText,
    surroundings: &mut Surroundings,
) -> Written {
    let keyed = surroundings.lists == ListStyle::Keyed;
    let (&length, inner) = lengths.split_first().unwrap_or((&0, &[]));
    out.push(if keyed { b'{' } else { b'[' })?;
    for position in 1..=length {
        if position > 1 {
            out.push(b',')?;
        }
        if keyed {
            let out = out.room(KEY_LEN)?;
            out.push(b'"');
            push_u64(out, position as u64);
            out.extend_from_slice(b"\":");
        }
        // SAFETY: there are as many elements as the product of the lengths.
        unsafe {
            if !inner.is_empty() {
                write_dimension((&mut *element, storage), inner, elements, out, surroundings)?;
            } else if let Some(image) = elements.next(storage) {
                element.write(image, out, surroundings)?;
            } else {
                out.push_bytes(NULL)?;
            }
        }
    }
    out.push(if keyed { b'}' } else { b']' })
}

/// Walks the elements of an array in storage order.
struct Elements {
    /// One bit an element, set if it is not NULL; null if none is.
    not_null: *const u8,
    data: *const u8,
    offset: usize,
    index: usize,
}

impl Elements {
    /// # Safety
    /// `body` is an array behind its length header.
    unsafe fn of(body: *const u8, dimensions: usize) -> Self {
        let header = DIMENSIONS + dimensions * BYTES_PER_DIMENSION;
        // SAFETY: as this function's.
        unsafe {
            let data_offset = read::<i32>(body.add(DATA_OFFSET)) as usize;
            let (not_null, start) = if data_offset == 0 {
                let start = (header + LEN_HEADER).next_multiple_of(MAX_ALIGN) - LEN_HEADER;
                (std::ptr::null(), start)
            } else {
                (body.add(header), data_offset - LEN_HEADER)
            };
            Self {
                not_null,
                data: body.wrapping_add(start),
                offset: 0,
                index: 0,
            }
        }
    }

    /// The next element; `None` if it is NULL.
    ///
    /// # Safety
    /// There is a next element, stored as `storage` says.
    unsafe fn next(&mut self, storage: Storage) -> Option<*const u8> {
        let index = self.index;
        self.index += 1;
        // SAFETY: as this function's; the bitmap has a bit for each element.
        unsafe {
            if !self.not_null.is_null() && *self.not_null.add(index / 8) & (1 << (index % 8)) == 0 {
                return None;
            }
            self.offset = storage.start(self.data, self.offset);
            let image = self.data.add(self.offset);
            self.offset += storage.len(image);
            Some(image)
        }
    }
}
