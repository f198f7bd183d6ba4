//! Receivers at their worst (faults 19 to 23): each call ends within its deadline,
//! costs bounded memory and log, and delays no other URL.

use std::time::Duration;

use super::support::calls::{assert_within_deadline, wait_until_repeated};
use super::support::cluster::free_port;
use super::support::listener::{FullListener, SilentListener};
use super::support::watched::{
    assert_all_received, insert_items, wait_until_nothing_is_left, watch_items, watch_items_at,
    watch_items_in,
};
use super::support::worker::{cluster_restarts, peak, private_kb, threads, worker_of};
use super::support::{Cluster, Receiver, PATIENCE, RECOVERY};

const DEADLINE: Duration = Duration::from_secs(1);

/// Where some calls are to succeed, also on a slow machine.
const UNHURRIED: Duration = Duration::from_secs(5);

/// Fails as often as a test wants and is repeated soon.
const STUBBORN: &str = ", timeout_ms => 1000, max_attempts => 1000";

const HEALTHY: &str = "/ok/healthy";

/// As many as `webhook.connections` allows, the look-ups of names, the main thread.
const MOST_THREADS: u64 = 64 + 64 + 1;

const WORKER_LIMIT_KB: u64 = 150 * 1024;

/// A cluster that repeats failed calls soon, and a healthy webhook in it.
fn cluster_with_neighbour(name: &str) -> (Cluster, Receiver) {
    let cluster = Cluster::builder(name)
        .set("webhook.allowed_networks", "127.0.0.1")
        .set("webhook.retry_schedule", "200ms")
        .start();
    cluster.sql("create extension webhook_ext");
    let receiver = Receiver::start();
    watch_items(&cluster, &receiver, HEALTHY);
    (cluster, receiver)
}

/// The healthy webhook got everything while the others fail, and nothing crashed.
fn assert_neighbour_served(cluster: &Cluster, receiver: &Receiver, rows: u64) {
    receiver.wait_for(PATIENCE, HEALTHY, rows);
    let received = receiver.received_at(HEALTHY);
    assert_all_received(cluster, &received);
    assert_eq!(received.len() as u64, rows, "no message twice");
    assert_eq!(cluster_restarts(cluster), 0, "{}", cluster.log());
}

fn port_url(port: u16) -> String {
    format!("http://127.0.0.1:{port}/ok")
}

#[test]
fn a_redirect_into_a_private_network_is_a_failure_and_is_not_followed() {
    let (cluster, receiver) = cluster_with_neighbour("redirect");
    let private = SilentListener::at([127, 0, 0, 2].into(), free_port());
    let metadata = "http://169.254.169.254/latest/meta-data/";
    let elsewhere = format!("http://127.0.0.2:{}/", private.port);
    for (name, to) in [("near", elsewhere.as_str()), ("metadata", metadata)] {
        let url = receiver.url(&format!("/redirect/{name}?to={to}"));
        watch_items_at(&cluster, name, &url, STUBBORN);
    }
    insert_items(&cluster, 1..=3);
    for name in ["near", "metadata"] {
        let reason = "answered 302 Found; redirects are not followed";
        wait_until_repeated(&cluster, PATIENCE, name, reason);
    }
    assert_neighbour_served(&cluster, &receiver, 3);
    assert_eq!(private.take_connections(), 0, "the redirect was followed");
    for name in ["near", "metadata"] {
        receiver.behave(&format!("/redirect/{name}"), "/ok");
    }
    wait_until_nothing_is_left(&cluster, RECOVERY);
    for (name, to) in [("near", elsewhere.as_str()), ("metadata", metadata)] {
        let received = receiver.received_at(&format!("/redirect/{name}?to={to}"));
        assert_all_received(&cluster, &received);
    }
}

