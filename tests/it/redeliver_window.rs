//! Sending again what a webhook was sent in a span of time, whatever became of it.

use super::support::definitions::wait_idle;
use super::support::items::{
    attempts, cluster_with, insert, message, pause, resume, watch, COUNTERS, QUEUE,
};
use super::support::{Cluster, PATIENCE};

fn redeliver(cluster: &Cluster, arguments: &str) -> i64 {
    cluster.value(&format!("select webhook.redeliver('w', {arguments})"))
}

fn date_of(cluster: &Cluster, place: i64) -> String {
    let id = message(cluster, place);
    cluster.value(&format!(
        "select event_date::text from webhook.messages where message_id = '{id}'"
    ))
}

#[test]
fn a_window_sends_again_what_has_the_status_at_the_url() {
    let (cluster, receiver) = cluster_with("window", "1h");
    let (a, b) = ("/ok/a", "/ok/b");
    watch(&cluster, &receiver, "w", &[a, b], "max_attempts => 1");
    for id in 1..=3 {
        insert(&cluster, id..=id);
    }
    wait_idle(&cluster);
    receiver.behave(b, "/status/500");
    insert(&cluster, 4..=4);
    cluster.wait_for_text(PATIENCE, QUEUE, "0 0 0, 0 0 1");
    receiver.behave_normally(b);
    pause(&cluster, "w");
    insert(&cluster, 5..=5);
    cluster.wait_for_text(PATIENCE, QUEUE, "1 0 0, 1 0 1");
    assert_eq!(
        cluster.value::<i64>("select webhook.cancel_pending('w')"),
        2
    );
    resume(&cluster, "w");
    wait_idle(&cluster);
    insert(&cluster, 6..=6);
    wait_idle(&cluster);
    let calls = |path: &str| receiver.count(path).requests;
    assert_eq!((calls(a), calls(b)), (5, 5));

    // What failed, where it failed
    assert_eq!(redeliver(&cluster, "'-infinity'"), 1);
    wait_idle(&cluster);
    assert_eq!((calls(a), calls(b)), (5, 6));
    // A part of what was delivered, at one URL; until is not included
    let (since, until) = (date_of(&cluster, 2), date_of(&cluster, 4));
    let url = receiver.url(a);
    let arguments =
        format!("'{since}', '{until}', status => array['delivered'], outgoing_url => '{url}'");
    assert_eq!(redeliver(&cluster, &arguments), 2);
    wait_idle(&cluster);
    assert_eq!((calls(a), calls(b)), (7, 6));
    let again = message(&cluster, 2);
    let mut received = receiver.received_at(a);
    received.retain(|call| call.message_id() == again);
    assert_eq!(attempts(&received), [1, 1]);
    // What was canceled
    assert_eq!(
        redeliver(&cluster, "'-infinity', status => '{canceled}'"),
        2
    );
    wait_idle(&cluster);
    assert_eq!((calls(a), calls(b)), (8, 7));
    // Everything, from the first to the last; a message has both URLs by now
    assert_eq!(
        redeliver(
            &cluster,
            "'-infinity', status => '{failed,delivered,canceled}'"
        ),
        12
    );
    wait_idle(&cluster);
    assert_eq!((calls(a), calls(b)), (14, 13));
    assert_eq!(cluster.value::<String>(COUNTERS), "6 27 1");
    assert_eq!(cluster.value::<String>(QUEUE), "0 0 0, 0 0 0");

    // What waits is sent anyway.
    pause(&cluster, "w");
    insert(&cluster, 7..=7);
    cluster.wait_for_text(PATIENCE, QUEUE, "1 0 0, 1 0 0");
    let date = date_of(&cluster, 7);
    let all = format!("'{date}', status => '{{failed,delivered,canceled}}'");
    assert_eq!(redeliver(&cluster, &all), 0);
    // A URL that is newer gets nothing of before.
    let newer = receiver.url("/ok/newer");
    cluster.sql(&format!(
        "select webhook.update_webhook('w', outgoing_urls => array['{newer}'])"
    ));
    assert_eq!(redeliver(&cluster, &all.replace(&date, "-infinity")), 0);
}

#[test]
fn a_long_window_is_sent_in_parts_says_how_far_it_is_and_leaves_nothing_when_canceled() {
    const MESSAGES: i64 = 210_000;
    let (cluster, receiver) = cluster_with("window-long", "1h");
    watch(&cluster, &receiver, "w", &["/ok"], "log_level => 'none'");
    pause(&cluster, "w");
    insert(&cluster, 1..=MESSAGES);
    assert_eq!(
        cluster.value::<i64>("select webhook.cancel_pending('w')"),
        MESSAGES
    );
    let run = |script: &str| {
        let output = cluster
            .client_program("psql", "postgres")
            .args(["-X", "-q", "-A", "-t", "-c", script])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (String::from_utf8_lossy(&output.stdout).into_owned(), said)
    };
    let all = "select webhook.redeliver('w', '-infinity', status => '{canceled}')";
    let (rows, said) = run(&format!("begin; {all}; rollback"));
    assert_eq!(rows, format!("{MESSAGES}\n"), "{said}");
    let notices = said
        .lines()
        .filter(|line| line.ends_with(" calls queued so far"));
    assert_eq!(notices.count(), 2, "{said}");
    let (_, said) = run(&format!("set statement_timeout = '300ms'; {all}"));
    assert!(
        said.contains("canceling statement due to statement timeout"),
        "{said}"
    );
    assert_eq!(
        cluster.psql("select count(*) from webhook_internal.retry where state = 'waiting'"),
        "0\n"
    );
}

#[test]
fn what_is_no_window_is_refused() {
    let (cluster, receiver) = cluster_with("window-refused", "1h");
    watch(&cluster, &receiver, "w", &["/ok"], "");
    let mut session = cluster.connect("postgres");
    for (arguments, code) in [
        ("'w', null", "22023"),
        ("null, now()", "22023"),
        ("'nobody', now()", "42704"),
        ("'w', now(), status => '{}'", "22023"),
        ("'w', now(), status => '{pending}'", "22023"),
        ("'w', now(), status => null", "22023"),
        (
            "'w', now(), outgoing_url => 'https://nobody.example/'",
            "42704",
        ),
    ] {
        let statement = format!("select webhook.redeliver({arguments})");
        let refused = session.batch_execute(&statement).unwrap_err();
        assert_eq!(
            refused.code().map(|code| code.code()),
            Some(code),
            "{arguments}"
        );
    }
}
