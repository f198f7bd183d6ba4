//! What is sent, and what each answer means.

use std::time::SystemTime;

use super::super::call::Verdict;
use super::scripted::{wait_until, Receiver, OK};
use super::*;
use crate::core::policy::signing;

fn answering(answer: &'static str) -> Receiver {
    Receiver::start(move |connection| connection.answer_all(answer))
}

#[test]
fn a_call_carries_the_promised_headers_and_the_exact_body() {
    let receiver = Receiver::friendly();
    let user = PoolUser::local();
    let signer = Signer::new(&Secret::from_random([5; 32]));
    let old = Signer::new(&Secret::from_random([6; 32]));
    let gone = Signer::new(&Secret::from_random([7; 32]));
    let hour = Duration::from_secs(3600);
    let target = Arc::new(Target {
        headers: vec![("X-Api-Key".to_owned(), "k".to_owned())],
        signers: vec![
            (signer.clone(), None),
            (old.clone(), Some(SystemTime::now() + hour)),
            (gone, Some(SystemTime::now() - hour)),
        ],
        ..(*target(&format!("{}/ä?b=c", receiver.url()))).clone()
    });
    let body = "{\"name\":\"Zoë\"}".as_bytes();
    let outcome = user.call_with(&target, Arc::new(Text(body.to_vec())));

    assert_eq!(outcome.verdict, Verdict::Delivered, "{outcome:?}");
    assert_eq!(
        (outcome.http_code, outcome.response.as_str()),
        (Some(200), "ok")
    );
    assert_eq!((outcome.token, outcome.message_size), (1, body.len()));
    assert_eq!((outcome.detail, outcome.retry_after), (None, None));

    let received = receiver.received().remove(0);
    assert_eq!(received.body, body);
    let mut lines: Vec<_> = received.head.trim_end().lines().collect();
    assert_eq!(lines.remove(0), "POST /hook/%C3%A4?b=c HTTP/1.1");
    let header = |name| received.header(name).unwrap_or_else(|| panic!("no {name}"));
    let timestamp_s: u64 = header("webhook-timestamp").parse().unwrap();
    let called_at_s = outcome
        .called_at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    assert_eq!(timestamp_s, called_at_s.as_secs());
    let id = "00000000-0000-0000-0000-000000000007";
    let signature = signing::signature_header([&signer, &old], id, timestamp_s, body);
    let mut expected = [
        format!("host: {}", receiver.address),
        "content-type: application/json".to_owned(),
        format!("content-length: {}", body.len()),
        format!("user-agent: webhook_ext/{}", env!("CARGO_PKG_VERSION")),
        format!("webhook-id: {id}"),
        format!("webhook-timestamp: {timestamp_s}"),
        format!("webhook-signature: {signature}"),
        "webhook-call-id: 00000000-0000-0000-0000-000000000008".to_owned(),
        "webhook-attempt: 3".to_owned(),
        "x-api-key: k".to_owned(),
    ];
    lines.sort_unstable();
    expected.sort_unstable();
    assert_eq!(lines, expected);
}

#[test]
fn calls_to_one_receiver_share_a_connection() {
    let receiver = Receiver::friendly();
    let user = PoolUser::local();
    let target = target(&receiver.url());
    for _ in 0..20 {
        assert_eq!(user.call(&target).verdict, Verdict::Delivered);
    }
    assert_eq!((receiver.received().len(), receiver.connections()), (20, 1));
}

