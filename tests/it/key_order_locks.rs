//! `delivery_order => 'key'` while other sessions hold locks: what waits behind another message is
//! sent once they let go, whatever was undone meanwhile.

use super::fifo::{cluster_with, insert, number, QUEUE};
use super::support::definitions::{create_event, create_webhook};
use super::support::{Cluster, Received, Receiver, PATIENCE};

const MARKER: &str = "/ok/marker";

/// A table of versioned rows, and a webhook of this path alone that keeps the order of its keys.
fn keyed(name: &str, schedule: &str, path: &str) -> (Cluster, Receiver) {
    let (cluster, receiver) = cluster_with(name, schedule);
    cluster
        .sql("alter table items add primary key (id); create table others (id bigint primary key)");
    watch(&cluster, &receiver, path, "items", "key");
    (cluster, receiver)
}

fn watch(cluster: &Cluster, receiver: &Receiver, path: &str, table: &str, order: &str) {
    let options = format!("delivery_order => '{order}', log_level => 'none'");
    create_webhook(cluster, path, &[receiver.url(path)], &options);
    for kind in ["Insert", "Update"] {
        create_event(cluster, path, table, kind, "");
    }
}

fn update(cluster: &Cluster) {
    cluster.sql("update items set version = version + 1 where id = 1");
}

fn versions(received: &[Received]) -> Vec<i64> {
    let mut seen: Vec<i64> = received
        .iter()
        .map(|call| number(call, "version"))
        .collect();
    seen.dedup();
    seen
}

/// The worker has read what was committed before: it sends a message that came later.
fn wait_until_definitions_are_read(cluster: &Cluster, receiver: &Receiver) {
    let before = receiver.count(MARKER).requests;
    cluster.sql(&format!("insert into others values ({before})"));
    receiver.wait_for(PATIENCE, MARKER, before + 1);
}

#[test]
fn what_became_due_in_a_transaction_that_was_undone_becomes_due_again() {
    const PATH: &str = "/refuses/1";
    const FIFO: &str = "/status/422/fifo";
    let (cluster, receiver) = keyed("keyundone", "1h", PATH);
    watch(&cluster, &receiver, FIFO, "others", "fifo");
    insert(&cluster, 1..=1);
    receiver.wait_for(PATIENCE, PATH, 1);
    update(&cluster);
    cluster.sql("insert into others values (1)");
    let waiting = "select count(*)::text from webhook_internal.retry where state = 'waiting'";
    cluster.wait_for_text(PATIENCE, waiting, "3");
    receiver.behave(PATH, "/ok");
    let mut session = cluster.connect("postgres");
    session
        .batch_execute(
            "begin;
             lock table webhook.outbox_0, webhook.outbox_1, webhook.outbox_2, webhook.outbox_3
                 in access exclusive mode",
        )
        .expect("the outbox can be locked");
    // Both URLs ask what is next in one transaction, and the second needs the outbox for it.
    cluster.sql(&format!(
        "begin;
         update webhook_internal.retry r set state = 'canceled', next_at = null
         from webhook.webhook_def w
         where w.webhook_key = r.webhook_key and w.name = '{PATH}' and r.next_at < 'infinity';
         select webhook.resume_webhook('{PATH}'), webhook.resume_webhook('{FIFO}');
         commit"
    ));
    let blocked = "select (detail like '%outbox%')::text from webhook.worker";
    cluster.wait_for_text(PATIENCE, blocked, "true");
    session.batch_execute("rollback").expect("the lock is gone");
    receiver.wait_for(PATIENCE, PATH, 2);
    assert_eq!(versions(&receiver.received_at(PATH)), [1, 2]);
}

