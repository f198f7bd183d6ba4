//! Sessions that are ended while they write their messages: by an administrator, a timeout or
//! a shutdown, in mid-transaction, at COMMIT and while they wait for the outbox.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use postgres::Client;

use super::soak::chance::Chance;
use super::support::ending::SetOnDrop;
use super::support::watched::{
    assert_items_delivered, insert_items, insert_statement, watch_items,
};
use super::support::worker::cluster_restarts;
use super::support::{ready_cluster, Cluster, Receiver, StopMode, PATIENCE};

/// Six rows of a megabyte are more than the buffer holds.
const EARLY: i64 = 6;

/// What must never be in the server log.
const BROKEN: [&str; 6] = [
    "RefCell",
    "already borrowed",
    "failed to re-find shared lock object",
    "is already held",
    "PANIC",
    "panicked",
];

/// Where the session is when it is ended.
#[derive(Clone, Copy, Debug, PartialEq)]
enum At {
    EarlyFlush,
    Commit,
    /// COMMIT in a procedure: statement_timeout still runs.
    CommitInProcedure,
}

/// What holds it there.
#[derive(Clone, Copy, Debug, PartialEq)]
enum HeldBy {
    /// Between two rows, with the table and its indexes open.
    Fault,
    /// Another session's lock on the outbox table.
    Lock,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Terminate,
    Cancel,
    Timeout(&'static str),
}

impl End {
    fn is_fatal(self) -> bool {
        matches!(self, Self::Terminate | Self::Timeout("transaction_timeout"))
    }
}

fn server_version(cluster: &Cluster) -> i32 {
    cluster.value("select current_setting('server_version_num')::int / 10000")
}

fn current_outbox(cluster: &Cluster) -> String {
    cluster.value("select 'webhook.outbox_' || outbox_number from webhook.control")
}

fn prepare(cluster: &Cluster, receiver: &Receiver) {
    watch_items(cluster, receiver, "/ok/a");
    cluster.sql(
        "create procedure insert_and_commit(first bigint) language plpgsql as $$
         begin
             insert into items values (first, 'in a procedure');
             commit;
         end $$",
    );
}

/// The statements of the session that will be ended, each sent by itself.
fn statements(at: At, held_by: HeldBy, end: End, first: i64) -> Vec<String> {
    let mut all = vec!["load 'webhook_ext'".to_owned()];
    if held_by == HeldBy::Fault {
        all.push("set webhook.fault = 'wait append'".to_owned());
    }
    if let End::Timeout(setting) = end {
        all.push(format!("set {setting} = '300ms'"));
    }
    match at {
        At::EarlyFlush => all.extend([
            "begin".to_owned(),
            format!(
                "insert into items select n, repeat('x', 1000000)
                 from generate_series({first}, {}) n",
                first + EARLY - 1
            ),
            "commit".to_owned(),
        ]),
        At::Commit => all.extend([
            "begin".to_owned(),
            format!("insert into items values ({first}, 'small')"),
            "savepoint s".to_owned(),
            format!("insert into items values ({}, 'small')", first + 1),
            "commit".to_owned(),
        ]),
        At::CommitInProcedure => all.push(format!("call insert_and_commit({first})")),
    }
    all
}

fn pid_of(session: &mut Client) -> i32 {
    let row = session.query_one("select pg_backend_pid()", &[]);
    row.expect("the session answers").get(0)
}

/// Runs the statements up to the first that fails; the error, if there was one.
fn run_until_error(session: &mut Client, statements: &[String]) -> Option<postgres::Error> {
    let mut results = statements.iter().map(|sql| session.batch_execute(sql));
    results.find_map(Result::err)
}

fn wait_until_it_waits(cluster: &Cluster, pid: i32, held_by: HeldBy) {
    let wanted = match held_by {
        HeldBy::Fault => "Extension",
        HeldBy::Lock => "Lock",
    };
    cluster.wait_for_text(
        PATIENCE,
        &format!("select wait_event_type from pg_stat_activity where pid = {pid}"),
        wanted,
    );
}

/// No process that has ended holds a lock, and the table can be changed and vacuumed.
fn assert_sound(cluster: &Cluster, context: &str) {
    let log = cluster.log();
    let broken = log
        .lines()
        .find(|line| BROKEN.iter().any(|bad| line.contains(bad)));
    assert_eq!(broken, None, "{context}");
    assert_eq!(cluster_restarts(cluster), 0, "{context}\n{log}");
    let orphans =
        "select coalesce(string_agg(l.pid || ' ' || l.mode || ' ' || l.locktype, ', '), 'none')
         from pg_locks l
         where l.pid is not null
           and not exists (select from pg_stat_activity a where a.pid = l.pid)";
    cluster.wait_for_text(PATIENCE, orphans, "none");
    let mut session = cluster.connect("postgres");
    for sql in [
        "set lock_timeout = '60s'",
        "alter table items add column if not exists extra int",
        "alter table items drop column extra",
        "vacuum (analyze) items",
    ] {
        session
            .batch_execute(sql)
            .unwrap_or_else(|error| panic!("{context}: {sql}: {error:?}"));
    }
}

/// One session, held at a place and ended there.
fn end_there(cluster: &Cluster, at: At, held_by: HeldBy, end: End, first: i64) {
    let context = format!("{at:?}, held by {held_by:?}, {end:?}");
    let mut holder = cluster.connect("postgres");
    if held_by == HeldBy::Lock {
        let outbox = current_outbox(cluster);
        holder
            .batch_execute(&format!(
                "begin; lock table {outbox} in access exclusive mode"
            ))
            .unwrap_or_else(|error| panic!("{context}: {error:?}"));
    }
    let mut victim = cluster.connect("postgres");
    let pid = pid_of(&mut victim);
    let statements = statements(at, held_by, end, first);
    let error = thread::scope(|scope| {
        let ended = scope.spawn(|| run_until_error(&mut victim, &statements));
        if !matches!(end, End::Timeout(_)) {
            wait_until_it_waits(cluster, pid, held_by);
        }
        match end {
            End::Terminate => cluster.sql(&format!("select pg_terminate_backend({pid})")),
            End::Cancel => cluster.sql(&format!("select pg_cancel_backend({pid})")),
            End::Timeout(_) => {}
        }
        ended.join().expect("the session's thread does not panic")
    });
    assert!(error.is_some(), "{context}: the session was not ended");
    if !end.is_fatal() {
        // The session goes on, and so do its next transactions.
        victim
            .batch_execute("rollback; reset all; select 1")
            .unwrap_or_else(|error| panic!("{context}: {error:?}"));
    }
    drop(holder);
    if !end.is_fatal() {
        let id = first + EARLY;
        victim
            .batch_execute(&format!("insert into items values ({id}, 'after')"))
            .unwrap_or_else(|error| panic!("{context}: {error:?}"));
    }
    assert_sound(cluster, &context);
}

#[test]
fn a_session_that_is_ended_while_it_writes_messages_leaves_nothing_behind() {
    let (cluster, receiver) = ready_cluster("ended");
    prepare(&cluster, &receiver);
    insert_items(&cluster, 1..=5);
    let mut cases = Vec::new();
    for held_by in [HeldBy::Fault, HeldBy::Lock] {
        for at in [At::EarlyFlush, At::Commit] {
            cases.push((at, held_by, End::Terminate));
            cases.push((at, held_by, End::Cancel));
            if server_version(&cluster) >= 17 {
                cases.push((at, held_by, End::Timeout("transaction_timeout")));
            }
        }
        for at in [At::EarlyFlush, At::CommitInProcedure] {
            cases.push((at, held_by, End::Timeout("statement_timeout")));
        }
    }
    for at in [At::EarlyFlush, At::Commit] {
        cases.push((at, HeldBy::Lock, End::Timeout("lock_timeout")));
    }
    for (number, (at, held_by, end)) in cases.into_iter().enumerate() {
        end_there(&cluster, at, held_by, end, 1000 + 100 * number as i64);
    }
    insert_items(&cluster, 6..=10);
    assert_items_delivered(&cluster, &receiver, "/ok/a", PATIENCE);
}

#[test]
fn a_fast_stop_while_sessions_write_messages_is_a_clean_one() {
    let (cluster, receiver) = ready_cluster("faststop");
    prepare(&cluster, &receiver);
    insert_items(&cluster, 1..=5);
    let cases = [
        (At::EarlyFlush, HeldBy::Fault),
        (At::Commit, HeldBy::Fault),
        (At::EarlyFlush, HeldBy::Lock),
        (At::Commit, HeldBy::Lock),
    ];
    for (number, (at, held_by)) in cases.into_iter().enumerate() {
        let mut holder = cluster.connect("postgres");
        if held_by == HeldBy::Lock {
            let outbox = current_outbox(&cluster);
            holder
                .batch_execute(&format!(
                    "begin; lock table {outbox} in access exclusive mode"
                ))
                .unwrap();
        }
        let mut victim = cluster.connect("postgres");
        let pid = pid_of(&mut victim);
        let statements = statements(at, held_by, End::Terminate, 1000 + 100 * number as i64);
        thread::scope(|scope| {
            let ended = scope.spawn(|| run_until_error(&mut victim, &statements));
            wait_until_it_waits(&cluster, pid, held_by);
            cluster.stop(StopMode::Fast);
            let ended = ended.join().expect("the session's thread does not panic");
            assert!(ended.is_some(), "{at:?} {held_by:?}: it was not ended");
        });
        cluster.start_again();
        assert_sound(&cluster, &format!("fast stop, {at:?}, held by {held_by:?}"));
    }
    let log = cluster.log();
    assert!(!log.contains("automatic recovery in progress"), "{log}");
    insert_items(&cluster, 6..=10);
    assert_items_delivered(&cluster, &receiver, "/ok/a", PATIENCE);
}

fn seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("the clock is past 1970").as_nanos() as u64
}

