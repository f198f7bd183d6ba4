//! Whether the schemas `webhook` and `webhook_internal`, and what our statements name in them, belong to the
//! extension.
//!
//! The worker and the functions that act as the extension's owner name their tables. The owner of
//! a schema can replace them, and the code of the replacements would run with the rights of others.
//! Extension scripts check this when they run; here it is checked again after each invalidation,
//! because owners change.

use std::cell::Cell;
use std::ffi::CStr;
use std::num::NonZeroUsize;

use pgrx::htup::heap_getattr_raw;
use pgrx::pg_sys;

use super::{encoding, invalidation};
use crate::core::error::{Error, Kind, Result};

/// Every relation of the extension in schema `webhook`; `tests/it/own_schema.rs` compares.
const RELATIONS: &[&CStr] = &[
    c"activity",
    c"calls",
    c"changes",
    c"cluster_metrics",
    c"cluster_queue",
    c"cluster_worker",
    c"control",
    c"def_origin",
    c"definition_key_seq",
    c"event_def",
    c"events",
    c"messages",
    c"metrics",
    c"outbox_0",
    c"outbox_1",
    c"outbox_2",
    c"outbox_3",
    c"outbox_flush_seq",
    c"queue",
    c"secret_def",
    c"url_def",
    c"webhook_def",
    c"webhooks",
    c"worker",
];

/// Those in schema `webhook_internal`.
const INTERNAL_RELATIONS: &[&CStr] = &[
    c"activity_0",
    c"activity_1",
    c"activity_2",
    c"activity_3",
    c"activity_row",
    c"busy",
    c"call_duration",
    c"call_log",
    c"call_log_0",
    c"call_log_1",
    c"call_log_2",
    c"call_log_3",
    c"cancellation",
    c"cancellation_cancellation_id_seq",
    c"change_log",
    c"change_log_change_id_seq",
    c"cluster_applied",
    c"cluster_document",
    c"cluster_document_now",
    c"compaction",
    c"counter",
    c"counter_day",
    c"definition_change",
    c"definition_change_change_id_seq",
    c"event_count",
    c"event_label",
    c"event_now",
    c"event_owner",
    c"event_trigger",
    c"granted",
    c"lane",
    c"lane_now",
    c"outbox",
    c"place",
    c"recent_count",
    c"retry",
    c"segment",
    c"settlement",
    c"stopped_event",
    c"tail",
    c"tick",
    c"uncompacted",
    c"unseen",
    c"worker_total",
];

/// Functions that statements of this library call. One of the same name and with other arguments
/// might be taken for them.
const FUNCTIONS: &[&CStr] = &[c"capture", c"columns_present", c"present_columns"];

const INTERNAL_FUNCTIONS: &[&CStr] = &[
    c"apply_cluster_document",
    c"delivery_hold",
    c"is_cluster",
    c"masked_headers",
    c"masked_url",
    c"masked_values",
    c"match_kind",
    c"on_each_node",
    c"publish_cluster_document",
    c"shared_trigger",
    c"stored_json",
];

/// The release whose SQL has no schema `webhook_internal`: one that is there is no concern of capture.
const WITHOUT_INTERNAL: &str = "0.1.0";

const RESTORE: &str =
    "drop it and restore the one that the extension made, or drop and create the extension webhook_ext";

thread_local! {
    /// The extension that was found in order, and the generation of that.
    static CHECKED: Cell<Option<(u64, pg_sys::Oid)>> = const { Cell::new(None) };
}

/// In a transaction. What was found in order is looked at again after an invalidation.
///
/// # Errors
/// `55000` if another role could run code in our statements.
pub fn check(extension: pg_sys::Oid) -> Result<()> {
    invalidation::listen();
    let generation = invalidation::catalog_generation();
    if CHECKED.get() == Some((generation, extension)) {
        return Ok(());
    }
    check_all(extension)?;
    CHECKED.set(Some((generation, extension)));
    Ok(())
}

