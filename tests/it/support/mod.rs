//! What the cluster tests stand on: servers, the receiver, waiting, comparing.
//!
//! Nothing here knows how the extension works inside; a failure is a panic
//! that says what was expected, what was found and what the server logged.

// A test file uses what it needs; not every part has a caller in every build.
#![allow(dead_code, unused_imports)]

pub mod bookkeeping;
pub mod calls;
pub mod catalog;
pub mod cluster;
pub mod compare;
pub mod contents;
pub mod copies;
pub mod crashes;
pub mod custom;
pub mod definitions;
pub mod distortion;
pub mod ending;
pub mod items;
pub mod listener;
pub mod locks;
pub mod nodes;
pub mod order_keys;
pub mod receiver;
pub mod rings;
pub mod secure;
pub mod signature;
pub mod small_disk;
pub mod stalls;
mod sweeper;
pub mod wait;
pub mod watched;
pub mod witness;
pub mod worker;

use std::time::Duration;

pub use cluster::{Cluster, StopMode};
pub use receiver::{Received, Receiver, Tally};

/// Far more than any delivery takes on a busy machine; only failures wait so long.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A receiver that is back is called after a pause that is about as long as it was away, and
/// a minute at most.
pub const RECOVERY: Duration = Duration::from_secs(240);

/// A cluster with the extension in its database `postgres`, and a receiver it may call.
pub fn ready_cluster(name: &str) -> (Cluster, Receiver) {
    ready_cluster_with(name, &[])
}

/// The same where a failed call is not repeated before a test is over.
pub fn ready_cluster_without_retries(name: &str) -> (Cluster, Receiver) {
    ready_cluster_with(name, &[("webhook.retry_schedule", "1h")])
}

/// The same with these settings from the beginning: of a reload a test would not know when
/// the worker has heard of it.
pub fn ready_cluster_with(name: &str, settings: &[(&str, &str)]) -> (Cluster, Receiver) {
    let builder = Cluster::builder(name).set("webhook.allowed_networks", "127.0.0.0/8");
    let cluster = settings
        .iter()
        .fold(builder, |builder, (name, value)| builder.set(name, value))
        .start();
    cluster.sql("create extension webhook_ext");
    (cluster, Receiver::start())
}
