//! `webhook_internal.masked_headers`, which views and the REST API ask.

use pgrx::prelude::*;

use crate::core::policy::{masked_headers, redaction::MASK};
use crate::pg::arguments::JsonArgument;
use crate::pg::text::Json;

/// Headers that were written by hand and cannot be read are masked as a whole.
#[pg_extern(sql = false)]
fn masked_headers(headers: JsonArgument) -> Json {
    let read = headers.read("headers").ok();
    Json(read.map_or_else(|| MASK.into(), |headers| masked_headers::masked(&headers)))
}
