//! The values of a row that `match` looks at.
//!
//! Read from the stored bytes in a form that is the same for equal values, whatever their
//! storage: integers of any width, text compressed or not, `char(n)` without its padding. No
//! operator takes part. [`canonical`] turns them into what is hashed, which a dump
//! and another encoding leave as it is.

use pgrx::pg_sys;

use super::memory::RowMemory;
use super::tuple::TupleReader;
use super::varlena;
use crate::core::definitions::limits::MATCH_VALUE_BYTES;
use crate::core::definitions::matching::{Canonical, MatchKind};
use crate::pg::{encoding, growth};

/// How values of this type and collation are compared; `None` if equal ones may be stored
/// differently, or if there is no such type. A domain's are those of the type below it.
pub fn kind_of(column_type: pg_sys::Oid, collation: pg_sys::Oid) -> Option<MatchKind> {
    use pg_sys::SysCacheIdentifier::{COLLOID, TYPEOID};
    if !exists(TYPEOID, column_type) {
        return None;
    }
    // SAFETY: catalog look-ups in a transaction.
    let (base, class) = unsafe {
        let base = pg_sys::getBaseType(column_type);
        (base, pg_sys::get_typtype(base))
    };
    if class as u8 == pg_sys::TYPTYPE_ENUM {
        return Some(MatchKind::Enum);
    }
    let kind = match base {
        pg_sys::INT2OID | pg_sys::INT4OID | pg_sys::INT8OID => MatchKind::Integer,
        pg_sys::BOOLOID => MatchKind::Boolean,
        pg_sys::TEXTOID | pg_sys::VARCHAROID => MatchKind::Text,
        pg_sys::BPCHAROID => MatchKind::Character,
        pg_sys::NAMEOID => MatchKind::Name,
        pg_sys::UUIDOID => MatchKind::Uuid,
        pg_sys::OIDOID => MatchKind::Oid,
        pg_sys::DATEOID => MatchKind::Date,
        pg_sys::TIMEOID => MatchKind::Time,
        pg_sys::TIMESTAMPOID => MatchKind::Timestamp,
        pg_sys::TIMESTAMPTZOID => MatchKind::Timestamptz,
        _ => return None,
    };
    let has_collation = matches!(
        kind,
        MatchKind::Text | MatchKind::Character | MatchKind::Name
    );
    if has_collation && exists(COLLOID, collation) {
        // SAFETY: a catalog look-up in a transaction, of a collation that is there.
        let is_exact = unsafe { pg_sys::get_collation_isdeterministic(collation) };
        return is_exact.then_some(kind);
    }
    Some(kind)
}

fn exists(cache: pg_sys::SysCacheIdentifier::Type, object: pg_sys::Oid) -> bool {
    let none = pg_sys::Datum::from(0usize);
    // SAFETY: a look-up in a cache with the oid as its key.
    unsafe { pg_sys::SearchSysCacheExists(cache as i32, object.into(), none, none, none) }
}

const NULL: u8 = 0;
const VALUE: u8 = 1;
/// Bytes of a length: a value has at most [`MATCH_VALUE_BYTES`].
const LENGTH: usize = 2;

/// Reads the values of some columns. Made once and kept for the life of the backend, or until
/// the table's definition changes.
pub struct RowValues {
    /// Places of attributes, from 0.
    columns: Vec<(usize, MatchKind)>,
    reader: TupleReader,
    memory: RowMemory,
}

impl RowValues {
    /// # Safety
    /// `descriptor` describes the table whose rows will be read; the numbers are those of live
    /// columns of types with these kinds.
    pub unsafe fn compile(descriptor: pg_sys::TupleDesc, columns: &[(i16, MatchKind)]) -> Self {
        let places = columns
            .iter()
            .map(|(number, kind)| (*number as usize - 1, *kind));
        let columns: Vec<_> = places.collect();
        let needed = columns.iter().map(|(place, _)| place + 1).max();
        Self {
            columns,
            // SAFETY: as this function's.
            reader: unsafe { TupleReader::compile(descriptor, needed.unwrap_or(0)) },
            memory: RowMemory::new(),
        }
    }

    /// Appends the values; `false` if one is longer than any that an event lists.
    ///
    /// # Safety
    /// `tuple` is a row of the table that `descriptor` describes, whose definition has not changed
    /// since `compile`; a transaction with a snapshot is open.
    pub unsafe fn write(
        &mut self,
        descriptor: pg_sys::TupleDesc,
        tuple: pg_sys::HeapTuple,
        out: &mut Vec<u8>,
    ) -> bool {
        // SAFETY: as this function's; t_data of a row points at its header.
        unsafe { self.reader.read(descriptor, (*tuple).t_data) };
        for &(place, kind) in &self.columns {
            growth::reserve(out, 1 + LENGTH + MATCH_VALUE_BYTES);
            let image = self.reader.image(place);
            if image.is_null() {
                out.push(NULL);
                continue;
            }
            out.push(VALUE);
            let length_at = out.len();
            out.extend_from_slice(&[0; LENGTH]);
            // SAFETY: the image is one of a column of this kind.
            let fits = unsafe {
                let len = self.reader.image_len(place);
                push_stored(out, kind, image, len, &mut self.memory)
            };
            self.memory.release();
            if !fits {
                return false;
            }
            let length = (out.len() - length_at - LENGTH) as u16;
            out[length_at..length_at + LENGTH].copy_from_slice(&length.to_le_bytes());
        }
        true
    }

