//! Signed, throttled, at-least-once webhooks straight from PostgreSQL.

mod core;
mod pg;

pgrx::pg_module_magic!();
