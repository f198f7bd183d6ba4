//! Outbox and call log as rings of tables: what is past retention goes, what is pending or
//! canceled stays.

use super::support::definitions::wait_idle;
use super::support::rings::{
    count, files, kilobytes, rotate, rotate_until_emptied, small_cluster, small_cluster_with,
    written, ROTATED_LIMIT,
};
use super::support::watched::{assert_items_delivered, insert_items, watch_items};
use super::support::PATIENCE;

/// The ring has the tables 0 to 3.
const LAST_TABLE: i16 = 3;

#[test]
fn under_steady_load_everything_arrives_once_while_the_tables_stay_small() {
    const ROTATIONS: usize = 5;
    let (cluster, receiver) = small_cluster("rotation", "1h");
    watch_items(&cluster, &receiver, "/ok/a");
    let (mut next, mut largest) = (1, 0);
    let (mut outbox, mut log) = (files(&cluster, "outbox"), files(&cluster, "call_log"));
    let (mut outbox_emptied, mut log_emptied) = (0, 0);
    let changed = |known: &mut Vec<i64>, ring: &str| {
        let now = files(&cluster, ring);
        let changed = now.iter().zip(&*known).filter(|(now, old)| now != old);
        let count = changed.count();
        *known = now;
        count
    };
    cluster.wait_until(
        3 * ROTATED_LIMIT,
        "tables of both rings to be emptied",
        || {
            insert_items(&cluster, next..=next + 49);
            next += 50;
            // The worker that delivers is the one that rotates: neither runs ahead of the other.
            receiver.wait_for(PATIENCE, "/ok/a", next as u64 - 1);
            largest = largest.max(kilobytes(&cluster));
            outbox_emptied += changed(&mut outbox, "outbox");
            log_emptied += changed(&mut log, "call_log");
            if outbox_emptied >= ROTATIONS && log_emptied >= ROTATIONS {
                Ok(())
            } else {
                Err(format!(
                    "{outbox_emptied} of the outbox, {log_emptied} of the log"
                ))
            }
        },
    );
    let received = assert_items_delivered(&cluster, &receiver, "/ok/a", PATIENCE);
    let items = next - 1;
    assert_eq!(received.len() as i64, items, "nothing was repeated");
    // Sizes are looked at once a second, while this writes as fast as it can; empty indexes
    // count, too. Without rotation it would be ten times the limit and more.
    assert!(largest < 4 * 1024, "outbox and log had {largest} kB");
    assert_eq!(
        cluster.psql("select messages, calls, errors from webhook.webhooks"),
        format!("{items}|{items}|0\n")
    );
    assert!(
        count(&cluster, "webhook.messages") < items,
        "old ones are gone"
    );
    assert!(
        count(&cluster, "webhook.calls") < items,
        "old ones are gone"
    );
    assert_eq!(
        cluster.psql("select distinct status from webhook.messages"),
        "delivered\n"
    );
}

#[test]
fn what_a_paused_webhook_has_pending_stays_until_it_was_sent() {
    let (cluster, receiver) = small_cluster("rotation_paused", "2s");
    watch_items(&cluster, &receiver, "/ok/a");
    watch_items(&cluster, &receiver, "/ok/paused");
    cluster.sql("select webhook.pause_webhook('/ok/paused')");
    let mut next = 1;
    // All tables hold messages that are needed, so the last one stays the written one.
    cluster.wait_until(3 * ROTATED_LIMIT, "the last table of the ring", || {
        insert_items(&cluster, next..=next + 99);
        next += 100;
        match written(&cluster) {
            LAST_TABLE => Ok(()),
            other => Err(format!("table {other} is written after {next} items")),
        }
    });
    let oldest = files(&cluster, "outbox")[0];
    for _ in 0..10 {
        insert_items(&cluster, next..=next + 99);
        next += 100;
        wait_idle(&cluster);
    }
    assert_eq!(files(&cluster, "outbox")[0], oldest, "it is needed");
    assert_eq!(
        cluster.psql("select pending from webhook.queue where state = 'paused'"),
        format!("{}\n", next - 1)
    );
    cluster.sql("select webhook.resume_webhook('/ok/paused')");
    for path in ["/ok/paused", "/ok/a"] {
        let received = assert_items_delivered(&cluster, &receiver, path, PATIENCE);
        assert_eq!(
            received.len() as i64,
            next - 1,
            "{path}: nothing was repeated"
        );
    }
    // Nothing comes any more: by its age alone everything goes.
    cluster.wait_until(ROTATED_LIMIT, "the tables to be emptied", || {
        let (messages, calls) = (
            count(&cluster, "webhook.messages"),
            count(&cluster, "webhook.calls"),
        );
        if messages == 0 && calls == 0 {
            Ok(())
        } else {
            Err(format!("{messages} messages, {calls} calls"))
        }
    });
    assert_eq!(
        cluster.psql("select distinct messages, calls, errors from webhook.webhooks"),
        format!("{0}|{0}|0\n", next - 1)
    );
}

