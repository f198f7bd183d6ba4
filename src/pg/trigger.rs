//! A trigger call, as capture sees it.
//!
//! The entry point is raw: pgrx's own wrapper costs more than the whole capture of
//! a row. [`crate::trigger_function!`] makes one from a safe Rust function.

use std::ffi::CStr;

use pgrx::pg_sys;

use super::row_json::changed::FieldWatch;
use super::row_json::matched::RowValues;
use super::row_json::order_key::RowKey;
use super::row_json::{column_name, column_number, Field, LimitedText, RowWriter, TooLarge};
use crate::core::definitions::matching::MatchKind;
use crate::core::definitions::words::{ListStyle, NullStyle};
use crate::core::messages::order_keys::OrderKeys;

/// What happened to the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Insert,
    Update,
    Delete,
}

/// One call of a row-level AFTER trigger; valid while the call runs.
pub struct Firing<'a>(&'a pg_sys::TriggerData);

impl<'a> Firing<'a> {
    /// `None` if the function was not called as a row-level AFTER trigger for
    /// INSERT, UPDATE or DELETE.
    ///
    /// # Safety
    /// `fcinfo` is that of the running call.
    pub unsafe fn from_call(fcinfo: pg_sys::FunctionCallInfo) -> Option<Self> {
        // SAFETY: the context of a trigger call is a TriggerData node.
        unsafe {
            let context = (*fcinfo).context;
            if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_TriggerData {
                return None;
            }
            let data = &*context.cast::<pg_sys::TriggerData>();
            let event = data.tg_event;
            let after = event & pg_sys::TRIGGER_EVENT_TIMINGMASK == pg_sys::TRIGGER_EVENT_AFTER;
            let row = event & pg_sys::TRIGGER_EVENT_ROW != 0;
            let known = event & pg_sys::TRIGGER_EVENT_OPMASK != pg_sys::TRIGGER_EVENT_TRUNCATE;
            (after && row && known).then_some(Firing(data))
        }
    }

