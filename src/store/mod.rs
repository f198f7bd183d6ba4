//! All SQL of the extension's own code: definitions, outbox, ledger, log.
//!
//! Statements are constants with a comment, schema-qualified, with parameters
//! only. May name `core` and `pg`, nothing above.

pub mod capture_definitions;
pub mod ledger;
pub mod outbox;
pub mod outbox_tables;
pub mod routing;
pub mod settlement;