fn check_all(extension: pg_sys::Oid) -> Result<()> {
    let members = Members::of(extension)?;
    let webhook = Schema::named(c"webhook");
    members.check_is_home(&webhook)?;
    members.check_all_of(&webhook, RELATIONS, FUNCTIONS)?;
    if installed_version(extension).as_deref() == Some(WITHOUT_INTERNAL) {
        return Ok(());
    }
    let internal = Schema::named(c"webhook_internal");
    members.check_member(
        &internal.described(),
        pg_sys::NamespaceRelationId,
        internal.oid,
    )?;
    members.check_all_of(&internal, INTERNAL_RELATIONS, INTERNAL_FUNCTIONS)
}

/// The version of the extension's SQL in this database, `None` if there is no extension. In a
/// transaction.
pub fn installed_version(extension: pg_sys::Oid) -> Option<String> {
    let key = Key {
        catalog: pg_sys::ExtensionRelationId,
        index: pg_sys::ExtensionOidIndexId.into(),
        column: pg_sys::Anum_pg_extension_oid,
        equals: pg_sys::F_OIDEQ,
    };
    let column = NonZeroUsize::new(pg_sys::Anum_pg_extension_extversion as usize)?;
    let mut version = None;
    key.scan_tuples(extension.into(), |tuple, descriptor| {
        // SAFETY: the column is a text, copied before the next tuple is fetched.
        version = unsafe {
            heap_getattr_raw(tuple, column, descriptor).map(|stored| {
                let text = pg_sys::pg_detoast_datum_packed(stored.cast_mut_ptr());
                encoding::from_server(pgrx::varlena::varlena_to_byte_slice(text))
            })
        };
    });
    version
}

/// A schema of the extension, or what has its name.
struct Schema {
    name: &'static CStr,
    /// `InvalidOid`: there is none.
    oid: pg_sys::Oid,
}

impl Schema {
    fn named(name: &'static CStr) -> Self {
        // SAFETY: a catalog look-up in a transaction; the name is NUL-terminated.
        let oid = unsafe { pg_sys::get_namespace_oid(name.as_ptr(), true) };
        Self { name, oid }
    }

    fn described(&self) -> String {
        format!("schema {}", self.name.to_string_lossy())
    }

    fn qualified(&self, name: &CStr) -> String {
        format!("{}.{}", self.name.to_string_lossy(), name.to_string_lossy())
    }
}

struct Members {
    extension: pg_sys::Oid,
    owner: pg_sys::Oid,
    home: pg_sys::Oid,
}

impl Members {
    fn of(extension: pg_sys::Oid) -> Result<Self> {
        let mut found = None;
        let key = Key {
            catalog: pg_sys::ExtensionRelationId,
            index: pg_sys::ExtensionOidIndexId.into(),
            column: pg_sys::Anum_pg_extension_oid,
            equals: pg_sys::F_OIDEQ,
        };
        key.scan(extension.into(), |row: &pg_sys::FormData_pg_extension| {
            found = Some((row.extowner, row.extnamespace));
        });
        let Some((owner, home)) = found else {
            return Err(
                refusal("extension webhook_ext does not exist".to_owned()).with_hint(RESTORE)
            );
        };
        Ok(Self {
            extension,
            owner,
            home,
        })
    }

    fn check_is_home(&self, schema: &Schema) -> Result<()> {
        if schema.oid == self.home {
            return Ok(());
        }
        Err(
            refusal("schema webhook is not the schema of extension webhook_ext".to_owned())
                .with_hint(
                    "drop or rename it, and rename the extension's own schema to webhook: \
                     select extnamespace::regnamespace from pg_extension where extname = 'webhook_ext'",
                ),
        )
    }

    fn check_all_of(
        &self,
        schema: &Schema,
        relations: &[&CStr],
        functions: &[&CStr],
    ) -> Result<()> {
        self.check_schema(schema)?;
        for name in relations {
            self.check_relation(schema, name)?;
        }
        for name in functions {
            self.check_functions(schema, name)?;
        }
        Ok(())
    }

