//! Many lanes that lag at once, and read their backlog together.

use std::collections::HashMap;
use std::fmt::Write;

use super::support::definitions::{create_event, create_webhook, wait_idle};
use super::support::{ready_cluster, Cluster, Receiver};

/// More than travel together at least.
const WEBHOOKS: i64 = 40;
/// Half of them go to the first webhook: more than its queue takes at once.
const ROWS: i64 = 6000;

fn path(webhook: i64) -> String {
    format!("/ok/w{webhook}")
}

fn create(cluster: &Cluster, receiver: &Receiver) {
    cluster.sql("create table items (id bigint primary key, w integer not null)");
    for webhook in 1..=WEBHOOKS {
        let (name, url) = (format!("w{webhook}"), receiver.url(&path(webhook)));
        // One call at a time shows the order in which the messages were read.
        create_webhook(
            cluster,
            &name,
            &[url],
            "max_in_flight => 1, log_level => 'none'",
        );
        let condition = format!("condition => 'new.w = {webhook}'");
        create_event(cluster, &name, "items", "Insert", &condition);
    }
}

/// `select webhook.pause_webhook('w1'); …`
fn for_all(function: &str) -> String {
    (1..=WEBHOOKS).fold(String::new(), |mut all, webhook| {
        let _ = write!(all, "select webhook.{function}('w{webhook}');");
        all
    })
}

fn insert(first: i64, last: i64) -> String {
    format!(
        "insert into items
         select n, case when n % 2 = 0 then 1 else 1 + n / 2 % {WEBHOOKS} end
         from generate_series({first}, {last}) n"
    )
}

fn assert_each_got_its_own(cluster: &Cluster, receiver: &Receiver) {
    let mut received: HashMap<String, Vec<i64>> = HashMap::new();
    for post in receiver.received() {
        let id = post.body()["data"][0]["id"].as_i64();
        let ids = received.entry(post.path).or_default();
        ids.push(id.expect("a row has an id"));
    }
    let mut session = cluster.connect("postgres");
    for webhook in 1..=WEBHOOKS {
        let rows = session.query(
            "select id from items where w = $1::bigint order by id",
            &[&webhook],
        );
        let wanted: Vec<i64> = rows.unwrap().iter().map(|row| row.get(0)).collect();
        assert!(!wanted.is_empty(), "webhook {webhook} has messages");
        let found = received.remove(&path(webhook)).unwrap_or_default();
        assert_eq!(found, wanted, "webhook {webhook}");
    }
}

#[test]
fn lanes_that_lag_together_each_get_their_own_messages_once_and_in_order() {
    let (cluster, receiver) = ready_cluster("lagging");
    create(&cluster, &receiver);
    // Small transactions while one webhook after the other is paused: each leaves the
    // tail at another place.
    let step = ROWS / 2 / WEBHOOKS;
    for webhook in 1..=WEBHOOKS {
        cluster.sql(&format!("select webhook.pause_webhook('w{webhook}')"));
        cluster.sql(&insert((webhook - 1) * step + 1, webhook * step));
    }
    // A transaction of several pages.
    cluster.sql(&insert(ROWS / 2 + 1, ROWS));
    cluster.sql(&for_all("resume_webhook"));
    wait_idle(&cluster);
    assert_each_got_its_own(&cluster, &receiver);
}

#[test]
fn lanes_that_lag_go_on_where_they_were_after_another_pause() {
    let (cluster, receiver) = ready_cluster("lagging-again");
    create(&cluster, &receiver);
    cluster.sql(&for_all("pause_webhook"));
    cluster.sql(&insert(1, ROWS));
    for _ in 0..3 {
        cluster.sql(&for_all("resume_webhook"));
        receiver.wait_for(super::support::PATIENCE, "/ok", 1);
        cluster.sql(&for_all("pause_webhook"));
    }
    cluster.sql(&for_all("resume_webhook"));
    wait_idle(&cluster);
    assert_each_got_its_own(&cluster, &receiver);
}
