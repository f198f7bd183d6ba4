//! Writing formed tuples to the heap and its indexes.
//!
//! Each function here is one call across PostgreSQL's error handling, however many of its
//! functions it uses: for a transaction that writes one message, a guard for each of them would
//! cost as much as the write. So these functions are free of destructors, allocations and panics:
//! an error of PostgreSQL jumps over their frames.

use pgrx::pg_sys;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;

use super::indexes::{IndexPlan, KeyIndex};
use super::tuple::{stamp, Keys, KEY_COLUMNS};
use crate::core::messages::extremes::Extremes;

// As PostgreSQL 15 to 18 declare them: utils/snapmgr.h, access/table.h, access/xact.h,
// access/heapam.h, access/genam.h, catalog/indexing.h, commands/sequence.h.
extern "C-unwind" {
    fn ActiveSnapshotSet() -> bool;
    fn GetTransactionSnapshot() -> pg_sys::Snapshot;
    fn PushActiveSnapshot(snapshot: pg_sys::Snapshot);
    fn PopActiveSnapshot();
    fn try_table_open(relation: pg_sys::Oid, lock: i32) -> pg_sys::Relation;
    fn table_close(table: pg_sys::Relation, lock: i32);
    fn CatalogOpenIndexes(table: pg_sys::Relation) -> pg_sys::CatalogIndexState;
    fn CatalogCloseIndexes(indexes: pg_sys::CatalogIndexState);
    fn GetTopFullTransactionId() -> pg_sys::FullTransactionId;
    fn GetCurrentCommandId(used: bool) -> pg_sys::CommandId;
    fn heap_insert(
        table: pg_sys::Relation,
        tuple: pg_sys::HeapTuple,
        command: pg_sys::CommandId,
        options: i32,
        state: pg_sys::BulkInsertState,
    );
    fn heap_multi_insert(
        table: pg_sys::Relation,
        slots: *mut *mut pg_sys::TupleTableSlot,
        count: i32,
        command: pg_sys::CommandId,
        options: i32,
        state: pg_sys::BulkInsertState,
    );
    fn index_insert(
        index: pg_sys::Relation,
        values: *mut pg_sys::Datum,
        nulls: *mut bool,
        place: pg_sys::ItemPointer,
        table: pg_sys::Relation,
        check_unique: pg_sys::IndexUniqueCheck::Type,
        unchanged: bool,
        info: *mut pg_sys::IndexInfo,
    ) -> bool;
}

/// An open table with its indexes.
#[derive(Clone, Copy)]
pub(super) struct Opened {
    pub table: pg_sys::Relation,
    pub indexes: pg_sys::CatalogIndexState,
    /// The id of the top transaction.
    pub xid: u64,
    /// Whether a snapshot was made active for the time of the flush.
    pub pushed_snapshot: bool,
}

/// Locks and opens a table with its indexes, under a snapshot: tables with long values may only
/// be accessed under one. `None` if the table is gone.
///
/// # Safety
/// In a transaction.
pub(super) unsafe fn open(relation: pg_sys::Oid) -> Option<Opened> {
    // SAFETY: PostgreSQL's own functions in the order in which it uses them.
    unsafe {
        pg_guard_ffi_boundary(|| {
            let table = try_table_open(relation, pg_sys::RowExclusiveLock as i32);
            if table.is_null() {
                return None;
            }
            let pushed_snapshot = !ActiveSnapshotSet();
            if pushed_snapshot {
                PushActiveSnapshot(GetTransactionSnapshot());
            }
            Some(Opened {
                table,
                indexes: CatalogOpenIndexes(table),
                xid: GetTopFullTransactionId().value,
                pushed_snapshot,
            })
        })
    }
}

