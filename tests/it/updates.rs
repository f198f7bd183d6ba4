//! Definitions change while messages are on their way.

use super::support::definitions::wait_idle;
use super::support::{
    ready_cluster, ready_cluster_without_retries, signature, Cluster, Receiver, PATIENCE,
};

/// A webhook `crm` with these paths as URLs, and an event for inserts into `customers`.
fn create_crm(cluster: &Cluster, receiver: &Receiver, paths: &[&str]) {
    cluster.sql("create table customers (id integer primary key, name text, balance numeric)");
    let urls = urls(receiver, paths);
    cluster.sql(&format!(
        "select webhook.create_webhook('crm', {urls});
         select webhook.create_event('crm', 'customers', 'table.recordInsert')"
    ));
}

fn urls(receiver: &Receiver, paths: &[&str]) -> String {
    let urls: Vec<String> = paths
        .iter()
        .map(|path| format!("'{}'", receiver.url(path)))
        .collect();
    format!("array[{}]", urls.join(", "))
}

fn ids_at(receiver: &Receiver, path: &str) -> Vec<i64> {
    let received = receiver.received_at(path);
    let ids = received.iter().map(|r| r.body()["data"][0]["id"].as_i64());
    let mut ids: Vec<i64> = ids.map(|id| id.expect("a row has an id")).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn a_url_that_goes_gets_nothing_more_and_one_that_comes_gets_what_follows() {
    let (cluster, receiver) = ready_cluster("urls");
    create_crm(&cluster, &receiver, &["/ok/stays", "/ok/goes"]);
    cluster.sql("select webhook.pause_webhook('crm')");
    cluster.sql("insert into customers select n from generate_series(1, 5) n");
    let seen = "select count(*)::text from webhook_internal.unseen";
    cluster.wait_for_text(PATIENCE, seen, "0");
    let pending = "select string_agg(pending::text, ',') from webhook.queue";
    cluster.wait_for_text(PATIENCE, pending, "5,5");

    let new = urls(&receiver, &["/ok/stays", "/ok/comes"]);
    cluster.sql(&format!(
        "select webhook.update_webhook('crm', outgoing_urls => {new})"
    ));
    cluster.sql("insert into customers values (6)");
    cluster.sql("select webhook.resume_webhook('crm')");
    wait_idle(&cluster);
    assert_eq!(ids_at(&receiver, "/ok/stays"), [1, 2, 3, 4, 5, 6]);
    assert!(receiver.received_at("/ok/goes").is_empty());
    assert_eq!(ids_at(&receiver, "/ok/comes"), [6]);
    let statuses = "select string_agg(distinct status, ',') from webhook.messages";
    assert_eq!(cluster.value::<String>(statuses), "delivered");
}

#[test]
fn retries_of_a_url_that_goes_are_canceled_and_it_comes_back_as_a_new_one() {
    let (cluster, receiver) = ready_cluster_without_retries("retries");
    create_crm(&cluster, &receiver, &["/ok/good", "/status/500"]);
    cluster.sql("insert into customers values (1)");
    let retrying = "select sum(retrying)::text from webhook.queue";
    cluster.wait_for_text(PATIENCE, retrying, "1");
    let good = urls(&receiver, &["/ok/good"]);
    cluster.sql(&format!(
        "select webhook.update_webhook('crm', outgoing_urls => {good})"
    ));
    assert_eq!(cluster.value::<String>(retrying), "0");
    assert_eq!(
        cluster.value::<String>("select status from webhook.messages"),
        "canceled"
    );

    receiver.behave("/status/500", "/ok");
    let both = urls(&receiver, &["/ok/good", "/status/500"]);
    cluster.sql(&format!(
        "select webhook.update_webhook('crm', outgoing_urls => {both})"
    ));
    cluster.sql("insert into customers values (2)");
    wait_idle(&cluster);
    assert_eq!(ids_at(&receiver, "/ok/good"), [1, 2]);
    assert_eq!(ids_at(&receiver, "/status/500"), [1, 2]);
    assert_eq!(receiver.count("/status/500").requests, 2);
}

#[test]
fn what_is_captured_and_sent_follows_the_definition_at_once() {
    let (cluster, receiver) = ready_cluster("at-once");
    create_crm(&cluster, &receiver, &["/ok/a"]);
    let event: String = cluster.value("select id from webhook.events");
    cluster.sql(&format!(
        "insert into customers values (1, 'Ann', 1);
         select webhook.update_event('{event}', payload_fields => array['id']);
         insert into customers values (2, 'Bob', 2);
         select webhook.update_event('{event}', payload_fields => '{{}}', condition => 'new.balance > 2');
         insert into customers values (3, 'Cid', 2), (4, 'Dan', 3);
         select webhook.update_webhook('crm', enabled => false);
         insert into customers values (5, 'Eve', 5);
         select webhook.update_webhook('crm', enabled => true);
         insert into customers values (6, 'Fay', 6)"
    ));
    wait_idle(&cluster);
    let mut rows: Vec<String> = receiver
        .received_at("/ok/a")
        .iter()
        .map(|received| received.body()["data"][0].to_string())
        .collect();
    rows.sort();
    let expected = [
        r#"{"id":1,"name":"Ann","balance":1}"#,
        r#"{"id":2}"#,
        r#"{"id":4,"name":"Dan","balance":3}"#,
        r#"{"id":6,"name":"Fay","balance":6}"#,
    ];
    assert_eq!(rows, expected);
}

#[test]
fn a_test_message_goes_to_every_url_and_is_signed_logged_and_counted() {
    let (cluster, receiver) = ready_cluster("test-message");
    create_crm(&cluster, &receiver, &["/ok/a", "/ok/b"]);
    let sent = cluster.psql(
        "select string_agg(distinct message_id::text, ','), count(*) from webhook.test_webhook('crm')",
    );
    wait_idle(&cluster);
    let received = receiver.received_at("/ok/a").remove(0);
    assert_eq!(sent, format!("{}|2\n", received.message_id()));
    assert_eq!(receiver.received_at("/ok/b")[0].raw, received.raw);
    let (secret, token): (String, String) = {
        let mut session = cluster.connect("postgres");
        let query = "select secret, token from webhook.reveal_secret('crm')";
        let row = session.query_one(query, &[]).unwrap();
        (row.get(0), row.get(1))
    };
    assert_eq!(signature::verify(&received, &secret), Ok(()));
    let body = received.body();
    assert_eq!(body["eventType"], "webhook.test");
    assert_eq!(body["secret"], token);
    assert_eq!(body["messageId"], received.message_id());
    assert_eq!(body["data"].to_string(), "[]");
    let webhook: String = cluster.value("select id from webhook.webhooks");
    assert_eq!(body["webhookId"], webhook);

    assert_eq!(
        cluster.psql("select messages, calls, errors from webhook.webhooks"),
        "1|2|0\n"
    );
    assert_eq!(
        cluster.psql("select event_id, event_type, status from webhook.messages"),
        "|webhook.test|delivered\n"
    );
    assert_eq!(
        cluster.psql(
            "select event_id, event_type, status, count(*) from webhook.calls group by 1, 2, 3"
        ),
        "|webhook.test|Success|2\n"
    );
}

#[test]
fn both_secrets_sign_during_the_overlap_and_only_the_new_one_after_it() {
    let (cluster, receiver) = ready_cluster("overlap");
    create_crm(&cluster, &receiver, &["/ok/a"]);
    let old: String = cluster.value("select secret from webhook.reveal_secret('crm')");
    let new: String = cluster.value("select webhook.regenerate_secret('crm', overlap => '1 hour')");
    cluster.sql("insert into customers values (1)");
    wait_idle(&cluster);
    // A restart forgets nothing of it.
    cluster.stop(super::support::StopMode::Fast);
    cluster.start_again();
    cluster.sql("insert into customers values (2)");
    wait_idle(&cluster);
    for received in receiver.received_at("/ok/a") {
        assert_eq!(signature::verify(&received, &old), Ok(()));
        assert_eq!(signature::verify(&received, &new), Ok(()));
    }
    let newest: String = cluster.value("select webhook.regenerate_secret('crm', overlap => '0')");
    cluster.sql("insert into customers values (3)");
    wait_idle(&cluster);
    let last = receiver.received_at("/ok/a").pop().expect("three came");
    assert_eq!(signature::verify(&last, &newest), Ok(()));
    assert!(signature::verify(&last, &new).is_err());
    assert!(signature::verify(&last, &old).is_err());
}
