//! What receivers ask for, and long outages of all of them (faults 25 and 26).

use super::support::cluster::free_port;
use super::support::definitions::{create_event, create_webhook};
use super::support::watched::{
    assert_all_received, insert_items, wait_until_nothing_is_left, watch_items, watch_items_at,
};
use super::support::worker::{cluster_restarts, wait_until_gone, worker_of};
use super::support::{Cluster, Received, Receiver, StopMode, PATIENCE, RECOVERY};

/// A lane has at most so many calls on the wire when its receiver goes down …
const IN_FLIGHT: i64 = 16;
/// … and then probes after 1, 2, 4 … seconds; a restart in between starts this over.
const PROBES: i64 = 8;

/// A name, what the receiver answers, and whether it is left alone for how long.
const ASKED: &[(&str, &str, Option<&str>)] = &[
    ("huge", "/status/503/huge?retry-after=999999999", HOUR),
    (
        "digits",
        "/status/429/digits?retry-after=9999999999999999999999999999999999999999",
        HOUR,
    ),
    (
        "date",
        "/status/503/date?retry-after=Fri,%2031%20Dec%202399%2023:59:59%20GMT",
        HOUR,
    ),
    (
        "minutes",
        "/status/429/minutes?retry-after=1200",
        Some("interval '20 min'"),
    ),
    ("negative", "/status/503/negative?retry-after=-5", None),
    (
        "past",
        "/status/503/past?retry-after=Sun,%2006%20Nov%201994%2008:49:37%20GMT",
        None,
    ),
    (
        "garbage",
        "/status/429/garbage?retry-after=soon%20%FF",
        None,
    ),
    ("empty", "/status/503/empty?retry-after=", None),
    // Only 429 and 503 may ask.
    ("other", "/status/500/other?retry-after=999", None),
];

const HOUR: Option<&str> = Some("interval '1 hour'");

#[test]
fn what_a_receiver_asks_for_is_honoured_up_to_an_hour_and_nonsense_is_ignored() {
    let cluster = Cluster::builder("retryafter")
        .set("webhook.allowed_networks", "127.0.0.1")
        .set("webhook.retry_schedule", "200ms")
        .start();
    cluster.sql("create extension webhook_ext");
    let receiver = Receiver::start();
    watch_items(&cluster, &receiver, "/ok/healthy");
    for (name, path, _) in ASKED {
        watch_items_at(
            &cluster,
            name,
            &receiver.url(path),
            ", max_attempts => 1000",
        );
    }
    watch_items(&cluster, &receiver, "/status/410");
    insert_items(&cluster, 1..=1);
    for (name, path, wait) in ASKED {
        let path = path.split('?').next().expect("a path comes first");
        match wait {
            Some(wait) => assert_held(&cluster, name, wait),
            None => receiver.wait_for(PATIENCE, path, 3),
        }
    }
    let state = "select state from webhook.queue where outgoing_url ~ '/410'";
    cluster.wait_for_text(PATIENCE, state, "disabled");
    // The next worker remembers who wants to be left alone.
    let worker = worker_of(&cluster, "postgres");
    cluster.signal(worker, "TERM");
    wait_until_gone(&cluster, PATIENCE, worker);
    insert_items(&cluster, 2..=20);
    receiver.wait_for(PATIENCE, "/ok/healthy", 20);
    assert_all_received(&cluster, &receiver.received_at("/ok/healthy"));
    for (name, path, _) in ASKED.iter().filter(|(_, _, wait)| wait.is_some()) {
        assert_eq!(
            receiver.received_at(path).len(),
            1,
            "{name} was not left alone"
        );
    }
    assert_eq!(receiver.count("/status/410").requests, 1);
    assert_lets_go_when_resumed(&cluster, &receiver);
}

/// The URL is held for so long from the end of its call on (less what a clock may be off):
/// not shorter, counted from when the call began, nor longer, counted from now.
fn assert_held(cluster: &Cluster, webhook: &str, wait: &str) {
    let held = format!(
        "select concat_ws(' ', q.state, count(c.*),
                bool_and(q.next_attempt_at - c.called_at >= {wait} - interval '1 s'),
                q.next_attempt_at - clock_timestamp() <= {wait})
         from webhook.queue q join webhook.calls c on c.outgoing_url = q.outgoing_url
         where q.webhook_name = '{webhook}'
         group by q.state, q.next_attempt_at"
    );
    cluster.wait_until(PATIENCE, &format!("{webhook} to be held"), || {
        let seen = cluster.psql(&held);
        if seen == "backing_off 1 t t\n" {
            Ok(())
        } else {
            Err(seen)
        }
    });
}

