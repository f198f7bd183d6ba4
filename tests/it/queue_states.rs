//! `webhook.queue` says of each URL what is so now: how its calls end, since when, and when
//! something may be sent next.

use std::time::Duration;

use super::support::items::{cluster_with, insert, pause, resume, stop_worker, watch};
use super::support::{Cluster, PATIENCE};

const STATES: &str =
    "select string_agg(concat_ws(' ', webhook_name, state, pending, retrying, failed), ', '
                                        order by webhook_name)
                      from webhook.queue";

/// Wait for nothing but the moment.
const SHORTLY: Duration = Duration::from_secs(20);

fn next_attempts(cluster: &Cluster) -> String {
    cluster
        .psql("select webhook_name from webhook.queue where next_attempt_at is not null order by 1")
}

fn health(cluster: &Cluster, webhook: &str) -> String {
    cluster.psql(&format!(
        "select q.failing_since = (select min(c.called_at) from webhook.calls c
                                   where c.outgoing_url = q.outgoing_url and c.status = 'Failure'),
                q.last_error_at = (select max(c.called_at) from webhook.calls c
                                   where c.outgoing_url = q.outgoing_url and c.status = 'Failure'),
                q.last_success_at = (select max(c.called_at) from webhook.calls c
                                     where c.outgoing_url = q.outgoing_url and c.status = 'Success'),
                q.last_error
         from webhook.queue q where q.webhook_name = '{webhook}'"
    ))
}

#[test]
fn a_url_that_fails_says_since_when_and_is_called_next_when_its_retry_is_due() {
    let (cluster, receiver) = cluster_with("queue-failing", "1h");
    watch(&cluster, &receiver, "bad", &["/ok/bad"], "");
    watch(&cluster, &receiver, "good", &["/ok/good"], "");
    assert_eq!(health(&cluster, "bad"), "|||\n");
    receiver.behave("/ok/bad", "/status/500");
    insert(&cluster, 1..=1);
    cluster.wait_for_text(PATIENCE, STATES, "bad failing 0 1 0, good active 0 0 0");
    let error = "answered 500 Internal Server Error";
    assert_eq!(health(&cluster, "bad"), format!("t|t||{error}\n"));
    assert_eq!(health(&cluster, "good"), "||t|\n");
    let due = "select (next_attempt_at = (select next_at from webhook_internal.retry))::text
               from webhook.queue where webhook_name = 'bad'";
    cluster.wait_for_text(PATIENCE, due, "true");
    assert_eq!(next_attempts(&cluster), "bad\n");

    // Back-off and probes end long before the retries are due.
    for id in 2..=5 {
        insert(&cluster, id..=id);
        receiver.wait_for(PATIENCE, "/ok/good", id.unsigned_abs());
        receiver.wait_for(PATIENCE, "/ok/bad", id.unsigned_abs());
    }
    cluster.wait_for_text(PATIENCE, STATES, "bad backing_off 0 5 0, good active 0 0 0");
    cluster.wait_for_text(
        SHORTLY,
        "select coalesce(bool_and(q.last_error_at + interval '3 s' < clock_timestamp()), false)::text
         from webhook.queue q where webhook_name = 'bad'",
        "true",
    );
    let due = "select (next_attempt_at = (select min(next_at) from webhook_internal.retry))::text
               from webhook.queue where webhook_name = 'bad'";
    assert_eq!(cluster.value::<String>(due), "true");
    assert_eq!(health(&cluster, "bad"), format!("t|t||{error}\n"));

    // The next worker knows it, too.
    stop_worker(&cluster);
    cluster.sql("select webhook.start_worker()");
    insert(&cluster, 6..=6);
    cluster.wait_for_text(PATIENCE, STATES, "bad failing 0 6 0, good active 0 0 0");
    assert_eq!(health(&cluster, "bad"), format!("t|t||{error}\n"));
    assert_eq!(health(&cluster, "good"), "||t|\n");

    // It is over with the first success, whatever still waits.
    receiver.behave_normally("/ok/bad");
    cluster.sql("select webhook.test_webhook('bad')");
    cluster.wait_for_text(PATIENCE, STATES, "bad active 0 6 0, good active 0 0 0");
    assert_eq!(health(&cluster, "bad"), "|t|t|\n");
}

