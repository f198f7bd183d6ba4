//! What is settled is forgotten after `webhook.log_retention`, by its age alone.

use super::support::rings::{count, small_cluster, ROTATED_LIMIT};
use super::support::watched::{assert_items_delivered, insert_items, watch_items, watch_items_in};
use super::support::PATIENCE;

/// Delivered and failed messages, and their calls, go by themselves; counters stay.
fn assert_forgotten(name: &str, retention: &str) {
    let (cluster, receiver) = small_cluster(name, retention);
    watch_items(&cluster, &receiver, "/ok/a");
    watch_items_in(
        &cluster,
        "postgres",
        &receiver,
        "/status/400",
        ", max_attempts => 1",
    );
    insert_items(&cluster, 1..=20);
    receiver.wait_for(PATIENCE, "/status/400", 20);
    cluster.wait_until(ROTATED_LIMIT, "everything to be forgotten", || {
        let left = [
            "webhook.messages",
            "webhook.calls",
            "webhook_internal.retry",
        ]
        .map(|relation| count(&cluster, relation));
        if left == [0; 3] {
            Ok(())
        } else {
            Err(format!("{left:?} messages, calls and retries"))
        }
    });
    assert_eq!(
        cluster.psql("select sum(pending + retrying + failed) from webhook.queue"),
        "0\n"
    );
    assert_eq!(
        cluster.psql("select name, messages, calls, errors from webhook.webhooks order by name"),
        "/ok/a|20|20|0\n/status/400|20|20|20\n"
    );
    insert_items(&cluster, 21..=21);
    let received = assert_items_delivered(&cluster, &receiver, "/ok/a", PATIENCE);
    assert_eq!(received.len(), 21);
}

#[test]
fn who_changed_what_is_kept_for_the_retention_and_as_long_as_the_definition_lives() {
    let (cluster, receiver) = small_cluster("changes_retention", "10s");
    watch_items(&cluster, &receiver, "/ok/a");
    watch_items(&cluster, &receiver, "/ok/b");
    cluster.sql(
        "select webhook.pause_webhook('/ok/a'); select webhook.drop_webhook('/ok/b');
         select webhook.cancel_pending('/ok/a')",
    );
    let kept = "select string_agg(concat_ws(' ', name, kind, action), ', ' order by changed_at)
                from webhook.changes";
    let all: String = cluster.value(kept);
    for action in [
        "/ok/b webhook create",
        "/ok/b event drop",
        "/ok/a webhook cancel_pending",
    ] {
        assert!(all.contains(action), "{all}");
    }
    let of_what_lives: String = cluster.value(
        "select string_agg(concat_ws(' ', name, kind, action), ', ' order by changed_at)
         from webhook.changes where name = '/ok/a' and action <> 'cancel_pending'",
    );
    cluster.wait_for_text(ROTATED_LIMIT, kept, &of_what_lives);
}

#[test]
fn what_was_delivered_or_has_failed_is_forgotten_after_its_retention() {
    assert_forgotten("retention", "2s");
}

#[test]
fn without_retention_everything_is_forgotten_as_soon_as_it_is_settled() {
    assert_forgotten("no_retention", "0");
}
