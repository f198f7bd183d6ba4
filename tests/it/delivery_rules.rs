//! What a webhook's own settings and a receiver's answer make of a call.

use std::ops::Range;
use std::time::Duration;

use super::support::definitions::{create_event, create_webhook, records_at, wait_idle};
use super::support::stalls::Stalls;
use super::support::{
    ready_cluster_with, signature, stalls, Cluster, Received, Receiver, PATIENCE,
};

/// A cluster with a table `items`. What fails is not repeated before the test is over.
fn with_items(name: &str) -> (Cluster, Receiver) {
    with_items_and(name, "webhook.retry_schedule", "1h")
}

fn with_items_and(name: &str, setting: &str, value: &str) -> (Cluster, Receiver) {
    let (cluster, receiver) = ready_cluster_with(name, &[(setting, value)]);
    cluster.sql("create table items (id integer, pad text)");
    (cluster, receiver)
}

/// A webhook with these URLs that gets each INSERT into `items`, in order; returns its secret.
fn watch(
    cluster: &Cluster,
    receiver: &Receiver,
    name: &str,
    paths: &[&str],
    options: &str,
) -> String {
    let urls: Vec<String> = paths.iter().map(|path| receiver.url(path)).collect();
    let secret = create_webhook(cluster, name, &urls, options);
    create_event(
        cluster,
        name,
        "items",
        "Insert",
        "payload_fields => array['id']",
    );
    secret
}

fn only(mut received: Vec<Received>) -> Received {
    assert_eq!(received.len(), 1, "{received:#?}");
    received.remove(0)
}

#[test]
fn each_kind_of_answer_is_judged_and_logged_within_bounds() {
    let (cluster, receiver) = with_items("answers");
    let redirect = format!("/redirect?to={}", receiver.url("/ok/elsewhere"));
    let paths = [
        "/status/204",
        "/status/404?body=not%20here",
        &redirect,
        "/large/100000",
        "/binary",
        "/status/299",
        "/garbage",
    ];
    watch(&cluster, &receiver, "answers", &paths, "");
    cluster.sql("insert into items values (1)");
    wait_idle(&cluster);
    assert_eq!(receiver.count("/ok/elsewhere").requests, 0, "not followed");
    for path in paths {
        only(receiver.received_at(path));
    }
    let logged = cluster.psql(&format!(
        "select replace(split_part(outgoing_url, '?', 1), '{}', ''), status, http_code, detail,
                length(http_response), left(http_response, 8)
         from webhook.calls order by outgoing_url collate \"C\"",
        receiver.url("")
    ));
    let expected = "/binary|Success|200||22|before\u{fffd}a\n\
        /garbage|Failure|||\n\
        /large/100000|Success|200||16384|abcdefgh\n\
        /redirect|Failure|302|answered 302 Found; redirects are not followed||\n\
        /status/204|Success|204|||\n\
        /status/299|Success|299|||\n\
        /status/404|Failure|404|answered 404 Not Found|8|not here\n";
    let is_about = |line: &&str, path: &str| line.starts_with(path);
    let (found, wanted): (Vec<&str>, Vec<&str>) =
        (logged.lines().collect(), expected.lines().collect());
    assert_eq!(found.len(), wanted.len(), "{logged}");
    for (found, wanted) in found.iter().zip(wanted) {
        if is_about(&wanted, "/garbage") {
            assert!(found.starts_with("/garbage|Failure||"), "{found}");
            assert!(found.contains("not valid HTTP"), "{found}");
        } else {
            assert_eq!(*found, wanted);
        }
    }
}

#[test]
fn a_message_over_the_limit_fails_at_once_with_its_size_and_is_not_sent() {
    let (cluster, receiver) = with_items_and("oversize", "webhook.max_message_size", "2kB");
    create_webhook(
        &cluster,
        "large",
        &[receiver.url("/ok")],
        "max_in_flight => 1",
    );
    create_event(&cluster, "large", "items", "Insert", "");
    cluster.sql("insert into items values (1, 'small')");
    cluster.sql("insert into items values (2, repeat('x', 5000))");
    cluster.sql("insert into items values (3, 'small')");
    wait_idle(&cluster);
    assert_eq!(
        records_at(&receiver, "/ok"),
        [
            r#"Insert {"id":1,"pad":"small"}"#,
            r#"Insert {"id":3,"pad":"small"}"#
        ]
    );
    let logged = cluster.psql(
        "select status, attempt, http_code is null, message_size between 5000 and 6000, detail
         from webhook.calls where status = 'Failure'",
    );
    assert!(logged.starts_with("Failure|1|t|t|"), "{logged}");
    assert!(logged.contains("webhook.max_message_size"), "{logged}");
    assert_eq!(logged.lines().count(), 1, "{logged}");
    assert_eq!(
        cluster.psql("select status from webhook.messages order by event_date"),
        "delivered\nfailed\ndelivered\n"
    );
    assert_eq!(
        cluster.psql("select pending, retrying, failed, state from webhook.queue"),
        "0|0|1|active\n"
    );
}

