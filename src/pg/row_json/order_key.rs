//! The key of a row, by which its message is kept in order: a hash of the values of some columns.
//!
//! The hash is that of the type's hash operator class, under the column's collation: values that
//! the type calls equal have one, however they are stored. Such a class can only be made by a
//! superuser, so no code of the table's owner runs. An error in it is that of the user's
//! statement, as with a hash index on the column.

use pgrx::pg_sys;

use super::changed::FieldWatch;
use super::memory::RowMemory;
use super::tuple::{attribute, TupleReader};
use super::varlena;
use crate::core::messages::order_keys::{KeyHash, OrderKeys};

/// Longer values of a column count as the same, so that none has to be fetched and held.
const VALUE_AT_MOST_BYTES: usize = 1 << 20;
/// The hash of those.
const LONG_VALUE: u64 = 1;
/// The hash of a value whose type has lost its hash function.
const NO_FUNCTION: u64 = 2;

const FUNCTIONS: u32 =
    pg_sys::TYPECACHE_HASH_EXTENDED_PROC_FINFO | pg_sys::TYPECACHE_HASH_PROC_FINFO;

/// Whether values of this type have hashes that are the same for equal values.
pub fn is_hashable(column_type: pg_sys::Oid) -> bool {
    let none = pg_sys::Datum::from(0usize);
    let cache = pg_sys::SysCacheIdentifier::TYPEOID as i32;
    // SAFETY: catalog look-ups in a transaction; the type is there when its entry is asked for.
    unsafe {
        if !pg_sys::SearchSysCacheExists(cache, column_type.into(), none, none, none) {
            return false;
        }
        let entry = pg_sys::lookup_type_cache(column_type, FUNCTIONS as i32);
        (*entry).hash_extended_proc_finfo.fn_oid != pg_sys::InvalidOid
            || (*entry).hash_proc_finfo.fn_oid != pg_sys::InvalidOid
    }
}

/// Hashes rows of one table. Made once and kept for the life of the backend, or until the table's
/// definition changes.
pub struct RowKey {
    table: KeyHash,
    columns: Vec<KeyColumn>,
    watch: FieldWatch,
    reader: TupleReader,
    memory: RowMemory,
}

struct KeyColumn {
    /// From 0.
    place: usize,
    column_type: pg_sys::Oid,
    collation: pg_sys::Oid,
    len: i16,
    by_value: bool,
}

impl RowKey {
    /// Rows of one `table` may have the same key. Without columns, or where a type has no
    /// hash function any more, all rows have the same key.
    ///
    /// # Safety
    /// `descriptor` describes the table whose rows will be read; the numbers are those of live
    /// columns.
    pub unsafe fn compile(
        descriptor: pg_sys::TupleDesc,
        table: pg_sys::Oid,
        numbers: Option<&[i16]>,
    ) -> Self {
        let column = |number: &i16| {
            let place = *number as usize - 1;
            // SAFETY: as this function's.
            let attribute = unsafe { attribute(descriptor, place) };
            is_hashable(attribute.atttypid).then_some(KeyColumn {
                place,
                column_type: attribute.atttypid,
                collation: attribute.attcollation,
                len: attribute.attlen,
                by_value: attribute.attbyval,
            })
        };
        let columns: Option<Vec<_>> = numbers.unwrap_or_default().iter().map(column).collect();
        let columns = columns.unwrap_or_default();
        let watched: Vec<i16> = columns.iter().map(|c| c.place as i16 + 1).collect();
        let needed = watched.iter().max().map_or(0, |last| *last as usize);
        // SAFETY: as this function's.
        unsafe {
            Self {
                table: KeyHash::of_table(table.to_u32()),
                columns,
                watch: FieldWatch::compile(descriptor, Some(&watched)),
                reader: TupleReader::compile(descriptor, needed),
                memory: RowMemory::new(),
            }
        }
    }

    /// The keys of a change: of an update also that of the row before it.
    ///
    /// # Safety
    /// The tuples are rows of the table that `descriptor` describes, whose definition has not
    /// changed since `compile`; a transaction with a snapshot is open.
    pub unsafe fn of_change(
        &mut self,
        descriptor: pg_sys::TupleDesc,
        previous: Option<pg_sys::HeapTuple>,
        current: pg_sys::HeapTuple,
    ) -> OrderKeys {
        // SAFETY: as this function's.
        unsafe {
            let key = self.of_row(descriptor, current);
            let other = previous
                .filter(|previous| self.watch.any_changed(descriptor, *previous, current))
                .map(|previous| self.of_row(descriptor, previous));
            OrderKeys::new(key, other)
        }
    }

    /// # Safety
    /// As `of_change`.
    unsafe fn of_row(&mut self, descriptor: pg_sys::TupleDesc, row: pg_sys::HeapTuple) -> u64 {
        // SAFETY: as this function's; t_data of a row points at its header.
        unsafe { self.reader.read(descriptor, (*row).t_data) };
        let mut key = self.table;
        for column in &self.columns {
            let image = self.reader.image(column.place);
            // SAFETY: the image is that of this column in the row read.
            let hash =
                (!image.is_null()).then(|| self.memory.within(|| unsafe { column.hash(image) }));
            key.add(hash);
            self.memory.release();
        }
        key.finish()
    }
}

impl KeyColumn {
    /// The functions are asked for each value: an operator class may be dropped while the table
    /// stays as it is.
    ///
    /// # Safety
    /// `image` is a value of this column.
    unsafe fn hash(&self, image: *const u8) -> u64 {
        // SAFETY: as this function's. An entry of the type cache is never freed, and its function
        // is one that takes a value of the type.
        unsafe {
            if self.is_varlena() && varlena::raw_len(image) > VALUE_AT_MOST_BYTES {
                return LONG_VALUE;
            }
            let value = self.datum(image);
            let entry = pg_sys::lookup_type_cache(self.column_type, FUNCTIONS as i32);
            let (extended, plain) = (
                &raw mut (*entry).hash_extended_proc_finfo,
                &raw mut (*entry).hash_proc_finfo,
            );
            if (*extended).fn_oid != pg_sys::InvalidOid {
                let seed = pg_sys::Datum::from(0u64);
                return pg_sys::FunctionCall2Coll(extended, self.collation, value, seed).value()
                    as u64;
            }
            if (*plain).fn_oid != pg_sys::InvalidOid {
                let hash = pg_sys::FunctionCall1Coll(plain, self.collation, value).value();
                return u64::from(hash as u32);
            }
            NO_FUNCTION
        }
    }

    fn is_varlena(&self) -> bool {
        self.len == -1
    }

    /// As a C function takes the value.
    ///
    /// # Safety
    /// `image` is a value of this column.
    unsafe fn datum(&self, image: *const u8) -> pg_sys::Datum {
        if !self.by_value {
            return pg_sys::Datum::from(image.cast_mut());
        }
        // SAFETY: a value that is passed by value has so many bytes.
        unsafe {
            match self.len {
                1 => pg_sys::Datum::from(*image.cast::<i8>()),
                2 => pg_sys::Datum::from(image.cast::<i16>().read_unaligned()),
                4 => pg_sys::Datum::from(image.cast::<i32>().read_unaligned()),
                _ => pg_sys::Datum::from(image.cast::<i64>().read_unaligned()),
            }
        }
    }
}
