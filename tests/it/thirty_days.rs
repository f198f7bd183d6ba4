//! What webhooks and events counted in the last thirty days.

use super::support::definitions::wait_idle;
use super::support::items::{cluster_with, insert, watch};
use super::support::{Cluster, PATIENCE};

/// Lifetime and thirty days, of the webhook and of its event; then as REST has them.
fn figures(cluster: &Cluster) -> String {
    let views = "
        select concat_ws(' ', w.messages, w.calls, w.errors, w.messages_30d, w.calls_30d, w.errors_30d, '/',
                         e.messages_30d, e.calls_30d, e.errors_30d, '/',
                         o.body ->> 'Messages30Days', o.body ->> 'Calls30Days', o.body ->> 'Errors30Days', '/',
                         l.body -> 0 ->> 'Messages30Days', l.body -> 0 ->> 'Calls30Days', l.body -> 0 ->> 'Errors30Days')
        from webhook.webhooks w
        join webhook.events e on e.webhook_id = w.id
        cross join webhook.rest('GET', '/v3/outgoingWebhooks/' || w.id) o
        cross join webhook.rest('GET', '/v3/outgoingWebhooks/' || w.id || '/events') l";
    cluster.value(views)
}

fn wait_until_counted(cluster: &Cluster, messages: i64) {
    let counted = "select coalesce(sum(messages), 0)::text from webhook_internal.counter";
    cluster.wait_for_text(PATIENCE, counted, &messages.to_string());
}

#[test]
fn figures_of_thirty_days_leave_out_what_was_counted_before() {
    let (cluster, receiver) = cluster_with("thirty_days", "1h");
    watch(&cluster, &receiver, "good", &["/ok", "/status/500"], "");
    insert(&cluster, 1..=3);
    wait_idle(&cluster);
    let three = "3 6 3 3 6 3 / 3 6 3 / 3 6 3 / 3 6 3";
    assert_eq!(figures(&cluster), three);
    wait_until_counted(&cluster, 3);
    assert_eq!(figures(&cluster), three);

    // Thirty days later nothing of it counts …
    cluster.sql("update webhook_internal.counter_day set day = day - 30");
    assert_eq!(figures(&cluster), "3 6 3 0 0 0 / 0 0 0 / 0 0 0 / 0 0 0");
    insert(&cluster, 4..=5);
    wait_idle(&cluster);
    let two = "5 10 5 2 4 2 / 2 4 2 / 2 4 2 / 2 4 2";
    assert_eq!(figures(&cluster), two);
    wait_until_counted(&cluster, 5);
    assert_eq!(figures(&cluster), two);
    // … and nothing of it is kept.
    let days: i64 = cluster.value("select count(*) from webhook_internal.counter_day");
    assert_eq!(days, 1);
    // A day less, and all of it does.
    cluster.sql("update webhook_internal.counter_day set day = day - 29");
    assert_eq!(figures(&cluster), two);
}