#[test]
fn retry_after_holds_the_whole_url_and_no_other() {
    let (cluster, receiver) = with_items_and("retry_after", "webhook.retry_schedule", "100ms");
    let paths = ["/ok/429", "/ok/503", "/ok/other"];
    watch(&cluster, &receiver, "held", &paths, "max_in_flight => 1");
    receiver.behave_for("/ok/429", "/status/429?retry-after=3", 1);
    receiver.behave_for("/ok/503", "/status/503?retry-after=3", 1);
    cluster.sql("insert into items values (1)");
    for path in paths {
        receiver.wait_for(PATIENCE, path, 1);
    }
    cluster.sql("insert into items values (2), (3)");
    receiver.wait_for(PATIENCE, "/ok/other", 3);
    for path in ["/ok/429", "/ok/503"] {
        receiver.wait_for(PATIENCE, path, 4);
        let received = receiver.received_at(path);
        let held_us = received[1].received_at_us - received[0].received_at_us;
        assert!(held_us >= 3_000_000, "{path} was held for {held_us} us");
    }

    // For how long exactly, the queue says; the ends of calls, the log. And nobody else waits.
    for path in ["/ok/429", "/ok/503"] {
        let status = path.rsplit('/').next().expect("split gives at least one");
        receiver.behave_for(path, &format!("/status/{status}?retry-after=600"), 1);
    }
    cluster.sql("insert into items values (4)");
    let held = "select string_agg(state, ', ' order by outgoing_url) from webhook.queue";
    cluster.wait_for_text(PATIENCE, held, "backing_off, backing_off, active");
    wait_idle(&cluster);
    let holds = cluster.psql(
        "select http_code, q.next_attempt_at - c.called_at >= interval '9 min 59 s',
                q.next_attempt_at - clock_timestamp() <= interval '10 min'
         from webhook.queue q
         join webhook.calls c on c.outgoing_url = q.outgoing_url and c.status = 'Failure'
         where c.called_at = (select max(m.called_at) from webhook.calls m
                              where m.outgoing_url = c.outgoing_url)
         order by http_code",
    );
    assert_eq!(holds, "429|t|t\n503|t|t\n");
    assert_eq!(receiver.count("/ok/other").requests, 4);
}