#[test]
fn a_redirect_is_a_failure_and_not_followed() {
    let elsewhere = Receiver::friendly();
    let location = elsewhere.url();
    for code in [301, 302, 303, 307, 308] {
        let answer =
            format!("HTTP/1.1 {code} Moved\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
        let receiver = Receiver::start(move |connection| connection.answer_all(&answer));
        let outcome = PoolUser::local().call(&target(&receiver.url()));
        assert_eq!(
            (outcome.verdict, outcome.http_code),
            (Verdict::Failed, Some(code))
        );
        assert!(
            detail(&outcome).contains("redirects are not followed"),
            "{outcome:?}"
        );
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[test]
fn cookies_are_not_kept() {
    let receiver =
        answering("HTTP/1.1 200 OK\r\nset-cookie: a=b; path=/\r\ncontent-length: 0\r\n\r\n");
    let user = PoolUser::local();
    for _ in 0..2 {
        user.call(&target(&receiver.url()));
    }
    assert!(receiver
        .received()
        .iter()
        .all(|request| request.header("cookie").is_none()));
}

#[test]
fn statuses_become_verdicts() {
    for (answer, verdict, detail_part) in [
        (
            "HTTP/1.1 204 No Content\r\n\r\n",
            Verdict::Delivered,
            "none",
        ),
        (
            "HTTP/1.1 202 Fine\r\ncontent-length: 0\r\n\r\n",
            Verdict::Delivered,
            "none",
        ),
        (
            "HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n",
            Verdict::Gone,
            "answered 410 Gone",
        ),
        (
            "HTTP/1.1 404 X\r\ncontent-length: 0\r\n\r\n",
            Verdict::Failed,
            "answered 404 Not Found",
        ),
        (
            "HTTP/1.0 500 X\r\n\r\noops",
            Verdict::Failed,
            "answered 500",
        ),
        (
            "HTTP/1.1 799 X\r\ncontent-length: 0\r\n\r\n",
            Verdict::Failed,
            "answered 799",
        ),
    ] {
        let receiver = Receiver::start(move |connection| {
            connection.request();
            let _ = connection.send(answer);
        });
        let outcome = PoolUser::local().call(&target(&receiver.url()));
        assert_eq!(outcome.verdict, verdict, "{answer}: {outcome:?}");
        assert!(
            detail(&outcome).contains(detail_part),
            "{answer}: {outcome:?}"
        );
    }
}

#[test]
fn retry_after_counts_on_429_and_503_only_and_is_clamped() {
    for (answer, expected_s) in [
        ("429 X\r\nretry-after: 120", Some(120)),
        ("503 X\r\nretry-after: 999999", Some(3600)),
        ("503 X\r\nretry-after: -1", None),
        ("503 X\r\nretry-after: soon", None),
        ("500 X\r\nretry-after: 120", None),
        ("200 X\r\nretry-after: 120", None),
    ] {
        let text = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n");
        let receiver = Receiver::start(move |connection| connection.answer_all(&text));
        let outcome = PoolUser::local().call(&target(&receiver.url()));
        let found = outcome.retry_after.map(|wait| wait.as_secs());
        assert_eq!(found, expected_s, "{answer}: {outcome:?}");
    }
}

#[test]
fn what_cannot_be_sent_is_said_and_nothing_is_dialled() {
    struct Broken;
    impl Payload for Broken {
        fn render(&self, _: &CallStamp, _: usize, _: &mut Vec<u8>) -> Result<usize, String> {
            Err("no such column".to_owned())
        }
    }
    let receiver = Receiver::friendly();
    let user = PoolUser::new(ClientConfig {
        max_message_size: 10,
        ..local_config()
    });
    let target = target(&receiver.url());
    let large = user.call_with(&target, Arc::new(Text(vec![b' '; 11])));
    assert_eq!((large.verdict, large.message_size), (Verdict::TooLarge, 11));
    assert_eq!(
        detail(&large),
        "the message has 11 bytes, webhook.max_message_size allows 10"
    );
    let broken = user.call_with(&target, Arc::new(Broken));
    assert_eq!(
        (broken.verdict, detail(&broken)),
        (Verdict::Unrenderable, "no such column")
    );
    assert_eq!(receiver.connections(), 0);
    assert_eq!(
        user.call_with(&target, Arc::new(Text(vec![b' '; 10])))
            .verdict,
        Verdict::Delivered
    );
}

#[test]
fn a_large_body_arrives_whole() {
    let receiver = Receiver::friendly();
    let body: Vec<u8> = (0..9_000_000_u32).map(|n| b'a' + (n % 26) as u8).collect();
    let outcome =
        PoolUser::local().call_with(&target(&receiver.url()), Arc::new(Text(body.clone())));
    assert_eq!(outcome.verdict, Verdict::Delivered, "{outcome:?}");
    assert!(receiver.received()[0].body == body, "the body differs");
}

#[test]
fn an_answer_before_the_end_of_a_large_body_is_still_read() {
    let receiver = Receiver::start(|connection| {
        let mut start = [0; 1000];
        connection.stream.read_exact(&mut start).unwrap();
        let _ = connection.send("HTTP/1.1 413 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        connection.hang();
    });
    let outcome = PoolUser::local().call_with(
        &target_within(&receiver.url(), Duration::from_secs(10)),
        Arc::new(Text(vec![b'x'; 9_000_000])),
    );
    assert_eq!(outcome.http_code, Some(413), "{outcome:?}");
}

#[test]
fn a_name_is_resolved() {
    let receiver = Receiver::friendly();
    let user = PoolUser::new(ClientConfig {
        policy: AddressPolicy::parse("127.0.0.0/8, ::1").unwrap(),
        ..local_config()
    });
    let url = format!("http://localhost:{}/", receiver.address.port());
    assert_eq!(user.call(&target(&url)).verdict, Verdict::Delivered);
    let unknown = user.call(&target("https://no-such-host.invalid/"));
    assert_eq!(unknown.verdict, Verdict::Failed);
    assert!(detail(&unknown).starts_with("host name no-such-host.invalid cannot be resolved"));
}

#[test]
fn a_chunked_answer_keeps_the_connection() {
    let receiver = Receiver::start(|connection| {
        connection.answer_all(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        );
    });
    let user = PoolUser::local();
    for _ in 0..2 {
        assert_eq!(user.call(&target(&receiver.url())).response, "abcde");
    }
    assert_eq!((receiver.received().len(), receiver.connections()), (2, 1));
}

#[test]
fn the_one_fresh_try_is_made_only_on_a_kept_connection() {
    let receiver = Receiver::start(|connection| {
        connection.request();
        if connection.number == 1 {
            let _ = connection.send(OK);
        }
    });
    let user = PoolUser::local();
    let target = target(&receiver.url());
    assert_eq!(user.call(&target).verdict, Verdict::Delivered);
    let closed = user.call(&target);
    assert_eq!(closed.verdict, Verdict::Failed);
    assert_eq!(
        detail(&closed),
        "the receiver closed the connection without an answer"
    );
    assert_eq!((receiver.received().len(), receiver.connections()), (2, 2));
}

proptest::proptest! {
    /// The URL library that checks and the one that dials see the same host.
    #[test]
    fn both_url_readers_agree(text in "\\PC{0,40}") {
        for url in [
            format!("http://{text}"),
            format!("https://h.example/{text}"),
            format!("https://h.example:8443/?{text}"),
        ] {
            let Ok(endpoint) = Endpoint::parse(&url) else { continue };
            let dialled: ureq::http::Uri = endpoint.as_str().parse().unwrap();
            proptest::prop_assert_eq!(dialled.host(), Some(endpoint.host()));
            let default = if dialled.scheme_str() == Some("https") { 443 } else { 80 };
            proptest::prop_assert_eq!(dialled.port_u16().unwrap_or(default), endpoint.port());
            proptest::prop_assert_eq!(dialled.to_string(), endpoint.as_str());
        }
    }
}

#[test]
fn a_request_is_noted_as_sent_before_its_answer_is_there() {
    let receiver = Receiver::start(|connection| {
        connection.request();
        connection.hang();
    });
    let user = PoolUser::local();
    let job = user.submit(&target(&receiver.url()), Arc::new(Text(b"{}".to_vec())));
    let (sent, begun) = (job.sent.unwrap(), Instant::now());
    wait_until("the request", PATIENCE, || receiver.received().len() == 1);
    wait_until("the note", PATIENCE, || sent.at().is_some());
    assert!(sent.at().unwrap() <= Instant::now() && sent.at().unwrap() + PATIENCE > begun);
    assert_eq!(user.pool.in_flight(), 1, "there is no answer");
}

#[test]
fn a_request_that_could_not_be_sent_is_not_noted() {
    let closed = Receiver::friendly().url().replace("127.0.0.1", "127.0.0.2");
    let user = PoolUser::local();
    let job = user.submit(&target(&closed), Arc::new(Text(b"{}".to_vec())));
    assert_eq!(user.wait_for(1)[0].verdict, Verdict::Failed);
    assert_eq!(job.sent.unwrap().at(), None);
}