#[test]
fn receivers_that_cannot_be_reached_or_say_nothing_cost_no_more_than_their_deadline() {
    let (cluster, receiver) = cluster_with_neighbour("unreachable");
    let (full, silent, refusing) = (FullListener::new(), SilentListener::new(), free_port());
    let ports = [full.port, silent.port, refusing];
    let reasons = [
        "^timed out while connecting$",
        "^timed out while waiting for the answer$",
        "^connection refused$",
    ];
    for port in ports {
        watch_items_at(&cluster, &port.to_string(), &port_url(port), STUBBORN);
    }
    watch_items_in(&cluster, "postgres", &receiver, "/reset", STUBBORN);
    watch_items_in(&cluster, "postgres", &receiver, "/drop", STUBBORN);
    insert_items(&cluster, 1..=20);

    for (port, reason) in ports.iter().zip(reasons) {
        wait_until_repeated(&cluster, PATIENCE, &port.to_string(), reason);
    }
    for path in ["/reset", "/drop"] {
        wait_until_repeated(&cluster, PATIENCE, path, "^the receiver (reset|closed)");
    }
    assert!(silent.take_connections() > 0, "nobody connected");
    assert_neighbour_served(&cluster, &receiver, 20);
    assert_within_deadline(&cluster, DEADLINE);

    drop((full, silent));
    let recovered = ports.map(Receiver::start_at);
    receiver.behave("/reset", "/ok");
    receiver.behave("/drop", "/ok");
    wait_until_nothing_is_left(&cluster, RECOVERY);
    for receiver in &recovered {
        assert_all_received(&cluster, &receiver.received());
    }
    for path in ["/reset", "/drop"] {
        assert_all_received(&cluster, &receiver.received_at(path));
    }
}

#[test]
fn answers_that_come_byte_by_byte_end_at_the_deadline() {
    let (cluster, receiver) = cluster_with_neighbour("slowloris");
    let slow = [
        ("/drip", "^timed out while waiting for the answer$"),
        ("/hang-headers", "^timed out while waiting for the answer$"),
        ("/drip-body", "^timed out while reading the answer$"),
    ];
    for (path, _) in slow {
        watch_items_in(&cluster, "postgres", &receiver, path, STUBBORN);
    }
    insert_items(&cluster, 1..=20);
    for (path, reason) in slow {
        wait_until_repeated(&cluster, PATIENCE, path, reason);
    }
    assert_neighbour_served(&cluster, &receiver, 20);
    assert_within_deadline(&cluster, DEADLINE);
    for (path, _) in slow {
        receiver.behave(path, "/ok");
    }
    wait_until_nothing_is_left(&cluster, RECOVERY);
    for (path, _) in slow {
        assert_all_received(&cluster, &receiver.received_at(path));
    }
}

/// Nine million bytes are more than the kernel holds for a receiver that does not read.
#[test]
fn a_large_body_that_nobody_reads_ends_at_the_deadline() {
    let (cluster, receiver) = cluster_with_neighbour("deaf");
    watch_items_in(&cluster, "postgres", &receiver, "/deaf", STUBBORN);
    cluster.sql("insert into items values (1, repeat('x', 9000000))");
    wait_until_repeated(&cluster, PATIENCE, "/deaf", "^timed out while sending$");
    insert_items(&cluster, 2..=10);
    assert_neighbour_served(&cluster, &receiver, 10);
    let longest = receiver.received_at(HEALTHY).into_iter();
    let longest = longest.map(|request| request.raw.len()).max();
    assert!(longest > Some(9_000_000), "{longest:?}");

    let seen = receiver.received().last().map_or(0, |request| request.seq);
    receiver.behave("/deaf", "/ok");
    // Nine megabytes may take their time.
    cluster.sql("select webhook.update_webhook('/deaf', timeout_ms => 60000)");
    wait_until_nothing_is_left(&cluster, RECOVERY);
    let mut received = receiver.received_since(seen);
    received.retain(|request| request.path == "/deaf" && !request.raw.is_empty());
    assert_all_received(&cluster, &received);
}

/// Path and what becomes of a call: Success, Failure, or either.
const HOSTILE: &[(&str, &str)] = &[
    ("/endless", "Success"),
    ("/endless-chunks", "Success"),
    ("/large/5000000", "Success"),
    ("/gzip-bomb", "Success"),
    ("/binary", "Success"),
    ("/both-lengths", "Success|Failure"),
    ("/endless-headers", "Failure"),
    ("/informational", "Failure"),
    ("/garbage", "Failure"),
    ("/raw/no-code?answer=HTTP/1.1%20OK%0D%0A%0D%0A", "Failure"),
    ("/raw/letters?answer=HTTP/1.1%20abc%20OK%0D%0A%0D%0A", "Failure"),
    ("/raw/version?answer=HTTP/9.9%20200%20OK%0D%0A%0D%0A", "Failure"),
    ("/raw/large-code?answer=HTTP/1.1%2099999%20X%0D%0A%0D%0A", "Failure"),
    ("/raw/nul?answer=HTTP/1.1%20200%20%00%0D%0Ax:%00%0D%0A%0D%0A", "Success|Failure"),
    ("/raw/latin1?answer=HTTP/1.1%20500%20%FF%FE%0D%0Ax:%FF%0D%0A%0D%0A", "Failure"),
    ("/raw/negative?answer=HTTP/1.1%20200%20OK%0D%0Acontent-length:%20-5%0D%0A%0D%0A", "Failure"),
    ("/raw/two?answer=HTTP/1.1%20200%20OK%0D%0Acontent-length:%205%0D%0Acontent-length:%207%0D%0A%0D%0Ahello..", "Failure"),
    ("/raw/chunk?answer=HTTP/1.1%20200%20OK%0D%0Atransfer-encoding:%20chunked%0D%0A%0D%0Azz%0D%0A", "Failure"),
    ("/raw/short?answer=HTTP/1.1%20200%20OK%0D%0Acontent-length:%2010%0D%0A%0D%0Ahi", "Failure"),
    ("/raw/ssh?answer=SSH-2.0-OpenSSH_9.2%0D%0A", "Failure"),
];

