//! `webhook.message`: one row says all about a message, with the body and headers that were sent or
//! will be, and what became of it at each URL.

use serde_json::{json, Value};

use super::support::definitions::{create_event, create_webhook, wait_idle};
use super::support::items::{cluster_with, insert, message, pause, stop_worker, watch};
use super::support::{ready_cluster_without_retries, Cluster, Received, Receiver, PATIENCE};

const TEMPLATE: &str = r#"{"who": "[@field:name]", "was": "[@old:name]", "by": "[@out-hook:actor]", "from": "[@out-hook:source]",
 "call": "[@out-hook:callId]", "at": "[@out-hook:eventDate]", "changed": "[@out-hook:changedFields]", "token": "[@out-hook:secret]"}"#;

/// A column of the row about a message.
fn shown(cluster: &Cluster, message_id: &str, column: &str) -> String {
    cluster.value(&format!(
        "select coalesce(({column})::text, 'null') from webhook.message('{message_id}')"
    ))
}

fn json_of(cluster: &Cluster, message_id: &str, column: &str) -> Value {
    serde_json::from_str(&shown(cluster, message_id, column)).unwrap()
}

/// The state at each URL, in the order of the URLs.
fn states(cluster: &Cluster, message_id: &str) -> String {
    shown(
        cluster,
        message_id,
        "select string_agg(d ->> 'state', ', ' order by p) from jsonb_array_elements(deliveries) with ordinality x (d, p)",
    )
}

fn last_message(cluster: &Cluster) -> String {
    cluster.value("select message_id::text from webhook_internal.outbox order by id desc limit 1")
}

/// The last call of the message to this path.
fn last_call(receiver: &Receiver, path: &str) -> Received {
    receiver.received_at(path).pop().expect("a call")
}

#[test]
fn what_was_sent_is_shown_byte_for_byte_and_each_url_with_its_attempts() {
    let (cluster, receiver) = ready_cluster_without_retries("message_sent");
    let urls = [receiver.url("/ok"), receiver.url("/status/503")];
    let headers = r#"headers => '{"X-Api-Key": "hush-hush", "X-Env": "test"}'"#;
    let secret = create_webhook(&cluster, "w", &urls, headers);
    cluster.sql("create table people (id integer primary key, name text, note jsonb)");
    create_event(&cluster, "w", "people", "Insert", "");
    create_event(
        &cluster,
        "w",
        "people",
        "Update",
        &format!("payload_template => '{TEMPLATE}'"),
    );
    for change in [
        r#"insert into people values (1, E'Ad\na', '{"deep": [1, {"x": "ü"}]}')"#,
        "update people set name = 'Grace'",
    ] {
        cluster.sql(&format!("set webhook.source = 'shop'; {change}"));
        // The failing URL backs off after some failures; each message has its first call before.
        wait_idle(&cluster);
        let id = last_message(&cluster);
        cluster.wait_for_text(
            PATIENCE,
            &format!("select count(*)::text from webhook.calls where message_id = '{id}'"),
            "2",
        );
        let call: String = cluster.value(&format!(
            "select call_id::text from webhook.calls where message_id = '{id}' order by called_at desc limit 1"
        ));
        let calls = receiver.received();
        let sent = calls
            .iter()
            .find(|sent| sent.header("webhook-call-id") == call)
            .expect("it arrived");
        assert_eq!(shown(&cluster, &id, "body"), sent.raw);
        let headers = json_of(&cluster, &id, "headers");
        for name in [
            "content-type",
            "user-agent",
            "webhook-id",
            "webhook-timestamp",
            "webhook-attempt",
            "webhook-call-id",
        ] {
            assert_eq!(headers[name], sent.header(name), "{name}");
        }
        assert_eq!(headers["webhook-signature"], "***");
        assert_eq!(headers["X-Api-Key"], "***");
        assert_eq!(headers["X-Env"], "test");
        assert_eq!(states(&cluster, &id), "delivered, retrying");
        let deliveries = json_of(&cluster, &id, "deliveries");
        assert_eq!(deliveries[0]["outgoingUrl"], urls[0]);
        assert_eq!(deliveries[0]["attempts"][0]["httpCode"], 200);
        assert_eq!(deliveries[0]["givenUpAt"], Value::Null);
        let attempt = &deliveries[1]["attempts"][0];
        assert_eq!(
            (&attempt["httpCode"], &attempt["attempt"]),
            (&json!(503), &json!(1))
        );
        assert!(
            attempt["durationMs"].is_number() && attempt["at"].is_string(),
            "{attempt}"
        );
        assert!(
            attempt["detail"]
                .as_str()
                .is_some_and(|why| why.contains("503")),
            "{attempt}"
        );
        let next =
            "(deliveries -> 1 ->> 'nextAttemptAt')::timestamptz > now() + interval '30 minutes'";
        assert_eq!(shown(&cluster, &id, next), "true");
        let end = "(deliveries -> 1 ->> 'givenUpAt')::timestamptz = event_date + interval '3 days'";
        assert_eq!(shown(&cluster, &id, end), "true");
        assert_eq!(
            shown(&cluster, &id, "concat_ws(' ', webhook_name, object_name, source, actor, status, definition_changed)"),
            "w people shop postgres pending f"
        );
        assert!(
            !shown(&cluster, &id, "headers").contains("hush"),
            "no credential"
        );
        assert!(!shown(&cluster, &id, "body").contains(&secret));
    }
    let id = last_message(&cluster);
    assert_eq!(json_of(&cluster, &id, "record")["name"], "Grace");
    assert_eq!(
        json_of(&cluster, &id, "old_record"),
        json!({"name": "Ad\na"})
    );
    assert_eq!(shown(&cluster, &id, "changed"), "{name}");
}