#[test]
fn a_paused_webhook_sends_nothing_and_loses_nothing() {
    let (cluster, receiver) = with_items("pause");
    watch(
        &cluster,
        &receiver,
        "paused",
        &["/ok"],
        "max_in_flight => 1",
    );
    watch(&cluster, &receiver, "other", &["/ok/other"], "");
    cluster.sql("insert into items values (1)");
    wait_idle(&cluster);
    // Two commits with nothing between them: the second must not slip through.
    let mut session = cluster.connect("postgres");
    session
        .batch_execute("select webhook.pause_webhook('paused')")
        .unwrap();
    session
        .batch_execute("insert into items select n from generate_series(2, 3000) n")
        .unwrap();
    wait_idle(&cluster);
    assert_eq!(receiver.count("/ok/other").requests, 3000);
    assert_eq!(receiver.received_at("/ok").len(), 1);
    assert_eq!(
        cluster.psql(
            "select w.status, q.state, q.pending, q.oldest_pending is not null
             from webhook.queue q join webhook.webhooks w on w.id = q.webhook_id
             where w.name = 'paused'"
        ),
        "Paused|paused|2999|t\n"
    );
    cluster.sql("insert into items values (3001); select webhook.resume_webhook('paused')");
    cluster.sql("insert into items values (3002)");
    wait_idle(&cluster);
    let expected: Vec<String> = (1..=3002)
        .map(|id| format!(r#"Insert {{"id":{id}}}"#))
        .collect();
    assert!(
        records_at(&receiver, "/ok") == expected,
        "each message once, and in order"
    );
}

#[test]
fn switching_delivery_off_holds_everything_until_it_is_on_again() {
    let (cluster, receiver) = with_items("delivery_off");
    watch(&cluster, &receiver, "held", &["/ok"], "max_in_flight => 1");
    watch(&cluster, &receiver, "probe", &["/ok/probe"], "");
    cluster.sql("insert into items values (1)");
    wait_idle(&cluster);
    cluster.configure("webhook.delivery", "off");
    cluster.reload();
    cluster.wait_for_text(PATIENCE, "show webhook.delivery", "off");
    // It hears of it between two looks at the outbox: what it reads after this row it holds.
    let unseen = "select count(*)::text from webhook_internal.unseen";
    cluster.sql("insert into items values (2)");
    cluster.wait_for_text(PATIENCE, unseen, "0");
    cluster.sql("insert into items select n from generate_series(3, 100) n");
    cluster.wait_for_text(PATIENCE, unseen, "0");
    let least: i64 = cluster.value("select min(pending) from webhook.queue");
    assert!((98..=99).contains(&least), "{least} are held");
    let sent = receiver.received();
    assert!(sent.len() <= 2 * 2, "{sent:#?}");
    cluster.configure("webhook.delivery", "on");
    cluster.reload();
    cluster.sql("insert into items values (101)");
    for path in ["/ok", "/ok/probe"] {
        receiver.wait_for(PATIENCE, path, 101);
    }
    wait_idle(&cluster);
    for path in ["/ok", "/ok/probe"] {
        assert_eq!(receiver.received_at(path).len(), 101);
    }
}

#[test]
fn the_log_level_chooses_what_is_logged_and_counters_count_all_the_same() {
    let (cluster, receiver) = with_items("log_level");
    for level in ["all", "errors", "none"] {
        watch(
            &cluster,
            &receiver,
            level,
            &[&format!("/ok/{level}"), &format!("/status/400/{level}")],
            &format!("log_level => '{level}'"),
        );
    }
    cluster.sql("insert into items values (1), (2)");
    wait_idle(&cluster);
    assert_eq!(
        cluster.psql(
            "select webhook_name, status, count(*) from webhook.calls group by 1, 2 order by 1, 2"
        ),
        "all|Failure|2\nall|Success|2\nerrors|Failure|2\n"
    );
    assert_eq!(
        cluster.psql("select name, messages, calls, errors from webhook.webhooks order by name"),
        "all|2|4|2\nerrors|2|4|2\nnone|2|4|2\n"
    );
}

#[test]
fn a_call_carries_the_webhooks_headers_and_ends_at_its_timeout() {
    let (cluster, receiver) = with_items("timeout");
    watch(
        &cluster,
        &receiver,
        "headed",
        &["/ok", "/slow/20000", "/hang", "/drip-body"],
        r#"timeout_ms => 2000, headers => '{"Authorization": "Bearer abc", "x-tenant": "42"}'"#,
    );
    stalls::watched(|stalls| {
        cluster.sql("insert into items values (1)");
        wait_idle(&cluster);
        assert_failures_took(&cluster, stalls, 2000..4000);
    });
    let call = only(receiver.received_at("/ok"));
    assert_eq!(call.header("authorization"), "Bearer abc");
    assert_eq!(call.header("x-tenant"), "42");
    assert!(call.header("user-agent").starts_with("webhook_ext/"));
    let logged = cluster.psql(
        "select regexp_replace(outgoing_url, '.*:\\d+', ''), status, http_code, detail
         from webhook.calls where status = 'Failure' order by outgoing_url",
    );
    assert_eq!(
        logged,
        "/drip-body|Failure|200|timed out while reading the answer\n\
         /hang|Failure||timed out while waiting for the answer\n\
         /slow/20000|Failure||timed out while waiting for the answer\n"
    );
}

/// By the log, less what the machine took.
fn assert_failures_took(cluster: &Cluster, stalls: &Stalls, expected_ms: Range<u64>) {
    let failures = "select (extract(epoch from called_at) * 1000000)::bigint, duration_ms::bigint
                    from webhook.calls where status = 'Failure'";
    for call in cluster.connect("postgres").query(failures, &[]).unwrap() {
        let (from_us, took_ms) = (call.get::<_, i64>(0) as u64, call.get::<_, i64>(1) as u64);
        let stood_still = stalls.between(from_us, from_us + took_ms * 1000);
        let least = took_ms >= expected_ms.start;
        let most =
            Duration::from_millis(took_ms) < Duration::from_millis(expected_ms.end) + stood_still;
        assert!(
            least && most,
            "{took_ms} ms, {stood_still:?} of which nothing ran"
        );
    }
}

#[test]
fn during_the_overlap_both_secrets_verify_and_afterwards_only_the_new_one() {
    let (cluster, receiver) = with_items("overlap");
    let old = watch(&cluster, &receiver, "signed", &["/ok"], "");
    let call_after = |id: i32| {
        cluster.sql(&format!("insert into items values ({id})"));
        wait_idle(&cluster);
        receiver.received_at("/ok").pop().expect("a call came")
    };
    let signatures = |call: &Received| call.header("webhook-signature").split(' ').count();
    let before = call_after(1);
    assert_eq!(signatures(&before), 1);
    assert_eq!(signature::verify(&before, &old), Ok(()));

    let new: String =
        cluster.value("select webhook.regenerate_secret('signed', overlap => '1 hour')");
    let during = call_after(2);
    assert_eq!(signatures(&during), 2);
    assert_eq!(signature::verify(&during, &old), Ok(()));
    assert_eq!(signature::verify(&during, &new), Ok(()));
    let token: String = cluster.value("select token from webhook.reveal_secret('signed') limit 1");
    assert_eq!(during.body()["secret"], token);

    // The hour is nearly over: the worker must see by itself that it is.
    cluster.sql(
        "update webhook.secret_def set expires_at = clock_timestamp() + interval '2 seconds'
         where expires_at is not null",
    );
    cluster.wait_for_text(
        PATIENCE,
        "select count(*)::text from webhook.reveal_secret('signed')",
        "1",
    );
    let after = call_after(3);
    assert_eq!(signatures(&after), 1);
    assert!(signature::verify(&after, &old).is_err());
    assert_eq!(signature::verify(&after, &new), Ok(()));

    let last: String = cluster.value("select webhook.regenerate_secret('signed', overlap => '0')");
    let at_once = call_after(4);
    assert_eq!(signatures(&at_once), 1);
    assert_eq!(signature::verify(&at_once, &last), Ok(()));
}
