//! A standby sends nothing; once it is promoted, everything (fault 11).

use super::support::watched::{assert_items_delivered, insert_items, watch_items};
use super::support::{Cluster, Receiver, StopMode, PATIENCE};

const WORKERS: &str =
    "select count(*)::text from pg_stat_activity where backend_type like 'webhook%'";

#[test]
fn a_standby_sends_nothing_until_it_is_promoted_and_then_everything_pending() {
    let primary = Cluster::builder("primary")
        .set("shared_preload_libraries", "webhook_ext")
        .set("webhook.allowed_networks", "127.0.0.0/8")
        .start();
    primary.sql("create extension webhook_ext");
    let receiver = Receiver::start();
    watch_items(&primary, &receiver, "/ok/a");
    insert_items(&primary, 1..=20);
    assert_items_delivered(&primary, &receiver, "/ok/a", PATIENCE);
    let standby = primary.follow("standby");

    primary.configure("webhook.delivery", "off");
    primary.reload();
    primary.wait_for_text(PATIENCE, "show webhook.delivery", "off");
    insert_items(&primary, 21..=70);
    let end: String = primary.value("select pg_current_wal_flush_lsn()::text");
    let has_all = format!("select (pg_last_wal_replay_lsn() >= '{end}')::text");
    standby.wait_for_text(PATIENCE, &has_all, "true");
    assert_eq!(standby.value::<String>(WORKERS), "0", "nothing runs there");
    for (call, message) in [
        ("webhook.start_worker()", "cannot start the webhook worker"),
        (
            "webhook.pause_webhook('/ok/a')",
            "webhooks cannot be changed",
        ),
    ] {
        let refusal = standby
            .connect("postgres")
            .batch_execute(&format!("select {call}"))
            .unwrap_err();
        let refusal = refusal.as_db_error().expect("the server answered");
        assert_eq!(refusal.code().code(), "55000", "{refusal}");
        assert!(refusal.message().starts_with(message), "{refusal}");
        assert!(refusal
            .hint()
            .is_some_and(|hint| hint.contains("promotion")));
    }
    let preview: String = standby.value("select webhook.preview_payload(id) from webhook.events");
    assert!(
        preview.contains("\"eventType\":\"table.recordInsert\""),
        "{preview}"
    );
    assert_eq!(
        standby.value::<i64>("select count(*) from webhook.messages where status = 'pending'"),
        50
    );
    // What only reads takes no lock and no transaction id.
    let webhook = "'/v3/outgoingWebhooks/' || (select id from webhook.webhooks)";
    for found in [
        "webhook.explain_event((select id from webhook.events)) e where check_name = 'worker' and not ok".to_owned(),
        "webhook.reveal_secret('/ok/a') e".to_owned(),
        "webhook.template_parameters('items') e where parameter = '[@field:id]'".to_owned(),
        format!("webhook.rest('GET', {webhook}) e where status = 200"),
        format!("webhook.rest('GET', {webhook} || '/events') e where status = 200"),
        "webhook.message((select message_id from webhook.messages where status = 'pending' limit 1)) e
         where body is not null".to_owned(),
    ] {
        let asked = format!("select count(*) from {found}");
        assert_eq!(standby.value::<i64>(&asked), 1, "{asked}");
    }
    assert_eq!(receiver.count("/ok/a").requests, 20);

    primary.stop(StopMode::Immediate);
    standby.promote();
    receiver.wait_for(PATIENCE, "/ok/a", 70);
    assert_items_delivered(&standby, &receiver, "/ok/a", PATIENCE);
    insert_items(&standby, 71..=90);
    assert_items_delivered(&standby, &receiver, "/ok/a", PATIENCE);
}
