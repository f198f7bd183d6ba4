//! One message among many is found by its id.

use super::support::watched::{insert_items, watch_items};
use super::support::{Cluster, Receiver, PATIENCE};

#[test]
fn a_message_is_found_by_its_id_without_reading_the_whole_outbox() {
    const MESSAGES: i64 = 60_000;
    let cluster = Cluster::builder("found_by_id")
        .set("webhook.allowed_networks", "127.0.0.0/8")
        .start();
    cluster.sql("create extension webhook_ext");
    let receiver = Receiver::start();
    watch_items(&cluster, &receiver, "/ok/a");
    cluster.sql("select webhook.pause_webhook('/ok/a')");
    for first in (0..MESSAGES).step_by(10_000) {
        insert_items(&cluster, first..=first + 9_999);
    }
    let ranges = "select count(*) from generate_series(0, (
                      select pg_relation_size('webhook.outbox_0') / 8192 / 32 - 1)) n";
    assert!(cluster.value::<i64>(ranges) > 20, "worth an index");
    cluster.sql("analyze webhook.outbox_0");
    let id: String = cluster
        .value("select message_id::text from webhook.outbox_0 order by id offset 30000 limit 1");
    let find = format!(
        "explain (analyze, costs off, timing off, summary off)
         select * from webhook_internal.outbox where message_id = '{id}'"
    );
    // The worker summarises block ranges within a second or so.
    cluster.wait_until(PATIENCE, "the index to lead to few rows", || {
        let plan = cluster.psql(&find);
        let rechecked: i64 = plan
            .lines()
            .find_map(|line| line.trim().strip_prefix("Rows Removed by Index Recheck: "))
            .map_or(i64::MAX, |number| number.parse().unwrap());
        if plan.contains("outbox_0_time") && rechecked < MESSAGES / 10 {
            Ok(())
        } else {
            Err(plan)
        }
    });
    assert_eq!(
        cluster.psql(&format!(
            "select status from webhook.messages where message_id = '{id}'"
        )),
        "pending\n"
    );
    assert!(cluster.value::<bool>(&format!("select webhook.cancel('{id}')")));
}
