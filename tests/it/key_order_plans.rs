//! `delivery_order => 'key'`: what the worker looks up about a key does not depend on how many
//! messages wait for others, also with plans made while few did.

use super::fifo::{cluster_with, insert, QUEUE};
use super::support::definitions::{create_event, create_webhook};
use super::support::worker::{wait_until_gone, worker_of};
use super::support::PATIENCE;

const BEHIND: i64 = 20_000;

#[test]
fn thousands_behind_one_key_cost_another_key_nothing() {
    const PATH: &str = "/status/422/plans";
    let (cluster, receiver) = cluster_with("keyplans", "1h");
    cluster.sql("alter table items add primary key (id)");
    let options = "delivery_order => 'key', log_level => 'none'";
    create_webhook(&cluster, PATH, &[receiver.url(PATH)], options);
    for kind in ["Insert", "Update"] {
        create_event(&cluster, PATH, "items", kind, "");
    }
    insert(&cluster, 1..=2);
    cluster.wait_for_text(PATIENCE, QUEUE, "active 0 2 0");
    cluster.sql("update items set version = 2 where id = 2");
    cluster.wait_for_text(PATIENCE, QUEUE, "active 1 2 0");
    // As many as no test has the time to send: they are behind the first message of row 1.
    cluster.sql(&format!(
        "insert into webhook_internal.retry (url_key, xid, id, message_id, webhook_key, event_key, event_date,
                                    attempts, state, next_at, key_hash)
         select r.url_key, r.xid, r.id + n, gen_random_uuid(), r.webhook_key, r.event_key, r.event_date,
                0, 'waiting', 'infinity', r.key_hash
         from (select * from webhook_internal.retry order by id limit 1) r, generate_series(1, {BEHIND}) n"
    ));
    let read = || -> i64 {
        cluster.value(
            "select idx_tup_read::bigint from (
                           select sum(idx_tup_read) as idx_tup_read from pg_stat_user_indexes
                           where schemaname = 'webhook_internal' and relname = 'retry') s",
        )
    };
    let before = read();
    receiver.behave(PATH, "/ok");
    cluster.sql(
        "select webhook.cancel((select message_id from webhook_internal.retry
                                where next_at < 'infinity' order by id desc limit 1))",
    );
    receiver.wait_for(PATIENCE, PATH, 3);
    // It tells its statistics when it ends.
    let worker = worker_of(&cluster, "postgres");
    cluster.signal(worker, "TERM");
    wait_until_gone(&cluster, PATIENCE, worker);
    let read = read() - before;
    assert!(read < BEHIND / 4, "{read} index entries were read");
}
