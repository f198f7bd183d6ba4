//! Sessions that change rows in every way there is, until they are told to stop.
//!
//! A broken connection is made again; whether its last transaction was committed the
//! witness knows. Any error that does not come from a fault is a finding: nothing may fail
//! in a user's transaction because of webhooks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use postgres::Client;

use super::chance::Chance;
use super::scene::{lock, Scene};

/// What is above this is deleted, so that a look at the whole table stays quick.
const ROWS_A_TABLE: u64 = 400;

const RECONNECT_AFTER: Duration = Duration::from_millis(50);

/// SQLSTATEs that faults, and sessions beside one another, cause.
const OF_FAULTS: &[&str] = &[
    "40001", "40P01", "55P03", "57014", "57P01", "57P02", "57P03", "08006", "25P02", "53300",
];

/// Of a prepared transaction that another session ends or has ended.
const ENDED_BY_ANOTHER: &[&str] = &["42704", "55000"];

/// What one transaction does.
#[derive(Clone, Copy)]
enum Act {
    Single,
    Several,
    Savepoints,
    Prepared,
    Long,
    Giant,
    LargeRow,
    Nothing,
    Source,
}

const ACTS: &[(u64, Act)] = &[
    (280, Act::Single),
    (60, Act::Several),
    (40, Act::Savepoints),
    (25, Act::Prepared),
    (10, Act::Long),
    (1, Act::Giant),
    (3, Act::LargeRow),
    (6, Act::Nothing),
    (10, Act::Source),
];

/// The changes of `accounts` go through the URL that keeps the order, one after the other:
/// with more of them all the others would wait for it.
const WRITTEN: &[(u64, &str)] = &[(1, "accounts"), (2, "orders"), (3, "readings")];

const SINGLE: &[(u64, &str)] = &[(4, "Insert"), (4, "Update"), (2, "Delete")];

/// Whether an error is one that faults explain; a broken connection has no SQLSTATE.
pub fn is_of_fault(error: &postgres::Error) -> bool {
    error
        .code()
        .is_none_or(|code| OF_FAULTS.contains(&code.code()))
}

pub fn write(scene: &Scene, number: u64, done: &AtomicBool) {
    let mut writer = Writer {
        scene,
        number,
        chance: Chance::new(scene.seed.wrapping_add(number * 1_000_003)),
        prepared: 0,
    };
    while !done.load(Ordering::Relaxed) {
        let Ok(mut session) = scene.cluster.try_connect_as("postgres", "postgres") else {
            thread::sleep(RECONNECT_AFTER);
            continue;
        };
        if let Err(error) = writer.write_until(&mut session, done) {
            if !is_of_fault(&error) {
                scene.findings.add(format!("a writer failed: {error:?}"));
            }
        }
    }
}

struct Writer<'a> {
    scene: &'a Scene,
    number: u64,
    chance: Chance,
    prepared: u64,
}