#[test]
fn nothing_is_announced_where_somebody_has_to_do_something_first() {
    let (cluster, receiver) = cluster_with("queue-held", "1h");
    watch(&cluster, &receiver, "gone", &["/status/410"], "");
    watch(&cluster, &receiver, "held", &["/status/500"], "");
    watch(&cluster, &receiver, "late", &["/status/501"], "");
    insert(&cluster, 1..=1);
    cluster.wait_for_text(
        PATIENCE,
        STATES,
        "gone disabled 0 1 0, held failing 0 1 0, late failing 0 1 0",
    );
    assert_eq!(next_attempts(&cluster), "held\nlate\n");
    pause(&cluster, "held");
    cluster.wait_for_text(
        PATIENCE,
        STATES,
        "gone disabled 0 1 0, held paused 0 1 0, late failing 0 1 0",
    );
    assert_eq!(next_attempts(&cluster), "late\n");

    let state = "select string_agg(state, ' ' order by webhook_name) from webhook.queue";
    cluster.configure("webhook.delivery", "off");
    cluster.reload();
    cluster.wait_for_text(PATIENCE, state, "disabled paused delivery_off");
    assert_eq!(next_attempts(&cluster), "");
    cluster.configure("webhook.delivery", "on");
    cluster.reload();
    cluster.wait_for_text(PATIENCE, state, "disabled paused failing");

    stop_worker(&cluster);
    assert_eq!(cluster.value::<String>(state), "disabled paused no_worker");
    assert_eq!(next_attempts(&cluster), "");
    resume(&cluster, "held");
    assert_eq!(
        cluster.value::<String>(state),
        "disabled no_worker no_worker"
    );
}

#[test]
fn a_url_whose_outcomes_a_lock_keeps_from_being_written_is_blocked_while_it_lasts() {
    let (cluster, receiver) = cluster_with("queue-locked", "1s, 1h");
    watch(&cluster, &receiver, "w", &["/status/500"], "");
    insert(&cluster, 1..=1);
    cluster.wait_for_text(PATIENCE, STATES, "w failing 0 1 0");
    let mut other = cluster.connect("postgres");
    other
        .batch_execute("begin; select from webhook_internal.retry for update")
        .unwrap();
    cluster.wait_for_text(PATIENCE, STATES, "w blocked 0 1 0");
    assert_eq!(
        cluster.psql("select last_error, next_attempt_at is null from webhook.queue"),
        "a lock of another session keeps the outcomes of its calls from being written: \
         webhook.worker.detail says whose|t\n"
    );
    other.batch_execute("rollback").unwrap();
    cluster.wait_for_text(PATIENCE, STATES, "w failing 0 1 0");
    assert_eq!(receiver.count("/status/500").requests, 2);
}

/// The server copy with fault hooks keeps two idle URLs in memory.
#[test]
fn since_when_a_url_fails_is_known_after_it_was_forgotten() {
    let (cluster, receiver) = cluster_with("queue-forgotten", "1h");
    let names = ["a", "b", "c", "d", "e"];
    for name in names {
        cluster.sql(&format!("create table items_{name} (id integer)"));
        cluster.sql(&format!(
            "select webhook.create_webhook('{name}', array['{}'], max_attempts => 1);
             select webhook.create_event('{name}', 'items_{name}', 'table.recordInsert')",
            receiver.url(&format!("/ok/{name}"))
        ));
    }
    let mut calls = 0;
    let mut call = |names: &[&str]| {
        for name in names {
            cluster.sql(&format!("insert into items_{name} values (1)"));
        }
        calls += names.len() as u64;
        receiver.wait_for(PATIENCE, "/ok", calls);
        cluster.wait_for_text(
            PATIENCE,
            "select (sum(calls) = sum(messages))::text from webhook.webhooks",
            "true",
        );
    };
    receiver.behave("/ok/a", "/status/500");
    call(&["a"]);
    call(&names[1..]);
    receiver.behave("/ok/b", "/status/500");
    call(&["a", "b"]);
    assert_eq!(
        health(&cluster, "a"),
        "t|t||answered 500 Internal Server Error\n"
    );
    assert_eq!(
        health(&cluster, "b"),
        "t|t|t|answered 500 Internal Server Error\n"
    );
}

