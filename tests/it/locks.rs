//! Locks of administrators: what is locked delays at most what needs it.
//!
//! Each test takes a lock in a session of its own, measures how long messages of a webhook take
//! that the lock does not concern, lets go, and compares every count with the truth.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use postgres::Client;

use super::support::definitions::{create_event, create_webhook};
use super::support::stalls::now_us;
use super::support::watched::{wait_idle, wait_until_nothing_is_left};
use super::support::worker::{cluster_restarts, wait_until_gone, worker_of};
use super::support::{Cluster, Received, Receiver, PATIENCE};

const HEALTHY: &str = "/ok/healthy";
const LOCKED: &str = "/status/400/locked";
/// What a lock that does not concern a webhook may cost its messages, on a busy machine.
const NEARLY_NORMAL: Duration = Duration::from_secs(1);
/// A message that takes longer counts as this late.
const TOO_LATE: Duration = Duration::from_secs(20);
/// Messages a measurement takes.
const MESSAGES: usize = 100;
const PAUSE: Duration = Duration::from_millis(10);

/// Two webhooks with a table each. Calls of the second fail and are repeated all the time, so
/// that its rows change.
struct Scene {
    cluster: Cluster,
    receiver: Receiver,
    next_id: i64,
    /// Knows the definitions before anything is locked, as sessions of applications do.
    writer: Client,
}

impl Scene {
    fn new(name: &str) -> Self {
        Self::with_schedule(name, "300ms")
    }

    fn with_schedule(name: &str, schedule: &str) -> Self {
        let cluster = Cluster::builder(name)
            .set("webhook.allowed_networks", "127.0.0.0/8")
            .set("webhook.retry_schedule", schedule)
            // ANALYZE of a definition table makes writers read the definitions again, and those wait
            // while a test holds a lock on them.
            .set("autovacuum", "off")
            .start();
        cluster.sql(
            "create extension webhook_ext;
             create table healthy (id bigint primary key);
             create table locked (id bigint primary key)",
        );
        let receiver = Receiver::start();
        for (webhook, path) in [("healthy", HEALTHY), ("locked", LOCKED)] {
            let options = "max_attempts => 1000";
            create_webhook(&cluster, webhook, &[receiver.url(path)], options);
            create_event(&cluster, webhook, webhook, "Insert", "");
        }
        let mut writer = cluster.connect("postgres");
        writer
            .batch_execute("set lock_timeout = '3s'; insert into healthy values (0)")
            .unwrap();
        let mut scene = Self {
            cluster,
            receiver,
            next_id: 1,
            writer,
        };
        scene.insert_locked(20);
        scene.receiver.wait_for(PATIENCE, LOCKED, 40);
        scene
    }

    fn insert_locked(&mut self, count: i64) {
        let (first, last) = (self.next_id, self.next_id + count - 1);
        self.next_id += count;
        let insert = format!("insert into locked select generate_series({first}, {last})");
        self.writer.batch_execute(&insert).unwrap();
    }

    /// The latencies of messages of the webhook that nothing is the matter with, sorted.
    fn measure(&mut self, count: usize) -> Vec<Duration> {
        let seen = self.receiver.received().last().map_or(0, |last| last.seq);
        let statement = self
            .writer
            .prepare("insert into healthy values ($1)")
            .unwrap();
        let mut sent_at = BTreeMap::new();
        for _ in 0..count {
            sent_at.insert(self.next_id, now_us());
            self.writer.execute(&statement, &[&self.next_id]).unwrap();
            self.next_id += 1;
            thread::sleep(PAUSE);
        }
        let started = Instant::now();
        loop {
            let received: BTreeMap<i64, u64> = self
                .receiver
                .received_since(seen)
                .iter()
                .filter(|request| request.path == HEALTHY)
                .map(|request| {
                    let id = request.body()["data"][0]["id"].as_i64().unwrap();
                    (id, request.received_at_us)
                })
                .collect();
            let mut latencies: Vec<Duration> = sent_at
                .iter()
                .map(|(id, sent)| {
                    received.get(id).map_or(TOO_LATE, |at| {
                        Duration::from_micros(at.saturating_sub(*sent))
                    })
                })
                .collect();
            if received.len() >= count || started.elapsed() > TOO_LATE {
                latencies.sort_unstable();
                return latencies;
            }
            thread::sleep(PAUSE);
        }
    }

    /// Measures while `statement` keeps its locks.
    fn during(&mut self, what: &str, statement: &str) -> Measured {
        self.during_and_told(what, statement, None)
    }

