//! `webhook_internal.match_kind`, which views ask.

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::core::definitions::matching::MatchKind;
use crate::pg::row_json::matched::kind_of;

#[pg_extern(sql = false)]
fn match_kind(column_type: pg_sys::Oid, column_collation: pg_sys::Oid) -> Option<&'static str> {
    kind_of(column_type, column_collation).map(MatchKind::as_str)
}
