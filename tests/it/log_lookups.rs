//! What is looked up in a long log is found through an index, and read in order where the newest
//! is asked for. Times are measured by the bench; here the plans are read.

use super::support::{ready_cluster, Cluster};

/// Enough for the planner to prefer an index to a whole table.
const CALLS_A_TABLE: i64 = 20_000;

/// Tables of the ring that hold something. The planner reads an empty one as it likes.
const FILLED: [&str; 3] = ["call_log_0", "call_log_1", "call_log_2"];

/// Calls of two webhooks as the worker writes them, one of them with failures; the outbox is
/// filled by capture.
fn with_long_log() -> Cluster {
    let (cluster, receiver) = ready_cluster("lookups");
    cluster.exempt_from_bookkeeping("the rows of its long log were written by hand");
    cluster.sql(&format!(
        "create table items (id bigint, note text);
         select from webhook.create_webhook('healthy', array['{}']);
         select from webhook.create_webhook('failing', array['{}']);
         select from webhook.create_event('healthy', 'items', 'table.recordInsert');
         select webhook.stop_worker();
         insert into items select i, 'a note' from generate_series(1, 3 * {CALLS_A_TABLE}) i",
        receiver.url("/ok/healthy"),
        receiver.url("/ok/failing"),
    ));
    for (number, table) in FILLED.iter().enumerate() {
        cluster.sql(&format!(
            "insert into webhook_internal.{table} (call_id, called_at, message_id, url_key, event_key, event_date,
                                          attempt, success, webhook_id, http_code, message_size, duration_ms)
             select gen_random_uuid(), o.captured_at, o.message_id, u.url_key, o.event_key, o.captured_at,
                    1, not f.is_failure, w.id, case when f.is_failure then 500 else 200 end, 100, 1
             from (select *, row_number() over (order by id) as place from webhook_internal.outbox) o
             cross join lateral (select o.place % 10 = 0) f (is_failure)
             join webhook.webhook_def w on w.name = case when o.place % 2 = 0 then 'failing' else 'healthy' end
             join webhook.url_def u on u.webhook_key = w.webhook_key
             where o.place > {number} * {CALLS_A_TABLE} and o.place <= ({number} + 1) * {CALLS_A_TABLE}"
        ));
    }
    cluster.sql("select brin_summarize_new_values('webhook.outbox_0_time')");
    cluster.sql("vacuum (analyze)");
    cluster
}

/// The plan that the indexes allow: with so few rows here sorting some is often as cheap as
/// reading them in order, and only an index that is missing or does not fit leaves no choice.
fn plan_of(cluster: &Cluster, query: &str) -> String {
    cluster.psql(&format!(
        "set enable_seqscan = off; set enable_bitmapscan = off; set enable_sort = off;
         explain (costs off) {query}"
    ))
}

/// The query reads each log table through one of these indexes, in the order that is asked for.
fn assert_in_order(cluster: &Cluster, condition: &str, indexes: &[&str]) {
    let query =
        format!("select * from webhook.calls where {condition} order by called_at desc limit 100");
    let plan = plan_of(cluster, &query);
    for table in FILLED {
        let used = indexes.iter().any(|index| {
            plan.contains(&format!(
                "Index Scan Backward using {table}_{index} on {table}"
            ))
        });
        assert!(
            used,
            "expected {table} to be read backward by {indexes:?} for {query}; found\n{plan}"
        );
    }
    assert!(
        plan.contains("Merge Append") && !plan.contains("Sort  "),
        "expected a Merge Append and no Sort for {query}; found\n{plan}"
    );
}

#[test]
fn the_newest_calls_are_read_in_order() {
    let cluster = with_long_log();
    let id = |name: &str| -> String {
        cluster.value(&format!(
            "select id from webhook.webhooks where name = '{name}'"
        ))
    };
    let (healthy, failing) = (id("healthy"), id("failing"));
    // Both hold the time and the webhook; small ones cost the same.
    let failures_of_one: &[&str] = &["webhook_failure", "failure"];
    let cases: [(String, &[&str]); 10] = [
        ("true".to_owned(), &["time"]),
        ("called_at < now()".to_owned(), &["time"]),
        (format!("webhook_id = '{healthy}'"), &["webhook"]),
        (
            format!("webhook_id = '{failing}' and called_at < now()"),
            &["webhook"],
        ),
        ("status = 'Failure'".to_owned(), &["failure"]),
        (
            "status = 'Failure' and called_at < now()".to_owned(),
            &["failure"],
        ),
        (
            format!("status = 'Failure' and webhook_id = '{failing}'"),
            failures_of_one,
        ),
        (
            format!("status = 'Failure' and webhook_id = '{healthy}'"),
            failures_of_one,
        ),
        ("http_code = 500".to_owned(), &["code"]),
        ("http_code >= 500".to_owned(), &["code"]),
    ];
    for (condition, indexes) in cases {
        assert_in_order(&cluster, &condition, indexes);
    }
}

#[test]
fn one_call_or_message_is_found_by_an_index() {
    let cluster = with_long_log();
    let message: String =
        cluster.value("select message_id::text from webhook.calls offset 5000 limit 1");
    let calls = format!("select * from webhook.calls where message_id = '{message}'");
    let plan = cluster.psql(&format!("explain (costs off) {calls}"));
    for table in FILLED {
        let scan = format!("Index Scan using {table}_message on {table}");
        assert!(
            plan.contains(&scan),
            "expected {scan} for {calls}; found\n{plan}"
        );
    }
    let span = "event_date between now() - interval '1 hour' and now() - interval '59 minutes'";
    for condition in [format!("message_id = '{message}'"), span.to_owned()] {
        let query = format!("select * from webhook.messages where {condition}");
        let plan = cluster.psql(&format!("explain (costs off) {query}"));
        assert!(
            plan.contains("Bitmap Index Scan on outbox_0_time"),
            "expected the time index for {query}; found\n{plan}"
        );
    }
}