    fn trigger(&self) -> &'a pg_sys::Trigger {
        // SAFETY: set for every trigger call.
        unsafe { &*self.0.tg_trigger }
    }

    pub fn operation(&self) -> Operation {
        match self.0.tg_event & pg_sys::TRIGGER_EVENT_OPMASK {
            pg_sys::TRIGGER_EVENT_INSERT => Operation::Insert,
            pg_sys::TRIGGER_EVENT_UPDATE => Operation::Update,
            _ => Operation::Delete,
        }
    }

    pub fn trigger_oid(&self) -> pg_sys::Oid {
        self.trigger().tgoid
    }

    pub fn trigger_name(&self) -> &'a CStr {
        // SAFETY: a NUL-terminated name in the relcache entry, which is pinned.
        unsafe { CStr::from_ptr(self.trigger().tgname) }
    }

    /// The only argument of the trigger.
    pub fn argument(&self) -> Option<&'a CStr> {
        let trigger = self.trigger();
        // SAFETY: tgargs has tgnargs NUL-terminated entries.
        (trigger.tgnargs == 1).then(|| unsafe { CStr::from_ptr(*trigger.tgargs) })
    }

    pub fn relation_oid(&self) -> pg_sys::Oid {
        // SAFETY: the relation is open while its trigger runs.
        unsafe { (*self.0.tg_relation).rd_id }
    }

    /// Whether the running transaction has created the relation.
    pub fn relation_is_new(&self) -> bool {
        // SAFETY: as above.
        unsafe { (*self.0.tg_relation).rd_createSubid != 0 }
    }

    pub fn descriptor(&self) -> pg_sys::TupleDesc {
        // SAFETY: as above.
        unsafe { (*self.0.tg_relation).rd_att }
    }

    /// How many columns the relation has, dropped ones included.
    pub fn column_count(&self) -> usize {
        // SAFETY: the descriptor is that of the open relation.
        unsafe { (*self.descriptor()).natts.max(0) as usize }
    }

    /// The number of a live column of the relation by its name.
    pub fn column(&self, name: &str) -> Option<i16> {
        // SAFETY: the descriptor is that of the open relation.
        unsafe { column_number(self.descriptor(), name) }
    }

    /// Compiles a writer for rows of this relation.
    pub fn row_writer(
        &self,
        fields: Option<&[Field]>,
        nulls: NullStyle,
        lists: ListStyle,
    ) -> RowWriter {
        // SAFETY: the descriptor is that of the open relation.
        unsafe { RowWriter::compile(self.descriptor(), fields, nulls, lists) }
    }

    /// Writes [`Firing::current_row`] as a JSON object, unless a message of up to `limit_bytes`
    /// cannot hold it.
    pub fn write_current(
        &self,
        writer: &mut RowWriter,
        limit_bytes: usize,
        out: &mut LimitedText,
    ) -> Result<(), TooLarge> {
        // SAFETY: the tuple is one of this relation, for which the writer was compiled;
        // rules are dropped when the relation changes.
        unsafe { writer.write(self.descriptor(), self.current_row(), limit_bytes, out) }
    }

    /// Writes the row before the change as a JSON object: the deleted row for a DELETE.
    /// Nothing if there was none.
    pub fn write_old(
        &self,
        writer: &mut RowWriter,
        limit_bytes: usize,
        out: &mut LimitedText,
    ) -> Result<(), TooLarge> {
        if self.operation() == Operation::Insert {
            return Ok(());
        }
        // SAFETY: as `write_current`; of an UPDATE and a DELETE the trigger tuple is the
        // row as it was.
        unsafe { writer.write(self.descriptor(), self.0.tg_trigtuple, limit_bytes, out) }
    }

    /// Compiles a reader of some columns' values.
    pub fn row_values(&self, columns: &[(i16, MatchKind)]) -> RowValues {
        // SAFETY: the descriptor is that of the open relation, the numbers those of its columns.
        unsafe { RowValues::compile(self.descriptor(), columns) }
    }

    /// Appends the values of [`Firing::current_row`]; `false` if no event can list them.
    pub fn write_values(&self, values: &mut RowValues, out: &mut Vec<u8>) -> bool {
        // SAFETY: the tuple is one of this relation, for which the reader was compiled;
        // rules are dropped when the relation changes.
        unsafe { values.write(self.descriptor(), self.current_row(), out) }
    }

    /// Compiles the key of rows of this relation, as rows of `table`.
    pub fn row_key(&self, table: pg_sys::Oid, columns: Option<&[i16]>) -> RowKey {
        // SAFETY: the descriptor is that of the open relation, the numbers those of its columns.
        unsafe { RowKey::compile(self.descriptor(), table, columns) }
    }

    /// The key of [`Firing::current_row`], and of an UPDATE also that of the row before it.
    pub fn order_keys(&self, key: &mut RowKey) -> OrderKeys {
        // SAFETY: the tuples are of this relation, for which the key was compiled;
        // rules are dropped when the relation changes.
        unsafe { key.of_change(self.descriptor(), self.previous_row(), self.current_row()) }
    }

    /// Compiles a comparison of rows of this relation.
    pub fn field_watch(&self, fields: Option<&[i16]>) -> FieldWatch {
        // SAFETY: the descriptor is that of the open relation.
        unsafe { FieldWatch::compile(self.descriptor(), fields) }
    }

    /// Whether an UPDATE changed the stored image of a watched field.
    pub fn fields_changed(&self, watch: &mut FieldWatch) -> bool {
        let Some(previous) = self.previous_row() else {
            return true;
        };
        // SAFETY: both tuples are of this relation, for which the watch was compiled;
        // rules are dropped when the relation changes.
        unsafe { watch.any_changed(self.descriptor(), previous, self.current_row()) }
    }

    /// The names of the watched fields that an UPDATE changed; `None` for other changes.
    pub fn changed_names(&self, watch: &mut FieldWatch) -> Option<Vec<String>> {
        let previous = self.previous_row()?;
        let mut numbers = Vec::new();
        // SAFETY: as `fields_changed`; the numbers are those of attributes.
        unsafe {
            watch.list_changed(
                self.descriptor(),
                previous,
                self.current_row(),
                &mut numbers,
            );
            let name = |number: &i16| column_name(self.descriptor(), *number);
            Some(numbers.iter().map(name).collect())
        }
    }

    /// The row after the change; the deleted row for a DELETE.
    pub fn current_row(&self) -> pg_sys::HeapTuple {
        match self.operation() {
            Operation::Update => self.0.tg_newtuple,
            Operation::Insert | Operation::Delete => self.0.tg_trigtuple,
        }
    }

    /// The row before an UPDATE.
    pub fn previous_row(&self) -> Option<pg_sys::HeapTuple> {
        (self.operation() == Operation::Update).then_some(self.0.tg_trigtuple)
    }
}

/// Defines the C entry point `$symbol` of a trigger function that calls `$body`
/// with `Option<Firing>` and returns no row.
#[macro_export]
macro_rules! trigger_function {
    ($symbol:ident, $finfo:ident, $body:path) => {
        #[unsafe(no_mangle)]
        #[pgrx::pg_guard]
        pub unsafe extern "C-unwind" fn $symbol(
            fcinfo: pgrx::pg_sys::FunctionCallInfo,
        ) -> pgrx::pg_sys::Datum {
            // SAFETY: PostgreSQL calls this with the fcinfo of the running call.
            $body(unsafe { $crate::pg::trigger::Firing::from_call(fcinfo) });
            pgrx::pg_sys::Datum::from(0usize)
        }

        #[unsafe(no_mangle)]
        pub extern "C" fn $finfo() -> &'static pgrx::pg_sys::Pg_finfo_record {
            const V1: pgrx::pg_sys::Pg_finfo_record =
                pgrx::pg_sys::Pg_finfo_record { api_version: 1 };
            &V1
        }
    };
}
