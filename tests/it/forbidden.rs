//! What a COMMIT forbids is not sent afterwards, however slow the worker is to hear of it.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::support::definitions::wait_idle;
use super::support::items::{cluster_with, insert, watch};
use super::support::wait::wait_until;
use super::support::worker::worker_of;
use super::support::PATIENCE;

/// A call that had begun may arrive so much later on a busy machine.
const ON_ITS_WAY: Duration = Duration::from_millis(500);

const CANCELS: usize = 300;

fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_micros()).unwrap()
}

/// The worker hears of the change, cannot read it, and does not go on with what it knew.
#[test]
fn a_paused_webhook_gets_nothing_more_while_the_definitions_cannot_be_read() {
    let (cluster, receiver) = cluster_with("unreadable", "1h");
    watch(
        &cluster,
        &receiver,
        "w",
        &["/ok/w"],
        "call_throttling => 20, max_in_flight => 1",
    );
    worker_of(&cluster, "postgres");
    insert(&cluster, 1..=500);
    receiver.wait_for(PATIENCE, "/ok/w", 25);
    let mut blocker = cluster.connect("postgres");
    let mut locked = blocker.transaction().unwrap();
    locked
        .batch_execute("lock table webhook.secret_def in access exclusive mode")
        .unwrap();
    cluster.sql("select webhook.pause_webhook('w')");
    let paused_at = now_us();
    let mut session = cluster.connect("postgres");
    let detail = "select coalesce(string_agg(detail, ' '), '') from webhook.worker";
    let said = wait_until(Duration::from_secs(30), "the worker to say why", || {
        let said: String = session.query_one(detail, &[]).unwrap().get(0);
        if said.contains("nothing is sent") {
            return Ok(said);
        }
        Err(format!(
            "{said:?}, {} requests",
            receiver.count("/ok/w").requests
        ))
    });
    let late_us = |at: u64| u64::try_from(ON_ITS_WAY.as_micros()).unwrap() + at;
    let received = receiver.received_at("/ok/w");
    let late = received
        .iter()
        .filter(|call| call.received_at_us > late_us(paused_at))
        .count();
    println!(
        "{late} calls after the pause, of {}; {said}",
        received.len()
    );
    assert_eq!(late, 0);
    locked.rollback().unwrap();
    cluster.wait_for_text(PATIENCE, detail, "");
    assert_eq!(receiver.received_at("/ok/w").len(), received.len());
    cluster.sql("select webhook.resume_webhook('w'); select webhook.update_webhook('w', call_throttling => 0)");
    receiver.wait_for(PATIENCE, "/ok/w", 500);
}

/// Messages are canceled while they are sent, and pauses come in between; a slow main thread
/// makes the time long in which something may go wrong.
fn assert_no_canceled_message_comes(name: &str, fault: &str) {
    let (cluster, receiver) = cluster_with(name, "1h");
    watch(
        &cluster,
        &receiver,
        "w",
        &["/slow/1/w"],
        "max_in_flight => 4",
    );
    worker_of(&cluster, "postgres");
    if !fault.is_empty() {
        // The setting is known once the library is.
        let mut session = cluster.connect("postgres");
        for statement in [
            "load 'webhook_ext'",
            &format!("alter system set webhook.fault = '{fault}'"),
            "select pg_reload_conf()",
        ] {
            session.batch_execute(statement).unwrap();
        }
    }
    let mut writer = cluster.connect("postgres");
    let mut canceler = cluster.connect("postgres");
    let mut canceled: HashMap<String, u64> = HashMap::new();
    let started = Instant::now();
    let mut id = 0;
    while canceled.len() < CANCELS && started.elapsed() < PATIENCE {
        writer
            .batch_execute(&format!(
                "insert into items select generate_series({}, {})",
                id + 1,
                id + 20
            ))
            .unwrap();
        id += 20;
        for place in [1, 4, 8, 12] {
            let row = canceler.query_one(
                "select o.message_id::text, webhook.cancel(o.message_id)
                 from (select message_id from webhook_internal.outbox order by id desc offset $1 limit 1) o",
                &[&i64::from(place)],
            );
            let row = row.unwrap();
            if row.get(1) {
                canceled.insert(row.get(0), now_us());
            }
        }
    }
    println!("{} cancels in {:?}", canceled.len(), started.elapsed());
    if !fault.is_empty() {
        cluster.sql("alter system reset all");
        cluster.sql("select pg_reload_conf()");
    }
    wait_idle(&cluster);
    let mut latest = 0;
    let mut came = 0;
    for call in receiver.received_at("/slow/1/w") {
        if let Some(at) = canceled.get(call.message_id()) {
            came += 1;
            latest = latest.max(call.received_at_us.saturating_sub(*at));
        }
    }
    println!(
        "{} canceled, of which {came} had been called; the latest came {latest} us after",
        canceled.len()
    );
    assert!(canceled.len() >= CANCELS / 2, "{}", canceled.len());
    assert!(Duration::from_micros(latest) < ON_ITS_WAY, "{latest} us");
}

#[test]
fn no_call_of_a_canceled_message_begins_while_many_are_canceled() {
    assert_no_canceled_message_comes("cancel_race", "");
}

/// Needs a build with fault hooks.
#[test]
fn no_call_of_a_canceled_message_begins_while_the_worker_is_slow_to_hear() {
    assert_no_canceled_message_comes("cancel_slow", "slow_loop");
}
