//! Receivers that hang, drip, flood, break off or stand where none may stand.

use std::net::{TcpListener, TcpStream};
use std::thread;

use super::super::call::Verdict;
use super::scripted::{Receiver, OK};
use super::*;

const SHORT: Duration = Duration::from_millis(300);

/// A deadline may be overrun by this on a busy machine.
const LATE: Duration = Duration::from_millis(700);

fn assert_timed_out(outcome: &Outcome, detail_part: &str) {
    assert_eq!(outcome.verdict, Verdict::Failed, "{outcome:?}");
    assert!(detail(outcome).contains("timed out"), "{outcome:?}");
    assert!(detail(outcome).contains(detail_part), "{outcome:?}");
    assert!(
        outcome.duration >= SHORT && outcome.duration < SHORT + LATE,
        "{outcome:?}"
    );
}

fn drip(bytes: &'static [u8]) -> impl Fn(&mut super::scripted::Connection) + Send + Sync {
    move |connection| {
        connection.request();
        for byte in bytes.iter().cycle() {
            if connection.send([*byte]).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn accept_then_nothing_ends_at_the_deadline() {
    let receiver = Receiver::start(|connection| connection.hang());
    let outcome = PoolUser::local().call(&target_within(&receiver.url(), SHORT));
    assert_timed_out(&outcome, "waiting for the answer");
}

#[test]
fn a_slow_loris_head_ends_at_the_deadline() {
    let receiver = Receiver::start(drip(
        b"HTTP/1.1 200 OK\r\nx: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy",
    ));
    let outcome = PoolUser::local().call(&target_within(&receiver.url(), SHORT));
    assert_timed_out(&outcome, "waiting for the answer");
}

#[test]
fn a_slow_loris_body_ends_at_the_deadline() {
    let receiver = Receiver::start(|connection| {
        connection.request();
        let _ = connection.send("HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n");
        drip(b"z")(connection);
    });
    let outcome = PoolUser::local().call(&target_within(&receiver.url(), SHORT));
    assert_timed_out(&outcome, "reading the answer");
    assert_eq!(outcome.http_code, Some(200));
}

/// A large body, and no signature: it would take a debug build longer to sign
/// than the deadline allows.
fn call_with_large_body(url: &str) -> Outcome {
    let target = Target {
        signers: vec![],
        ..(*target_within(url, SHORT)).clone()
    };
    PoolUser::local().call_with(&Arc::new(target), Arc::new(Text(vec![b'x'; 9_000_000])))
}

#[test]
fn a_receiver_that_never_reads_ends_at_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("http://{}/", listener.local_addr().unwrap());
    assert_timed_out(&call_with_large_body(&silent), "sending");
}

#[test]
fn a_receiver_that_sips_ends_at_the_deadline() {
    let receiver = Receiver::start(|connection| {
        let mut sip = [0; 4096];
        while connection
            .stream
            .read(&mut sip)
            .is_ok_and(|bytes| bytes > 0)
        {
            thread::sleep(Duration::from_millis(5));
        }
    });
    assert_timed_out(&call_with_large_body(&receiver.url()), "sending");
}

/// A listener whose queue is full drops what knocks, as a firewall does.
#[test]
fn a_connect_black_hole_ends_at_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
        waiting.push(stream);
        assert!(waiting.len() < 10_000, "the queue does not fill");
    }
    let outcome = PoolUser::local().call(&target_within(&format!("http://{address}/"), SHORT));
    assert_timed_out(&outcome, "connecting");
}

#[test]
fn an_endless_body_is_cut_and_its_connection_dropped() {
    let receiver = Receiver::start(|connection| {
        while connection.request().is_some() {
            let _ = connection.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
            while connection.send("4\r\nöö\r\n").is_ok() {}
        }
    });
    let user = PoolUser::local();
    for _ in 0..2 {
        let outcome = user.call(&target(&receiver.url()));
        assert_eq!(outcome.verdict, Verdict::Delivered, "{outcome:?}");
        assert_eq!(outcome.response, "ö".repeat(500));
    }
    assert_eq!(receiver.connections(), 2);
}

#[test]
fn an_answer_of_just_the_kept_size_keeps_the_connection() {
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{}",
        "a".repeat(1000)
    );
    let receiver = Receiver::start(move |connection| connection.answer_all(&answer));
    let user = PoolUser::local();
    for _ in 0..2 {
        assert_eq!(user.call(&target(&receiver.url())).response.len(), 1000);
    }
    assert_eq!(receiver.connections(), 1);
}

#[test]
fn floods_before_the_body_are_bounded() {
    for (repeated, detail_part) in [
        ("x-flood: yes\r\n", "headers"),
        (
            "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n",
            "the answer has no end",
        ),
        ("HTTP/1.1 100 Continue\r\n\r\n", "the answer has no end"),
    ] {
        let receiver = Receiver::start(move |connection| {
            connection.request();
            if repeated.starts_with('x') {
                let _ = connection.send("HTTP/1.1 200 OK\r\n");
            }
            while connection.send(repeated.repeat(50)).is_ok() {}
        });
        let outcome = PoolUser::local().call(&target(&receiver.url()));
        assert_eq!(outcome.verdict, Verdict::Failed, "{outcome:?}");
        assert!(
            detail(&outcome).contains(detail_part),
            "{repeated}: {outcome:?}"
        );
        assert!(outcome.duration < PATIENCE / 2, "{outcome:?}");
    }
}

