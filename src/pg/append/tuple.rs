//! Forming the tuples of an outbox table.

use pgrx::pg_sys;

use super::{OutboxRow, MAX_ALLOC_SIZE};
use crate::core::messages::extremes::Stamp;
use crate::pg::{encoding, growth};

/// A buffer for a text is given back if it is larger than this.
const KEPT_WORDS: usize = 32 * 1024;
/// xid, id, message_id, event_key, webhook_key, captured_at: never null, and all that the
/// extension's own indexes contain.
pub(super) const KEY_COLUMNS: usize = 6;
/// Where they are among these.
pub(super) const MESSAGE_ID: usize = 2;
pub(super) const CAPTURED_AT: usize = 5;

/// The values of the first columns of a row, by which its index entries are made.
pub(super) type Keys = [pg_sys::Datum; KEY_COLUMNS];

/// The values of a tuple, and its texts in PostgreSQL's in-memory form, one buffer a column;
/// reused.
#[derive(Default)]
pub(super) struct Scratch {
    values: Vec<pg_sys::Datum>,
    nulls: Vec<bool>,
    texts: [Vec<u64>; 5],
}

/// The keys of a row. That of its message points to where the row has it.
pub(super) fn keys(xid: u64, row: &OutboxRow<'_>) -> Keys {
    let mut keys: Keys = [
        xid.into(),
        row.id.into(),
        pg_sys::Datum::from(0usize),
        row.event_key.into(),
        row.webhook_key.into(),
        pg_sys::Datum::from(0usize),
    ];
    keys[MESSAGE_ID] = pg_sys::Datum::from(row.message_id.as_ptr());
    keys[CAPTURED_AT] = row.captured_at.into();
    keys
}

/// # Safety
/// The row with these keys is there.
pub(super) unsafe fn stamp(keys: &Keys) -> Stamp {
    // SAFETY: as the caller promises; the value is a pointer to 16 bytes.
    let id = unsafe { *keys[MESSAGE_ID].cast_mut_ptr::<[u8; 16]>() };
    (id, keys[CAPTURED_AT].value() as i64)
}

impl Scratch {
    /// A tuple with the memory of the current context.
    ///
    /// # Safety
    /// The descriptor is that of an open table which has the columns of an outbox table.
    pub(super) unsafe fn form(
        &mut self,
        descriptor: pg_sys::TupleDesc,
        keys: &Keys,
        row: &OutboxRow<'_>,
    ) -> pg_sys::HeapTuple {
        let texts = [
            row.source,
            row.actor,
            row.changed,
            row.record,
            row.old_record,
        ];
        // SAFETY: as the caller promises.
        let columns = unsafe { (*descriptor).natts } as usize;
        // Columns that follow ours were dropped, and stay null.
        self.values.resize(columns, pg_sys::Datum::from(0usize));
        self.nulls.clear();
        self.nulls.resize(columns, true);
        self.values[..KEY_COLUMNS].copy_from_slice(keys);
        self.nulls[..KEY_COLUMNS].fill(false);
        for (i, (text, buffer)) in texts.iter().zip(&mut self.texts).enumerate() {
            if let Some(text) = text {
                self.values[KEY_COLUMNS + i] = varlena(buffer, text);
                self.nulls[KEY_COLUMNS + i] = false;
            }
        }
        // SAFETY: there is a value for each column of the descriptor; everything is copied into
        // the tuple.
        let tuple = unsafe {
            pg_sys::heap_form_tuple(
                descriptor,
                self.values.as_mut_ptr(),
                self.nulls.as_mut_ptr(),
            )
        };
        // Compressing the tuple takes as much memory again.
        for buffer in &mut self.texts {
            if buffer.capacity() > KEPT_WORDS {
                *buffer = Vec::new();
            }
        }
        tuple
    }
}

/// Writes `text` as a four-byte-header varlena into an aligned buffer.
fn varlena(buffer: &mut Vec<u64>, text: &[u8]) -> pg_sys::Datum {
    let bytes = encoding::to_server(text);
    let size = bytes.len() + pg_sys::VARHDRSZ;
    // The header has 30 bits for it.
    if size > MAX_ALLOC_SIZE {
        pgrx::ereport!(
            ERROR,
            pgrx::PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            format!("a webhook message has a text of {size} bytes"),
            "set webhook.source or webhook.max_message_size lower"
        );
    }
    let words = size.div_ceil(size_of::<u64>());
    buffer.clear();
    growth::reserve_exact(buffer, words);
    buffer.resize(words, 0);
    let start = buffer.as_mut_ptr().cast::<u8>();
    // SAFETY: the buffer has room for `size` bytes; set_varsize writes the first four.
    unsafe {
        pgrx::set_varsize_4b(start.cast(), size as i32);
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), start.add(pg_sys::VARHDRSZ), bytes.len());
    }
    pg_sys::Datum::from(start)
}
