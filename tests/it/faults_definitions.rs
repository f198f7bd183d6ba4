//! Definition rows that were edited by hand into something that cannot be used
//! (fault 8): only that webhook stops, its view says why, and mending it is enough.

use super::support::watched::{
    assert_all_received, insert_items, wait_until_nothing_is_left, watch_items,
};
use super::support::worker::{cluster_restarts, worker_of};
use super::support::{ready_cluster, Cluster, Receiver, PATIENCE};

/// What is edited where, and what the view says of it (a regular expression).
const EDITS: &[(&str, &str, &str)] = &[
    ("url_def", "url = 'not a url'", "not a url"),
    ("url_def", "url = 'ftp://127.0.0.1/x'", "ftp"),
    ("url_def", "url = ''", "."),
    ("secret_def", "secret = 'whsec_short'", "secret"),
    (
        "secret_def",
        "expires_at = now() - interval '1 hour'",
        "no secret",
    ),
    (
        "webhook_def",
        "headers = '{\"host\": \"elsewhere\"}'",
        "host",
    ),
    (
        "webhook_def",
        "headers = '{\"x-a\": \"b\\r\\nx-c: d\"}'",
        "x-a",
    ),
    ("webhook_def", "headers = '17'", "headers"),
    (
        "event_def",
        "payload_template = '{\"a\": '",
        "event \".*line 1",
    ),
    (
        "event_def",
        "payload_template = '{\"a\": \"[@field:nowhere\"}'",
        "event \"",
    ),
];

/// What the event has whose template is edited, and not only invented.
const TEMPLATE: &str = r#"{"eventType": "[@out-hook:eventType]", "data": [{"id": "[@field:id]"}]}"#;

fn path_of(edit: usize) -> String {
    format!("/ok/edited/{edit}")
}

fn key_of(path: &str) -> String {
    format!("(select webhook_key from webhook.webhook_def where name = '{path}')")
}

/// Makes the rows what they were when `webhook.*_def` was copied.
fn mend(cluster: &Cluster) {
    for (table, key, columns) in [
        ("url_def", "url_key", "url"),
        ("webhook_def", "webhook_key", "headers"),
        ("event_def", "event_key", "payload_template"),
        ("secret_def", "webhook_key", "(secret, expires_at)"),
    ] {
        let kept = columns.replace('(', "(select k.").replace(", ", ", k.");
        let kept = if kept == columns {
            format!("k.{columns}")
        } else {
            kept
        };
        cluster.sql(&format!(
            "update webhook.{table} d set {columns} = {kept} from kept_{table} k where d.{key} = k.{key}"
        ));
    }
}

#[test]
fn a_definition_that_cannot_be_used_stops_its_webhook_alone_until_it_is_mended() {
    let (cluster, receiver) = ready_cluster("edited");
    watch_items(&cluster, &receiver, "/ok/healthy");
    for (number, _) in EDITS.iter().enumerate() {
        watch_items(&cluster, &receiver, &path_of(number));
    }
    for (number, _) in EDITS
        .iter()
        .enumerate()
        .filter(|(_, edit)| edit.1.contains("@field"))
    {
        cluster.sql(&format!(
            "select webhook.update_event(id, payload_template => '{TEMPLATE}')
             from webhook.events where webhook_name = '{}'",
            path_of(number)
        ));
    }
    insert_items(&cluster, 1..=10);
    wait_until_nothing_is_left(&cluster, PATIENCE);
    let worker = worker_of(&cluster, "postgres");
    for table in ["url_def", "webhook_def", "event_def", "secret_def"] {
        cluster.sql(&format!(
            "create table kept_{table} as select * from webhook.{table}"
        ));
    }
    for (number, (table, edit, _)) in EDITS.iter().enumerate() {
        let key = key_of(&path_of(number));
        cluster.sql(&format!(
            "update webhook.{table} set {edit} where webhook_key = {key}"
        ));
        insert_items(&cluster, 11 + number as i64..=11 + number as i64);
    }
    insert_items(&cluster, 101..=120);

    for (number, (table, edit, reason)) in EDITS.iter().enumerate() {
        let path = path_of(number);
        let shown =
            "select coalesce((select detail from webhook.webhooks where name = $1), 'none')";
        let mut session = cluster.connect("postgres");
        cluster.wait_until(PATIENCE, &format!("{table} {edit} to be reported"), || {
            let detail: String = session.query_one(shown, &[&path]).unwrap().get(0);
            let row = session.query_one("select $1 ~ $2", &[&detail, &reason]);
            if detail != "none" && row.unwrap().get(0) {
                Ok(())
            } else {
                Err(detail)
            }
        });
    }
    assert_only_these_stopped(&cluster, &receiver);
    mend(&cluster);
    wait_until_nothing_is_left(&cluster, PATIENCE);
    for (number, _) in EDITS.iter().enumerate() {
        assert_all_received(&cluster, &receiver.received_at(&path_of(number)));
    }
    let complaints = "select string_agg(detail, '; ') from webhook.webhooks";
    assert_eq!(cluster.value::<Option<String>>(complaints), None);
    assert_eq!(worker_of(&cluster, "postgres"), worker);
    assert_eq!(cluster_restarts(&cluster), 0, "{}", cluster.log());
}

fn assert_only_these_stopped(cluster: &Cluster, receiver: &Receiver) {
    let rows: i64 = cluster.value("select count(*) from items");
    receiver.wait_for(PATIENCE, "/ok/healthy", rows as u64);
    assert_all_received(cluster, &receiver.received_at("/ok/healthy"));
    let waiting = cluster.psql(
        "select webhook_name, pending from webhook.queue
         where pending < 20 and webhook_name <> '/ok/healthy' or state <> 'active' and pending = 0",
    );
    assert_eq!(
        waiting, "",
        "a webhook that cannot be used has sent something"
    );
}

/// Out of range is not unusable: such a number counts as the nearest that makes sense.
#[test]
fn numbers_out_of_range_stop_nobody() {
    let (cluster, receiver) = ready_cluster("numbers");
    watch_items(&cluster, &receiver, "/ok/healthy");
    watch_items(&cluster, &receiver, "/ok/edited");
    let key = key_of("/ok/edited");
    for (edit, id) in [
        ("max_in_flight = -5, max_attempts = 0", 1),
        ("call_throttling = -3", 2),
        ("max_age = '-5 days'", 3),
        ("max_age = '170000000 years'", 4),
    ] {
        cluster.sql(&format!(
            "update webhook.webhook_def set {edit} where webhook_key = {key}"
        ));
        insert_items(&cluster, id..=id);
        for path in ["/ok/healthy", "/ok/edited"] {
            receiver.wait_for(PATIENCE, path, id as u64);
        }
    }
    for path in ["/ok/healthy", "/ok/edited"] {
        assert_all_received(&cluster, &receiver.received_at(path));
    }
    assert_eq!(cluster_restarts(&cluster), 0, "{}", cluster.log());
}
