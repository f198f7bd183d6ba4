//! PREPARE TRANSACTION that waits for a synchronous standby: meanwhile PostgreSQL's snapshots list
//! its transaction twice.

use std::thread;

use super::support::definitions::{records_at, wait_idle};
use super::support::items::{inserts, watch, COUNTERS};
use super::support::{Cluster, Receiver, PATIENCE};

/// More than one page: then each transaction of the window is looked through by itself.
const PREPARED: std::ops::RangeInclusive<i64> = 1..=5000;

#[test]
fn messages_whose_prepare_waits_for_a_standby_are_sent_once() {
    let cluster = Cluster::builder("prepared_waiting")
        .set("max_prepared_transactions", "5")
        .set("synchronous_standby_names", "nobody")
        .set("synchronous_commit", "local")
        .set("webhook.allowed_networks", "127.0.0.0/8")
        .start();
    cluster.sql("create extension webhook_ext; create table items (id integer)");
    let receiver = Receiver::start();
    watch(&cluster, &receiver, "w", &["/ok"], "");
    let mut session = cluster.connect("postgres");
    let prepare = thread::spawn(move || {
        session.batch_execute("set synchronous_commit = on; begin")?;
        let (first, last) = (PREPARED.start(), PREPARED.end());
        session.batch_execute(&format!(
            "insert into items select generate_series({first}, {last})"
        ))?;
        session.batch_execute("prepare transaction 'p'")
    });
    let waiting = "select count(*)::text from pg_stat_activity where wait_event = 'SyncRep'";
    cluster.wait_for_text(PATIENCE, waiting, "1");
    // Their messages are read from a snapshot on that was taken meanwhile.
    cluster.sql("insert into items values (0)");
    receiver.wait_for(PATIENCE, "/ok", 1);
    wait_idle(&cluster);
    cluster.sql("select pg_cancel_backend(pid) from pg_stat_activity where wait_event = 'SyncRep'");
    prepare.join().unwrap().expect("it is prepared here");
    cluster.sql("commit prepared 'p'");
    receiver.wait_for(PATIENCE, "/ok", 5001);
    wait_idle(&cluster);
    let mut received = records_at(&receiver, "/ok");
    received.sort();
    let mut expected = inserts(0..=5000);
    expected.sort();
    assert_eq!(received.len(), expected.len());
    assert_eq!(received, expected);
    assert_eq!(cluster.value::<String>(COUNTERS), "5001 5001 0");
}