    /// The same, and the worker has to say that it waits for a lock on the table.
    fn during_and_told(&mut self, what: &str, statement: &str, table: Option<&str>) -> Measured {
        let mut session = self.cluster.connect("postgres");
        session.batch_execute("begin").unwrap();
        session.batch_execute(statement).unwrap();
        let pid: i32 = session
            .query_one("select pg_backend_pid()", &[])
            .unwrap()
            .get(0);
        let measured = self.during_lock_of(what, pid, table);
        session.batch_execute("rollback").unwrap();
        measured
    }

    fn during_lock_of(&mut self, what: &str, pid: i32, table: Option<&str>) -> Measured {
        let latencies = self.measure(MESSAGES);
        let (p50, p99) = (latencies[MESSAGES / 2], latencies[MESSAGES * 99 / 100 - 1]);
        let detail = self.detail();
        println!("{what}: p50 {p50:?}, p99 {p99:?}; {detail:?}");
        // Between one attempt and the next it waits for nothing.
        if let Some(table) = table {
            self.cluster
                .wait_until(PATIENCE, "the worker to say who holds it", || {
                    let detail = self.detail().unwrap_or_else(|| "nothing".to_owned());
                    let says_who =
                        detail.contains(&format!("process {pid}")) && detail.contains(table);
                    says_who
                        .then_some(())
                        .ok_or(format!("process {pid} and {table} in: {detail}"))
                });
        }
        Measured { p99, detail }
    }

    /// As webhook.worker shows it, but without a look at any table.
    fn detail(&self) -> Option<String> {
        let mut session = self.cluster.connect("postgres");
        let said = "select nullif(split_part(query, '; detail: ', 2), '') from pg_stat_activity
                    where backend_type = 'webhook_ext' and datname = 'postgres'
                    -- One that waits for another to end says nothing.
                    order by 1 limit 1";
        let row = session.query_opt(said, &[]).unwrap();
        row.and_then(|row| row.get(0))
    }

    /// Everything arrives, and is counted.
    fn assert_exact(&mut self) {
        self.receiver.behave(LOCKED, "/ok");
        wait_until_nothing_is_left(&self.cluster, PATIENCE);
        wait_idle(&self.cluster, PATIENCE);
        for (table, path) in [("healthy", HEALTHY), ("locked", LOCKED)] {
            let rows: i64 = self.cluster.value(&format!("select count(*) from {table}"));
            let mut ids: Vec<i64> = self
                .receiver
                .received_at(path)
                .iter()
                .map(|request| request.body()["data"][0]["id"].as_i64().unwrap())
                .collect();
            let requests = i64::try_from(ids.len()).unwrap();
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), usize::try_from(rows).unwrap(), "{table} arrived");
            let counted: String = self.cluster.value(&format!(
                "select concat_ws(' ', messages, calls, calls - errors) from webhook.webhooks
                 where name = '{table}'"
            ));
            assert_eq!(counted, format!("{rows} {requests} {rows}"), "{table}");
            let logged: i64 = self.cluster.value(&format!(
                "select count(*) from webhook.calls where webhook_name = '{table}'"
            ));
            assert_eq!(logged, requests, "logged calls of {table}");
            let delivered: i64 = self.cluster.value(&format!(
                "select count(*) from webhook.messages m
                 join webhook.webhooks w on w.id = m.webhook_id
                 where w.name = '{table}' and m.status = 'delivered'"
            ));
            assert_eq!(delivered, rows, "delivered messages of {table}");
        }
        self.cluster.wait_for_text(
            PATIENCE,
            "select coalesce(webhook_internal.worker_detail(), '')",
            "",
        );
        assert_eq!(cluster_restarts(&self.cluster), 0, "{}", self.cluster.log());
    }
}

struct Measured {
    p99: Duration,
    detail: Option<String>,
}

impl Measured {
    fn assert_nearly_normal(&self, what: &str) {
        assert!(self.p99 <= NEARLY_NORMAL, "{what}: p99 {:?}", self.p99);
    }
}

fn message_of(cluster: &Cluster) -> String {
    cluster.value(
        "select message_id::text from webhook_internal.retry where state = 'waiting' limit 1",
    )
}

