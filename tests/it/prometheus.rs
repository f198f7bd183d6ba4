//! `webhook.prometheus()`: what a monitoring system scrapes, read by a parser of others.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::support::definitions::{create_webhook, wait_idle};
use super::support::items::{cluster_with, insert, watch};
use super::support::signature::python;
use super::support::{Cluster, PATIENCE};

const PARSER: &str = include_str!("support/parse_metrics.py");

/// The families that the parser of prometheus_client reads: name, kind, unit, help, samples.
fn parsed(exposition: &str) -> Value {
    let mut child = Command::new(python())
        .args(["-c", PARSER])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("scripts/setup has made the Python environment");
    let mut input = child.stdin.take().expect("stdin is piped");
    let text = exposition.to_owned();
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut input, text.as_bytes()));
    let output = child.wait_with_output().unwrap();
    // A broken pipe follows from a failure of the parser, which says more.
    let _ = writer.join().expect("the writer does not panic");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}\n{exposition}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn exposition(cluster: &Cluster) -> String {
    cluster.value("select webhook.prometheus()")
}

#[test]
fn an_independent_parser_reads_every_metric() {
    let (cluster, receiver) = cluster_with("prometheus", "1h");
    // What has to be escaped in a label.
    let hostile = "a \"quoted\" \\ name <b>{x=\"1\"}";
    create_webhook(&cluster, hostile, &[receiver.url("/ok")], "");
    watch(&cluster, &receiver, "good", &["/ok", "/status/500"], "");
    insert(&cluster, 1..=4);
    wait_idle(&cluster);
    let histogram = "select coalesce(sum(value), 0)::text from webhook.metrics
                     where name = 'webhook_call_duration_seconds_count'";
    let calls: i64 = cluster.value("select calls from webhook.webhooks where name = 'good'");
    cluster.wait_for_text(PATIENCE, histogram, &calls.to_string());
    let families = parsed(&exposition(&cluster));
    let of = |name: &str| {
        let mut all = families.as_array().unwrap().iter();
        all.find(|family| family["name"] == name)
            .unwrap_or_else(|| panic!("{name} is missing in {families}"))
    };
    for family in families.as_array().unwrap() {
        assert_ne!(family["help"], "", "{family}");
        let name = family["name"].as_str().unwrap();
        for unit in ["seconds", "bytes"] {
            assert_eq!(name.ends_with(unit), family["unit"] == unit, "{family}");
        }
    }
    assert_eq!(of("webhook_messages")["type"], "counter");
    assert_eq!(of("webhook_worker_starts")["samples"][0]["value"], 1.0);
    assert_eq!(of("webhook_delivery_enabled")["samples"][0]["value"], 1.0);
    let histogram = of("webhook_call_duration_seconds");
    assert_eq!(histogram["type"], "histogram");
    let samples = histogram["samples"].as_array().unwrap();
    let last = samples
        .iter()
        .find(|sample| sample["labels"]["le"] == "+Inf");
    assert_eq!(last.unwrap()["value"], calls as f64);
    let pending = of("webhook_pending_messages")["samples"]
        .as_array()
        .unwrap();
    assert!(
        pending
            .iter()
            .any(|sample| sample["labels"]["webhook"] == hostile),
        "{pending:?}"
    );
    // Everything that the view has, and nothing else.
    let shown: BTreeSet<&str> = families
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|family| family["samples"].as_array().unwrap())
        .map(|sample| sample["name"].as_str().unwrap())
        .collect();
    let listed = cluster.psql("select distinct name from webhook.metrics");
    let listed: BTreeSet<&str> = listed.lines().collect();
    assert_eq!(shown, listed);
}

#[test]
fn a_reader_may_scrape_and_an_empty_installation_has_metrics() {
    let (cluster, _receiver) = cluster_with("prometheus_reader", "1h");
    cluster.sql("create role a_reader login in role webhook_reader");
    let mut reader = cluster.connect_as("a_reader", "postgres");
    let text: String = reader
        .query_one("select webhook.prometheus()", &[])
        .unwrap()
        .get(0);
    assert!(text.ends_with("# EOF\n"), "{text}");
    let families = parsed(&text);
    assert!(families.as_array().unwrap().len() >= 5, "{families}");
}
