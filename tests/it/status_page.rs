//! `webhook.status_page()`: what it shows, to whom, and how fast.

use super::support::definitions::{create_event, create_webhook, wait_idle};
use super::support::items::{cluster_with, insert, watch};
use super::support::PATIENCE;

/// A name, a path, an error and an answer that would run if they were taken for markup.
const HOSTILE: &str = "</title><script>alert(1)</script><img src=x onerror=alert(2)>\"";

fn page(cluster: &super::support::Cluster) -> String {
    cluster.value("select webhook.status_page()::text")
}

#[test]
fn the_page_shows_what_is_wrong_and_escapes_what_others_wrote() {
    let (cluster, receiver) = cluster_with("status_page", "1h");
    let empty = page(&cluster);
    assert!(empty.starts_with("<!DOCTYPE html>"), "{empty}");
    assert!(empty.contains("no webhooks"), "{empty}");
    let url = receiver.url("/status/500?body=%3Cscript%3Ealert(3)%3C/script%3E");
    create_webhook(&cluster, HOSTILE, &[url], "");
    create_event(&cluster, HOSTILE, "items", "Insert", "");
    watch(&cluster, &receiver, "good", &["/ok"], "");
    cluster.sql("create table \"<b>gone</b>\" (id integer)");
    create_event(&cluster, "good", "\"<b>gone</b>\"", "Insert", "");
    cluster.sql("drop table \"<b>gone</b>\"");
    insert(&cluster, 1..=3);
    wait_idle(&cluster);
    let activity = "select (sum(calls) >= 4)::text from webhook.activity";
    cluster.wait_for_text(PATIENCE, activity, "true");
    let page = page(&cluster);
    for forbidden in ["<script", "<img", "<b>gone"] {
        assert!(!page.contains(forbidden), "{forbidden} in {page}");
    }
    for expected in [
        "&lt;script&gt;alert(1)",
        "&lt;b&gt;gone",
        "answered 500 Internal Server Error",
        "Events that produce nothing",
        "http-equiv=\"refresh\" content=\"10\"",
        "1 event produces nothing",
        "class=\"chart\"",
    ] {
        assert!(page.contains(expected), "{expected} is not in {page}");
    }
    assert!(!page.contains("all is well"), "{page}");
    let still: String = cluster.value("select webhook.status_page('0')::text");
    assert!(!still.contains("http-equiv=\"refresh\""), "{still}");
    let domain: String = cluster.value(
        "select t.typname::text from pg_proc p join pg_type t on t.oid = p.prorettype
         where p.oid = 'webhook.status_page(interval)'::regprocedure",
    );
    assert_eq!(domain, "text/html");
}

#[test]
fn a_reader_sees_the_page_without_answers_and_others_do_not() {
    let (cluster, receiver) = cluster_with("status_page_reader", "1h");
    watch(
        &cluster,
        &receiver,
        "hook",
        &["/status/500?body=private-answer"],
        "",
    );
    insert(&cluster, 1..=1);
    wait_idle(&cluster);
    assert!(page(&cluster).contains("private-answer</pre>"));
    cluster.sql("create role a_reader login in role webhook_reader; create role anybody login");
    let mut reader = cluster.connect_as("a_reader", "postgres");
    let row = reader.query_one("select webhook.status_page()::text", &[]);
    let shown: String = row.unwrap().get(0);
    assert!(shown.contains("answered 500"), "{shown}");
    assert!(!shown.contains("<pre>"), "{shown}");
    let mut anybody = cluster.connect_as("anybody", "postgres");
    let refused = anybody
        .query_one("select webhook.status_page()", &[])
        .unwrap_err();
    assert_eq!(refused.as_db_error().unwrap().code().code(), "42501");
    let bad = reader
        .query_one("select webhook.status_page('-1 s')", &[])
        .unwrap_err();
    assert_eq!(bad.as_db_error().unwrap().code().code(), "22023");
}

/// Before a value is shown to a reader it is masked, which takes half a second a megabyte.
#[test]
fn large_values_that_changed_make_the_page_neither_slow_nor_talkative() {
    let (cluster, receiver) = cluster_with("status_page_changes", "1h");
    watch(&cluster, &receiver, "hook", &["/ok/hook"], "");
    cluster.sql(
        "create role a_reader login in role webhook_reader;
         create role half_a_reader login;
         grant usage on schema webhook, webhook_internal to half_a_reader;
         grant select on all tables in schema webhook, webhook_internal to half_a_reader;
         grant execute on all functions in schema webhook, webhook_internal to half_a_reader;
         revoke select on webhook.changes from half_a_reader;
         select count(*)
         from generate_series(1, 20) n
         cross join lateral webhook.update_event(
             (select id from webhook.events),
             payload_template => '{\"x\": \"' || repeat('http://u:p@h/?token=' || n || '&', 38000) || '\"}'
         );
         select webhook.update_webhook('hook', description => 'https://user:password@example.com/')",
    );
    let mut reader = cluster.connect_as("a_reader", "postgres");
    reader
        .batch_execute("set statement_timeout = '5 s'")
        .unwrap();
    let row = reader.query_one("select webhook.status_page()::text", &[]);
    let shown: String = row.expect("the page takes no seconds").get(0);
    assert!(shown.contains("payload_template"), "{shown}");
    assert!(shown.contains("https://***@example.com/"), "{shown}");
    assert!(
        !shown.contains("token") && !shown.contains("password"),
        "{shown}"
    );
    assert!(page(&cluster).contains("https://user:password@example.com/"));
    let refused = cluster
        .connect_as("half_a_reader", "postgres")
        .query_one("select webhook.status_page()", &[])
        .unwrap_err();
    let refused = refused.as_db_error().unwrap();
    assert_eq!(refused.code().code(), "42501");
    assert!(refused.message().contains("changes"), "{refused:?}");
}