    /// Superusers can do all that the extension's owner can.
    fn trusts(&self, role: pg_sys::Oid) -> bool {
        // SAFETY: a catalog look-up in a transaction.
        role == self.owner || unsafe { pg_sys::superuser_arg(role) }
    }

    fn check_owner(&self, what: &str, kind: &str, role: pg_sys::Oid) -> Result<()> {
        if self.trusts(role) {
            return Ok(());
        }
        Err(refusal(format!(
            "{what} belongs to role \"{}\", not to the owner of extension webhook_ext",
            role_name(role)
        ))
        .with_hint(format!(
            "look for what that role changed in it, then give it back: alter {kind} {} owner to \"{}\"",
            what.trim_start_matches(kind).trim_start(),
            role_name(self.owner).replace('"', "\"\"")
        )))
    }

    fn check_member(&self, what: &str, catalog: pg_sys::Oid, object: pg_sys::Oid) -> Result<()> {
        // SAFETY: a catalog look-up in a transaction.
        if unsafe { pg_sys::getExtensionOfObject(catalog, object) } == self.extension {
            return Ok(());
        }
        Err(refusal(format!("{what} is no member of extension webhook_ext")).with_hint(RESTORE))
    }

    fn check_schema(&self, schema: &Schema) -> Result<()> {
        let owner = cached(
            pg_sys::SysCacheIdentifier::NAMESPACEOID as i32,
            schema.oid,
            |row: &pg_sys::FormData_pg_namespace| row.nspowner,
        );
        owner.map_or(Ok(()), |owner| {
            self.check_owner(&schema.described(), "schema", owner)
        })
    }

    /// A table that is missing is told of by the statement that needs it.
    fn check_relation(&self, schema: &Schema, name: &CStr) -> Result<()> {
        // SAFETY: a catalog look-up in a transaction; the name is NUL-terminated.
        let relation = unsafe { pg_sys::get_relname_relid(name.as_ptr(), schema.oid) };
        let class = cached(
            pg_sys::SysCacheIdentifier::RELOID as i32,
            relation,
            |row: &pg_sys::FormData_pg_class| (row.relowner, row.relhastriggers),
        );
        let Some((owner, has_triggers)) = class else {
            return Ok(());
        };
        let what = schema.qualified(name);
        self.check_member(&what, pg_sys::RelationRelationId, relation)?;
        self.check_owner(&what, "table", owner)?;
        if has_triggers {
            self.check_triggers(&what, relation)?;
        }
        Ok(())
    }

    /// A trigger runs with the rights of the session that writes.
    fn check_triggers(&self, what: &str, relation: pg_sys::Oid) -> Result<()> {
        let mut foreign = None;
        let key = Key {
            catalog: pg_sys::TriggerRelationId,
            index: pg_sys::TriggerRelidNameIndexId.into(),
            column: pg_sys::Anum_pg_trigger_tgrelid,
            equals: pg_sys::F_OIDEQ,
        };
        key.scan(relation.into(), |row: &pg_sys::FormData_pg_trigger| {
            if row.tgisinternal || foreign.is_some() {
                return;
            }
            let owner = function_owner(row.tgfoid);
            if !owner.is_some_and(|owner| self.trusts(owner)) {
                foreign = Some((name_of(&row.tgname), owner));
            }
        });
        foreign.map_or(Ok(()), |(trigger, owner)| {
            let role = owner.map(role_name).unwrap_or_default();
            Err(refusal(format!(
                "{what} has a trigger \"{trigger}\" of role \"{role}\""
            ))
            .with_hint(format!(
                "drop it: drop trigger \"{}\" on {what}",
                trigger.replace('"', "\"\"")
            )))
        })
    }

