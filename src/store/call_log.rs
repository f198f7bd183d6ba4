//! The call log: one row a call, written in batches. For the worker, in a transaction.

use std::sync::Arc;

use uuid::Uuid;

use crate::pg::spi::{Arg, Query};

/// One call for the log.
pub struct CallRow {
    pub call_id: Uuid,
    /// Microseconds since 2000-01-01 UTC, as all times here.
    pub called_at: i64,
    pub message_id: Uuid,
    pub url_key: i32,
    pub event_key: i32,
    pub event_date: i64,
    pub attempt: i32,
    pub success: bool,
    pub webhook_id: Option<Arc<str>>,
    pub http_code: Option<i32>,
    pub http_response: Option<String>,
    pub detail: Option<String>,
    pub message_size: i32,
    pub duration_ms: f64,
}

macro_rules! log_calls {
    ($number:literal) => {
        concat!(
            "insert into webhook_internal.call_log_", $number,
            " (call_id, called_at, message_id, url_key, event_key, event_date, attempt, success,",
            " webhook_id, http_code, http_response, detail, message_size, duration_ms)",
            " select * from rows from (",
            "pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4), ",
            "pg_catalog.unnest($5), pg_catalog.unnest($6), pg_catalog.unnest($7), pg_catalog.unnest($8), ",
            "pg_catalog.unnest($9), pg_catalog.unnest($10), pg_catalog.unnest($11), pg_catalog.unnest($12), ",
            "pg_catalog.unnest($13), pg_catalog.unnest($14))"
        )
    };
}

/// Kept plans of this file's statements, one for each table of the ring.
pub struct CallLogStore([Query; 4]);

impl CallLogStore {
    pub fn new() -> Self {
        Self([
            Query::new(log_calls!("0")),
            Query::new(log_calls!("1")),
            Query::new(log_calls!("2")),
            Query::new(log_calls!("3")),
        ])
    }

    /// Appends to the call log table with this number.
    pub fn append(&self, log_number: usize, calls: &[CallRow]) {
        if calls.is_empty() {
            return;
        }
        macro_rules! column {
            ($field:ident) => {
                calls.iter().map(|call| call.$field).collect::<Vec<_>>()
            };
        }
        macro_rules! text {
            ($field:ident) => {
                calls
                    .iter()
                    .map(|call| call.$field.as_deref())
                    .collect::<Vec<_>>()
            };
        }
        let called_at: Vec<_> = calls.iter().map(|call| Some(call.called_at)).collect();
        let event_date: Vec<_> = calls.iter().map(|call| Some(call.event_date)).collect();
        self.0[log_number % self.0.len()].write(&[
            Arg::UuidArray(&column!(call_id)),
            Arg::TimestampArray(&called_at),
            Arg::UuidArray(&column!(message_id)),
            Arg::I32Array(&column!(url_key)),
            Arg::I32Array(&column!(event_key)),
            Arg::TimestampArray(&event_date),
            Arg::I32Array(&column!(attempt)),
            Arg::BoolArray(&column!(success)),
            Arg::TextArray(&text!(webhook_id)),
            Arg::I32OptionArray(&column!(http_code)),
            Arg::TextArray(&text!(http_response)),
            Arg::TextArray(&text!(detail)),
            Arg::I32Array(&column!(message_size)),
            Arg::F64Array(&column!(duration_ms)),
        ]);
    }
}