/// What an administrator does to one webhook and has not committed delays no other.
#[test]
fn an_open_transaction_about_one_webhook_delays_no_other() {
    let mut scene = Scene::new("open");
    let url = scene.receiver.url("/ok/other");
    let normal = scene.measure(MESSAGES);
    println!("normal: p50 {:?}, p99 {:?}", normal[50], normal[98]);
    let message = message_of(&scene.cluster);
    let cases = [
        (
            "cancel_pending",
            "select webhook.cancel_pending('locked')".to_owned(),
        ),
        ("cancel", format!("select webhook.cancel('{message}')")),
        (
            "redeliver",
            format!("select webhook.redeliver('{message}')"),
        ),
        (
            "redeliver_failed",
            "select webhook.redeliver_failed('locked')".to_owned(),
        ),
        (
            "drop_webhook",
            "select webhook.drop_webhook('locked')".to_owned(),
        ),
        (
            "update_webhook",
            format!("select webhook.update_webhook('locked', outgoing_urls => array['{url}'])"),
        ),
        (
            "pause_webhook",
            "select webhook.pause_webhook('locked')".to_owned(),
        ),
        (
            "regenerate_secret",
            "select webhook.regenerate_secret('locked')".to_owned(),
        ),
        (
            "select for update",
            "select * from webhook_internal.retry for update".to_owned(),
        ),
        (
            "select for update of definitions",
            "select from webhook.webhook_def for update; select from webhook.url_def for update;
             select from webhook.event_def for update; select from webhook.secret_def for update"
                .to_owned(),
        ),
    ];
    for (what, statement) in cases {
        scene.insert_locked(10);
        let is_told =
            ["cancel_pending", "cancel", "redeliver", "select for update"].contains(&what);
        let table = is_told.then_some("webhook_internal.retry");
        let measured = scene.during_and_told(what, &statement, table);
        measured.assert_nearly_normal(what);
    }
    scene.assert_exact();
}

/// The tables that a delivery needs neither for its message nor before it is sent.
const NOT_NEEDED: &[&str] = &[
    "webhook_internal.call_log_0",
    "webhook_internal.call_log_1",
    "webhook_internal.call_log_2",
    "webhook_internal.call_log_3",
    "webhook_internal.cancellation",
    "webhook.control",
    "webhook_internal.counter",
    "webhook_internal.counter_day",
    "webhook_internal.definition_change",
    "webhook.event_def",
    "webhook_internal.compaction",
    "webhook_internal.lane",
    "webhook_internal.settlement",
    "webhook_internal.retry",
    "webhook.secret_def",
    "webhook_internal.segment",
    "webhook_internal.tick",
    "webhook.url_def",
    "webhook.webhook_def",
];

#[test]
fn a_lock_on_a_whole_table_holds_only_what_needs_the_table() {
    let mut scene = Scene::new("tables");
    for table in NOT_NEEDED {
        let statement = format!("lock table {table} in access exclusive mode");
        scene.insert_locked(2);
        let told = ["call_log_0", "settlement", "retry"];
        let is_told = told.iter().any(|name| table.ends_with(name));
        let told = is_told.then_some(*table);
        let measured = scene.during_and_told(&format!("lock table {table}"), &statement, told);
        measured.assert_nearly_normal(table);
    }
    let said = scene
        .cluster
        .log()
        .matches("webhook worker waits for a lock on")
        .count();
    assert!(
        (1..=6).contains(&said),
        "said {said} times\n{}",
        scene.cluster.log()
    );
    scene.assert_exact();
}

