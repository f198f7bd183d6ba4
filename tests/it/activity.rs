//! What happened in each minute: `webhook.activity`.

use std::cell::Cell;

use super::support::definitions::{create_event, create_webhook, wait_idle};
use super::support::items::{insert, watch};
use super::support::secure::{Authority, Certificate, SecureReceiver};
use super::support::{ready_cluster_without_retries, Cluster, PATIENCE};

/// Sums over all minutes, so that a test may run over the end of one.
const SUMS: &str = "
select coalesce(string_agg(concat_ws(' ', webhook_name, messages, calls, failures, connect_failures, tls_failures,
                                     timeouts, http_4xx, http_5xx, other_failures), ', ' order by webhook_name), '')
from (
    select webhook_name, sum(messages) as messages, sum(calls) as calls, sum(failures) as failures,
           sum(connect_failures) as connect_failures, sum(tls_failures) as tls_failures,
           sum(timeouts) as timeouts, sum(http_4xx) as http_4xx, sum(http_5xx) as http_5xx,
           sum(other_failures) as other_failures
    from webhook.activity
    group by webhook_name
) s";

fn wait_for_activity(cluster: &Cluster, query: &str, expected: &str) {
    cluster.wait_for_text(PATIENCE, query, expected);
}

fn watch_urls(cluster: &Cluster, name: &str, url: &str, options: &str) {
    create_webhook(cluster, name, &[url.to_owned()], options);
    create_event(cluster, name, "items", "Insert", "");
}

#[test]
fn each_minute_says_what_came_and_how_calls_ended() {
    let (cluster, receiver) = ready_cluster_without_retries("activity");
    cluster.sql("create table items (id integer)");
    for (name, path) in [
        ("a_good", "/ok"),
        ("b_404", "/status/404"),
        ("c_503", "/status/503"),
        ("d_302", "/status/302"),
    ] {
        watch(&cluster, &receiver, name, &[path], "");
    }
    watch_urls(&cluster, "e_refused", "http://127.0.0.1:1/", "");
    let untrusted = SecureReceiver::start(&Authority::new(), Certificate::SelfSigned);
    let secure = untrusted.url("/").replacen("localhost", "127.0.0.1", 1);
    watch_urls(&cluster, "f_tls", &secure, "");
    let hangs = receiver.url("/hang");
    watch_urls(&cluster, "g_hangs", &hangs, "timeout_ms => 300");
    insert(&cluster, 1..=2);
    wait_idle(&cluster);
    let counted =
        cluster.psql("select name, messages, calls, errors from webhook.webhooks order by name");
    let of = |name: &str| -> Vec<i64> {
        let line = counted.lines().find(|line| line.starts_with(name)).unwrap();
        let figures = line.split('|').skip(1);
        figures.map(|figure| figure.parse().unwrap()).collect()
    };
    let expected: Vec<String> = [
        ("a_good", 6),
        ("b_404", 3),
        ("c_503", 4),
        ("d_302", 5),
        ("e_refused", 0),
        ("f_tls", 1),
        ("g_hangs", 2),
    ]
    .into_iter()
    .map(|(name, class)| {
        let [messages, calls, errors] = of(name)[..] else {
            panic!("{counted}");
        };
        let classes = (0..6).map(|place| if place == class { errors } else { 0 });
        let figures = [messages, calls, errors].into_iter().chain(classes);
        let figures: Vec<String> = figures.map(|figure| figure.to_string()).collect();
        format!("{name} {}", figures.join(" "))
    })
    .collect();
    wait_for_activity(&cluster, SUMS, &expected.join(", "));
    let durations = cluster.psql(
        "select bool_and(p50_ms <= p95_ms and p95_ms <= max_ms and p50_ms > 0),
                max(max_ms) filter (where webhook_name = 'g_hangs') between 250 and 60000
         from webhook.activity
         where calls > 0",
    );
    assert_eq!(durations, "t|t\n");
    // A reader sees it, and another role nothing.
    cluster.sql("create role a_reader login in role webhook_reader");
    let mut reader = cluster.connect_as("a_reader", "postgres");
    let row = reader.query_one("select count(*) from webhook.activity", &[]);
    assert!(row.unwrap().get::<_, i64>(0) >= 7);
}

#[test]
fn a_run_of_the_worker_adds_to_what_the_last_one_counted() {
    let (cluster, receiver) = ready_cluster_without_retries("activity_runs");
    cluster.sql("create table items (id integer)");
    watch(&cluster, &receiver, "hook", &["/ok"], "");
    let totals = "select concat_ws(' ', sum(messages), sum(calls)) from webhook.activity";
    for run in 1..=3 {
        insert(&cluster, 1..=5);
        wait_idle(&cluster);
        // An orderly end writes what was counted.
        cluster.sql("select webhook.stop_worker()");
        let expected = format!("{0} {0}", 5 * run);
        assert_eq!(cluster.value::<String>(totals), expected);
        cluster.sql("select webhook.start_worker()");
    }
    let starts: i64 = cluster.value("select starts from webhook_internal.worker_total");
    assert!(starts >= 3, "{starts} starts were counted");
}

