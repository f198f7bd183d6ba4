//! The harness itself: if it were wrong, every other test would prove nothing.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use super::support::cluster::is_alive;
use super::support::compare::{change_of, changes, difference};
use super::support::stalls::{self, Stalls};
use super::support::wait::{try_until, wait_until};
use super::support::{Cluster, Received, Receiver, StopMode, Tally, PATIENCE};

#[test]
fn a_cluster_survives_a_stop_and_a_killed_postmaster_and_goes_when_dropped() {
    let cluster = Cluster::builder("harness").durable().start();
    let directory = cluster.directory().to_owned();
    cluster.sql("create table survivor as select 42 as answer");
    assert_eq!(cluster.psql("show fsync"), "on\n");
    cluster.stop(StopMode::Fast);
    cluster.start_again();
    assert_eq!(cluster.value::<i32>("select answer from survivor"), 42);
    cluster.kill9_postmaster();
    assert!(cluster.try_connect_as("postgres", "postgres").is_err());
    cluster.start_again();
    assert_eq!(cluster.value::<i32>("select answer from survivor"), 42);
    assert!(cluster.log().contains("automatic recovery in progress"));
    let postmaster = cluster.postmaster_pid().unwrap();
    drop(cluster);
    assert!(!directory.exists());
    wait_until(PATIENCE, "the postmaster to end", || {
        if is_alive(postmaster) {
            Err(format!("process {postmaster} is there"))
        } else {
            Ok(())
        }
    });
}

#[test]
fn the_receiver_keeps_requests_and_follows_its_script() {
    let receiver = Receiver::start();
    assert_eq!(post(&receiver, "/ok/a", "m1", "{\"n\":1}"), 200);
    receiver.behave_for("/ok/a", "/status/503", 1);
    assert_eq!(post(&receiver, "/ok/a", "m1", "{\"n\":2}"), 503);
    assert_eq!(post(&receiver, "/ok/a", "m1", "{\"n\":3}"), 200);
    assert_eq!(post(&receiver, "/flaky/1", "m2", "{}"), 500);
    assert_eq!(post(&receiver, "/flaky/1", "m3", "{}"), 500);
    assert_eq!(post(&receiver, "/flaky/1", "m2", "{}"), 200);
    receiver.wait_for(PATIENCE, "/ok", 3);
    assert_eq!(receiver.count("/flaky").requests, 3);
    let bodies: Vec<String> = receiver
        .received_at("/ok/a")
        .into_iter()
        .map(|request| request.raw)
        .collect();
    assert_eq!(bodies, ["{\"n\":1}", "{\"n\":2}", "{\"n\":3}"]);
    receiver.reset();
    assert!(receiver.received().is_empty());
}

#[test]
fn the_receiver_holds_a_request_until_its_path_is_told_something() {
    let receiver = Receiver::start();
    receiver.behave_for("/ok/a", "/hold", 1);
    thread::scope(|scope| {
        let held = scope.spawn(|| post(&receiver, "/ok/a", "m1", "{}"));
        receiver.wait_for(PATIENCE, "/ok/a", 1);
        assert_eq!(post(&receiver, "/ok/a", "m2", "{}"), 200, "only one");
        receiver.behave("/ok/b", "/status/500");
        // An answer counts as in flight until the receiver has done with it.
        wait_until(PATIENCE, "the first alone to be held", || {
            match receiver.count("/ok/a").in_flight {
                1 => Ok(()),
                other => Err(format!("{other} in flight")),
            }
        });
        receiver.behave("/ok/a", "/status/503");
        assert_eq!(held.join().unwrap(), 503);
    });
}

#[test]
fn the_receiver_tallies_rows_and_messages() {
    let receiver = Receiver::start();
    let row = |id: u64| format!("{{\"eventType\":\"x\",\"data\":[{{\"id\":{id},\"note\":\"\"}}]}}");
    for (id, message_id) in [(5, "m5"), (7, "m7"), (7, "m7"), (5, "other"), (9, "m7")] {
        assert_eq!(post(&receiver, "/tally/a", message_id, &row(id)), 200);
    }
    assert_eq!(post(&receiver, "/tally/a", "m1", "{}"), 200);
    let expected = Tally {
        rows: 3,
        least: Some(5),
        greatest: Some(9),
        messages: 2,
        renamed: 1,
        unreadable: 1,
    };
    assert_eq!(receiver.tally("/tally/a"), expected);
    assert_eq!(receiver.count("/tally/a").requests, 6);
}

#[test]
fn only_the_time_in_which_the_machine_stood_still_does_not_count() {
    let stalls = Stalls::of(vec![(100, 200), (300, 400)]);
    let between = |from, to| stalls.between(from, to).as_micros();
    assert_eq!(between(0, 50), 0);
    assert_eq!(between(0, 1000), 200);
    assert_eq!(between(150, 350), 50 + 50);
    assert_eq!(between(210, 290), 0);
    // What takes its own time is found out, if not at once, then when the machine is at rest.
    wait_until(PATIENCE, "a sleep to count", || {
        let took = stalls::timed(|| thread::sleep(Duration::from_millis(100)));
        if took > Duration::from_millis(50) {
            Ok(())
        } else {
            Err(format!("{took:?}"))
        }
    });
}

#[test]
fn a_comparison_names_what_was_lost_invented_or_renamed() {
    let committed = changes("recordInsert", 1..=4);
    let complete: Vec<Received> = (1..=4).map(|id| request(id, &format!("m{id}"))).collect();
    assert_eq!(difference(&committed, &complete, change_of), None);
    let repeated = [complete.clone(), complete[..1].to_vec()].concat();
    assert_eq!(difference(&committed, &repeated, change_of), None);

    let found = |received: &[Received]| difference(&committed, received, change_of).unwrap();
    assert!(found(&complete[1..]).contains("lost: 1 (recordInsert 1)"));
    let invented = [complete.clone(), vec![request(5, "m5")]].concat();
    assert!(found(&invented).contains("not committed: 1 (recordInsert 5)"));
    let renamed = [complete.clone(), vec![request(1, "m9")]].concat();
    assert!(found(&renamed).contains("more than one message id: 1 (recordInsert 1"));
    let shared: Vec<Received> = (1..=4).map(|id| request(id, "m1")).collect();
    assert!(found(&shared).contains("different changes under one message id: 1 (m1"));
}

#[test]
fn waiting_gives_up_after_its_limit_with_the_last_sight() {
    let (mut looks, started) = (0, Instant::now());
    let seen = try_until(Duration::from_millis(50), || {
        looks += 1;
        Err::<(), _>(format!("look {looks}"))
    });
    assert_eq!(seen, Err(format!("look {looks}")));
    assert!(looks > 1);
    assert!(started.elapsed() >= Duration::from_millis(50));
}

fn request(id: i64, message_id: &str) -> Received {
    Received {
        seq: 1,
        received_at_us: 0,
        method: "POST".into(),
        path: "/ok".into(),
        headers: [("webhook-id".to_owned(), message_id.to_owned())].into(),
        raw: format!("{{\"eventType\":\"table.recordInsert\",\"data\":[{{\"id\":{id}}}]}}"),
    }
}

/// The status of one POST made by hand.
fn post(receiver: &Receiver, path: &str, message_id: &str, body: &str) -> u16 {
    let mut stream = TcpStream::connect(("127.0.0.1", receiver.port())).unwrap();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nwebhook-id: {message_id}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut status_line = [0; 12];
    stream.read_exact(&mut status_line).unwrap();
    let code = std::str::from_utf8(&status_line[9..]).unwrap();
    code.parse().unwrap()
}
