//! Receivers that are far away: every call takes 100 ms, so connections are what counts.

use std::time::{Duration, Instant};

use super::report::{Line, Report, Target};
use super::support::{Cluster, Receiver};

const URLS: u64 = 200;
const CALL_MS: u64 = 100;
/// Connections, and the share of what they could do that is asked for.
const CONNECTIONS: [(u64, f64); 3] = [(64, 0.95), (500, 0.9), (1_000, 0.85)];
/// How long a measurement takes at the rate that could be reached.
const SECONDS: u64 = 10;
const PATIENCE: Duration = Duration::from_secs(300);

pub fn distance(cluster: &Cluster, receiver: &Receiver, report: &mut Report) {
    let path = format!("/slow/{CALL_MS}");
    let url = receiver.url(&path);
    cluster.sql(&format!(
        "create table item (id bigint, name text);
         do $$
         begin
             for n in 1..{URLS} loop
                 perform webhook.create_webhook('far ' || n, array['{url}/' || n], max_in_flight => 16);
                 perform webhook.create_event('far ' || n, 'item', 'table.recordInsert');
             end loop;
         end $$"
    ));
    for (connections, target) in CONNECTIONS {
        let possible = connections as f64 * 1_000.0 / CALL_MS as f64;
        let rows = (possible as u64 * SECONDS).div_ceil(URLS);
        set(cluster, "webhook.connections", &connections.to_string());
        set(cluster, "webhook.delivery", "off");
        cluster.sql(&format!(
            "insert into item select i, 'a name' from generate_series(1, {rows}) i"
        ));
        cluster.wait_for_text(
            PATIENCE,
            "select (not exists (select from webhook_internal.unseen))::text",
            "true",
        );
        receiver.reset();
        let started = Instant::now();
        set(cluster, "webhook.delivery", "on");
        receiver.wait_for(PATIENCE, &path, rows * URLS);
        let rate = (rows * URLS) as f64 / started.elapsed().as_secs_f64();
        let idle: bool = cluster.value("select webhook.wait_idle('60 seconds')");
        assert!(idle, "everything was settled");
        report.add(Line {
            name: "P18",
            what: format!("{URLS} URLs that answer after {CALL_MS} ms, {connections} connections"),
            ours: rate,
            compared_with: possible,
            unit: "calls/s",
            ratio: rate / possible,
            target: Some(Target::AtLeast(target)),
        });
    }
}

fn set(cluster: &Cluster, name: &str, value: &str) {
    cluster.configure(name, value);
    cluster.reload();
    cluster.wait_for_text(
        PATIENCE,
        &format!("select current_setting('{name}')"),
        value,
    );
}