#[test]
fn nonsense_is_a_failure_with_a_reason() {
    for answer in [
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 7\r\n\r\nhello..",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nabc\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel",
        "HTTP/1.1 2",
        "",
    ] {
        let receiver = Receiver::start(move |connection| {
            connection.request();
            let _ = connection.send(answer);
        });
        let outcome = PoolUser::local().call(&target(&receiver.url()));
        assert_eq!(outcome.verdict, Verdict::Failed, "{answer:?}: {outcome:?}");
        assert_ne!(detail(&outcome), "none", "{answer:?}");
        assert!(outcome.duration < PATIENCE / 2, "{answer:?}: {outcome:?}");
    }
}

#[test]
fn length_and_chunked_at_once_end_in_bounded_text() {
    let receiver = Receiver::start(|connection| {
        connection.request();
        let _ = connection.send(
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        );
    });
    let outcome = PoolUser::local().call(&target(&receiver.url()));
    assert!(outcome.response.len() <= 5, "{outcome:?}");
}

#[test]
fn nul_and_bad_utf8_become_text() {
    let receiver = Receiver::start(|connection| {
        connection.request();
        let _ = connection.send(b"HTTP/1.1 500 X\r\ncontent-length: 4\r\n\r\na\0\xffb");
    });
    let outcome = PoolUser::local().call(&target(&receiver.url()));
    assert_eq!(outcome.response, "a\u{fffd}\u{fffd}b");
}

#[test]
fn a_compressed_answer_is_not_unpacked() {
    let receiver = Receiver::start(|connection| {
        connection.answer_all(
            "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc",
        );
    });
    assert_eq!(
        PoolUser::local().call(&target(&receiver.url())).response,
        "abc"
    );
}

#[test]
fn refused_and_reset_connections_say_so() {
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let refused = PoolUser::local().call(&target(&format!("http://{closed}/")));
    assert_eq!(detail(&refused), "connection refused");

    // Closing with unread input resets.
    let receiver = Receiver::start(|connection| {
        let mut some = [0; 10];
        let _ = connection.stream.read_exact(&mut some);
    });
    let reset = PoolUser::local().call(&target(&receiver.url()));
    assert_eq!(reset.verdict, Verdict::Failed, "{reset:?}");
    assert!(detail(&reset).starts_with("the receiver"), "{reset:?}");
    assert_eq!(receiver.connections(), 1);
}

#[test]
fn addresses_outside_the_policy_are_never_dialled() {
    let receiver = Receiver::friendly();
    let port = receiver.address.port();
    let closed = ClientConfig {
        policy: AddressPolicy::default(),
        ..local_config()
    };
    let outcome = PoolUser::new(closed).call(&target(&receiver.url()));
    assert_eq!(outcome.verdict, Verdict::Failed);
    assert_eq!(
        detail(&outcome),
        "address 127.0.0.1 is not allowed: loopback (webhook.allowed_networks)"
    );
    let own = ClientConfig {
        refused_socket: port,
        ..local_config()
    };
    let outcome = PoolUser::new(own).call(&target(&receiver.url()));
    assert_eq!(
        detail(&outcome),
        format!("127.0.0.1:{port} is this PostgreSQL server")
    );
    let public = PoolUser::local().call(&target("http://8.8.8.8/"));
    assert!(
        detail(&public).starts_with("plain http to 8.8.8.8 is not allowed"),
        "{public:?}"
    );
    assert_eq!(receiver.connections(), 0);
}

/// A receiver that closes after its answer without saying so, and a pause
/// either too short to notice or long enough to look first.
#[test]
fn a_connection_closed_between_two_calls_gets_one_fresh_try() {
    for pause in [Duration::ZERO, Duration::from_millis(30)] {
        let receiver = Receiver::start(|connection| {
            connection.request();
            let _ = connection.send(OK);
        });
        let user = PoolUser::local();
        let target = target(&receiver.url());
        for _ in 0..10 {
            let outcome = user.call(&target);
            assert_eq!(outcome.verdict, Verdict::Delivered, "{outcome:?}");
            thread::sleep(pause);
        }
        assert_eq!(
            (receiver.received().len(), receiver.connections()),
            (10, 10)
        );
    }
}

/// It reads every second request and closes without an answer: the throttle has counted that request.
#[test]
fn a_throttled_call_on_a_closed_connection_is_not_sent_twice() {
    let receiver = Receiver::start(|connection| {
        connection.request();
        let _ = connection.send(OK);
        connection.request();
    });
    let user = PoolUser::local();
    let target = target(&receiver.url());
    let verdicts: Vec<Verdict> = (0..6)
        .map(|_| user.call_throttled(&target).verdict)
        .collect();
    let (sent, closed) = (Verdict::Delivered, Verdict::NotAttempted);
    assert_eq!(verdicts, [sent, closed, sent, closed, sent, closed]);
    assert_eq!((receiver.received().len(), receiver.connections()), (6, 3));
    // Without a throttle it is sent again.
    assert_eq!(user.call(&target).verdict, sent);
    assert_eq!(user.call(&target).verdict, sent);
    assert_eq!(receiver.received().len(), 9);
}

#[test]
fn a_receiver_that_speaks_out_of_turn_is_connected_to_again() {
    let receiver = Receiver::start(|connection| {
        connection.request();
        let _ = connection.send(format!("{OK}HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n"));
        connection.hang();
    });
    let user = PoolUser::local();
    for _ in 0..3 {
        let outcome = user.call(&target(&receiver.url()));
        assert_eq!(outcome.http_code, Some(200), "{outcome:?}");
    }
    assert_eq!(receiver.connections(), 3);
}