/// The worker reads the definitions of a webhook when its first message comes. If it cannot, the
/// webhook waits, and no other.
#[test]
fn a_webhook_that_cannot_be_read_holds_no_other() {
    let mut scene = Scene::new("unread");
    let tables = ["webhook_def", "secret_def", "url_def", "event_def"];
    for table in tables {
        scene.cluster.sql(&format!(
            "create table rare_{table} (id bigint primary key)"
        ));
        let url = scene.receiver.url(&format!("/ok/{table}"));
        create_webhook(&scene.cluster, table, &[url], "");
        create_event(
            &scene.cluster,
            table,
            &format!("rare_{table}"),
            "Insert",
            "",
        );
    }
    for table in tables {
        let first = format!("insert into rare_{table} values (1)");
        scene.writer.batch_execute(&first).unwrap();
        scene
            .receiver
            .wait_for(PATIENCE, &format!("/ok/{table}"), 1);
    }
    // A worker that neither finds anything of them in the log of settlements nor has sent them
    // anything.
    scene.receiver.behave(LOCKED, "/ok");
    let uncompacted = "select count(*)::text from webhook_internal.settlement";
    scene.cluster.wait_for_text(PATIENCE, uncompacted, "0");
    let before = worker_of(&scene.cluster, "postgres");
    scene.cluster.sql("select webhook.stop_worker()");
    wait_until_gone(&scene.cluster, PATIENCE, before);
    scene.cluster.sql("select webhook.start_worker()");
    scene.insert_locked(1);
    scene.measure(1);
    for table in tables {
        // The session, too, has read what it needs before anything is locked.
        let unsent = format!("begin; insert into rare_{table} values (0); rollback");
        scene.writer.batch_execute(&unsent).unwrap();
    }

    for table in tables {
        let second =
            format!("insert into rare_{table} values (2); insert into rare_{table} values (3)");
        let lock = format!("lock table webhook.{table} in access exclusive mode");
        let mut session = scene.cluster.connect("postgres");
        session.batch_execute(&format!("begin; {lock}")).unwrap();
        scene.writer.batch_execute(&second).unwrap();
        let pid = session
            .query_one("select pg_backend_pid()", &[])
            .unwrap()
            .get(0);
        let measured = scene.during_lock_of(table, pid, Some(&format!("webhook.{table}")));
        session.batch_execute("rollback").unwrap();
        measured.assert_nearly_normal(table);
        let path = format!("/ok/{table}");
        scene.receiver.wait_for(PATIENCE, &path, 3);
        let received = scene.receiver.received_at(&path);
        let id = |request: &Received| request.body()["data"][0]["id"].as_i64().unwrap();
        let mut ids: Vec<i64> = received.iter().map(id).collect();
        ids.sort_unstable();
        assert_eq!(ids, [1, 2, 3], "{table}");
    }
    scene.assert_exact();
}

/// What a dump, a rewrite and a rebuilt index lock delays nobody else; nor does an old snapshot.
#[test]
fn maintenance_and_dumps_delay_nothing() {
    let mut scene = Scene::new("upkeep");
    let mut old = scene.cluster.connect("postgres");
    old.batch_execute("begin isolation level repeatable read; select 1")
        .unwrap();
    scene.cluster.sql("vacuum full webhook_internal.retry");
    scene
        .during("vacuum full under an old snapshot", "select 1")
        .assert_nearly_normal("vacuum");
    scene
        .during("reindex", "reindex table webhook_internal.retry")
        .assert_nearly_normal("reindex");
    let tables: String = scene.cluster.value(
        "select string_agg(oid::regclass::text, ', ') from pg_class
         where relnamespace::regnamespace::text in ('webhook', 'webhook_internal') and relkind = 'r'",
    );
    let dump = format!("lock table {tables} in access share mode");
    scene
        .cluster
        .wait_until(PATIENCE, "the rebuilt index to be forgotten", || {
            scene.detail().map_or(Ok(()), Err)
        });
    let measured = scene.during("dump", &dump);
    measured.assert_nearly_normal("a dump");
    assert_eq!(measured.detail, None);
    // A rewrite that waits for the dump has everything else wait behind it.
    let mut dumping = scene.cluster.connect("postgres");
    dumping.batch_execute(&format!("begin; {dump}")).unwrap();
    let mut rewriting = scene.cluster.connect("postgres");
    let pid: i32 = rewriting
        .query_one("select pg_backend_pid()", &[])
        .unwrap()
        .get(0);
    let rewrite =
        thread::spawn(move || rewriting.batch_execute("vacuum full webhook_internal.retry"));
    scene.cluster.wait_for_text(
        PATIENCE,
        &format!("select bool_or(not granted)::text from pg_locks where pid = {pid}"),
        "true",
    );
    let told = Some("webhook_internal.retry");
    let measured = scene.during_lock_of("a rewrite behind a dump", pid, told);
    measured.assert_nearly_normal("a rewrite behind a dump");
    drop(dumping);
    rewrite.join().unwrap().unwrap();
    drop(old);
    scene.assert_exact();
}

