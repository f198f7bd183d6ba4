//! Appending captured rows to an outbox table.
//!
//! Runs at PRE_COMMIT with the extension's rights: the heap is written directly,
//! because an SQL INSERT would cost three times as much and would ask for the
//! user's privileges. An error here fails the user's transaction, as it must.

mod indexes;
mod tuple;
mod write;

use pgrx::{pg_sys, PgMemoryContexts};

use super::encoding;
use super::outbox_layout::{check_indexes, check_table};
use indexes::IndexPlan;
use tuple::{Keys, Scratch};
use write::Opened;

/// So many tuples are handed to the heap at once: enough to fill several pages with
/// one WAL record each, few enough to keep the memory of a flush small.
const BATCH: usize = 256;
/// A longer tuple is stored out of line or compressed by the heap (TOAST_TUPLE_THRESHOLD:
/// four tuples fill a page).
const TOASTED_FROM_BYTES: u32 = pg_sys::BLCKSZ / 4 - 16;
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
    in_context(at_commit, || {
        // SAFETY: what is opened is closed, and the batch lives between.
        unsafe {
            let Some(opened) = open_current(current_table) else {
                return;
            };
            check_table(opened.table);
            check_indexes(opened.table, opened.indexes);
            let mut batch = Batch::of(opened);
            for row in rows {
                batch.push(&row);
            }
            batch.end();
            write::close(opened);
        }
    });
}

/// What a flush at commit allocates goes with the transaction, in a moment; a bulk statement
/// flushes many times before.
fn in_context(at_commit: bool, f: impl FnOnce()) {
    if !at_commit {
        let mut context = PgMemoryContexts::new("webhook flush");
        // SAFETY: what `f` allocates in the context is not used after it.
        unsafe { context.switch_to(|_| f()) };
        return;
    }
    let _context = TopContext::new();
    f();
}

/// The memory of the top transaction while a flush at commit runs.
struct TopContext(pg_sys::MemoryContext);

impl TopContext {
    fn new() -> Self {
        // SAFETY: backend-local variables; restored on drop.
        unsafe {
            let before = pg_sys::CurrentMemoryContext;
            pg_sys::CurrentMemoryContext = pg_sys::TopTransactionContext;
            Self(before)
        }
    }
}

impl Drop for TopContext {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { pg_sys::CurrentMemoryContext = self.0 }
    }
}

/// Opens the current outbox table; the lock on it keeps a rotation from emptying it.
unsafe fn open_current(current_table: impl Fn() -> pg_sys::Oid) -> Option<Opened> {
    loop {
        let wanted = current_table();
        if wanted == pg_sys::InvalidOid {
            return None;
        }
        // SAFETY: in a transaction. If the table is gone, what is current is asked again.
        let Some(opened) = (unsafe { write::open(wanted) }) else {
            continue;
        };
        if current_table() == wanted {
            return Some(opened);
        }
        // SAFETY: opened above; the lock stays until the transaction ends.
        unsafe { write::close(opened) };
    }
}

/// Tuples on their way to the table.
struct Batch {
    opened: Opened,
    /// `None`: an index needs PostgreSQL's own routine.
    plan: Option<IndexPlan>,
    /// The first row, until a second comes: most transactions write one, which needs no slots.
    alone: Option<pg_sys::HeapTuple>,
    slots: Vec<*mut pg_sys::TupleTableSlot>,
    /// Of each tuple that waits. Message ids point into the rows.
    keys: Vec<Keys>,
    scratch: Scratch,
}

impl Batch {
    /// # Safety
    /// The table is open and was checked, as its indexes were.
    unsafe fn of(opened: Opened) -> Self {
        Self {
            opened,
            // SAFETY: as the caller promises.
            plan: unsafe { IndexPlan::of(opened.indexes) },
            alone: None,
            slots: Vec::new(),
            keys: Vec::new(),
            scratch: Scratch::default(),
        }
    }

    /// # Safety
    /// The table is open, and the row's message id stays where it is until the batch ends.
    unsafe fn push(&mut self, row: &OutboxRow<'_>) {
        #[cfg(feature = "fault_injection")]
        super::fault::wait_if("wait append");
        // SAFETY: the tuple is formed by the table's own descriptor.
        unsafe {
            let keys = tuple::keys(self.opened.xid, row);
            let tuple = self.scratch.form(self.descriptor(), &keys, row);
            // A multi-insert keeps what it has toasted until it ends, and the catalog routine does
            // not tell such a tuple where it was stored: its index entry would point nowhere.
            if (*tuple).t_len > TOASTED_FROM_BYTES {
                self.write_alone(tuple, &keys);
                return;
            }
            self.keys.push(keys);
            if self.keys.len() == 1 {
                self.alone = Some(tuple);
                return;
            }
            if let Some(first) = self.alone.take() {
                self.fill_slot(0, first);
            }
            self.fill_slot(self.keys.len() - 1, tuple);
            if self.keys.len() == BATCH {
                self.write();
            }
        }
    }

    unsafe fn descriptor(&self) -> pg_sys::TupleDesc {
        // SAFETY: the table is open.
        unsafe { (*self.opened.table).rd_att }
    }

    unsafe fn fill_slot(&mut self, place: usize, tuple: pg_sys::HeapTuple) {
        // SAFETY: the tuple was formed by the table's descriptor, and the slot takes it over.
        unsafe {
            if place == self.slots.len() {
                self.slots.push(pg_sys::MakeSingleTupleTableSlot(
                    self.descriptor(),
                    &raw const pg_sys::TTSOpsHeapTuple,
                ));
            }
            pg_sys::ExecStoreHeapTuple(tuple, self.slots[place], true);
        }
    }

    unsafe fn write_alone(&mut self, tuple: pg_sys::HeapTuple, keys: &Keys) {
        let table = self.opened.table;
        // SAFETY: the tuple fits the table, was allocated here and is used no more.
        unsafe {
            match &self.plan {
                Some(plan) => write::insert(table, plan, tuple, keys),
                None => pg_sys::CatalogTupleInsertWithInfo(table, tuple, self.opened.indexes),
            }
            pg_sys::heap_freetuple(tuple);
        }
    }

    unsafe fn write(&mut self) {
        if let Some(tuple) = self.alone.take() {
            let keys = self.keys[0];
            // SAFETY: as in push.
            unsafe { self.write_alone(tuple, &keys) };
        } else if !self.keys.is_empty() {
            // SAFETY: as many slots as there are keys hold a tuple each.
            unsafe { self.write_slots() };
        }
        self.keys.clear();
    }

    unsafe fn write_slots(&mut self) {
        let table = self.opened.table;
        let filled = &mut self.slots[..self.keys.len()];
        // SAFETY: as the caller promises.
        unsafe {
            match &self.plan {
                Some(plan) => write::insert_many(table, plan, filled, &self.keys),
                None => pg_sys::CatalogTuplesMultiInsertWithInfo(
                    table,
                    filled.as_mut_ptr(),
                    filled.len() as i32,
                    self.opened.indexes,
                ),
            }
            for slot in filled {
                pg_sys::ExecClearTuple(*slot);
            }
        }
    }

    /// Writes what waits, and gives the slots back.
    ///
    /// # Safety
    /// As [`Batch::push`].
    unsafe fn end(mut self) {
        // SAFETY: the slots belong to this batch and are dropped once.
        unsafe {
            self.write();
            for slot in self.slots.drain(..) {
                pg_sys::ExecDropSingleTupleTableSlot(slot);
            }
        }
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
