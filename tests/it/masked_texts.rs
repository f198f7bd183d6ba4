//! What readers see of texts that receivers, errors and people have written: no credential that a
//! URL in them has.

use super::support::definitions::{create_webhook, wait_idle};
use super::support::{ready_cluster, Cluster};

/// What no reader may see, in a URL each.
const TEXT: &str = "'https://me:hush-hush@example.com/a?token=hush-hush&page=2'";

/// A URL that was switched off, with every text of its webhook as a role that edits the tables by
/// hand, or a receiver, may have written it.
fn scene() -> Cluster {
    let (cluster, receiver) = ready_cluster("masked_texts");
    let url = receiver.url("/status/410?page=2");
    create_webhook(&cluster, "w", &[url], "");
    cluster.sql(&format!(
        "create table items (id integer, note text);
         create role looker login in role webhook_reader;
         select webhook.create_event('w', 'items', 'table.recordInsert',
                                     condition => 'new.note is distinct from ' || quote_literal({TEXT}));
         insert into items values (1)"
    ));
    wait_idle(&cluster);
    cluster.sql("select webhook.stop_worker()");
    for table in 0..4 {
        cluster.sql(&format!(
            "update webhook_internal.call_log_{table} set http_response = {TEXT}, detail = {TEXT}"
        ));
    }
    cluster.sql(&format!(
        "update webhook.webhook_def set description = {TEXT}, detail = {TEXT};
         update webhook.event_def set detail = {TEXT}, payload_template = to_json({TEXT}::text)::text;
         update webhook.url_def set disabled_at = now(), detail = {TEXT}"
    ));
    cluster
}

/// The readers' views and how often each column of them holds the credential, for this role.
fn found(cluster: &Cluster, role: &str) -> Vec<String> {
    let mut session = cluster.connect_as(role, "postgres");
    let columns = session
        .query(
            "select c.relname::text, a.attname::text
             from pg_class c join pg_attribute a on a.attrelid = c.oid
             where c.relnamespace = 'webhook'::regnamespace and c.relkind = 'v' and a.attnum > 0
               and has_table_privilege('looker', c.oid, 'select')
             order by 1, 2",
            &[],
        )
        .unwrap();
    let mut found = Vec::new();
    for column in columns {
        let (view, column): (String, String) = (column.get(0), column.get(1));
        let query =
            format!("select count(*) from webhook.{view} v where v.{column}::text like '%hush%'");
        let count: i64 = session.query_one(&query, &[]).unwrap().get(0);
        if count > 0 {
            found.push(format!("{view}.{column}"));
        }
    }
    found
}

#[test]
fn readers_see_no_credential_in_any_text() {
    let cluster = scene();
    assert_eq!(
        found(&cluster, "postgres"),
        [
            "calls.detail",
            "calls.http_response",
            "changes.new",
            "cluster_queue.last_error",
            "events.condition",
            "events.detail",
            "events.payload_template",
            "queue.last_error",
            "webhooks.description",
            "webhooks.detail",
        ]
    );
    assert_eq!(found(&cluster, "looker"), [""; 0]);
    let mut reader = cluster.connect_as("looker", "postgres");
    let seen: String = reader
        .query_one("select last_error from webhook.queue", &[])
        .unwrap()
        .get(0);
    assert_eq!(seen, "https://***@example.com/a?token=***&page=2");
    for text in ["status_page()::text", "prometheus()"] {
        let query = format!("select webhook.{text}");
        let shown: String = reader.query_one(&query, &[]).unwrap().get(0);
        assert!(!shown.contains("hush"), "{shown}");
    }
}

/// Masking takes no time that grows faster than the answer.
#[test]
fn an_answer_of_a_hostile_receiver_is_masked_in_no_time() {
    let (cluster, _receiver) = ready_cluster("masked_quickly");
    let mut session = cluster.connect("postgres");
    session
        .batch_execute("set statement_timeout = '5s'")
        .unwrap();
    for part in [
        "?",
        "?=",
        "?a=1",
        "?token",
        "&1",
        "a://",
        "a://@",
        "?xxxxxxxxxx1xxxxxxxxxx",
    ] {
        let query = "select length(webhook_internal.masked_url(repeat($1, 64000 / length($1))))";
        let length: i32 = session.query_one(query, &[&part]).expect(part).get(0);
        assert!(length > 0, "{part}");
    }
}
