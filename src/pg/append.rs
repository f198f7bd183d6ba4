//! Appending captured rows to an outbox table.
//!
//! Runs at PRE_COMMIT with the extension's rights: the heap is written directly,
//! because an SQL INSERT would cost three times as much and would ask for the
//! user's privileges. An error here fails the user's transaction, as it must.

use pgrx::{pg_sys, PgMemoryContexts};

use super::outbox_layout::{check_indexes, check_table};
use super::{encoding, growth, snapshot};

/// So many tuples are handed to the heap at once: enough to fill several pages with
/// one WAL record each, few enough to keep the memory of a flush small.
const BATCH: usize = 256;
/// A longer tuple is stored out of line or compressed by the heap (TOAST_TUPLE_THRESHOLD:
/// four tuples fill a page).
const TOASTED_FROM_BYTES: u32 = pg_sys::BLCKSZ / 4 - 16;
/// A buffer for a text is given back if it is larger than this.
const KEPT_WORDS: usize = 32 * 1024;
/// The largest value and the largest tuple that PostgreSQL allocates (memutils.h).
const MAX_ALLOC_SIZE: usize = 0x3fff_ffff;

/// One row of the outbox.
pub struct OutboxRow<'a> {
    pub id: i64,
    pub message_id: &'a [u8; 16],
    pub event_key: i32,
    pub webhook_key: i32,
    /// Microseconds since 2000-01-01 UTC.
    pub captured_at: i64,
    // Texts are UTF-8.
    pub source: Option<&'a [u8]>,
    pub actor: Option<&'a [u8]>,
    pub changed: Option<&'a [u8]>,
    pub record: Option<&'a [u8]>,
    pub old_record: Option<&'a [u8]>,
}

extern "C-unwind" {
    // commands/sequence.h; pgrx has no binding for it.
    fn nextval_internal(relid: pg_sys::Oid, check_permissions: bool) -> i64;
}

/// The next value of a sequence, whatever the user's privileges.
pub fn next_value(sequence: pg_sys::Oid) -> i64 {
    let _writable = Writable::new();
    // SAFETY: a PostgreSQL function with this signature in every supported version;
    // the boundary turns its errors into unwinding.
    unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| nextval_internal(sequence, false)) }
}

/// A user may have turned his transaction read-only after his last change; what he
/// changed before is captured all the same.
struct Writable(bool);

impl Writable {
    fn new() -> Self {
        // SAFETY: a variable of this backend, restored on drop.
        unsafe {
            let before = pg_sys::XactReadOnly;
            pg_sys::XactReadOnly = false;
            Self(before)
        }
    }
}

impl Drop for Writable {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { pg_sys::XactReadOnly = self.0 }
    }
}

/// The resource owner of the top transaction while a flush runs: at PRE_COMMIT the
/// current one may already be gone.
struct TopOwner(pg_sys::ResourceOwner);

impl TopOwner {
    fn new(at_commit: bool) -> Self {
        // SAFETY: backend-local variables; restored on drop.
        unsafe {
            let before = pg_sys::CurrentResourceOwner;
            if at_commit {
                pg_sys::CurrentResourceOwner = pg_sys::TopTransactionResourceOwner;
            }
            Self(before)
        }
    }
}

impl Drop for TopOwner {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { pg_sys::CurrentResourceOwner = self.0 }
    }
}

/// Appends the rows to the table that `current_table` names. It is asked again once the table
/// is locked: a rotation may have come between. `InvalidOid`: the extension is gone, and its
/// messages with it.
pub fn append<'a>(
    current_table: impl Fn() -> pg_sys::Oid,
    rows: impl Iterator<Item = OutboxRow<'a>>,
    at_commit: bool,
) {
    let _owner = TopOwner::new(at_commit);
    let mut context = PgMemoryContexts::new("webhook flush");
    // SAFETY: everything allocated here lives in `context`, which is dropped after
    // the table is closed.
    unsafe {
        context.switch_to(|_| {
            // Tables with long values may only be accessed under one.
            snapshot::with_any(|| {
                let Some(table) = open_current(current_table) else {
                    return;
                };
                let mut batch = Batch::open(table);
                for row in rows {
                    batch.push(&row);
                }
                batch.close();
                pg_sys::table_close(table, pg_sys::NoLock as i32);
            });
        });
    }
}

/// Opens the current outbox table; the lock on it keeps a rotation from emptying it.
unsafe fn open_current(current_table: impl Fn() -> pg_sys::Oid) -> Option<pg_sys::Relation> {
    loop {
        let wanted = current_table();
        if wanted == pg_sys::InvalidOid {
            return None;
        }
        // SAFETY: null if the table is gone; what is current is then asked again.
        let table = unsafe { pg_sys::try_table_open(wanted, pg_sys::RowExclusiveLock as i32) };
        if table.is_null() {
            continue;
        }
        if current_table() == wanted {
            return Some(table);
        }
        // SAFETY: closes what was opened; the lock stays until the transaction ends.
        unsafe { pg_sys::table_close(table, pg_sys::NoLock as i32) };
    }
}

struct Batch {
    table: pg_sys::Relation,
    indexes: pg_sys::CatalogIndexState,
    /// The first row, until a second comes: most transactions write one, which needs no slots.
    alone: Option<pg_sys::HeapTuple>,
    slots: Vec<*mut pg_sys::TupleTableSlot>,
    filled: usize,
    xid: u64,
    scratch: Scratch,
}

