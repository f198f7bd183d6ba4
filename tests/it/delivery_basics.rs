//! From a row change to verified POSTs at two URLs, and what the log says about them.

use serde_json::{json, Value};

use super::support::compare::assert_delivered;
use super::support::definitions::wait_idle;
use super::support::{
    ready_cluster, ready_cluster_without_retries, signature, Cluster, Received, Receiver, PATIENCE,
};

const TABLE: &str = "create table customers (
    id         integer primary key,
    first_name text,
    balance    numeric(10, 2),
    active     boolean,
    note       text
)";

/// A webhook `crm` with two URLs and an event for each kind of change; returns its secret.
fn create_crm(cluster: &Cluster, receiver: &Receiver) -> String {
    cluster.sql(TABLE);
    let secret = cluster.value(&format!(
        "select secret
         from webhook.create_webhook(name => 'crm', outgoing_urls => array['{}', '{}'])",
        receiver.url("/ok/first"),
        receiver.url("/ok/second")
    ));
    for kind in ["Insert", "Update", "Delete"] {
        cluster.sql(&format!(
            "select webhook.create_event(
                webhook => 'crm',
                object_name => 'customers',
                event_type => 'table.record{kind}')"
        ));
    }
    secret
}

#[test]
fn every_url_gets_each_committed_change_once_with_the_row_in_it() {
    let (cluster, receiver) = ready_cluster("basics");
    create_crm(&cluster, &receiver);
    cluster.sql("insert into customers values (16, 'John', 12.50, true, null)");
    cluster.sql("update customers set first_name = 'Johanna' where id = 16");
    cluster.sql("update customers set first_name = first_name where id = 16");
    cluster.sql("delete from customers where id = 16");
    cluster.sql("begin; insert into customers values (17, 'Nobody', 0, true, null); rollback");
    wait_idle(&cluster);

    let committed = ["recordInsert 16", "recordUpdate 16", "recordDelete 16"];
    let committed = committed.map(str::to_owned).into();
    for path in ["/ok/first", "/ok/second"] {
        let received = receiver.received_at(path);
        assert_delivered(&committed, &received);
        assert_eq!(received.len(), 3, "{received:#?}");
        assert_eq!(
            data_of(&received, "table.recordInsert")["first_name"],
            "John"
        );
        assert_eq!(
            data_of(&received, "table.recordUpdate")["first_name"],
            "Johanna"
        );
        assert_eq!(
            data_of(&received, "table.recordDelete")["first_name"],
            "Johanna"
        );
    }
}

#[test]
fn a_message_is_the_same_at_both_urls_and_has_the_documented_shape() {
    let (cluster, receiver) = ready_cluster("shape");
    create_crm(&cluster, &receiver);
    cluster.sql("insert into customers values (16, 'John', 12.50, true, null)");
    wait_idle(&cluster);

    let first = only(receiver.received_at("/ok/first"));
    let second = only(receiver.received_at("/ok/second"));
    assert_eq!(first.message_id(), second.message_id());
    assert_eq!(first.raw, second.raw);
    assert_ne!(
        first.header("webhook-call-id"),
        second.header("webhook-call-id")
    );

    assert_eq!(first.method, "POST");
    assert_eq!(first.header("content-type"), "application/json");
    assert_eq!(first.attempt(), 1);
    let body = first.body();
    let keys: Vec<&String> = body.as_object().unwrap().keys().collect();
    let documented = [
        "eventId",
        "messageId",
        "webhookId",
        "accountId",
        "secret",
        "eventDate",
        "eventType",
        "objectName",
        "data",
    ];
    assert_eq!(keys, documented);
    assert_eq!(body["messageId"], first.message_id());
    assert_eq!(body["objectName"], "customers");
    assert_eq!(
        body["data"].to_string(),
        r#"[{"id":16,"first_name":"John","balance":12.50,"active":true,"note":""}]"#
    );
    let token: String = cluster.value("select token from webhook.reveal_secret('crm')");
    assert_eq!(body["secret"], json!(token));
}

#[test]
fn the_reference_package_accepts_our_signatures_and_only_with_our_secret() {
    let (cluster, receiver) = ready_cluster("signature");
    let secret = create_crm(&cluster, &receiver);
    cluster.sql("insert into customers values (1, 'Zoë \"\\ 雪', 0.1, false, E'two\\nlines')");
    wait_idle(&cluster);

    let request = only(receiver.received_at("/ok/first"));
    assert_eq!(signature::verify(&request, &secret), Ok(()));

    let foreign = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLwSw";
    assert!(signature::verify(&request, foreign).is_err());
    let mut altered = request;
    altered.raw = altered.raw.replace("0.1", "9.9");
    assert!(signature::verify(&altered, &secret).is_err());
}

#[test]
fn calls_and_counters_say_what_was_sent_and_what_failed() {
    let (cluster, receiver) = ready_cluster_without_retries("counters");
    create_crm(&cluster, &receiver);
    receiver.behave("/ok/second", "/status/500?body=broken");
    cluster.sql("insert into customers values (1, 'Ann', 1, true, null)");
    receiver.wait_for(PATIENCE, "/ok/first", 1);
    receiver.wait_for(PATIENCE, "/ok/second", 1);
    wait_idle(&cluster);

    let calls = cluster.psql(
        "select outgoing_url ~ 'first', attempt, status, http_code, http_response, event_type,
                object_name, webhook_name, message_size > 0, duration_ms >= 0
         from webhook.calls
         order by outgoing_url",
    );
    let rest = "table.recordInsert|customers|crm|t|t";
    let expected = format!("t|1|Success|200||{rest}\nf|1|Failure|500|broken|{rest}\n");
    assert_eq!(calls, expected);

    let counts = "messages, calls, errors from webhook";
    assert_eq!(
        cluster.psql(&format!("select {counts}.webhooks")),
        "1|2|1\n"
    );
    let events = cluster.psql(&format!("select event_type, {counts}.events order by 1"));
    let none = |kind| format!("table.record{kind}|0|0|0\n");
    assert_eq!(
        events,
        format!(
            "{}table.recordInsert|1|2|1\n{}",
            none("Delete"),
            none("Update")
        )
    );
    let queue = "select outgoing_url ~ 'first', pending, retrying, failed
                 from webhook.queue order by outgoing_url";
    assert_eq!(cluster.psql(queue), "t|0|0|0\nf|0|1|0\n");
}

fn only(mut received: Vec<Received>) -> Received {
    assert_eq!(received.len(), 1, "{received:#?}");
    received.remove(0)
}

/// The row in the only message of this kind.
fn data_of(received: &[Received], event_type: &str) -> Value {
    let bodies = received.iter().map(Received::body);
    let mut wanted = bodies.filter(|body| body["eventType"] == event_type);
    let body = wanted.next().expect("a message of this kind came");
    assert!(wanted.next().is_none(), "more than one {event_type}");
    body["data"][0].clone()
}
