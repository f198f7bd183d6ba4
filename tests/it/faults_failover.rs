//! `webhook.synchronized_standby_slots`: what receivers saw survives a failover (fault 11).

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread;
use std::time::Duration;

use super::support::ending::SetOnDrop;
use super::support::stalls::now_us;
use super::support::wait::wait_until;
use super::support::watched::{
    assert_items_delivered, insert_items, wait_until_nothing_is_left, watch_items, watch_items_in,
};
use super::support::{Cluster, Receiver, StopMode, PATIENCE};

const SETTING: &str = "webhook.synchronized_standby_slots";

/// Far more than a standby that keeps up takes on a busy machine.
const KEEPS_UP: Duration = Duration::from_millis(50);

const WRITERS: usize = 4;

const DETAIL: &str = "select coalesce((select detail from webhook.worker), '')";

fn primary(name: &str, slots: &str) -> Cluster {
    let primary = Cluster::builder(name)
        .set("shared_preload_libraries", "webhook_ext")
        .set("webhook.allowed_networks", "127.0.0.0/8")
        .set("webhook.retry_schedule", "100ms")
        .set("wal_level", "logical")
        .set(SETTING, slots)
        .start();
    primary.sql("create extension webhook_ext");
    primary
}

/// Waits until `webhook.worker.detail` holds all of these words.
fn wait_for_detail(cluster: &Cluster, words: &[&str]) -> String {
    let mut session = cluster.connect("postgres");
    cluster.wait_until(PATIENCE, &format!("a detail with {words:?}"), || {
        let detail: String = session.query_one(DETAIL, &[]).unwrap().get(0);
        if words.iter().all(|word| detail.contains(word)) {
            Ok(detail)
        } else {
            Err(detail)
        }
    })
}

fn wait_for_no_detail(cluster: &Cluster) {
    cluster.wait_for_text(PATIENCE, DETAIL, "");
}

fn wait_for_requests(receiver: &Receiver, path: &str, wanted: u64) {
    let what = format!("{wanted} requests to {path}");
    wait_until(PATIENCE, &what, || match receiver.count(path).requests {
        seen if seen >= wanted => Ok(()),
        seen => Err(format!("{seen}")),
    });
}

/// Microseconds from the end of each COMMIT to the arrival of its POST, sorted.
fn latencies(primary: &Cluster, receiver: &Receiver, ids: std::ops::Range<i64>) -> Vec<u64> {
    let mut session = primary.connect("postgres");
    let before = receiver.received_at("/ok/a").len();
    let mut committed_at = Vec::new();
    for (n, id) in ids.enumerate() {
        session
            .execute("insert into items values ($1)", &[&id])
            .unwrap();
        committed_at.push(now_us());
        wait_for_requests(receiver, "/ok/a", (before + n + 1) as u64);
    }
    let received = receiver.received_at("/ok/a");
    let mut latencies: Vec<u64> = received[before..]
        .iter()
        .zip(committed_at)
        .map(|(request, at)| request.received_at_us.saturating_sub(at))
        .collect();
    latencies.sort_unstable();
    latencies
}

#[test]
fn a_standby_that_keeps_up_adds_little_latency() {
    let primary = primary("failover_latency", "");
    let receiver = Receiver::start();
    let standby = primary.follow_through("standby", &[(SETTING, "")]);
    watch_items(&primary, &receiver, "/ok/a");
    let summary = |latencies: &[u64]| {
        let at = |part: usize| latencies[(latencies.len() * part / 100).min(latencies.len() - 1)];
        (at(50), at(99))
    };
    let mut medians = Vec::new();
    for (from, slots) in [(0, ""), (1000, "standby"), (2000, ""), (3000, "standby")] {
        primary.configure(SETTING, slots);
        primary.reload();
        primary.wait_for_text(PATIENCE, &format!("show {SETTING}"), slots);
        latencies(&primary, &receiver, from..from + 20);
        let (p50, p99) = summary(&latencies(&primary, &receiver, from + 20..from + 320));
        println!("{SETTING} = '{slots}': p50 {p50} us, p99 {p99} us");
        medians.push(p50);
    }
    let added = medians[1]
        .min(medians[3])
        .saturating_sub(medians[0].max(medians[2]));
    assert!(
        Duration::from_micros(added) < KEEPS_UP,
        "{added} us more than without"
    );
    assert_items_delivered(&primary, &receiver, "/ok/a", PATIENCE);
    drop(standby);
}