impl Batch {
    unsafe fn open(table: pg_sys::Relation) -> Self {
        // SAFETY: the table is open and locked.
        unsafe {
            check_table(table);
            let indexes = pg_sys::CatalogOpenIndexes(table);
            check_indexes(table, indexes);
            Self {
                table,
                indexes,
                alone: None,
                slots: Vec::new(),
                filled: 0,
                xid: pg_sys::GetTopFullTransactionId().value,
                scratch: Scratch::default(),
            }
        }
    }

    unsafe fn push(&mut self, row: &OutboxRow<'_>) {
        #[cfg(feature = "fault_injection")]
        super::fault::wait_if("wait append");
        // SAFETY: the tuple is formed by the table's own descriptor from as many
        // values as it has columns.
        unsafe {
            let tuple = self.scratch.form((*self.table).rd_att, self.xid, row);
            if (*tuple).t_len > TOASTED_FROM_BYTES {
                self.write_alone(tuple);
                return;
            }
            if self.filled == 0 && self.alone.is_none() {
                self.alone = Some(tuple);
                return;
            }
            if let Some(first) = self.alone.take() {
                self.fill_slot(first);
            }
            self.fill_slot(tuple);
            if self.filled == BATCH {
                self.write();
            }
        }
    }

    unsafe fn fill_slot(&mut self, tuple: pg_sys::HeapTuple) {
        // SAFETY: the tuple was formed by the table's descriptor, and the slot takes it over.
        unsafe {
            if self.filled == self.slots.len() {
                self.slots.push(pg_sys::MakeSingleTupleTableSlot(
                    (*self.table).rd_att,
                    &raw const pg_sys::TTSOpsHeapTuple,
                ));
            }
            pg_sys::ExecStoreHeapTuple(tuple, self.slots[self.filled], true);
            self.filled += 1;
        }
    }

    /// A multi-insert does not tell a tuple that it toasts where it was stored, and the
    /// index would point nowhere; the insert of a single tuple does.
    unsafe fn write_alone(&mut self, tuple: pg_sys::HeapTuple) {
        // SAFETY: the tuple fits the table, was allocated here and is used no more.
        unsafe {
            pg_sys::CatalogTupleInsertWithInfo(self.table, tuple, self.indexes);
            pg_sys::heap_freetuple(tuple);
        }
    }

    unsafe fn write(&mut self) {
        if let Some(tuple) = self.alone.take() {
            // SAFETY: as in push.
            unsafe { self.write_alone(tuple) };
        }
        if self.filled == 0 {
            return;
        }
        // SAFETY: `filled` slots hold a tuple each; the routine writes heap and indexes.
        unsafe {
            pg_sys::CatalogTuplesMultiInsertWithInfo(
                self.table,
                self.slots.as_mut_ptr(),
                self.filled as i32,
                self.indexes,
            );
            for slot in &self.slots[..self.filled] {
                pg_sys::ExecClearTuple(*slot);
            }
        }
        self.filled = 0;
    }

    unsafe fn close(mut self) {
        // SAFETY: the slots belong to this batch and are dropped once.
        unsafe {
            self.write();
            for slot in self.slots.drain(..) {
                pg_sys::ExecDropSingleTupleTableSlot(slot);
            }
            pg_sys::CatalogCloseIndexes(self.indexes);
        }
    }
}

/// The values of a tuple, and its texts in PostgreSQL's in-memory form, one buffer a column;
/// reused.
#[derive(Default)]
struct Scratch {
    values: Vec<pg_sys::Datum>,
    nulls: Vec<bool>,
    texts: [Vec<u64>; 5],
}

impl Scratch {
    unsafe fn form(
        &mut self,
        descriptor: pg_sys::TupleDesc,
        xid: u64,
        row: &OutboxRow<'_>,
    ) -> pg_sys::HeapTuple {
        let texts = [
            row.source,
            row.actor,
            row.changed,
            row.record,
            row.old_record,
        ];
        // SAFETY: the descriptor is that of an open table.
        let columns = unsafe { (*descriptor).natts } as usize;
        // Columns that follow ours were dropped, and stay null.
        self.values.resize(columns, pg_sys::Datum::from(0usize));
        self.nulls.clear();
        self.nulls.resize(columns, true);
        let fixed = [
            xid.into(),
            row.id.into(),
            pg_sys::Datum::from(row.message_id.as_ptr()),
            row.event_key.into(),
            row.webhook_key.into(),
            row.captured_at.into(),
        ];
        self.values[..fixed.len()].copy_from_slice(&fixed);
        self.nulls[..fixed.len()].fill(false);
        for (i, (text, buffer)) in texts.iter().zip(&mut self.texts).enumerate() {
            if let Some(text) = text {
                self.values[fixed.len() + i] = varlena(buffer, text);
                self.nulls[fixed.len() + i] = false;
            }
        }
        // SAFETY: the table was checked to have these columns, and there is a value for each
        // column of the descriptor; everything is copied into the tuple.
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

/// Most UTF-8 bytes of the texts of one row: beside them it has room for the rest of its tuple.
/// In another encoding they may take twice as many.
pub fn largest_texts() -> usize {
    const LARGEST_TUPLE: usize = MAX_ALLOC_SIZE - (16 << 20);
    if encoding::server_is_utf8() {
        LARGEST_TUPLE
    } else {
        LARGEST_TUPLE / 2
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
