//! PREPARE TRANSACTION that waits for a synchronous standby: meanwhile PostgreSQL's snapshots list
//! its transaction twice.

use std::thread;

use super::support::definitions::{records_at, wait_idle};
use super::support::items::{inserts, watch, COUNTERS};
use super::support::{Cluster, Receiver, PATIENCE};

#[test]
fn a_message_whose_prepare_waits_for_a_standby_is_sent_once() {
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
        session
            .batch_execute("set synchronous_commit = on; begin; insert into items values (1)")?;
        session.batch_execute("prepare transaction 'p'")
    });
    let waiting = "select count(*)::text from pg_stat_activity where wait_event = 'SyncRep'";
    cluster.wait_for_text(PATIENCE, waiting, "1");
    // Its message is read up to a snapshot that was taken now.
    cluster.sql("insert into items values (2)");
    receiver.wait_for(PATIENCE, "/ok", 1);
    wait_idle(&cluster);
    cluster.sql("select pg_cancel_backend(pid) from pg_stat_activity where wait_event = 'SyncRep'");
    prepare.join().unwrap().expect("it is prepared here");
    cluster.sql("commit prepared 'p'");
    cluster.sql("insert into items values (3)");
    receiver.wait_for(PATIENCE, "/ok", 3);
    wait_idle(&cluster);
    let mut received = records_at(&receiver, "/ok");
    received.sort();
    assert_eq!(received, inserts(1..=3));
    assert_eq!(cluster.value::<String>(COUNTERS), "3 3 0");
}