    fn check_functions(&self, schema: &Schema, name: &CStr) -> Result<()> {
        let mut found = Vec::new();
        let mut key: pg_sys::NameData = Default::default();
        for (to, from) in key.data.iter_mut().zip(name.to_bytes()) {
            *to = *from as std::ffi::c_char;
        }
        let by_name = Key {
            catalog: pg_sys::ProcedureRelationId,
            index: pg_sys::ProcedureNameArgsNspIndexId.into(),
            column: pg_sys::Anum_pg_proc_proname,
            equals: pg_sys::F_NAMEEQ,
        };
        by_name.scan(
            pg_sys::Datum::from(&raw const key),
            |row: &pg_sys::FormData_pg_proc| {
                if row.pronamespace == schema.oid {
                    found.push((row.oid, row.proowner));
                }
            },
        );
        let what = format!("function {}", schema.qualified(name));
        for (function, owner) in found {
            self.check_member(&what, pg_sys::ProcedureRelationId, function)?;
            self.check_owner(&what, "function", owner)?;
        }
        Ok(())
    }
}

/// Rows of a catalog with one value in a column.
struct Key {
    catalog: pg_sys::Oid,
    index: pg_sys::Oid,
    column: u32,
    equals: u32,
}

impl Key {
    /// `Row` is the fixed part of the catalog's rows.
    fn scan<Row>(&self, value: pg_sys::Datum, mut visit: impl FnMut(&Row)) {
        self.scan_tuples(value, |tuple, _| {
            // SAFETY: the tuple is one of this catalog, read before the next one is fetched.
            visit(unsafe { &*pg_sys::GETSTRUCT(tuple).cast::<Row>() });
        });
    }

    fn scan_tuples(
        &self,
        value: pg_sys::Datum,
        mut visit: impl FnMut(pg_sys::HeapTuple, pg_sys::TupleDesc),
    ) {
        let mut key = pg_sys::ScanKeyData::default();
        // SAFETY: a scan of a catalog with an index on this column; the rows are read before
        // the next one is fetched. An error ends the transaction, and the scan with it.
        unsafe {
            let catalog = pg_sys::table_open(self.catalog, pg_sys::AccessShareLock as i32);
            pg_sys::ScanKeyInit(
                &raw mut key,
                self.column as pg_sys::AttrNumber,
                pg_sys::BTEqualStrategyNumber as pg_sys::StrategyNumber,
                self.equals.into(),
                value,
            );
            let scan = pg_sys::systable_beginscan(
                catalog,
                self.index,
                true,
                std::ptr::null_mut(),
                1,
                &raw mut key,
            );
            loop {
                let tuple = pg_sys::systable_getnext(scan);
                if tuple.is_null() {
                    break;
                }
                visit(tuple, (*catalog).rd_att);
            }
            pg_sys::systable_endscan(scan);
            pg_sys::table_close(catalog, pg_sys::AccessShareLock as i32);
        }
    }
}

/// What a cached row says. `Row` is the fixed part of that catalog's rows.
fn cached<Row, T>(cache: i32, object: pg_sys::Oid, read: impl FnOnce(&Row) -> T) -> Option<T> {
    // SAFETY: a cache with the oid as its key; the row is released after it was read.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(cache, object.into());
        if tuple.is_null() {
            return None;
        }
        let value = read(&*pg_sys::GETSTRUCT(tuple).cast::<Row>());
        pg_sys::ReleaseSysCache(tuple);
        Some(value)
    }
}

fn function_owner(function: pg_sys::Oid) -> Option<pg_sys::Oid> {
    cached(
        pg_sys::SysCacheIdentifier::PROCOID as i32,
        function,
        |row: &pg_sys::FormData_pg_proc| row.proowner,
    )
}

fn role_name(role: pg_sys::Oid) -> String {
    cached(
        pg_sys::SysCacheIdentifier::AUTHOID as i32,
        role,
        |row: &pg_sys::FormData_pg_authid| name_of(&row.rolname),
    )
    .unwrap_or_default()
}

fn name_of(name: &pg_sys::NameData) -> String {
    // SAFETY: a name is NUL-terminated within its fixed length.
    let name = unsafe { CStr::from_ptr(name.data.as_ptr()) };
    encoding::from_server(name.to_bytes())
}

fn refusal(message: String) -> Error {
    Error::new(Kind::NotInPrerequisiteState, message)
}