#[test]
fn what_is_past_thirty_days_goes_and_nothing_is_counted_twice() {
    let (cluster, receiver) = ready_cluster_without_retries("activity_ring");
    cluster.sql("create table items (id integer)");
    watch(&cluster, &receiver, "hook", &["/ok"], "");
    let written = "select number from webhook_internal.segment
                   where kind = 'activity' and opened_at is not null and closed_at is null";
    let items = Cell::new(0);
    let turn = |expected: i16| {
        cluster.sql(
            "update webhook_internal.segment
             set opened_at = opened_at - interval '11 days', closed_at = closed_at - interval '11 days'
             where kind = 'activity'",
        );
        cluster.wait_until(PATIENCE, "the next table to be written", || {
            let item = items.get() + 1;
            items.set(item);
            insert(&cluster, item..=item);
            wait_idle(&cluster);
            match cluster.value::<i16>(written) {
                number if number == expected => Ok(()),
                number => Err(format!("table {number}")),
            }
        });
    };
    turn(1);
    turn(2);
    turn(3);
    wait_idle(&cluster);
    let kept = "select string_agg((n.count > 0)::text, ' ')
                from (select (select count(*) from webhook_internal.activity_0) as count) n";
    wait_for_activity(&cluster, kept, "true");
    let totals = "select concat_ws(' ', sum(messages), sum(calls)) from webhook.activity";
    let expected = format!("{0} {0}", items.get());
    wait_for_activity(&cluster, totals, &expected);
    // The oldest is past thirty days when the ring turns once more.
    turn(0);
    let first: i64 = cluster
        .value("select count(*) from webhook_internal.activity_0 where minute < now() - interval '10 days'");
    assert_eq!(first, 0);
}

#[test]
fn a_lock_on_the_history_holds_no_call_up() {
    let (cluster, receiver) = ready_cluster_without_retries("activity_locked");
    cluster.sql("create table items (id integer)");
    watch(&cluster, &receiver, "hook", &["/ok"], "");
    let mut session = cluster.connect("postgres");
    let mut held = session.transaction().unwrap();
    held.batch_execute(
        "lock table webhook_internal.activity_0, webhook_internal.call_duration in access exclusive mode",
    )
    .unwrap();
    insert(&cluster, 1..=3);
    receiver.wait_for(PATIENCE, "/ok", 3);
    let calls = "select calls::text from webhook.webhooks";
    wait_for_activity(&cluster, calls, "3");
    cluster.wait_until(PATIENCE, "the worker to name the lock", || {
        let detail: Option<String> = cluster.value("select detail from webhook.worker");
        match detail {
            Some(text) if text.contains("webhook_internal.activity_0") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    held.commit().unwrap();
    let totals = "select concat_ws(' ', sum(messages), sum(calls)) from webhook.activity";
    wait_for_activity(&cluster, totals, "3 3");
    cluster.wait_until(PATIENCE, "the blocked time to be written", || {
        let blocked: f64 =
            cluster.value("select blocked_seconds from webhook_internal.worker_total");
        (blocked > 0.0).then_some(()).ok_or(format!("{blocked} s"))
    });
}

#[test]
fn an_hour_of_one_webhook_is_found_by_an_index() {
    let (cluster, receiver) = ready_cluster_without_retries("activity_plan");
    cluster.sql("create table items (id integer)");
    watch(&cluster, &receiver, "hook", &["/ok"], "");
    let of = |filter: &str| {
        let explained = format!("explain select * from webhook.activity where {filter}");
        cluster.psql(&explained)
    };
    let id: String = cluster.value("select id from webhook.webhooks");
    cluster.sql(
        "insert into webhook_internal.activity_0
         select timestamptz '2026-01-01' + m * interval '1 minute', 1000 + u, 1, 1, 1, 0, 0, 0, 0, 0, 0, '80:1', 1, 0
         from generate_series(1, 1000) m, generate_series(1, 50) u;
         analyze webhook_internal.activity_0",
    );
    let plan = of(&format!(
        "webhook_id = '{id}' and minute >= now() - interval '1 hour'"
    ));
    assert!(plan.contains("activity_0_pkey"), "{plan}");
    assert!(!plan.contains("Seq Scan on activity_0"), "{plan}");
    let plan = of("minute >= now() - interval '1 hour'");
    assert!(plan.contains("activity_0_minute"), "{plan}");
}

#[test]
fn a_url_without_calls_has_no_row() {
    let (cluster, receiver) = ready_cluster_without_retries("activity_idle");
    cluster.sql("create table items (id integer)");
    watch(&cluster, &receiver, "idle", &["/idle"], "enabled => false");
    watch(&cluster, &receiver, "busy", &["/ok"], "");
    insert(&cluster, 1..=1);
    wait_idle(&cluster);
    wait_for_activity(
        &cluster,
        "select coalesce(string_agg(distinct webhook_name, ' '), '') from webhook.activity",
        "busy",
    );
}