#[test]
fn a_definition_that_was_changed_after_the_last_call_is_told() {
    let (cluster, receiver) = cluster_with("message_changed", "1h");
    watch(&cluster, &receiver, "w", &["/ok"], "");
    insert(&cluster, 1..=1);
    wait_idle(&cluster);
    let sent = message(&cluster, 1);
    stop_worker(&cluster);
    insert(&cluster, 2..=2);
    let waiting = message(&cluster, 2);
    let template = r#"{"item": "[@field:id]"}"#;
    cluster.sql(&format!(
        "select webhook.update_event(id, payload_template => '{template}') from webhook.events"
    ));
    assert_eq!(shown(&cluster, &sent, "definition_changed"), "true");
    let detail = shown(&cluster, &sent, "detail");
    assert!(
        detail.contains("was changed at") && detail.contains("may differ"),
        "{detail}"
    );
    // What waits is sent as it is shown.
    assert_eq!(shown(&cluster, &waiting, "definition_changed"), "false");
    assert_eq!(shown(&cluster, &waiting, "detail"), "null");
    let body = shown(&cluster, &waiting, "body");
    cluster.sql("select webhook.start_worker()");
    wait_idle(&cluster);
    assert_eq!(last_call(&receiver, "/ok").raw, body);
    assert_eq!(body, r#"{"item": 2}"#.replace(' ', ""));
}

#[test]
fn a_reader_sees_neither_rows_nor_bodies_nor_credentials() {
    let (cluster, receiver) = ready_cluster_without_retries("message_reader");
    let url = receiver.url("/status/500?token=hush-hush");
    create_webhook(
        &cluster,
        "w",
        &[url],
        r#"headers => '{"X-Api-Key": "hush-hush"}'"#,
    );
    cluster.sql("create table items (id integer, note text); create role looker login in role webhook_reader");
    create_event(&cluster, "w", "items", "Insert", "");
    cluster.sql("insert into items values (1, 'hush-hush')");
    wait_idle(&cluster);
    let id = last_message(&cluster);
    let row = format!("select to_jsonb(m)::text, concat_ws(' ', m.record, m.old_record, m.body), m.detail, m.status from webhook.message('{id}') m");
    let seen = cluster
        .connect_as("looker", "postgres")
        .query_one(&row, &[])
        .unwrap();
    let all: String = seen.get(0);
    assert!(!all.contains("hush"), "{all}");
    assert!(all.contains("/status/500?token=***"), "{all}");
    assert_eq!(seen.get::<_, &str>(1), "");
    assert_eq!(
        seen.get::<_, &str>(2),
        "rows and bodies are shown to members of webhook_admin"
    );
    assert_eq!(seen.get::<_, &str>(3), "pending");
    let all: String = cluster.value(&format!(
        "select to_jsonb(m)::text from webhook.message('{id}') m"
    ));
    assert!(
        all.contains("hush-hush"),
        "the same row for an administrator: {all}"
    );
}

#[test]
fn each_state_of_a_message_is_told_for_each_url() {
    let (cluster, receiver) = cluster_with("message_states", "1h");
    let options = "max_attempts => 1";
    watch(&cluster, &receiver, "w", &["/ok", "/status/500"], options);
    insert(&cluster, 1..=1);
    wait_idle(&cluster);
    let first = message(&cluster, 1);
    assert_eq!(states(&cluster, &first), "delivered, failed");
    let given_up = "(deliveries -> 1 ->> 'givenUpAt')::timestamptz between event_date and now()";
    assert_eq!(shown(&cluster, &first, given_up), "true");

    pause(&cluster, "w");
    insert(&cluster, 2..=4);
    let (second, third) = (message(&cluster, 2), message(&cluster, 3));
    assert_eq!(states(&cluster, &second), "pending, pending");
    assert_eq!(
        shown(&cluster, &second, "deliveries -> 0 -> 'attempts'"),
        "[]"
    );
    assert_eq!(
        shown(&cluster, &second, "deliveries -> 0 ->> 'nextAttemptAt'"),
        "null"
    );
    cluster.sql(&format!("select webhook.cancel('{second}')"));
    assert_eq!(states(&cluster, &second), "canceled, canceled");
    cluster.sql("select webhook.cancel_pending('w')");
    assert_eq!(states(&cluster, &third), "canceled, canceled");
    cluster.sql(&format!("select webhook.redeliver('{third}')"));
    assert_eq!(states(&cluster, &third), "pending, pending");

    // One URL goes, another one comes: the message was never meant for that.
    let url = receiver.url("/ok");
    let other = receiver.url("/ok/new");
    cluster.sql(&format!(
        "select webhook.update_webhook('w', outgoing_urls => array['{url}', '{other}'])"
    ));
    assert_eq!(states(&cluster, &first), "delivered, failed");
    assert_eq!(states(&cluster, &third), "pending, canceled");
    cluster.sql("select webhook.resume_webhook('w')");
    wait_idle(&cluster);
    assert_eq!(states(&cluster, &third), "delivered, canceled");
    cluster.sql("select webhook.test_webhook('w')");
    wait_idle(&cluster);
    let test = last_message(&cluster);
    assert_eq!(states(&cluster, &test), "delivered, delivered");
    assert_eq!(
        shown(&cluster, &test, "body"),
        last_call(&receiver, "/ok/new").raw
    );

    stop_worker(&cluster);
    insert(&cluster, 5..=5);
    let last = last_message(&cluster);
    cluster.sql("select webhook.drop_webhook('w')");
    assert_eq!(states(&cluster, &last), "canceled, canceled");
    assert_eq!(states(&cluster, &test), "delivered, delivered");
    assert_eq!(shown(&cluster, &last, "status"), "canceled");
    let detail = shown(&cluster, &last, "detail");
    assert!(
        detail.contains("the webhook was dropped, and its secret with it"),
        "{detail}"
    );
    assert_eq!(json_of(&cluster, &last, "body")["secret"], "***");
}

#[test]
fn rows_that_were_too_large_and_values_that_jsonb_cannot_hold_are_told() {
    let (cluster, receiver) = cluster_with("message_odd", "1h");
    create_webhook(&cluster, "w", &[receiver.url("/ok")], "");
    cluster.sql("create table notes (id integer, body text, raw json)");
    create_event(&cluster, "w", "notes", "Insert", "");
    cluster.sql("insert into notes values (1, repeat('x', 11 << 20))");
    wait_idle(&cluster);
    let large = last_message(&cluster);
    assert_eq!(
        shown(&cluster, &large, "concat_ws(' ', record, body, status)"),
        "failed"
    );
    let detail = shown(&cluster, &large, "detail");
    assert!(
        detail.contains("webhook.max_message_size allows 10485760"),
        "{detail}"
    );

    cluster.sql(r#"insert into notes values (2, 'b', '{"nul": "\u0000"}')"#);
    wait_idle(&cluster);
    let odd = last_message(&cluster);
    assert_eq!(
        shown(&cluster, &odd, "body"),
        last_call(&receiver, "/ok").raw
    );
    assert_eq!(shown(&cluster, &odd, "jsonb_typeof(record)"), "string");
    assert!(shown(&cluster, &odd, "record #>> '{}'").contains(r#""nul": "\u0000""#));

    let unknown = cluster
        .connect("postgres")
        .query_one(
            "select webhook.message('00000000-0000-0000-0000-000000000000')",
            &[],
        )
        .unwrap_err();
    assert_eq!(unknown.code().map(|code| code.code()), Some("42704"));
    // What a superuser has written by hand is told, and nothing fails.
    cluster.sql("update webhook.event_def set payload_template = '{'");
    let detail = shown(&cluster, &odd, "detail");
    assert!(detail.contains("payload_template"), "{detail}");
    cluster.sql("update webhook.event_def set payload_template = null");
    cluster.exempt_from_bookkeeping("an event was edited by hand");
}
