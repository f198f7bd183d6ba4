//! Looking things up in a long call log: ten million calls, made for real.
//!
//! Three webhooks: one busy with two URLs, one with a URL that fails now and then, and one
//! that has been quiet since the beginning, whose few calls lie furthest back. Every query is
//! one that a person or a program asks while it looks into what became of a message.

use std::time::Instant;

use super::report::{median, Line, Report, Target};
use super::support::{Cluster, Receiver};

/// Calls in the log, unless WEBHOOK_BENCH_CALLS names another number for a quick trial.
const CALLS: i64 = 10_000_000;
const SIZE_VARIABLE: &str = "WEBHOOK_BENCH_CALLS";
const QUIET_MESSAGES: i64 = 1000;
/// Rows of one transaction.
const ROWS_A_TRANSACTION: i64 = 1000;
/// Of a hundred calls to the unsteady URL so many fail, and are not repeated.
const FAILING_PERCENT: i64 = 4;
/// The slowest rate that is waited for; a slower run is stuck.
const SLOWEST_A_SECOND: i64 = 2000;
/// What a person does not notice.
const LOOK_LIMIT_MS: f64 = 50.0;
/// Some thousand calls are made in it.
const SPAN: &str = "100 milliseconds";
/// Once to have it warm, and then so often.
const ROUNDS: usize = 5;
/// Calls of which the receiver keeps what they said: none are asked for.
const KEPT_REQUESTS: usize = 1;

fn calls() -> i64 {
    let Ok(text) = std::env::var(SIZE_VARIABLE) else {
        return CALLS;
    };
    let size = text.parse();
    size.unwrap_or_else(|_| panic!("{SIZE_VARIABLE} must be a number of calls, not {text:?}"))
}

/// What is looked up. `{round}` in a query is another number each time, for what changes things.
struct Question {
    what: &'static str,
    query: String,
    target: Option<Target>,
}

pub fn look_ups(cluster: &Cluster, _: &Receiver, report: &mut Report) {
    let receiver = Receiver::start_keeping(KEPT_REQUESTS);
    define(cluster, &receiver);
    let calls = calls();
    fill(cluster, calls);
    // As autovacuum does in the course of time.
    cluster.sql("vacuum (analyze)");
    for question in questions(cluster) {
        let ours = milliseconds(cluster, &question);
        report.add(Line {
            name: "L",
            what: format!("{}, {calls} calls", question.what),
            ours,
            compared_with: LOOK_LIMIT_MS,
            unit: "ms",
            ratio: ours / LOOK_LIMIT_MS,
            target: question.target,
        });
    }
}

/// The webhooks, and a table for each whose inserts it hears of.
fn define(cluster: &Cluster, receiver: &Receiver) {
    let unsteady = receiver.url(&format!("/unsteady/{FAILING_PERCENT}"));
    for (name, urls, options) in [
        ("quiet", vec![receiver.url("/count/quiet")], ""),
        (
            "busy",
            vec![receiver.url("/count/a"), receiver.url("/count/b")],
            "",
        ),
        ("unsteady", vec![unsteady], ", max_attempts => 1"),
    ] {
        cluster.sql(&format!(
            "create table {name} (id bigint, name text, note text);
             select from webhook.create_webhook('{name}', array['{urls}']{options});
             select from webhook.create_event('{name}', '{name}', 'table.recordInsert')",
            urls = urls.join("', '"),
        ));
    }
}

/// Three calls of five are the busy webhook's, and each of its messages is two.
fn fill(cluster: &Cluster, calls: i64) {
    let quiet = QUIET_MESSAGES.min(calls / 10);
    cluster.sql(&insert("quiet", 0, quiet));
    wait_for_calls(cluster, quiet);
    let steps = (calls - quiet) / (5 * ROWS_A_TRANSACTION);
    let busy = insert("busy", 0, 3 * ROWS_A_TRANSACTION / 2);
    let unsteady = insert("unsteady", 0, 2 * ROWS_A_TRANSACTION);
    // The rows themselves are not needed: emptying the tables makes no messages.
    cluster.sql(&format!(
        "do $$
         begin
             for step in 1..{steps} loop
                 {busy};
                 commit;
                 {unsteady};
                 commit;
                 truncate busy, unsteady;
                 commit;
             end loop;
         end $$"
    ));
    wait_for_calls(cluster, quiet + steps * 5 * ROWS_A_TRANSACTION);
}

fn insert(table: &str, first: i64, rows: i64) -> String {
    format!(
        "insert into {table} select i, 'name ' || i, 'a note' \
         from generate_series({first}, {first} + {rows} - 1) i"
    )
}

