//! The cluster tier: private servers, a scripted receiver, real HTTP.
//!
//! `make test-cluster` builds the extension into a private copy of the server
//! and runs this against it; PG_CONFIG names that copy. Each test has a cluster
//! and a receiver of its own.

mod support;

mod addresses;
mod backtraces;
mod cancel;
mod cancel_pending;
mod capture;
mod capture_commit;
mod capture_filters;
mod capture_sessions;
mod conversion;
mod definitions;
mod delivery_basics;
mod delivery_rules;
mod encodings;
mod explain;
mod faults_backend;
mod faults_changes;
mod faults_clock;
mod faults_database;
mod faults_definitions;
mod faults_flush;
mod faults_names;
mod faults_outage;
mod faults_receiver;
mod faults_server;
mod faults_slots;
mod faults_standby;
mod faults_tables;
mod faults_tls;
mod faults_transactions;
mod faults_volume;
mod faults_worker;
mod fifo;
mod forbidden;
mod found_by_id;
mod generated;
mod harness;
mod lagging;
mod large_bodies;
mod launcher;
mod local_limits;
mod locks;
mod log_lookups;
mod metrics;
mod multicast;
mod outbox_layout;
mod own_transactions;
mod partitions;
mod payload_types;
mod prepared_waiting;
mod publications;
mod readme;
mod record_limits;
mod redeliver;
mod rest;
mod retention;
mod retries;
mod rotation;
mod rotation_sessions;
mod schema_changes;
mod security;
mod soak;
mod template_changes;
mod templates;
mod throttle;
mod unroutable;
mod updates;
mod wakeups;
mod worker_idle;
mod worker_lifecycle;
mod worker_lock;
