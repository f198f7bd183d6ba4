//! Every row of the outbox is found by each index of its table, however it was written.

use postgres::Client;

use super::support::watched::{insert_items, watch_items};
use super::support::{ready_cluster, Cluster, Receiver};

/// Nothing is sent, so that all rows stay in the first table.
fn ready(name: &str) -> (Cluster, Receiver) {
    let (cluster, receiver) = ready_cluster(name);
    cluster.configure("webhook.delivery", "off");
    cluster.reload();
    watch_items(&cluster, &receiver, "/ok/a");
    cluster.sql("create extension amcheck");
    (cluster, receiver)
}

/// One row, two, many, and some that are stored out of line among others.
fn write_in_every_way(cluster: &Cluster, from: i64) {
    insert_items(cluster, from..=from);
    insert_items(cluster, from + 1..=from + 2);
    insert_items(cluster, from + 3..=from + 1_000);
    cluster.sql(&format!(
        "insert into items
         select i, case when i % 100 = 7
                        then (select string_agg(md5((i * n)::text), '') from generate_series(1, 400) n)
                        else 'short' end
         from generate_series({}, {}) i",
        from + 1_001,
        from + 1_300,
    ));
}

/// Every row has its entry in the B-tree, and its time lies in what the BRIN index says of its
/// range.
fn assert_indexed(cluster: &Cluster, rows: i64) {
    assert_eq!(
        cluster.value::<i64>("select count(*) from webhook.outbox_0"),
        rows
    );
    cluster.sql("select bt_index_check('webhook.outbox_0_position', true)");
    let mut session = cluster.connect("postgres");
    session
        .batch_execute("set enable_seqscan = off; set enable_indexscan = off")
        .unwrap();
    let places = session
        .query(
            "select message_id::text, captured_at::text from webhook.outbox_0",
            &[],
        )
        .unwrap();
    for place in &places {
        let (id, time): (&str, &str) = (place.get(0), place.get(1));
        let by_id = format!("from webhook.outbox_0 where message_id = '{id}'");
        assert_eq!(found(&mut session, &by_id), 1, "{id}");
        let by_time = format!(
            "from webhook.outbox_0 where captured_at = '{time}' and message_id || '' = '{id}'"
        );
        assert_eq!(found(&mut session, &by_time), 1, "{time}");
    }
    let plan = session
        .query(
            "explain select from webhook.outbox_0 where captured_at = now()",
            &[],
        )
        .unwrap();
    let plan: Vec<&str> = plan.iter().map(|row| row.get(0)).collect();
    assert!(
        plan.iter().any(|line| line.contains("outbox_0_time")),
        "{plan:?}"
    );
}

fn found(session: &mut Client, rows: &str) -> i64 {
    let counted = session.query_one(&format!("select count(*) {rows}"), &[]);
    counted.unwrap().get(0)
}

#[test]
fn every_row_is_found_in_ranges_that_were_summarised_before_it_came() {
    let (cluster, _receiver) = ready("outbox-indexes");
    write_in_every_way(&cluster, 1);
    // From here on its ranges, the last of which has room, are what their entries say.
    cluster.sql("select brin_summarize_new_values('webhook.outbox_0_time')");
    write_in_every_way(&cluster, 10_001);
    insert_items(&cluster, 20_001..=20_001);
    assert_indexed(&cluster, 2 * 1_301 + 1);
}

#[test]
fn indexes_that_an_administrator_adds_are_filled() {
    let (cluster, _receiver) = ready("outbox-indexes-added");
    // Over columns of which a flush has the values, and over others.
    for columns in ["(captured_at, event_key)", "(event_key, source, xid)"] {
        cluster.sql(&format!("create index added on webhook.outbox_0 {columns}"));
        let before: i64 = cluster.value("select count(*) from webhook.outbox_0");
        write_in_every_way(&cluster, before * 10 + 1);
        cluster.sql("select bt_index_check('webhook.added', true)");
        cluster.sql("drop index webhook.added");
        assert_indexed(&cluster, before + 1_301);
    }
}

#[test]
fn a_unique_index_that_an_administrator_adds_is_kept() {
    let (cluster, _receiver) = ready("outbox-indexes-unique");
    cluster.sql("create unique index added on webhook.outbox_0 (event_key)");
    insert_items(&cluster, 1..=1);
    let mut session = cluster.connect("postgres");
    for rows in ["(2, 'alone')", "(3, 'one'), (4, 'of two')"] {
        let error = session
            .batch_execute(&format!("insert into items values {rows}"))
            .unwrap_err();
        assert_eq!(error.as_db_error().unwrap().code().code(), "23505");
    }
    cluster.sql("drop index webhook.added");
    insert_items(&cluster, 5..=6);
    assert_indexed(&cluster, 3);
}
