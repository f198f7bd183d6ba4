//! The functions that users call.
//!
//! Each is thin: check the arguments, call `store`, return. Their SQL, with names
//! and defaults, stands in `sql/functions.sql`. They run with the caller's rights;
//! only `store` acts as the extension's owner. An error is raised with one of the
//! SQLSTATEs of `pg::report` and a hint.

#![cfg_attr(not(test), deny(clippy::cast_possible_truncation))]

mod adopt;
mod cluster;
mod create_event;
mod create_webhook;
mod definitions_changed;
mod deliveries;
mod doubts;
mod drop;
mod duration_quantile;
mod event_arguments;
mod everywhere;
mod explain_event;
mod installed;
mod masked_headers;
mod match_kind;
mod message;
mod operate;
mod operational_event;
mod preview_payload;
mod random;
mod refuse_replicated;
mod rest;
mod secrets;
mod status_page;
mod template_parameters;
mod test_webhook;
mod update_event;
mod update_webhook;
mod version;