#[test]
fn a_message_that_was_locked_when_the_order_changed_is_sent_after_that() {
    const PATH: &str = "/refuses/1";
    let (cluster, receiver) = keyed("keyrelease", "1h", PATH);
    insert(&cluster, 1..=1);
    receiver.wait_for(PATIENCE, PATH, 1);
    update(&cluster);
    cluster.wait_for_text(PATIENCE, QUEUE, "active 1 1 0");
    receiver.behave(PATH, "/ok");
    let mut session = cluster.connect("postgres");
    session
        .batch_execute(
            "begin; select webhook.cancel(message_id) from webhook_internal.retry where next_at = 'infinity'",
        )
        .expect("a message is canceled");
    cluster.sql(&format!(
        "select webhook.update_webhook('{PATH}', delivery_order => 'none')"
    ));
    insert(&cluster, 2..=2);
    receiver.wait_for(PATIENCE, PATH, 2);
    session
        .batch_execute("rollback")
        .expect("the cancellation is taken back");
    receiver.wait_for(PATIENCE, PATH, 3);
    cluster.wait_for_text(PATIENCE, QUEUE, "active 0 1 0");
}

#[test]
fn a_message_canceled_and_redelivered_before_it_could_be_written_arrives() {
    const PATH: &str = "/refuses/1";
    let (cluster, receiver) = keyed("keyagain", "3s", PATH);
    watch(&cluster, &receiver, MARKER, "others", "none");
    insert(&cluster, 1..=1);
    receiver.wait_for(PATIENCE, PATH, 1);
    let retrying = format!(
        "select concat_ws(' ', pending, retrying) from webhook.queue where webhook_name = '{PATH}'"
    );
    cluster.wait_for_text(PATIENCE, &retrying, "0 1");
    let mut session = cluster.connect("postgres");
    session
        .batch_execute("begin; select from webhook_internal.retry for update")
        .expect("a retry can be locked");
    receiver.wait_for(PATIENCE, PATH, 2);
    update(&cluster);
    let message =
        "(select o.message_id from webhook_internal.outbox o join webhook.webhook_def w using (webhook_key)
                    where w.name = '/refuses/1' order by o.id desc limit 1)";
    let is_taken = format!(
        "select exists (select from webhook_internal.busy b join webhook_internal.outbox o using (xid, id)
                        where o.message_id = {message})::text"
    );
    cluster.wait_for_text(PATIENCE, &is_taken, "true");
    assert!(cluster.value::<bool>(&format!("select webhook.cancel({message})")));
    wait_until_definitions_are_read(&cluster, &receiver);
    let again: i32 = cluster.value(&format!("select webhook.redeliver({message})"));
    assert_eq!(again, 1);
    receiver.behave(PATH, "/ok");
    session.batch_execute("rollback").expect("the lock is gone");
    receiver.wait_for(PATIENCE, PATH, 4);
    assert_eq!(versions(&receiver.received_at(PATH)), [1, 2]);
    cluster.wait_for_text(PATIENCE, &retrying, "0 0");
}

#[test]
fn what_is_canceled_while_it_waits_for_a_call_of_its_key_is_counted_once() {
    const PATH: &str = "/slow/8000";
    let (cluster, receiver) = keyed("keycounted", "1h", PATH);
    watch(&cluster, &receiver, MARKER, "others", "none");
    insert(&cluster, 1..=1);
    cluster.sql(
        "do $$ begin for n in 1..20 loop update items set version = version + 1; commit; end loop; end $$",
    );
    let pending = format!("select pending::text from webhook.queue where webhook_name = '{PATH}'");
    cluster.wait_for_text(PATIENCE, &pending, "21");
    wait_until_definitions_are_read(&cluster, &receiver);
    let canceled: i64 = cluster.value(&format!("select webhook.cancel_pending('{PATH}')"));
    assert_eq!(canceled, 20);
    let unnoted =
        "select count(*)::text from webhook_internal.cancellation where taken_before is null";
    cluster.wait_for_text(PATIENCE, unnoted, "0");
    assert_eq!(cluster.value::<String>(&pending), "1");
    // Also what comes later is counted as it is, before counts are compared with the truth.
    update(&cluster);
    assert_eq!(cluster.value::<String>(&pending), "2");
    assert_eq!(receiver.count(PATH).requests, 1);
}
