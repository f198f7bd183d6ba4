//! A webhook `custom` whose events have templates, and the bodies that come of them.

use super::definitions;
use super::{Cluster, Receiver};

pub fn create_webhook(cluster: &Cluster, receiver: &Receiver) {
    definitions::create_webhook(cluster, "custom", &[receiver.url("/ok")], "");
}

/// Creates an event of webhook `custom` and returns its id.
pub fn create_event(cluster: &Cluster, table: &str, kind: &str, template: &str) -> String {
    let mut client = cluster.connect("postgres");
    let row = client.query_one(
        "select id from webhook.create_event('custom', $1::text::regclass, $2, payload_template => $3)",
        &[&table, &format!("table.record{kind}"), &template],
    );
    row.unwrap_or_else(|error| panic!("{template}: {error:?}\n{}", cluster.log()))
        .get(0)
}

pub fn bodies(receiver: &Receiver) -> Vec<String> {
    receiver.received().into_iter().map(|r| r.raw).collect()
}
