//! The cluster tier: private servers, a scripted receiver, real HTTP.
//!
//! `make test-cluster` builds the extension into a private copy of the server
//! and runs this against it; PG_CONFIG names that copy. Each test has a cluster
//! and a receiver of its own.

mod support;

mod delivery_basics;
mod explain;
mod harness;
mod payload_types;
mod rest;
mod schema_changes;
mod templates;
mod updates;