#[test]
fn new_messages_wait_for_a_standby_that_lags_and_retries_go_on() {
    let primary = primary("failover_lag", "standby");
    let receiver = Receiver::start();
    let standby = primary.follow_through("standby", &[(SETTING, "")]);
    watch_items(&primary, &receiver, "/ok/a");
    let patient = ", max_attempts => 1000";
    watch_items_in(&primary, "postgres", &receiver, "/ok/b", patient);
    receiver.behave("/ok/b", "/status/400");
    insert_items(&primary, 1..=1);
    wait_for_requests(&receiver, "/ok/a", 1);
    wait_for_requests(&receiver, "/ok/b", 1);

    let walreceiver: i32 = standby.value("select pid from pg_stat_wal_receiver");
    standby.signal(walreceiver, "STOP");
    insert_items(&primary, 2..=5);
    let detail = wait_for_detail(&primary, &["slot \"standby\" is ", " bytes behind"]);
    println!("{detail}");
    assert!(primary
        .log()
        .contains(&format!("WARNING:  {}", &detail[..60])));
    let repeated = receiver.count("/ok/b").requests;
    wait_for_requests(&receiver, "/ok/b", repeated + 2);
    // What was canceled and is redelivered goes another way.
    primary.sql(
        "select webhook.cancel_pending('/ok/a');
         select webhook.redeliver(message_id)
         from webhook.messages m
         where m.webhook_id = (select id from webhook.webhooks where name = '/ok/a')
         order by message_id desc limit 1",
    );
    insert_items(&primary, 6..=6);
    let repeated = receiver.count("/ok/b").requests;
    wait_for_requests(&receiver, "/ok/b", repeated + 3);
    assert_eq!(receiver.count("/ok/a").requests, 1, "nothing new is sent");
    let ids = |path| -> BTreeSet<i64> {
        let received = receiver.received_at(path);
        let id = |body: serde_json::Value| body["data"][0]["id"].as_i64().unwrap();
        received.iter().map(|request| id(request.body())).collect()
    };
    assert_eq!(
        ids("/ok/b"),
        BTreeSet::from([1]),
        "only what was sent before is repeated"
    );

    standby.signal(walreceiver, "CONT");
    receiver.behave_normally("/ok/b");
    wait_until_nothing_is_left(&primary, PATIENCE);
    wait_for_no_detail(&primary);
    let redelivered: BTreeSet<i64> = ids("/ok/a").difference(&[1, 6].into()).copied().collect();
    assert_eq!(redelivered.len(), 1, "{redelivered:?}");
    assert_eq!(receiver.count("/ok/a").requests, 3);
    assert_eq!(ids("/ok/b"), (1..=6).collect());
}