#[test]
fn the_condition_of_an_event_names_the_columns_of_now() {
    let (cluster, receiver) = cluster_with("queue-condition", "1h");
    watch(&cluster, &receiver, "w", &["/ok"], "");
    let event: String = cluster.value(
        "select id from webhook.create_event('w', 'items', 'table.recordUpdate', condition => 'new.id > 5')",
    );
    cluster.sql("alter table items rename column id to \"Number\"");
    let shown = format!("select condition from webhook.events where id = '{event}'");
    assert_eq!(cluster.value::<String>(&shown), "new.\"Number\" > 5");
    assert_eq!(
        cluster.psql(&format!(
            "select detail from webhook.explain_event('{event}') where check_name = 'condition'"
        )),
        "only a change for which this is true makes a message: new.\"Number\" > 5\n"
    );
    // What is shown can be given back.
    let again = cluster.value::<String>(&shown);
    cluster.sql(&format!(
        "select webhook.update_event('{event}', condition => '{again}');
         insert into items values (1); update items set \"Number\" = 6"
    ));
    assert_eq!(
        cluster.psql(&format!(
            "select messages from webhook.events where id = '{event}'"
        )),
        "1\n"
    );
}

/// Notices and rows.
fn said(cluster: &Cluster, statement: &str) -> String {
    let output = cluster
        .client_program("psql", "postgres")
        .args(["-X", "-q", "-A", "-t", "-c", statement])
        .output()
        .unwrap();
    let (notices, rows) = (output.stderr, output.stdout);
    String::from_utf8([notices, rows].concat()).unwrap()
}

#[test]
fn a_wait_that_leaves_retries_for_later_says_how_many_and_when() {
    let (cluster, receiver) = cluster_with("queue-wait", "1h");
    watch(&cluster, &receiver, "good", &["/ok"], "");
    insert(&cluster, 1..=1);
    assert_eq!(cluster.psql("select webhook.wait_idle()"), "t\n");
    watch(
        &cluster,
        &receiver,
        "bad",
        &["/status/500/a", "/status/500/b"],
        "",
    );
    insert(&cluster, 2..=3);
    cluster.wait_for_text(
        PATIENCE,
        "select string_agg(retrying::text, ' ' order by outgoing_url) from webhook.queue",
        "0 2 2",
    );
    let said = said(&cluster, "select webhook.wait_idle()");
    let next: String = cluster.value(
        "select min(next_at)::timestamptz(0)::text from webhook_internal.retry where state = 'waiting'",
    );
    assert_eq!(
        said,
        format!("NOTICE:  4 calls wait for a retry, the next one is due at {next}\nt\n")
    );
}

#[test]
fn retry_now_ends_what_a_receiver_that_is_back_would_wait_for() {
    let (cluster, receiver) = cluster_with("retry-now", "1h");
    let paths = ["/ok/down", "/ok/other"];
    watch(&cluster, &receiver, "w", &paths, "");
    receiver.behave("/ok/down", "/status/503?retry-after=600");
    receiver.behave("/ok/other", "/status/500");
    insert(&cluster, 1..=1);
    let states = "select string_agg(concat_ws(' ', state, retrying), ', ' order by outgoing_url) from webhook.queue";
    cluster.wait_for_text(PATIENCE, states, "backing_off 1, failing 1");
    for path in paths {
        receiver.behave_normally(path);
    }
    let url = receiver.url("/ok/down");
    assert_eq!(
        cluster.value::<i64>(&format!("select webhook.retry_now('w', '{url}')")),
        1
    );
    cluster.wait_for_text(PATIENCE, states, "active 0, failing 1");
    assert_eq!(cluster.value::<i64>("select webhook.retry_now('w')"), 1);
    cluster.wait_for_text(PATIENCE, states, "active 0, active 0");
    assert_eq!(cluster.value::<i64>("select webhook.retry_now('w')"), 0);
    let mut session = cluster.connect("postgres");
    for (call, code) in [
        ("webhook.retry_now('w', 'https://nobody.example/')", "42704"),
        ("webhook.retry_now('nobody')", "42704"),
        ("webhook.retry_now(null)", "22023"),
    ] {
        let refused = session
            .batch_execute(&format!("select {call}"))
            .unwrap_err();
        assert_eq!(refused.code().map(|code| code.code()), Some(code), "{call}");
    }
}

/// Also with a worker that starts later.
#[test]
fn retry_now_ends_a_back_off_that_the_last_worker_has_left() {
    let (cluster, receiver) = cluster_with("retry-now-later", "1h");
    watch(&cluster, &receiver, "w", &["/ok/down"], "");
    receiver.behave("/ok/down", "/status/503?retry-after=600");
    insert(&cluster, 1..=1);
    cluster.wait_for_text(PATIENCE, STATES, "w backing_off 0 1 0");
    stop_worker(&cluster);
    receiver.behave_normally("/ok/down");
    assert_eq!(cluster.value::<i64>("select webhook.retry_now('w')"), 1);
    cluster.sql("select webhook.start_worker()");
    cluster.wait_for_text(PATIENCE, STATES, "w active 0 0 0");
}
