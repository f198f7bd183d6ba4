//! With the library preloaded the workers are there when the server is.

use super::support::watched::{insert_items, watch_items, watch_items_in};
use super::support::{Cluster, Receiver, StopMode, PATIENCE};

const WORKERS: &str = "select string_agg(datname, ' ' order by datname)
                       from pg_stat_activity where backend_type = 'webhook_ext'";
const LAUNCHERS: &str = "select count(*)::text
                         from pg_stat_activity where backend_type = 'webhook_ext launcher'";

fn preloading(name: &str) -> super::support::cluster::Builder {
    Cluster::builder(name)
        .set("shared_preload_libraries", "webhook_ext")
        .set("webhook.allowed_networks", "127.0.0.0/8")
}

fn restart_with(cluster: &Cluster, setting: &str, value: &str) {
    cluster.stop(StopMode::Fast);
    cluster.configure(setting, value);
    cluster.start_again();
}

#[test]
fn what_waits_in_each_database_is_sent_when_the_server_is_back() {
    let cluster = preloading("launcher").start();
    let receiver = Receiver::start();
    cluster.sql("create database shop");
    cluster.sql("create database plain");
    cluster.sql("create database sample is_template true");
    for database in ["shop", "sample", "postgres"] {
        cluster.sql_in(database, "create extension webhook_ext");
    }
    watch_items(&cluster, &receiver, "/ok/main");
    watch_items_in(&cluster, "shop", &receiver, "/ok/shop", "");
    restart_with(&cluster, "webhook.delivery", "off");
    insert_items(&cluster, 1..=10);
    cluster.sql_in(
        "shop",
        "insert into items select n from generate_series(1, 20) n",
    );

    restart_with(&cluster, "webhook.delivery", "on");
    receiver.wait_for(PATIENCE, "/ok/main", 10);
    receiver.wait_for(PATIENCE, "/ok/shop", 20);
    cluster.wait_for_text(PATIENCE, LAUNCHERS, "0");
    cluster.wait_for_text(PATIENCE, WORKERS, "postgres shop");
    // A launched worker may be stopped and started as any other.
    assert!(cluster.value::<bool>("select webhook.stop_worker()"));
    cluster.wait_for_text(PATIENCE, WORKERS, "shop");
    cluster.sql("select webhook.start_worker()");
    cluster.wait_for_text(PATIENCE, WORKERS, "postgres shop");
    cluster.sql("drop database shop");
    assert!(!cluster.log().contains("PANIC"), "{}", cluster.log());
}

#[test]
fn a_worker_that_was_stopped_is_not_launched() {
    let cluster = preloading("launcher_stopped").start();
    cluster.sql("create database shop");
    cluster.sql_in("shop", "create extension webhook_ext");
    cluster.sql("create extension webhook_ext; select webhook.stop_worker()");
    cluster.stop(StopMode::Fast);
    cluster.start_again();
    cluster.wait_for_text(PATIENCE, LAUNCHERS, "0");
    cluster.wait_for_text(PATIENCE, WORKERS, "shop");
}

#[test]
fn the_launcher_can_be_switched_off() {
    // With the space it is not "unregistering", which follows when the launcher has ended.
    let registered = |cluster: &Cluster| {
        let log = cluster.log();
        log.matches(" registering background worker \"webhook_ext launcher\"")
            .count()
    };
    let cluster = preloading("launcher_off")
        .set("log_min_messages", "debug1")
        .start();
    let before = registered(&cluster);
    assert!(before > 0, "on by default");
    restart_with(&cluster, "webhook.database_workers", "off");
    assert_eq!(
        cluster.value::<String>("show webhook.database_workers"),
        "off"
    );
    assert_eq!(registered(&cluster), before, "off");
}

#[test]
fn where_slots_are_short_it_is_said_which_setting_to_raise() {
    // One slot is that of logical replication, one the launcher's.
    let cluster = preloading("launcher_slots")
        .set("max_worker_processes", 8)
        .start();
    cluster.sql("create extension webhook_ext");
    cluster.sql("create database shop");
    cluster.sql_in("shop", "create extension webhook_ext");
    restart_with(&cluster, "max_worker_processes", "3");
    cluster.wait_until(PATIENCE, "a warning with its hint", || {
        let log = cluster.log();
        let said = log.contains("no background worker slot is free for the webhooks of 1 database")
            && log.contains("HINT:  raise max_worker_processes");
        if said {
            Ok(())
        } else {
            Err(log)
        }
    });
    let running: i64 =
        cluster.value("select count(*) from pg_stat_activity where backend_type = 'webhook_ext'");
    assert_eq!(running, 1, "who came first has its worker");
}