#[test]
fn a_message_that_waits_for_a_retry_survives_the_emptying_of_its_table() {
    let (cluster, receiver) = small_cluster_with("rotation_retry", "2s", "1h");
    watch_items(&cluster, &receiver, "/ok/a");
    watch_items(&cluster, &receiver, "/ok/failing");
    receiver.behave_for("/ok/failing", "/status/500", 1);
    insert_items(&cluster, 1..=1);
    cluster.wait_for_text(
        PATIENCE,
        "select sum(retrying)::text from webhook.queue",
        "1",
    );
    let id: String = cluster.value("select message_id::text from webhook_internal.retry");
    let mut next = 2;
    rotate(&cluster, &mut next);
    rotate_until_emptied(&cluster, 0, &mut next);
    assert_eq!(
        cluster.psql(&format!(
            "select status from webhook.messages where message_id = '{id}'"
        )),
        "pending\n"
    );
    assert_eq!(
        cluster.value::<i32>(&format!("select webhook.redeliver('{id}')")),
        1
    );
    let received = assert_items_delivered(&cluster, &receiver, "/ok/failing", PATIENCE);
    let calls: Vec<_> = received
        .iter()
        .filter(|call| call.message_id() == id)
        .collect();
    assert_eq!(calls.len(), 2);
    assert_eq!(calls[0].raw, calls[1].raw, "the same body");
    assert_eq!(received.len() as i64, next, "the others once");
    assert_eq!(receiver.received_at("/ok/a").len() as i64, next - 1);
    assert_eq!(
        cluster.psql("select sum(pending + retrying + failed) from webhook.queue"),
        "0\n"
    );
}

#[test]
fn what_was_canceled_stays_so_while_its_message_is_there() {
    let (cluster, receiver) = small_cluster("rotation_canceled", "2s");
    for path in ["/ok/a", "/ok/canceled", "/ok/holds"] {
        watch_items(&cluster, &receiver, path);
    }
    cluster.sql(
        "select webhook.pause_webhook('/ok/canceled');
         select webhook.pause_webhook('/ok/holds')",
    );
    insert_items(&cluster, 1..=10);
    let canceled: i64 = cluster.value("select webhook.cancel_pending('/ok/canceled')");
    assert_eq!(canceled, 10);
    // What this one has pending keeps the first table, while others come and go.
    cluster.sql(
        "select webhook.resume_webhook('/ok/canceled');
         select webhook.update_webhook('/ok/holds', enabled => false)",
    );
    let mut next = 11;
    rotate(&cluster, &mut next);
    let second = usize::try_from(written(&cluster)).unwrap();
    rotate_until_emptied(&cluster, second, &mut next);
    let statuses = "select w.name, m.status, count(*)
                    from webhook.messages m
                    join webhook.webhooks w on w.id = m.webhook_id
                    join webhook.outbox_0 o using (message_id)
                    where o.record ~ '\"id\":([1-9]|10),'
                    group by 1, 2 order by 1";
    assert_eq!(
        cluster.psql(statuses),
        "/ok/a|delivered|10\n/ok/canceled|canceled|10\n/ok/holds|pending|10\n"
    );
    assert_eq!(
        cluster.value::<i64>("select webhook.cancel_pending('/ok/holds')"),
        10
    );
    cluster.sql("select webhook.resume_webhook('/ok/holds')");
    rotate_until_emptied(&cluster, 0, &mut next);
    wait_idle(&cluster);
    let received = receiver.received_at("/ok/canceled");
    assert_eq!(received.len() as i64, next - 11, "what came later arrives");
    assert!(receiver.received_at("/ok/holds").is_empty());
    // Cancellations go with the messages that they are of, at the next rotation that finds no
    // URL behind the tail.
    cluster.wait_until(ROTATED_LIMIT, "the cancellations to be removed", || {
        rotate(&cluster, &mut next);
        match count(&cluster, "webhook_internal.cancellation") {
            0 => Ok(()),
            left => Err(format!("{left} cancellations")),
        }
    });
}