impl Writer<'_> {
    fn write_until(
        &mut self,
        session: &mut Client,
        done: &AtomicBool,
    ) -> Result<(), postgres::Error> {
        let durably = if self.chance.one_in(3) { "off" } else { "on" };
        session.batch_execute(&format!("set synchronous_commit = {durably}"))?;
        let pid = session.query_one("select pg_backend_pid()", &[])?.get(0);
        lock(&self.scene.writer_pids).insert(self.number, pid);
        while !done.load(Ordering::Relaxed) {
            thread::sleep(self.chance.millis(0..=60));
            if self.scene.brake.load(Ordering::Relaxed) {
                continue;
            }
            match self.act(session) {
                // Two that locked one another out, or a table that is being changed.
                Err(error) if is_of_fault(&error) && !session.is_closed() => {
                    session.batch_execute("rollback")?;
                }
                other => other?,
            }
            self.scene
                .progress
                .transactions
                .fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn act(&mut self, session: &mut Client) -> Result<(), postgres::Error> {
        match self.chance.weighed(ACTS) {
            Act::Single => session.batch_execute(&self.change()),
            Act::Several => {
                let changes = self.changes(2..=5);
                let end = if self.chance.one_in(4) {
                    "rollback"
                } else {
                    "commit"
                };
                session.batch_execute(&format!("begin; {changes}; {end}"))
            }
            Act::Savepoints => self.savepoints(session),
            Act::Prepared => self.prepare(session),
            Act::Long => {
                session.batch_execute(&format!("begin; {}", self.changes(1..=2)))?;
                thread::sleep(self.chance.millis(0..=2000));
                session.batch_execute(&format!("{}; commit", self.changes(1..=2)))
            }
            Act::Giant => {
                let rows = self.chance.within(200..=800);
                session.batch_execute(&insert("readings", rows, SMALL_NOTE))
            }
            Act::LargeRow => {
                let table = self.chance.weighed(WRITTEN);
                session.batch_execute(&insert(table, 1, LARGE_NOTE))
            }
            Act::Nothing => {
                let table = self.chance.weighed(WRITTEN);
                session.batch_execute(&format!(
                    "update {table} set note = note where {}",
                    some(table, "3")
                ))
            }
            Act::Source => {
                let source = *self.chance.pick(&["batch", "BATCH", "batch job", ""]);
                session.batch_execute(&format!("set webhook.source = '{source}'"))
            }
        }
    }

    fn change(&mut self) -> String {
        let table = self.chance.weighed(WRITTEN);
        let rows = self.chance.within(1..=3);
        match self.chance.weighed(SINGLE) {
            "Insert" => insert(table, rows, SMALL_NOTE),
            "Update" => update(table, rows),
            _ => delete(table, rows),
        }
    }

    fn changes(&mut self, count: std::ops::RangeInclusive<u64>) -> String {
        let changes: Vec<String> = (0..self.chance.within(count))
            .map(|_| self.change())
            .collect();
        changes.join("; ")
    }

    /// What is between a savepoint and the return to it never happened, by command or by error.
    fn savepoints(&mut self, session: &mut Client) -> Result<(), postgres::Error> {
        let (kept, undone, released) = (
            self.changes(1..=2),
            self.changes(1..=2),
            self.changes(1..=2),
        );
        session.batch_execute(&format!(
            "begin; {kept}; savepoint a; {undone}; rollback to a;
             savepoint b; {released}; savepoint c; {}; release b; savepoint d; {}",
            self.change(),
            self.change()
        ))?;
        let failed = session.batch_execute("select 1 / 0");
        assert!(failed.is_err(), "nothing can be divided by zero");
        session.batch_execute(&format!("rollback to d; {}; commit", self.change()))
    }

    /// Ended after a while by this session or by another one; left alone, by the chaos.
    fn prepare(&mut self, session: &mut Client) -> Result<(), postgres::Error> {
        self.prepared += 1;
        let name = format!("soak-{}-{}", self.number, self.prepared);
        let changes = self.changes(1..=3);
        session.batch_execute(&format!("begin; {changes}; prepare transaction '{name}'"))?;
        thread::sleep(self.chance.millis(0..=300));
        let end = if self.chance.one_in(4) {
            "rollback"
        } else {
            "commit"
        };
        let end = format!("{end} prepared '{name}'");
        let ended = match self.chance.within(1..=6) {
            1 => return Ok(()),
            2 | 3 => {
                let mut another = self.scene.cluster.try_connect_as("postgres", "postgres")?;
                another.batch_execute(&end)
            }
            _ => session.batch_execute(&end),
        };
        match ended {
            Err(error)
                if error
                    .code()
                    .is_some_and(|c| ENDED_BY_ANOTHER.contains(&c.code())) =>
            {
                Ok(())
            }
            other => other,
        }
    }
}

const SMALL_NOTE: &str = r#"E'"note"\t\\ ü € ' || md5(random()::text)"#;

/// 100 kB.
const LARGE_NOTE: &str = "repeat(md5(random()::text), 3200)";

fn insert(table: &str, rows: u64, note: &str) -> String {
    format!(
        "insert into {table} (id, version, stamp, amount, note)
         select nextval('ids'), 1, nextval('stamps'), (random() * 1000)::numeric(12,2), {note}
         from generate_series(1, {rows})"
    )
}

fn update(table: &str, rows: u64) -> String {
    format!(
        "update {table}
         set version = version + 1, stamp = nextval('stamps'),
             amount = case when random() < 0.5 then amount + 0.5 else amount end
         where {}",
        some(table, &rows.to_string())
    )
}

/// Few rows, or all that are too many.
fn delete(table: &str, rows: u64) -> String {
    let surplus = format!("(select greatest({rows}, count(*) - {ROWS_A_TABLE}) from {table})");
    format!("delete from {table} where {}", some(table, &surplus))
}

fn some(table: &str, count: &str) -> String {
    format!("id in (select id from {table} order by random() limit {count})")
}