/// Everything is sent and written down, and nothing is missing.
fn wait_for_calls(cluster: &Cluster, wanted: i64) {
    let limit = wanted / SLOWEST_A_SECOND + 60;
    let idle: bool = cluster.value(&format!("select webhook.wait_idle('{limit} seconds')"));
    assert!(idle, "not idle after {limit} s");
    let made: String = cluster.value(
        "select format('%s calls, %s logged', sum(calls), (select count(*) from webhook.calls))
         from webhook.webhooks",
    );
    assert_eq!(made, format!("{wanted} calls, {wanted} logged"));
}

fn questions(cluster: &Cluster) -> Vec<Question> {
    let [busy, quiet, unsteady] = ["busy", "quiet", "unsteady"].map(|name| {
        cluster.value::<String>(&format!(
            "select id from webhook.webhooks where name = '{name}'"
        ))
    });
    let call: String = cluster.value("select call_id::text from webhook.calls offset 5000 limit 1");
    let message: String = cluster.value(&format!(
        "select message_id::text from webhook.calls where call_id = '{call}'"
    ));
    let middle: String = cluster.value(
        "select (min(called_at) + (max(called_at) - min(called_at)) / 2)::text from webhook.calls",
    );
    let one =
        |view: &str, condition: String| format!("select * from webhook.{view} where {condition}");
    let newest = |view: &str, time: &str, condition: String| {
        format!("{} order by {time} desc limit 100", one(view, condition))
    };
    let calls = |condition: String| newest("calls", "called_at", condition);
    let messages = |condition: String| newest("messages", "event_date", condition);
    let span = |time: &str| {
        format!("{time} between '{middle}' and timestamptz '{middle}' + interval '{SPAN}'")
    };
    let limited = |what, query| Question {
        what,
        query,
        target: Some(Target::OursAtMost(LOOK_LIMIT_MS)),
    };
    let untargeted = |what, query| Question {
        what,
        query,
        target: None,
    };
    vec![
        limited(
            "calls of a message",
            one("calls", format!("message_id = '{message}'")),
        ),
        limited(
            "a call by its id",
            one("calls", format!("call_id = '{call}'")),
        ),
        limited("newest calls", calls("true".into())),
        limited(
            "newest calls of a busy webhook",
            calls(format!("webhook_id = '{busy}'")),
        ),
        limited(
            "newest calls of a quiet webhook",
            calls(format!("webhook_id = '{quiet}'")),
        ),
        limited("newest calls in a span", calls(span("called_at"))),
        limited(
            "newest calls of a webhook in a span",
            calls(format!("webhook_id = '{busy}' and {}", span("called_at"))),
        ),
        limited("newest failures", calls("status = 'Failure'".into())),
        limited(
            "newest failures of a webhook",
            calls(format!("status = 'Failure' and webhook_id = '{unsteady}'")),
        ),
        limited(
            "newest failures of a webhook without any",
            calls(format!("status = 'Failure' and webhook_id = '{busy}'")),
        ),
        limited("newest calls answered 500", calls("http_code = 500".into())),
        limited(
            "newest calls answered 500 or more",
            calls("http_code >= 500".into()),
        ),
        limited(
            "a message by its id",
            one("messages", format!("message_id = '{message}'")),
        ),
        limited(
            "everything about a message",
            format!("select * from webhook.message('{message}')"),
        ),
        limited("newest messages in a span", messages(span("event_date"))),
        limited(
            "newest messages of a webhook in a span",
            messages(format!("webhook_id = '{busy}' and {}", span("event_date"))),
        ),
        limited("webhook.webhooks", "select * from webhook.webhooks".into()),
        limited("webhook.queue", "select * from webhook.queue".into()),
        limited("webhook.metrics", "select * from webhook.metrics".into()),
        limited(
            "redeliver a message",
            format!("select webhook.redeliver('{message}')"),
        ),
        limited(
            "redeliver what failed in a short time",
            format!(
                "select webhook.redeliver_failed('unsteady',
                     timestamptz '{middle}' + {{round}} * interval '{SPAN}',
                     timestamptz '{middle}' + ({{round}} + 1) * interval '{SPAN}')"
            ),
        ),
        // No index has the messages in the order of their dates: capture would pay for it.
        untargeted("newest messages", messages("true".into())),
        untargeted(
            "newest messages that failed",
            messages("status = 'failed'".into()),
        ),
    ]
}

/// The median, once it is warm. What reads everything is asked once.
fn milliseconds(cluster: &Cluster, question: &Question) -> f64 {
    let query = &question.query;
    let mut session = cluster.connect("postgres");
    let rounds = question.target.map_or(1, |_| ROUNDS);
    let times = (0..=rounds).map(|round| {
        let query = query.replace("{round}", &round.to_string());
        let started = Instant::now();
        let answered = session.simple_query(&query);
        answered.unwrap_or_else(|error| panic!("{query}: {error}"));
        started.elapsed().as_secs_f64() * 1000.0
    });
    median(times.skip(1).collect())
}
