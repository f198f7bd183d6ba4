//! A cluster of Citus: a coordinator and workers on this machine, and a receiver that they all may call.

use std::collections::BTreeMap;
use std::time::Duration;

use super::definitions::create_webhook;
use super::{Cluster, Receiver, PATIENCE};

pub struct Nodes {
    /// The coordinator is the first.
    pub all: Vec<Cluster>,
    pub receiver: Receiver,
}

impl Nodes {
    /// A coordinator with so many workers, where `webhook.enable_cluster()` was called.
    pub fn start(name: &str, workers: usize) -> Self {
        let nodes = Self {
            all: (0..=workers).map(|number| node(name, number)).collect(),
            receiver: Receiver::start(),
        };
        let coordinator = nodes.coordinator();
        coordinator.sql(&format!(
            "select citus_set_coordinator_host('{}', {})",
            host(coordinator),
            coordinator.port()
        ));
        for worker in &nodes.all[1..] {
            nodes.add(worker);
        }
        coordinator.sql("create extension webhook_ext");
        coordinator.sql("select webhook.enable_cluster()");
        nodes
    }

    pub fn coordinator(&self) -> &Cluster {
        &self.all[0]
    }

    pub fn add(&self, worker: &Cluster) {
        self.coordinator().sql(&format!(
            "select citus_add_node('{}', {})",
            host(worker),
            worker.port()
        ));
    }

    /// A node that is not of the cluster yet. It is of no use to ask whether what it counts is right.
    pub fn another(name: &str) -> Cluster {
        node(name, 99)
    }

    /// A webhook with one URL.
    pub fn watch(&self, webhook: &str, options: &str) {
        let url = self.receiver.url("/ok");
        create_webhook(self.coordinator(), webhook, &[url], options);
    }

    /// Events of all three kinds.
    pub fn events(&self, webhook: &str, table: &str) {
        for kind in ["Insert", "Update", "Delete"] {
            self.coordinator().sql(&format!(
                "select webhook.create_event('{webhook}', '{}', 'table.record{kind}')",
                table.replace('\'', "''")
            ));
        }
    }

    /// Each message once, by id: the type of its event, its table and the id in its record. The same id twice has
    /// the same body.
    pub fn messages(&self) -> BTreeMap<String, (String, String, i64)> {
        let mut messages = BTreeMap::new();
        for received in self.receiver.received_at("/ok") {
            let body = received.body();
            let record = &body["data"][0];
            let found = (
                body["eventType"].as_str().expect("a type").to_owned(),
                body["objectName"].as_str().expect("a table").to_owned(),
                record["id"].as_i64().expect("an id"),
            );
            let id = received.message_id().to_owned();
            let known = messages.insert(id, found.clone());
            assert!(known.is_none_or(|known| known == found), "{found:?}");
        }
        messages
    }

    /// The same as sorted lines, of one table.
    pub fn lines_of(&self, table: &str) -> Vec<String> {
        let messages = self.messages();
        let mut lines: Vec<String> = messages
            .values()
            .filter(|(_, found, _)| found == table)
            .map(|(kind, _, id)| format!("{} {id}", kind.trim_start_matches("table.record")))
            .collect();
        lines.sort();
        lines
    }

    /// Until nothing is pending on any node.
    pub fn wait_idle(&self) {
        let pending = "select coalesce(sum(pending + retrying), 0)::text || ' ' ||
                              count(*) filter (where state = 'unreachable')
                       from webhook.cluster_queue";
        self.coordinator().wait_for_text(PATIENCE, pending, "0 0");
        let is_idle = "select webhook.wait_idle('60 seconds')::text";
        self.coordinator()
            .wait_for_text(Duration::from_secs(120), is_idle, "true");
    }
}

/// Citus reaches its nodes over TCP.
fn node(name: &str, number: usize) -> Cluster {
    let cluster = Cluster::builder(&format!("{name}-{number}"))
        .set("shared_preload_libraries", "citus,webhook_ext")
        .set("listen_addresses", "127.0.0.1")
        .set("max_prepared_transactions", "100")
        .set("max_worker_processes", "32")
        .set("wal_level", "logical")
        .set("citus.node_conninfo", "sslmode=disable")
        .set("citus.shard_count", "4")
        .set("webhook.allowed_networks", "127.0.0.0/8")
        .start();
    cluster.sql("create extension citus");
    cluster
}

fn host(_node: &Cluster) -> &'static str {
    "127.0.0.1"
}
