//! Everything that touches PostgreSQL's memory: the only `unsafe` of the crate.
//!
//! Each file wraps one facility in types that clean up after themselves and that
//! the rest can use without `unsafe`. What differs between PostgreSQL versions
//! is decided here and nowhere else. May name `core`, nothing above.

pub mod append;
pub mod arguments;
pub mod backtraces;
pub mod clock;
pub mod commit_end;
pub mod commit_start;
pub mod confidential;
pub mod databases;
pub mod descriptors;
pub mod encoding;
#[cfg(feature = "fault_injection")]
pub mod fault;
pub mod growth;
pub mod identity;
pub mod invalidation;
pub mod liveness;
pub mod local_settings;
pub mod members;
pub mod memory;
mod outbox_layout;
pub mod owner;
pub mod poll;
pub mod prepared;
pub mod process;
pub mod recovery;
pub mod registration;
pub mod relation_name;
pub mod report;
pub mod row_json;
pub mod sample_row;
pub mod session;
pub mod settings;
pub mod signals;
pub mod snapshot;
pub mod spi;
pub mod standby_slots;
pub mod table_locks;
pub mod text;
pub mod trigger;
pub mod tx;
pub mod wait;
pub mod wake;
pub mod wal;
pub mod worker_role;
pub mod xact;