/// With its tables locked a worker that starts waits, says for whom, and then goes on.
#[test]
fn a_worker_that_starts_waits_for_its_tables() {
    let mut scene = Scene::new("start");
    let pid = worker_of(&scene.cluster, "postgres");
    let mut session = scene.cluster.connect("postgres");
    session
        .batch_execute("begin; lock table webhook_internal.settlement, webhook_internal.retry in access exclusive mode")
        .unwrap();
    let blocker: i32 = session
        .query_one("select pg_backend_pid()", &[])
        .unwrap()
        .get(0);
    scene
        .cluster
        .sql(&format!("select pg_terminate_backend({pid})"));
    scene
        .cluster
        .wait_until(PATIENCE, "the worker to say what it waits for", || {
            let detail = scene.detail().unwrap_or_default();
            let says = detail.contains(&format!("process {blocker}"))
                && detail.contains("webhook_internal.settlement");
            says.then_some(()).ok_or(detail)
        });
    session.batch_execute("rollback").unwrap();
    let latencies = scene.measure(10);
    assert!(latencies[0] < TOO_LATE, "{latencies:?}");
    wait_until_everything_arrived(&mut scene);
}

fn wait_until_everything_arrived(scene: &mut Scene) {
    scene.receiver.behave(LOCKED, "/ok");
    wait_until_nothing_is_left(&scene.cluster, PATIENCE);
    let not_delivered = "select count(*)::text from webhook.messages where status <> 'delivered'";
    scene.cluster.wait_for_text(PATIENCE, not_delivered, "0");
}

/// Settings of the database and of the worker's role that would end its statements, or have
/// them do something else.
#[test]
fn the_worker_works_under_any_settings_of_its_database() {
    let mut scene = Scene::with_schedule("settings", "300ms");
    scene
        .cluster
        .sql("create role nobody; grant usage on schema public to nobody");
    let settings = [
        "statement_timeout = '1ms'",
        "lock_timeout = '1ms'",
        "idle_in_transaction_session_timeout = '1ms'",
        "idle_session_timeout = '1s'",
        "default_transaction_read_only = on",
        "default_transaction_deferrable = on",
        "default_transaction_isolation = 'serializable'",
        "row_security = off",
        "role = 'nobody'",
        "session_authorization = 'nobody'",
        "search_path = 'nowhere'",
        "session_replication_role = 'replica'",
        "standard_conforming_strings = off",
        "exit_on_error = on",
        "temp_file_limit = 0",
        "work_mem = '64kB'",
        "enable_indexscan = off",
        "enable_indexonlyscan = off",
        "enable_nestloop = off",
        "track_activities = off",
        "track_counts = off",
        "client_min_messages = 'error'",
        "array_nulls = off",
        "transform_null_equals = on",
        "datestyle = 'SQL, DMY'",
        "intervalstyle = 'sql_standard'",
        "timezone = 'Asia/Kathmandu'",
        "bytea_output = 'escape'",
        "extra_float_digits = -15",
        "quote_all_identifiers = on",
    ];
    let version: i32 = scene
        .cluster
        .value("select current_setting('server_version_num')::int");
    let by_version: &[&str] = match version / 10_000 {
        15 => &["force_parallel_mode = on"],
        16 => &["debug_parallel_query = on"],
        _ => &[
            "debug_parallel_query = on",
            "transaction_timeout = '1ms'",
            "event_triggers = off",
        ],
    };
    let mut session = scene.cluster.connect("template1");
    for setting in settings.iter().chain(by_version) {
        session
            .batch_execute(&format!("alter database postgres set {setting}"))
            .unwrap_or_else(|error| panic!("{setting}: {error:?}"));
    }
    // The tests' own sessions in the database would suffer as well.
    // A second one may wait for the first to leave, and goes when it does not.
    let query = "select pid from pg_stat_activity where backend_type = 'webhook_ext'
                 order by backend_start";
    let first: i32 = session.query(query, &[]).unwrap()[0].get(0);
    session
        .execute("select pg_terminate_backend($1)", &[&first])
        .unwrap();
    scene.cluster.wait_until(PATIENCE, "a new worker", || {
        match session.query(query, &[]).unwrap().as_slice() {
            [row] if row.get::<_, i32>(0) != first => Ok(()),
            rows => Err(format!("{} workers", rows.len())),
        }
    });
    let seen = scene.receiver.count(LOCKED).requests;
    scene.receiver.wait_for(PATIENCE, LOCKED, seen + 100);
    session
        .batch_execute("alter database postgres reset all")
        .unwrap();
    let latencies = scene.measure(MESSAGES);
    println!(
        "any settings: p50 {:?}, p99 {:?}",
        latencies[50], latencies[98]
    );
    assert!(latencies[98] <= NEARLY_NORMAL, "{latencies:?}");
    wait_until_everything_arrived(&mut scene);
    let log = scene.cluster.log();
    assert!(!log.contains("webhook worker c"), "{log}");
    assert!(!log.contains("could not "), "{log}");
}