/// Closes what [`open`] has opened. The lock stays until the transaction ends.
///
/// # Safety
/// Once, with what [`open`] gave.
pub(super) unsafe fn close(opened: Opened) {
    // SAFETY: as the caller promises.
    unsafe {
        pg_guard_ffi_boundary(|| {
            CatalogCloseIndexes(opened.indexes);
            if opened.pushed_snapshot {
                PopActiveSnapshot();
            }
            table_close(opened.table, pg_sys::NoLock as i32);
        });
    }
}

/// Inserts one tuple of any length.
///
/// # Safety
/// The tuple was formed for the open table, and the plan is that of its indexes.
pub(super) unsafe fn insert(
    table: pg_sys::Relation,
    plan: &IndexPlan,
    tuple: pg_sys::HeapTuple,
    keys: &Keys,
) {
    // SAFETY: as the caller promises; nothing in the closure has a destructor.
    unsafe {
        pg_guard_ffi_boundary(|| {
            let command = GetCurrentCommandId(true);
            heap_insert(table, tuple, command, 0, std::ptr::null_mut());
            for index in plan.iter() {
                enter(table, index, &raw mut (*tuple).t_self, keys);
            }
        });
    }
}

/// Inserts many tuples, none of which is stored out of line.
///
/// # Safety
/// The slots hold tuples of the open table, the keys are theirs in the same order, and the plan is
/// that of its indexes.
pub(super) unsafe fn insert_many(
    table: pg_sys::Relation,
    plan: &IndexPlan,
    slots: &mut [*mut pg_sys::TupleTableSlot],
    keys: &[Keys],
) {
    let count = slots.len().min(keys.len());
    // SAFETY: as the caller promises. Nothing in the closure has a destructor or allocates, and
    // nothing panics: places are below the count, which neither slots nor keys fall short of, and
    // those of an index below the number of keys.
    unsafe {
        pg_guard_ffi_boundary(|| {
            let command = GetCurrentCommandId(true);
            let (all, number) = (slots.as_mut_ptr(), count as i32);
            heap_multi_insert(table, all, number, command, 0, std::ptr::null_mut());
            for index in plan.iter() {
                let mut place = 0;
                while place < count {
                    let end = if index.extremes_only {
                        enter_extremes(table, index, slots, keys, place, count)
                    } else {
                        enter(table, index, &raw mut (*slots[place]).tts_tid, &keys[place]);
                        place + 1
                    };
                    place = end;
                }
            }
        });
    }
}

/// Enters the extremes of the rows that lie in the same block as the row at `start`, and returns
/// where the next block begins.
///
/// # Safety
/// As [`insert_many`]; `start` is below `count`.
unsafe fn enter_extremes(
    table: pg_sys::Relation,
    index: &KeyIndex,
    slots: &[*mut pg_sys::TupleTableSlot],
    keys: &[Keys],
    start: usize,
    count: usize,
) -> usize {
    // SAFETY: as the caller promises.
    unsafe {
        let block = |place: usize| {
            let number = (*slots[place]).tts_tid.ip_blkid;
            (number.bi_hi, number.bi_lo)
        };
        let mut extremes = Extremes::of(start, stamp(&keys[start]));
        let mut end = start + 1;
        while end < count && block(end) == block(start) {
            extremes.add(end, stamp(&keys[end]));
            end += 1;
        }
        for place in extremes.places() {
            enter(table, index, &raw mut (*slots[place]).tts_tid, &keys[place]);
        }
        end
    }
}

/// # Safety
/// As [`insert`].
unsafe fn enter(
    table: pg_sys::Relation,
    index: &KeyIndex,
    tuple: pg_sys::ItemPointer,
    keys: &Keys,
) {
    let mut values = index.values(keys);
    let mut nulls = [false; KEY_COLUMNS];
    // SAFETY: as the caller promises; the values are copied.
    unsafe {
        index_insert(
            index.relation,
            values.as_mut_ptr(),
            nulls.as_mut_ptr(),
            tuple,
            table,
            index.check_unique,
            false,
            index.info,
        );
    }
}
