//! All SQL of the extension's own code: definitions, outbox, settlement log, log.
//!
//! Statements are constants with a comment, schema-qualified, with parameters
//! only. May name `core` and `pg`, nothing above.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::cast_possible_truncation))]

pub mod activity;
pub mod blockers;
pub mod call_log;
pub mod caller;
pub mod cancellations;
pub mod capture_definitions;
pub mod change_log;
pub mod citus;
pub mod definition_changes;
pub mod definition_log;
pub mod deliveries;
pub mod event_changes;
pub mod event_definitions;
pub mod event_matching;
pub mod event_trigger;
pub mod explanation;
pub mod identity;
pub mod idleness;
pub mod key_order;
pub mod lifecycle;
pub mod message_details;
pub mod operational_events;
pub mod operational_messages;
pub mod order_key;
pub mod outbox;
pub mod outbox_tables;
pub mod previews;
pub mod reach;
pub mod recorded_columns;
pub mod redelivery;
mod redelivery_parts;
pub mod rest_answers;
pub mod retries;
pub mod routing;
pub mod row_parts;
pub mod rows;
pub mod segments;
pub mod settlement_log;
pub mod shared_windows;
pub mod status_page;
pub mod stopped_events;
mod table_label;
pub mod test_message;
pub mod ticks;
pub mod trigger_scope;
pub mod user_table;
pub mod version;
pub mod webhook_changes;
pub mod webhook_definitions;
pub mod window_reader;
pub mod worker_role;
pub mod worker_switch;
