//! The monitoring kit: its files parse, its queries run, and it names metrics that exist.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use super::support::definitions::wait_idle;
use super::support::items::{cluster_with, insert, watch};
use super::support::signature::python;
use super::support::PATIENCE;

const READER: &str = include_str!("support/read_monitoring.py");
const KIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/monitoring");

fn kit() -> Value {
    let output = Command::new(python())
        .args(["-c", READER, KIT])
        .output()
        .expect("scripts/setup has made the Python environment");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn texts(value: &Value) -> Vec<String> {
    let list = value.as_array().expect("a list").iter();
    list.map(|text| text.as_str().expect("a text").to_owned())
        .collect()
}

#[test]
fn exporters_rules_and_dashboard_name_metrics_that_exist() {
    let (cluster, receiver) = cluster_with("monitoring", "1h");
    watch(&cluster, &receiver, "hook", &["/ok", "/status/500"], "");
    insert(&cluster, 1..=3);
    wait_idle(&cluster);
    let histogram = "select (count(*) > 0)::text from webhook.metrics
                     where name = 'webhook_call_duration_seconds_count'";
    cluster.wait_for_text(PATIENCE, histogram, "true");
    let listed = cluster.psql("select distinct name from webhook.metrics");
    let listed: BTreeSet<String> = listed.lines().map(str::to_owned).collect();
    let kit = kit();

    let unknown: Vec<String> = texts(&kit["named"])
        .into_iter()
        .filter(|name| !listed.contains(name))
        .collect();
    assert!(unknown.is_empty(), "{unknown:?} are none of {listed:?}");
    assert!(kit["alerts"].as_i64().unwrap() >= 5);

    cluster.sql("create role scraper login in role pg_monitor");
    let mut scraper = cluster.connect_as("scraper", "postgres");
    let mut exported: Vec<String> = Vec::new();
    for query in kit["queries"].as_array().unwrap() {
        let statement = query[1].as_str().unwrap();
        let rows = scraper.query(statement, &[]);
        let rows = rows.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        assert!(!rows.is_empty(), "{statement} gives no row");
        let columns = rows[0].columns().iter().map(postgres::Column::name);
        let wanted: BTreeSet<String> = texts(&query[2]).into_iter().collect();
        let found: BTreeSet<String> = columns.map(str::to_owned).collect();
        assert_eq!(found, wanted, "{statement}");
        exported.extend(texts(&query[0]));
    }
    // Both exporters have each metric once.
    for name in &listed {
        let count = exported.iter().filter(|other| *other == name).count();
        assert_eq!(count, 2, "{name} in {exported:?}");
    }
    assert_eq!(exported.len(), 2 * listed.len());
}