#[test]
fn hostile_answers_are_bounded_in_memory_threads_and_log() {
    let (cluster, receiver) = cluster_with_neighbour("hostile");
    for (path, _) in HOSTILE {
        let given_up_soon = format!(
            ", timeout_ms => {}, max_attempts => 2",
            UNHURRIED.as_millis()
        );
        watch_items_at(&cluster, name_of(path), &receiver.url(path), &given_up_soon);
    }
    let worker = worker_of(&cluster, "postgres");
    let mut most_threads = 0;
    let most_kb = peak(worker, private_kb, || {
        most_threads = peak(worker, threads, || {
            insert_items(&cluster, 1..=3);
            assert_neighbour_served(&cluster, &receiver, 3);
            wait_until_nothing_is_left(&cluster, RECOVERY);
        });
    });
    assert!(most_kb > 0 && most_kb < WORKER_LIMIT_KB, "{most_kb} kB");
    assert!((2..=MOST_THREADS).contains(&most_threads), "{most_threads}");
    assert_within_deadline(&cluster, UNHURRIED);
    for (path, outcome) in HOSTILE {
        assert_all_received(&cluster, &receiver.received_at(path));
        assert_judged(&cluster, name_of(path), outcome);
    }
    assert_eq!(worker_of(&cluster, "postgres"), worker);
}

fn name_of(path: &str) -> &str {
    path.split('?').next().unwrap_or(path)
}

/// Each call has an outcome as expected, a failure its reason, and the log is bounded text.
fn assert_judged(cluster: &Cluster, webhook: &str, outcome: &str) {
    let mut session = cluster.connect("postgres");
    let query = "select status, detail, http_response from webhook.calls where webhook_name = $1";
    let calls = session.query(query, &[&webhook]).unwrap();
    assert!(calls.len() >= 3, "{webhook}: {} calls", calls.len());
    for call in calls {
        // Reading it as a String also checks that it is valid UTF-8.
        let (status, detail, response): (String, Option<String>, Option<String>) =
            (call.get(0), call.get(1), call.get(2));
        assert!(
            outcome.split('|').any(|one| one == status),
            "{webhook} {status} {detail:?}"
        );
        assert_eq!(
            status == "Failure",
            detail.is_some(),
            "{webhook}: {detail:?}"
        );
        let (detail, response) = (detail.unwrap_or_default(), response.unwrap_or_default());
        assert!(response.len() <= 16 * 1024, "{webhook}: {}", response.len());
        assert!(detail.len() <= 1000, "{webhook}: {detail}");
        assert!(!detail.contains(['\r', '\n']), "{webhook}: {detail:?}");
    }
}

#[test]
fn a_connection_that_is_closed_between_two_calls_is_no_failure() {
    let (cluster, receiver) = cluster_with_neighbour("closing");
    watch_items(&cluster, &receiver, "/close/a");
    let mut session = cluster.connect("postgres");
    // One at a time, so that each finds the connection that was closed after the last.
    for id in 1..=30_i64 {
        session
            .execute("insert into items values ($1, null)", &[&id])
            .unwrap();
        receiver.wait_for(PATIENCE, "/close/a", id as u64);
    }
    insert_items(&cluster, 31..=200);
    wait_until_nothing_is_left(&cluster, PATIENCE);
    let received = receiver.received_at("/close/a");
    assert_all_received(&cluster, &received);
    assert_eq!(received.len(), 200, "a message came twice");
    assert!(received.iter().all(|request| request.attempt() == 1));
    let errors: i64 = cluster.value("select sum(errors)::bigint from webhook.webhooks");
    assert_eq!(
        errors,
        0,
        "{}",
        cluster.psql("select detail from webhook.calls")
    );
    assert_neighbour_served(&cluster, &receiver, 200);
}
