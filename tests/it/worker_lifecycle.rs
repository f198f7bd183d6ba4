//! When the worker starts and when it ends: one for each database that has the
//! extension, by whomever it is asked for and whatever happens to it.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use super::support::compare::{assert_delivered, changes};
use super::support::definitions::wait_idle;
use super::support::stalls;
use super::support::watched::{insert_items, watch_items, watch_items_in};
use super::support::worker::{cluster_restarts, wait_until_gone, worker_of};
use super::support::{ready_cluster, Cluster, Receiver, StopMode, PATIENCE};

/// The worker looks around once a second, and the postmaster starts another after a second.
const SOON: Duration = Duration::from_secs(3);

fn committed(ids: impl IntoIterator<Item = i64>) -> BTreeSet<String> {
    changes("recordInsert", ids)
}

/// Every worker process that the server knows, as `database pid`.
fn workers(cluster: &Cluster) -> Vec<String> {
    let mut session = cluster.connect("postgres");
    let rows = session.query(
        "select coalesce(datname, '?') || ' ' || pid from pg_stat_activity
         where backend_type = 'webhook_ext' order by 1",
        &[],
    );
    let rows = rows.expect("pg_stat_activity can be read");
    rows.iter().map(|row| row.get(0)).collect()
}

fn wait_for_workers(cluster: &Cluster, databases: &[&str]) {
    cluster.wait_until(PATIENCE, &format!("workers in {databases:?}"), || {
        let found = workers(cluster);
        let names: Vec<&str> = found
            .iter()
            .map(|worker| worker.split(' ').next().unwrap_or_default())
            .collect();
        if names == databases {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    });
}

/// How often a worker was asked for; needs `log_min_messages = debug1`.
fn registrations(cluster: &Cluster) -> usize {
    let said = "DEBUG:  registering background worker \"webhook_ext worker of database";
    cluster.log().matches(said).count()
}

#[test]
fn create_extension_starts_the_worker_at_its_commit_and_only_then() {
    let cluster = Cluster::builder("create_extension")
        .set("log_min_messages", "debug1")
        .start();
    // Else the second CREATE EXTENSION waited to see whether the first one makes them.
    cluster.sql("create role webhook_admin; create role webhook_reader; create role webhook_worker in role pg_read_all_stats");
    let mut session = cluster.connect("postgres");
    session
        .batch_execute("begin; create extension webhook_ext; rollback")
        .unwrap();
    session
        .batch_execute("begin; savepoint s; create extension webhook_ext; rollback to s; commit")
        .unwrap();
    session
        .batch_execute("begin; create extension webhook_ext")
        .unwrap();
    cluster.sql("create database other");
    cluster.sql_in("other", "create extension webhook_ext");
    // The postmaster sees requests in their order: one before this would be there, too.
    wait_for_workers(&cluster, &["other"]);
    assert_eq!(registrations(&cluster), 1);
    session.batch_execute("commit").unwrap();
    wait_for_workers(&cluster, &["other", "postgres"]);
    assert_eq!(registrations(&cluster), 2);
    assert_eq!(
        cluster.psql("select database, state, pid = any (select pid from pg_stat_activity), version, last_error is null
                      from webhook.worker"),
        "postgres|running|t|0.2.0|t\n"
    );
}

#[test]
fn a_worker_that_was_asked_for_a_moment_ago_is_starting() {
    let cluster = Cluster::builder("starting").start();
    cluster
        .sql("create role webhook_admin; create role webhook_reader; create role webhook_worker");
    // Nothing starts meanwhile: the postmaster is stopped.
    let mut session = cluster.connect("postgres");
    session.batch_execute("select 1").unwrap();
    let postmaster = cluster.postmaster_pid().expect("the server runs");
    cluster.signal(postmaster, "STOP");
    let mut seen = || -> Result<(String, Option<String>), postgres::Error> {
        session.batch_execute("create extension webhook_ext")?;
        let row = session.query_one("select state, last_error from webhook.worker", &[])?;
        Ok((row.get(0), row.get(1)))
    };
    let seen = seen();
    cluster.signal(postmaster, "CONT");
    assert_eq!(seen.unwrap(), ("starting".to_owned(), None));
    wait_for_workers(&cluster, &["postgres"]);
    assert_eq!(
        cluster.psql("select state, last_error is null from webhook.worker"),
        "running|t\n"
    );
}

#[test]
fn after_a_restart_the_first_captured_change_starts_one_worker_however_many_sessions_make_it() {
    let (cluster, receiver) = ready_cluster("restart");
    watch_items(&cluster, &receiver, "/ok");
    insert_items(&cluster, 1..=1);
    wait_idle(&cluster);
    cluster.stop(StopMode::Fast);
    cluster.start_again();
    assert_eq!(
        cluster.psql("select state, pid is null, last_error ~ 'start_worker' from webhook.worker"),
        "not running|t|t\n"
    );
    cluster.sql("begin; insert into items values (2); rollback; create table unwatched (id integer); insert into unwatched values (1)");
    assert_eq!(workers(&cluster), [""; 0]);

    thread::scope(|scope| {
        for id in 3..=18 {
            let cluster = &cluster;
            scope.spawn(move || insert_items(cluster, id..=id));
        }
    });
    receiver.wait_for(PATIENCE, "/ok", 17);
    wait_for_workers(&cluster, &["postgres"]);
    let pid = worker_of(&cluster, "postgres");
    assert!(!cluster.value::<bool>("select webhook.start_worker()"));
    wait_idle(&cluster);
    assert_eq!(worker_of(&cluster, "postgres"), pid);
    let received = receiver.received_at("/ok");
    assert_delivered(&committed([1].into_iter().chain(3..=18)), &received);
    assert_eq!(received.len(), 17);
}

#[test]
fn each_database_has_its_own_worker_webhooks_and_messages() {
    let (cluster, receiver) = ready_cluster("databases");
    let databases = ["postgres", "sales", "stock"];
    for (n, database) in databases.iter().enumerate() {
        if n > 0 {
            cluster.sql(&format!("create database {database}"));
            cluster.sql_in(database, "create extension webhook_ext");
        }
        watch_items_in(
            &cluster,
            database,
            &receiver,
            &format!("/ok/{database}"),
            "",
        );
    }
    cluster.sql("create database plain");
    cluster.sql_in(
        "plain",
        "create table items (id integer); insert into items values (1)",
    );
    wait_for_workers(&cluster, &databases);
    thread::scope(|scope| {
        for (n, database) in (0..).zip(databases) {
            let cluster = &cluster;
            scope.spawn(move || {
                let mut session = cluster.connect(database);
                for id in n * 100 + 1..=n * 100 + 50 {
                    let insert = format!("insert into items values ({id})");
                    session.batch_execute(&insert).unwrap();
                }
            });
        }
    });
    for (n, database) in (0..).zip(databases) {
        let path = format!("/ok/{database}");
        receiver.wait_for(PATIENCE, &path, 50);
        let received = receiver.received_at(&path);
        assert_delivered(&committed(n * 100 + 1..=n * 100 + 50), &received);
        assert_eq!(received.len(), 50);
    }
    let gone = worker_of(&cluster, "sales");
    let stays = worker_of(&cluster, "stock");
    cluster.sql_in("sales", "drop extension webhook_ext cascade");
    wait_until_gone(&cluster, SOON, gone);
    wait_for_workers(&cluster, &["postgres", "stock"]);
    assert_eq!(worker_of(&cluster, "stock"), stays);
}

#[test]
fn a_dropped_extension_takes_its_worker_along_and_a_new_one_brings_its_own() {
    let (cluster, receiver) = ready_cluster("drop_create");
    for round in 1..=3 {
        let path = format!("/ok/{round}");
        watch_items(&cluster, &receiver, &path);
        insert_items(&cluster, round * 10..=round * 10 + 4);
        wait_idle(&cluster);
        let received = receiver.received_at(&path);
        assert_delivered(&committed(round * 10..=round * 10 + 4), &received);
        assert_eq!(received.len(), 5);
        let worker = worker_of(&cluster, "postgres");
        cluster.sql("drop extension webhook_ext cascade");
        if round == 2 {
            // At once, while the last one is still there.
            cluster.sql("create extension webhook_ext");
            wait_until_gone(&cluster, SOON, worker);
        } else {
            wait_until_gone(&cluster, SOON, worker);
            assert_eq!(workers(&cluster), [""; 0]);
            cluster.sql("insert into items values (-1); delete from items where id = -1");
            cluster.sql("create extension webhook_ext");
        }
        wait_for_workers(&cluster, &["postgres"]);
    }
    assert_eq!(cluster_restarts(&cluster), 0, "{}", cluster.log());
}

#[test]
fn a_stopped_worker_stays_away_until_it_is_started_and_loses_nothing() {
    let (cluster, receiver) = ready_cluster("stop_start");
    watch_items(&cluster, &receiver, "/ok");
    insert_items(&cluster, 1..=1);
    wait_idle(&cluster);
    let worker = worker_of(&cluster, "postgres");
    assert!(cluster.value::<bool>("select webhook.stop_worker()"));
    wait_until_gone(&cluster, SOON, worker);
    assert!(!cluster.value::<bool>("select webhook.stop_worker()"));
    insert_items(&cluster, 2..=3);
    cluster.stop(StopMode::Fast);
    cluster.start_again();
    insert_items(&cluster, 4..=5);
    assert!(!cluster.value::<bool>("select webhook.wait_idle('1 second')"));
    assert_eq!(workers(&cluster), [""; 0]);
    assert_eq!(
        cluster.psql("select state, last_error is null from webhook.worker"),
        "stopped|t\n"
    );
    assert_eq!(receiver.count("/ok").requests, 1);
    assert!(cluster.value::<bool>("select webhook.start_worker()"));
    receiver.wait_for(PATIENCE, "/ok", 5);
    wait_idle(&cluster);
    let received = receiver.received_at("/ok");
    assert_delivered(&committed(1..=5), &received);
    assert_eq!(received.len(), 5);
}

#[test]
fn a_terminated_worker_is_back_within_seconds() {
    let (cluster, receiver) = ready_cluster("terminate");
    watch_items(&cluster, &receiver, "/ok");
    let mut session = cluster.connect("postgres");
    for round in 1..=2 {
        let before = worker_of(&cluster, "postgres");
        stalls::assert_within(SOON, "the way to the next worker", || {
            cluster.sql(&format!("select pg_terminate_backend({before})"));
            wait_until_gone(&cluster, SOON, before);
            session
                .batch_execute(&format!("insert into items values ({round})"))
                .unwrap();
            receiver.wait_for(PATIENCE, "/ok", round);
        });
        assert_ne!(worker_of(&cluster, "postgres"), before);
    }
    wait_for_workers(&cluster, &["postgres"]);
    wait_idle(&cluster);
    assert_eq!(receiver.received_at("/ok").len(), 2);
    assert_eq!(cluster_restarts(&cluster), 0);
}

#[test]
fn a_reload_changes_what_is_sent_and_how_much_at_a_time() {
    let (cluster, receiver) = ready_cluster("reload");
    for path in ["/slow/30/a", "/slow/30/b", "/slow/30/c"] {
        watch_items(&cluster, &receiver, path);
    }
    let accounts = || -> BTreeSet<String> {
        let received = receiver.received();
        let accounts = received
            .iter()
            .map(|message| message.body()["accountId"].to_string());
        accounts.collect()
    };
    insert_items(&cluster, 1..=20);
    wait_idle(&cluster);
    assert!(receiver.count("/slow").most_in_flight > 2);
    assert_eq!(accounts().len(), 1);
    assert!(!accounts().contains("\"acme\""));

    receiver.reset();
    cluster.configure("webhook.account_id", "acme");
    cluster.configure("webhook.connections", "2");
    cluster.reload();
    // One message at a time until the worker has heard of it.
    let mut id = 20;
    cluster.wait_until(PATIENCE, "the worker to reload", || {
        id += 1;
        insert_items(&cluster, id..=id);
        wait_idle(&cluster);
        let last = receiver.received().pop().expect("it was sent");
        let account = last.body()["accountId"].to_string();
        if account == "\"acme\"" {
            Ok(())
        } else {
            Err(account)
        }
    });
    receiver.reset();
    insert_items(&cluster, id + 1..=id + 20);
    wait_idle(&cluster);
    assert_eq!(receiver.count("/slow").requests, 60);
    assert_eq!(accounts(), BTreeSet::from(["\"acme\"".to_owned()]));
    // Each call takes at least 30 ms, so a third one in this time was one too many.
    let mut at: Vec<u64> = receiver
        .received()
        .iter()
        .map(|call| call.received_at_us)
        .collect();
    at.sort_unstable();
    for three in at.windows(3) {
        let took_us = three[2] - three[0];
        assert!(took_us >= 30_000, "three calls within {took_us} us");
    }
}

#[test]
fn a_prepared_transaction_is_sent_once_it_is_committed_and_never_if_it_is_rolled_back() {
    /// Well below the ten seconds after which the worker looks in any case.
    const LOOK: Duration = Duration::from_secs(5);
    let cluster = Cluster::builder("prepared")
        .set("webhook.allowed_networks", "127.0.0.0/8")
        .set("max_prepared_transactions", 5)
        .start();
    cluster.sql("create extension webhook_ext");
    let receiver = Receiver::start();
    watch_items(&cluster, &receiver, "/ok");
    for (name, id) in [("kept", 1), ("given_up", 2), ("over_restart", 3)] {
        cluster.sql(&format!(
            "begin; insert into items values ({id}); prepare transaction '{name}'"
        ));
    }
    insert_items(&cluster, 10..=12);
    wait_idle(&cluster);
    assert_eq!(receiver.received_at("/ok").len(), 3);
    cluster.sql("rollback prepared 'given_up'");
    cluster.sql("commit prepared 'kept'");
    receiver.wait_for(LOOK, "/ok", 4);

    cluster.stop(StopMode::Fast);
    cluster.start_again();
    cluster.sql("commit prepared 'over_restart'");
    insert_items(&cluster, 13..=13);
    receiver.wait_for(LOOK, "/ok", 6);
    wait_idle(&cluster);
    let received = receiver.received_at("/ok");
    assert_delivered(&committed([1, 3, 10, 11, 12, 13]), &received);
    assert_eq!(received.len(), 6);
}
