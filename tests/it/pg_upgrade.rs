//! pg_upgrade moves a database to a newer server: it is no copy, and nothing is lost (fault 12).

use std::env;

use super::support::watched::{assert_items_delivered, insert_items, watch_items};
use super::support::{Cluster, Receiver, StopMode, PATIENCE};

const SETTINGS: &[(&str, &str)] = &[("webhook.allowed_networks", "127.0.0.0/8")];

/// Needs the server of an older version, which `make test-matrix` has.
#[test]
#[ignore = "WEBHOOK_OLD_PG_CONFIG names the pg_config of an older server with the extension"]
fn what_is_pending_is_sent_after_pg_upgrade() {
    let old = env::var_os("WEBHOOK_OLD_PG_CONFIG").expect("WEBHOOK_OLD_PG_CONFIG is set");
    let receiver = Receiver::start();
    let builder = Cluster::builder("pg_upgrade_old").server(&old);
    let before = SETTINGS
        .iter()
        .fold(builder, |builder, (name, value)| builder.set(name, value))
        .start();
    before.sql("create extension webhook_ext");
    watch_items(&before, &receiver, "/ok/a");
    insert_items(&before, 1..=10);
    assert_items_delivered(&before, &receiver, "/ok/a", PATIENCE);
    before.sql("select webhook.pause_webhook('/ok/a')");
    insert_items(&before, 11..=20);
    let version = "select current_setting('server_version_num')::integer / 10000";
    let old_major: i32 = before.value(version);
    before.stop(StopMode::Fast);

    let after = before.upgrade("pg_upgrade_new", SETTINGS);
    assert!(after.value::<i32>(version) > old_major, "a newer server");
    let statuses = "select string_agg(status || ' ' || n, ', ' order by status)
                    from (select status, count(*) n from webhook.messages group by 1) s";
    assert_eq!(after.value::<String>(statuses), "delivered 10, pending 10");
    // Captured before the worker has recorded the move.
    insert_items(&after, 21..=30);
    after.sql("select webhook.resume_webhook('/ok/a')");
    let received = assert_items_delivered(&after, &receiver, "/ok/a", PATIENCE);
    assert_eq!(received.len(), 30);
    let agree = "select (o.system_identifier, o.database_oid) = (k.state_system, k.state_database)
                        and k.state_system = c.system_identifier
                        and k.state_server = current_setting('server_version_num')::integer / 10000
                 from webhook.def_origin o, webhook.control k, pg_control_system() c";
    assert!(after.value::<bool>(agree), "the move is recorded");
}