/// Nothing of all this is lost: a user says that the receivers are well.
fn assert_lets_go_when_resumed(cluster: &Cluster, receiver: &Receiver) {
    let paths: Vec<&str> = ASKED.iter().map(|(_, path, _)| *path).collect();
    for path in paths.iter().chain(&["/status/410"]) {
        receiver.behave(path.split('?').next().expect("a path comes first"), "/ok");
    }
    cluster.sql("select webhook.pause_webhook(name) from webhook.webhooks");
    insert_items(cluster, 21..=21);
    // Once it has counted this row, the worker knows of the pause.
    let unseen = "select count(*)::text from webhook_internal.unseen";
    cluster.wait_for_text(PATIENCE, unseen, "0");
    cluster.sql("select webhook.resume_webhook(name) from webhook.webhooks");
    // A message that has a retry of its own goes when that is due.
    let left = "select coalesce(sum(pending), 0)::text from webhook.queue";
    cluster.wait_for_text(RECOVERY, left, "0");
    for path in paths {
        let received = receiver.received_at(path);
        assert!(received.len() >= 20, "{path}: {}", received.len());
    }
    assert_eq!(cluster_restarts(cluster), 0, "{}", cluster.log());
}

/// One cluster whose receivers are all down, from before the first change, over a restart
/// of the server, until everything is written.
fn outlive_an_outage(name: &str, delivery_order: &str, schedule: &str) -> Vec<Vec<Received>> {
    let cluster = Cluster::builder(name)
        .set("webhook.allowed_networks", "127.0.0.1")
        .set("webhook.retry_schedule", schedule)
        .start();
    cluster.sql("create extension webhook_ext");
    cluster.sql("create table items (id bigint primary key, note text)");
    let port = free_port();
    let paths = ["/ok/a", "/ok/b", "/ok/alone"];
    let urls = paths.map(|path| format!("http://127.0.0.1:{port}{path}"));
    let options = format!("delivery_order => '{delivery_order}'");
    for (name, urls) in [("both", &urls[..2]), ("alone", &urls[2..])] {
        create_webhook(&cluster, name, urls, &options);
        create_event(&cluster, name, "items", "Insert", "");
    }
    insert_items(&cluster, 1..=1500);
    let refused = "select count(distinct outgoing_url)::text from webhook.calls
                   where called_at > pg_postmaster_start_time() and detail = 'connection refused'";
    cluster.wait_for_text(PATIENCE, refused, "3");
    cluster.stop(StopMode::Fast);
    cluster.start_again();
    for id in 1501..=3000 {
        if id % 100 == 0 {
            insert_items(&cluster, id - 99..=id);
        }
    }
    cluster.wait_for_text(PATIENCE, refused, "3");
    assert_attempts_are_saved(&cluster, paths.len() as i64);

    let receiver = Receiver::start_at(port);
    wait_until_nothing_is_left(&cluster, RECOVERY);
    assert_attempts_are_saved(&cluster, paths.len() as i64);
    let received = paths.map(|path| receiver.received_at(path));
    for received in &received {
        assert_all_received(&cluster, received);
    }
    assert_eq!(cluster_restarts(&cluster), 0, "{}", cluster.log());
    received.into()
}

/// An outage costs a lane some calls, not one or more for each message that waits.
fn assert_attempts_are_saved(cluster: &Cluster, lanes: i64) {
    let errors: i64 = cluster.value("select sum(errors)::bigint from webhook.webhooks");
    let most = lanes * 2 * (IN_FLIGHT + PROBES);
    assert!(
        (5..=most).contains(&errors),
        "{errors} calls failed, {most} may"
    );
    let failed: i64 = cluster.value("select sum(failed)::bigint from webhook.queue");
    assert_eq!(failed, 0, "messages were given up");
}

#[test]
fn an_outage_of_all_receivers_keeps_the_order_of_a_webhook_that_asks_for_it() {
    // The first message holds all others, so the schedule alone says when it is tried again.
    for requests in outlive_an_outage("outagefifo", "fifo", "3s") {
        let bodies = requests.iter().map(Received::body);
        let mut ids: Vec<i64> = bodies
            .map(|body| body["data"][0]["id"].as_i64().expect("a row has an id"))
            .collect();
        // The same one twice in a row is a repetition.
        ids.dedup();
        let expected: Vec<i64> = (1..=3000).collect();
        let differs = ids.iter().zip(&expected).find(|(id, wanted)| id != wanted);
        assert_eq!(differs, None, "out of order");
    }
}

#[test]
fn an_outage_of_all_receivers_loses_nothing_and_burns_no_attempts() {
    let received = outlive_an_outage("outage", "none", "5s,5min,30min");
    for requests in received {
        let most = requests.iter().map(Received::attempt).max();
        assert!(most <= Some(4), "a message was tried {most:?} times");
    }
}
