//! Prepared SQL with owned parameters and borrowed rows.
//!
//! A thin layer over SPI for the hot statements of the worker and for the
//! look-ups of capture: plans are kept for the life of the process, a read runs
//! read-only under the active snapshot (so it burns no transaction id), and a
//! row is deformed once. Errors are PostgreSQL errors and unwind to the
//! transaction wrapper; nothing here catches them.

use std::cell::Cell;
use std::ffi::CString;
use std::ptr;

use pgrx::pg_sys;
use uuid::Uuid;

use super::encoding;

/// A parameter. Arrays are passed whole, so that one statement settles a batch.
pub enum Arg<'a> {
    I32(i32),
    I64(i64),
    Xid(u64),
    /// Microseconds since 2000-01-01 UTC, PostgreSQL's own scale.
    Timestamp(Option<i64>),
    Text(Option<&'a str>),
    BoolArray(&'a [bool]),
    I32Array(&'a [i32]),
    I32OptionArray(&'a [Option<i32>]),
    I64Array(&'a [i64]),
    I64OptionArray(&'a [Option<i64>]),
    F64Array(&'a [f64]),
    XidArray(&'a [u64]),
    TimestampArray(&'a [Option<i64>]),
    UuidArray(&'a [Uuid]),
    TextArray(&'a [Option<&'a str>]),
    Oid(pg_sys::Oid),
}

impl Arg<'_> {
    fn type_oid(&self) -> pg_sys::Oid {
        match self {
            Arg::I32(_) => pg_sys::INT4OID,
            Arg::I64(_) => pg_sys::INT8OID,
            Arg::Xid(_) => pg_sys::XID8OID,
            Arg::Timestamp(_) => pg_sys::TIMESTAMPTZOID,
            Arg::Text(_) => pg_sys::TEXTOID,
            Arg::BoolArray(_) => pg_sys::BOOLARRAYOID,
            Arg::I32Array(_) | Arg::I32OptionArray(_) => pg_sys::INT4ARRAYOID,
            Arg::I64Array(_) | Arg::I64OptionArray(_) => pg_sys::INT8ARRAYOID,
            Arg::F64Array(_) => pg_sys::FLOAT8ARRAYOID,
            Arg::XidArray(_) => pg_sys::XID8ARRAYOID,
            Arg::TimestampArray(_) => pg_sys::TIMESTAMPTZARRAYOID,
            Arg::UuidArray(_) => pg_sys::UUIDARRAYOID,
            Arg::TextArray(_) => pg_sys::TEXTARRAYOID,
            Arg::Oid(_) => pg_sys::OIDOID,
        }
    }

    fn datum(&self) -> Option<pg_sys::Datum> {
        let int8 = Element::by_value(pg_sys::INT8OID, 8, b'd');
        Some(match self {
            Arg::I32(v) => (*v).into(),
            Arg::I64(v) => (*v).into(),
            Arg::Xid(v) => (*v).into(),
            Arg::Timestamp(v) => (*v)?.into(),
            Arg::Text(v) => text_datum((*v)?),
            Arg::Oid(v) => (*v).into(),
            Arg::BoolArray(v) => Element::by_value(pg_sys::BOOLOID, 1, b'c')
                .array(v.iter().map(|b| Some((*b).into()))),
            Arg::I32Array(v) => Element::by_value(pg_sys::INT4OID, 4, b'i')
                .array(v.iter().map(|n| Some((*n).into()))),
            Arg::I32OptionArray(v) => Element::by_value(pg_sys::INT4OID, 4, b'i')
                .array(v.iter().map(|n| n.map(Into::into))),
            Arg::I64Array(v) => int8.array(v.iter().map(|n| Some((*n).into()))),
            Arg::I64OptionArray(v) => int8.array(v.iter().map(|n| n.map(Into::into))),
            Arg::F64Array(v) => Element::by_value(pg_sys::FLOAT8OID, 8, b'd')
                .array(v.iter().map(|n| Some(n.to_bits().into()))),
            Arg::XidArray(v) => Element::by_value(pg_sys::XID8OID, 8, b'd')
                .array(v.iter().map(|n| Some((*n).into()))),
            Arg::TimestampArray(v) => Element::by_value(pg_sys::TIMESTAMPTZOID, 8, b'd')
                .array(v.iter().map(|n| n.map(Into::into))),
            Arg::UuidArray(v) => Element {
                oid: pg_sys::UUIDOID,
                len: 16,
                by_value: false,
                align: b'c',
            }
            .array(v.iter().map(|u| Some(uuid_datum(u)))),
            Arg::TextArray(v) => Element {
                oid: pg_sys::TEXTOID,
                len: -1,
                by_value: false,
                align: b'i',
            }
            .array(v.iter().map(|t| t.map(text_datum))),
        })
    }
}

/// How PostgreSQL stores one element type of an array.
struct Element {
    oid: pg_sys::Oid,
    len: i32,
    by_value: bool,
    align: u8,
}

impl Element {
    fn by_value(oid: pg_sys::Oid, len: i32, align: u8) -> Self {
        Self {
            oid,
            len,
            by_value: true,
            align,
        }
    }

    fn array(self, values: impl Iterator<Item = Option<pg_sys::Datum>>) -> pg_sys::Datum {
        let (mut datums, mut nulls): (Vec<_>, Vec<_>) = values
            .map(|v| (v.unwrap_or(pg_sys::Datum::from(0usize)), v.is_none()))
            .unzip();
        let mut dims = [datums.len() as i32];
        let mut lower_bounds = [1];
        // SAFETY: both vectors have `dims[0]` elements, and the element's storage is
        // that of its type; PostgreSQL copies them into the new array.
        unsafe {
            pg_sys::construct_md_array(
                datums.as_mut_ptr(),
                nulls.as_mut_ptr(),
                1,
                dims.as_mut_ptr(),
                lower_bounds.as_mut_ptr(),
                self.oid,
                self.len,
                self.by_value,
                self.align as std::ffi::c_char,
            )
        }
        .into()
    }
}

pub(super) fn text_datum(text: &str) -> pg_sys::Datum {
    let bytes = encoding::to_server(text.as_bytes());
    // SAFETY: the pointer and the length describe one live slice, which is copied.
    unsafe { pg_sys::cstring_to_text_with_len(bytes.as_ptr().cast(), bytes.len() as i32) }.into()
}

fn uuid_datum(uuid: &Uuid) -> pg_sys::Datum {
    // SAFETY: 16 bytes are allocated and 16 are written.
    unsafe {
        let copy = pg_sys::palloc(16).cast::<u8>();
        ptr::copy_nonoverlapping(uuid.as_bytes().as_ptr(), copy, 16);
        pg_sys::Datum::from(copy)
    }
}

/// One statement, prepared at its first use and kept with one plan for all parameters.
pub struct Query {
    sql: &'static str,
    plan: Cell<pg_sys::SPIPlanPtr>,
}

impl Query {
    pub const fn new(sql: &'static str) -> Self {
        Self {
            sql,
            plan: Cell::new(ptr::null_mut()),
        }
    }

    /// Reads under the active snapshot; `visit` sees each row once.
    pub fn read<T>(&self, args: &[Arg<'_>], visit: impl FnMut(&Row<'_>) -> T) {
        self.run(args, true);
        Self::visit(visit);
    }

    /// Writes, and reads what the statement returns.
    pub fn write_returning<T>(&self, args: &[Arg<'_>], visit: impl FnMut(&Row<'_>) -> T) {
        self.run(args, false);
        Self::visit(visit);
    }

    fn visit<T>(mut visit: impl FnMut(&Row<'_>) -> T) {
        // SAFETY: SPI_tuptable was just set by SPI_execute_plan and is freed below,
        // after the last borrow of its rows has ended.
        unsafe {
            let table = pg_sys::SPI_tuptable;
            if table.is_null() {
                return;
            }
            let columns = (*(*table).tupdesc).natts as usize;
            let mut values = vec![pg_sys::Datum::from(0usize); columns];
            let mut nulls = vec![true; columns];
            for i in 0..(*table).numvals as usize {
                let tuple = *(*table).vals.add(i);
                pg_sys::heap_deform_tuple(
                    tuple,
                    (*table).tupdesc,
                    values.as_mut_ptr(),
                    nulls.as_mut_ptr(),
                );
                visit(&Row {
                    values: &values,
                    nulls: &nulls,
                });
            }
            pg_sys::SPI_freetuptable(table);
        }
    }

    /// Writes; returns how many rows were touched.
    pub fn write(&self, args: &[Arg<'_>]) -> u64 {
        self.run(args, false);
        // SAFETY: plain reads of SPI's result variables after an execution.
        unsafe {
            let table = pg_sys::SPI_tuptable;
            if !table.is_null() {
                pg_sys::SPI_freetuptable(table);
            }
            pg_sys::SPI_processed
        }
    }

    fn run(&self, args: &[Arg<'_>], read_only: bool) {
        let plan = self.prepared(args);
        let mut values = Vec::with_capacity(args.len());
        let mut nulls = Vec::with_capacity(args.len());
        for arg in args {
            let datum = arg.datum();
            nulls.push(if datum.is_some() { b' ' } else { b'n' } as std::ffi::c_char);
            values.push(datum.unwrap_or(pg_sys::Datum::from(0usize)));
        }
        // SAFETY: values and nulls have one element per parameter of the plan.
        let code = unsafe {
            pg_sys::SPI_execute_plan(plan, values.as_mut_ptr(), nulls.as_ptr(), read_only, 0)
        };
        if code < 0 {
            pgrx::error!("SPI_execute_plan returned {code} for: {}", self.sql);
        }
    }

    fn prepared(&self, args: &[Arg<'_>]) -> pg_sys::SPIPlanPtr {
        if !self.plan.get().is_null() {
            return self.plan.get();
        }
        let sql = CString::new(self.sql).expect("our statements hold no NUL");
        let mut types: Vec<pg_sys::Oid> = args.iter().map(Arg::type_oid).collect();
        // SAFETY: `types` has as many elements as is said; the kept plan lives as
        // long as the process.
        unsafe {
            let plan = pg_sys::SPI_prepare_cursor(
                sql.as_ptr(),
                types.len() as i32,
                types.as_mut_ptr(),
                pg_sys::CURSOR_OPT_GENERIC_PLAN as i32,
            );
            if plan.is_null() || pg_sys::SPI_keepplan(plan) != 0 {
                pgrx::error!("could not prepare: {}", self.sql);
            }
            self.plan.set(plan);
            plan
        }
    }
}

/// A row of the running read; columns are counted from 0.
pub struct Row<'a> {
    values: &'a [pg_sys::Datum],
    nulls: &'a [bool],
}

impl Row<'_> {
    fn datum(&self, column: usize) -> Option<pg_sys::Datum> {
        (!self.nulls[column]).then(|| self.values[column])
    }

    pub fn bool(&self, column: usize) -> Option<bool> {
        self.datum(column).map(|d| d.value() as u8 != 0)
    }

    pub fn i32(&self, column: usize) -> Option<i32> {
        self.datum(column).map(|d| d.value() as i32)
    }

    /// Also for timestamptz: microseconds since 2000-01-01 UTC.
    pub fn i64(&self, column: usize) -> Option<i64> {
        self.datum(column).map(|d| d.value() as i64)
    }

    pub fn xid(&self, column: usize) -> Option<u64> {
        self.datum(column).map(|d| d.value() as u64)
    }

    pub fn oid(&self, column: usize) -> Option<pg_sys::Oid> {
        self.datum(column)
            .map(|d| pg_sys::Oid::from(d.value() as u32))
    }

    pub fn uuid(&self, column: usize) -> Option<Uuid> {
        self.datum(column).map(|d| {
            // SAFETY: a uuid datum points to its 16 bytes.
            Uuid::from_bytes(unsafe { *d.cast_mut_ptr::<[u8; 16]>() })
        })
    }

    pub fn text(&self, column: usize) -> Option<String> {
        self.datum(column).map(|d| {
            // SAFETY: the column is text; the detoasted copy is read before it can go.
            unsafe {
                let packed = pg_sys::pg_detoast_datum_packed(d.cast_mut_ptr());
                let text = encoding::from_server(pgrx::varlena::varlena_to_byte_slice(packed));
                if !std::ptr::eq(packed, d.cast_mut_ptr()) {
                    pg_sys::pfree(packed.cast());
                }
                text
            }
        })
    }

    fn array<T>(
        &self,
        column: usize,
        read: impl Fn(pg_sys::Datum) -> T,
        element: (pg_sys::Oid, i32, bool, u8),
    ) -> Option<Vec<T>> {
        let datum = self.datum(column)?;
        let (oid, len, by_value, align) = element;
        let mut values = ptr::null_mut();
        let mut nulls = ptr::null_mut();
        let mut count = 0;
        // SAFETY: the column is an array of the element type named; NULL elements are skipped.
        unsafe {
            let array = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast();
            pg_sys::deconstruct_array(
                array,
                oid,
                len,
                by_value,
                align as std::ffi::c_char,
                &mut values,
                &mut nulls,
                &mut count,
            );
            Some(
                (0..count as usize)
                    .filter(|i| !*nulls.add(*i))
                    .map(|i| read(*values.add(i)))
                    .collect(),
            )
        }
    }

    pub fn i16_array(&self, column: usize) -> Option<Vec<i16>> {
        self.array(
            column,
            |d| d.value() as i16,
            (pg_sys::INT2OID, 2, true, b's'),
        )
    }

    pub fn text_array(&self, column: usize) -> Option<Vec<String>> {
        self.array(
            column,
            |d| {
                // SAFETY: an element of a text array is a varlena inside the detoasted array.
                encoding::from_server(unsafe {
                    pgrx::varlena::varlena_to_byte_slice(d.cast_mut_ptr())
                })
            },
            (pg_sys::TEXTOID, -1, false, b'i'),
        )
    }
}

/// Runs `f` between SPI_connect and SPI_finish. An error in between is cleaned up
/// by the abort of the (sub)transaction, as PostgreSQL intends.
pub fn connected<T>(f: impl FnOnce() -> T) -> T {
    // SAFETY: connect and finish are paired on the way without errors.
    unsafe {
        if pg_sys::SPI_connect() != pg_sys::SPI_OK_CONNECT as i32 {
            pgrx::error!("SPI_connect failed");
        }
        let result = f();
        pg_sys::SPI_finish();
        result
    }
}

/// Runs `f` under a snapshot of its own: at PRE_COMMIT none is active. It sees what has
/// committed by now, whatever the transaction's isolation.
pub fn with_snapshot<T>(f: impl FnOnce() -> T) -> T {
    // SAFETY: push and pop are paired on the way without errors; an abort pops the rest.
    unsafe {
        pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
        let result = f();
        pg_sys::PopActiveSnapshot();
        result
    }
}