    /// What [`RowValues::write`] has appended, in the form that is hashed. In a transaction.
    pub fn canonical(&self, mut written: &[u8]) -> Vec<Canonical> {
        let mut values = Vec::with_capacity(self.columns.len());
        for (_, kind) in &self.columns {
            let (tag, rest) = written.split_at(1);
            written = rest;
            if tag == [NULL] {
                values.push(None);
                continue;
            }
            let (length, rest) = written.split_at(LENGTH);
            let length = u16::from_le_bytes([length[0], length[1]]);
            let (value, rest) = rest.split_at(usize::from(length));
            written = rest;
            values.push(Some(canonical(*kind, value)));
        }
        values
    }
}

/// # Safety
/// `image` is a value of a column of this kind with `len` stored bytes.
unsafe fn push_stored(
    out: &mut Vec<u8>,
    kind: MatchKind,
    image: *const u8,
    len: usize,
    memory: &mut RowMemory,
) -> bool {
    // SAFETY: as this function's; values of fixed length have `len` bytes.
    unsafe {
        let value = match kind {
            MatchKind::Integer => {
                let number = match len {
                    2 => i64::from(image.cast::<i16>().read_unaligned()),
                    4 => i64::from(image.cast::<i32>().read_unaligned()),
                    _ => image.cast::<i64>().read_unaligned(),
                };
                out.extend_from_slice(&number.to_le_bytes());
                return true;
            }
            MatchKind::Text if varlena::unfetched_len(image) > MATCH_VALUE_BYTES => return false,
            MatchKind::Text => varlena::bytes(image, memory),
            MatchKind::Character => without_padding(varlena::bytes(image, memory)),
            MatchKind::Name => std::ffi::CStr::from_ptr(image.cast()).to_bytes(),
            MatchKind::Boolean
            | MatchKind::Uuid
            | MatchKind::Oid
            | MatchKind::Date
            | MatchKind::Time
            | MatchKind::Timestamp
            | MatchKind::Timestamptz
            | MatchKind::Enum => std::slice::from_raw_parts(image, len),
        };
        if value.len() > MATCH_VALUE_BYTES {
            return false;
        }
        out.extend_from_slice(value);
    }
    true
}

/// No encoding of a server has the byte of a space within another character.
fn without_padding(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| *byte != b' ');
    &bytes[..end.map_or(0, |last| last + 1)]
}

/// Stored bytes in the form that is hashed.
fn canonical(kind: MatchKind, stored: &[u8]) -> Vec<u8> {
    match kind {
        MatchKind::Text | MatchKind::Character | MatchKind::Name => canonical_text(stored),
        MatchKind::Enum => {
            let oid = stored.try_into().map(u32::from_le_bytes);
            oid.map_or_else(|_| Vec::new(), |oid| label(oid.into()))
        }
        _ => stored.to_vec(),
    }
}

/// Begins no text in UTF-8.
const NO_UTF8: u8 = 0xff;

/// As UTF-8, so that a restore into another encoding changes nothing. What has no exact form there
/// (any bytes may be in a database of SQL_ASCII) is compared by its bytes: two texts must not
/// become one.
fn canonical_text(stored: &[u8]) -> Vec<u8> {
    let text = encoding::from_server(stored);
    if *encoding::to_server(&text) == *stored {
        return text.into_bytes();
    }
    let mut bytes = vec![NO_UTF8];
    bytes.extend_from_slice(stored);
    bytes
}

/// The label of an enum value; empty, which none is, if it is gone.
fn label(value: pg_sys::Oid) -> Vec<u8> {
    // SAFETY: a catalog look-up in a transaction; the label is copied before the row is released.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(
            pg_sys::SysCacheIdentifier::ENUMOID as i32,
            pg_sys::Datum::from(value),
        );
        if tuple.is_null() {
            return Vec::new();
        }
        let row = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_enum>();
        let label = std::ffi::CStr::from_ptr((*row).enumlabel.data.as_ptr());
        let label = encoding::from_server(label.to_bytes()).into_bytes();
        pg_sys::ReleaseSysCache(tuple);
        label
    }
}

/// The canonical form of a text that the input function of a column's type reads; a
/// domain's is that of the type below it, so that no code of a user runs. Raises what the
/// function raises. `None`: longer than a value may be.
pub fn read_value(
    kind: MatchKind,
    column_type: pg_sys::Oid,
    mut modifier: i32,
    text: &str,
) -> Option<Vec<u8>> {
    let text = encoding::to_server_cstring(text);
    let mut out = Vec::new();
    // SAFETY: catalog look-ups in a transaction; the value is read as one of its own type.
    let fits = unsafe {
        let base = pg_sys::getBaseTypeAndTypmod(column_type, &raw mut modifier);
        let (mut input, mut parameter) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
        pg_sys::getTypeInputInfo(base, &raw mut input, &raw mut parameter);
        let datum =
            pg_sys::OidInputFunctionCall(input, text.as_ptr().cast_mut(), parameter, modifier);
        let (mut len, mut by_value) = (0, false);
        pg_sys::get_typlenbyval(base, &raw mut len, &raw mut by_value);
        let image = if by_value {
            std::ptr::from_ref(&datum).cast()
        } else {
            datum.cast_mut_ptr::<u8>().cast_const()
        };
        let len = usize::try_from(len).unwrap_or(0);
        push_stored(&mut out, kind, image, len, &mut RowMemory::new())
    };
    fits.then(|| canonical(kind, &out))
}