/// Inserts one row, a few, or enough for an early flush, until told to stop; connects again
/// when its session has been ended. Whether a transaction committed, the table says.
fn write_until(cluster: &Cluster, done: &AtomicBool, next: &AtomicI64, mut chance: Chance) {
    let mut session = None;
    while !done.load(Ordering::Relaxed) {
        let client = match session.as_mut() {
            Some(client) => client,
            None => match cluster.try_connect_as("postgres", "postgres") {
                Ok(client) => session.insert(client),
                Err(_) => continue,
            },
        };
        let rows = chance.weighed(&[(6, 1), (3, 20), (1, EARLY)]);
        let first = next.fetch_add(rows, Ordering::Relaxed);
        let last = first + rows - 1;
        let sql = if rows == EARLY {
            format!(
                "begin; savepoint s;
                 insert into items select n, repeat('x', 1000000) from generate_series({first}, {last}) n;
                 commit"
            )
        } else {
            format!("begin; {}; commit", insert_statement(first..=last))
        };
        if client.batch_execute(&sql).is_err() {
            // A canceled statement leaves its transaction open, an ended session nothing.
            if client.batch_execute("rollback").is_err() {
                session = None;
            }
        }
    }
}

/// Calls `function` for a random writer, `times` times, while four of them write.
fn strike_at_random(cluster: &Cluster, function: &str, times: usize) {
    let seed = seed();
    println!("seed {seed}");
    let mut chance = Chance::new(seed);
    let (done, next) = (AtomicBool::new(false), AtomicI64::new(1_000_000));
    thread::scope(|scope| {
        let _done = SetOnDrop(&done);
        for writer in 1..=4 {
            let chance = Chance::new(seed.wrapping_add(writer));
            let (done, next) = (&done, &next);
            scope.spawn(move || write_until(cluster, done, next, chance));
        }
        let mut session = cluster.connect("postgres");
        let strike = format!(
            "select {function}(pid)::text from pg_stat_activity
             where query like 'begin;%insert into items%' and state = 'active' and pid <> pg_backend_pid()
             order by random() limit 1"
        );
        let mut struck = 0;
        cluster.wait_until(PATIENCE * 3, "so many strikes", || {
            let hit = session.query_opt(&strike, &[]);
            if hit.map_err(|error| format!("{error:?}"))?.is_some() {
                struck += 1;
            }
            thread::sleep(chance.millis(0..=10));
            if struck >= times {
                Ok(())
            } else {
                Err(format!("{struck} strikes"))
            }
        });
    });
}

#[test]
fn two_hundred_terminations_at_random_moments_leave_nothing_behind() {
    let (cluster, receiver) = ready_cluster("terminations");
    prepare(&cluster, &receiver);
    strike_at_random(&cluster, "pg_terminate_backend", 200);
    assert_sound(&cluster, "random terminations");
    insert_items(&cluster, 1..=5);
    assert_items_delivered(&cluster, &receiver, "/ok/a", PATIENCE * 2);
}

#[test]
fn a_thousand_cancellations_at_random_moments_lose_and_invent_nothing() {
    let (cluster, receiver) = ready_cluster("cancellations");
    prepare(&cluster, &receiver);
    strike_at_random(&cluster, "pg_cancel_backend", 1000);
    assert_sound(&cluster, "random cancellations");
    insert_items(&cluster, 1..=5);
    assert_items_delivered(&cluster, &receiver, "/ok/a", PATIENCE * 2);
}