#[test]
fn what_receivers_saw_exists_on_the_standby_that_is_promoted() {
    let primary = primary("failover", "standby");
    let receiver = Receiver::start();
    let standby = primary.follow_through("standby", &[(SETTING, "")]);
    watch_items(&primary, &receiver, "/ok/a");
    insert_items(&primary, 1..=1);
    wait_for_requests(&receiver, "/ok/a", 1);

    let (next, over) = (AtomicI64::new(2), AtomicBool::new(false));
    thread::scope(|scope| {
        let _over = SetOnDrop(&over);
        for _ in 0..WRITERS {
            scope.spawn(|| {
                let mut session = primary.connect("postgres");
                while !over.load(Ordering::Relaxed) {
                    let id = next.fetch_add(1, Ordering::Relaxed);
                    let insert = "insert into items select $1::bigint from pg_sleep(0.01)";
                    if session.execute(insert, &[&id]).is_err() {
                        return;
                    }
                }
            });
        }
        wait_for_requests(&receiver, "/ok/a", 300);
        standby.stop(StopMode::Immediate);
        // The primary goes on for a while: these commits are lost. Each row is one message, so
        // one that arrives beyond those that were written until now is one of them.
        let written = next.load(Ordering::Relaxed);
        let mut session = primary.connect("postgres");
        wait_until(
            PATIENCE,
            "messages that are held, or sent too early",
            || {
                let more = next.load(Ordering::Relaxed) - written;
                let seen = receiver.count("/ok/a").requests;
                let detail: String = session.query_one(DETAIL, &[]).unwrap().get(0);
                if more >= 100 && (detail.contains("standby") || seen as i64 > written) {
                    Ok(())
                } else {
                    Err(format!("{more} more commits, {seen} POSTs, {detail}"))
                }
            },
        );
        primary.stop(StopMode::Immediate);
    });
    standby.start_again();
    standby.promote();
    let seen = receiver.count("/ok/a").requests;
    let (there, last): (i64, i64) = (
        standby.value("select count(*) from items"),
        next.load(Ordering::Relaxed),
    );
    println!("{seen} POSTs before the failover, {last} rows tried, {there} on the standby");
    assert!(there < last - 90, "the failover has lost something");
    assert_items_delivered(&standby, &receiver, "/ok/a", PATIENCE);
    let mut session = standby.connect("postgres");
    let known: BTreeSet<String> = session
        .query("select message_id::text from webhook.messages", &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    let received = receiver.received_at("/ok/a");
    let unknown = received
        .iter()
        .filter(|request| !known.contains(request.message_id()));
    assert_eq!(unknown.count(), 0, "messages that never happened");

    // The old primary comes back beside the new one.
    let seen = receiver.count("/ok/a").requests;
    primary.start_again();
    insert_items(&primary, 1_000_000..=1_000_010);
    let detail = wait_for_detail(&primary, &["\"standby\" is inactive and "]);
    println!("{detail}");
    assert_eq!(
        receiver.count("/ok/a").requests,
        seen,
        "isolated, it is silent"
    );
}

#[test]
fn a_slot_that_is_no_standby_holds_messages_until_the_setting_lets_go() {
    let primary = primary("failover_slots", "");
    let receiver = Receiver::start();
    let set = |slots: &str| primary.sql(&format!("alter system set {SETTING} = {slots}"));
    let go_by = |slots: &str| {
        set(slots);
        primary.reload();
    };
    let refused = primary
        .connect("postgres")
        .batch_execute(&format!("alter system set {SETTING} = 'Standby 1'"))
        .unwrap_err();
    let refused = refused.as_db_error().expect("the server answered");
    assert_eq!(refused.code().code(), "22023", "{refused}");

    // What was captured before the setting waits as well.
    watch_items(&primary, &receiver, "/ok/a");
    primary.sql("select webhook.pause_webhook('/ok/a')");
    insert_items(&primary, 1..=10);
    let passed = "select (select count(*) from webhook_internal.unseen)::text";
    primary.wait_for_text(PATIENCE, passed, "0");
    go_by("'one', 'two'");
    let missing = ["\"one\" does not exist", "\"two\" does not exist"];
    wait_for_detail(&primary, &missing);
    primary.sql("select webhook.resume_webhook('/ok/a')");
    insert_items(&primary, 11..=11);
    let standby = primary.follow_through("one", &[(SETTING, "")]);
    let detail = wait_for_detail(&primary, &["\"two\" does not exist"]);
    wait_until(PATIENCE, "one standby to have everything", || {
        let detail: String = primary.value(DETAIL);
        if detail.contains("\"one\"") {
            Err(detail)
        } else {
            Ok(())
        }
    });
    println!("{detail}");
    primary.sql("select pg_create_physical_replication_slot('two')");
    wait_for_detail(&primary, &["\"two\" is inactive and has confirmed nothing"]);
    primary.sql(
        "select pg_drop_replication_slot('two');
         select pg_create_logical_replication_slot('two', 'pgoutput')",
    );
    wait_for_detail(&primary, &["\"two\" is not a physical slot"]);
    assert_eq!(receiver.count("/ok/a").requests, 0);

    go_by("'one'");
    wait_for_requests(&receiver, "/ok/a", 11);
    assert_items_delivered(&primary, &receiver, "/ok/a", PATIENCE);
    wait_for_no_detail(&primary);

    // A slot that goes, and a worker that is new.
    standby.stop(StopMode::Immediate);
    wait_until(PATIENCE, "the slot to be free", || {
        let dropped = primary
            .connect("postgres")
            .batch_execute("select pg_drop_replication_slot('one')");
        dropped.map_err(|error| format!("{error:?}"))
    });
    insert_items(&primary, 12..=20);
    wait_for_detail(&primary, &["\"one\" does not exist"]);
    primary.stop(StopMode::Fast);
    primary.start_again();
    wait_for_detail(&primary, &["\"one\" does not exist"]);
    assert_eq!(receiver.count("/ok/a").requests, 11);
    go_by("''");
    wait_for_requests(&receiver, "/ok/a", 20);
    assert_items_delivered(&primary, &receiver, "/ok/a", PATIENCE);
    wait_for_no_detail(&primary);
}
