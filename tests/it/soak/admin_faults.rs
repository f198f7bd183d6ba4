//! What administrators do to the extension's own tables, and to sessions that write.

use std::thread;
use std::time::Instant;

use postgres::Client;

use super::chaos::Chaos;
use super::definition_faults::ANY_DELIVERED;
use super::hooks::PLANS;
use super::scene::lock;

type Done = Result<(), postgres::Error>;

/// Tables that sessions and the worker write; `LOCK TABLE` and `VACUUM FULL` name one of them.
const OURS: &str = "
    select oid::regclass::text from pg_class
    where relnamespace::regnamespace::text in ('webhook', 'webhook_internal') and relkind = 'r'
    order by relname";

const MODES: &[&str] = &[
    "access share",
    "row exclusive",
    "share row exclusive",
    "exclusive",
    "access exclusive",
];

/// Milliseconds for which a table stays locked.
const LOCKED_MS: std::ops::RangeInclusive<u64> = 100..=4000;

/// Sessions that are interrupted in a row, and the milliseconds between two.
const INTERRUPTED: std::ops::RangeInclusive<u64> = 5..=40;
const BETWEEN_MS: std::ops::RangeInclusive<u64> = 0..=40;

/// A transaction that was begun and then forgotten.
pub struct Forgotten {
    session: Client,
    until: Instant,
    ending: Ending,
}

enum Ending {
    Rollback,
    /// The calls that were ordered for the webhook of this name.
    Redelivers(&'static str, i64),
}

impl Chaos<'_> {
    /// What it cancels would be sent after all: the transaction is rolled back.
    pub fn forget_cancellation(&mut self) -> Done {
        let name = self.chance.pick(PLANS).name;
        let mut session = self.session();
        session.batch_execute(&format!("begin; select webhook.cancel_pending('{name}')"))?;
        self.forget(session, Ending::Rollback);
        Ok(())
    }

    pub fn forget_redelivery(&mut self) -> Done {
        let name = self.chance.pick(PLANS).name;
        let mut session = self.session();
        session.batch_execute("begin")?;
        let message = session.query_opt(ANY_DELIVERED, &[&name])?;
        let Some(message) = message else {
            return Ok(());
        };
        let id: uuid::Uuid = message.get(0);
        let calls: i32 = session
            .query_one("select webhook.redeliver($1)", &[&id])?
            .get(0);
        let ending = if self.chance.one_in(2) {
            Ending::Redelivers(name, i64::from(calls))
        } else {
            Ending::Rollback
        };
        self.forget(session, ending);
        Ok(())
    }

    fn forget(&mut self, session: Client, ending: Ending) {
        let until = self.in_seconds(1, 8);
        self.forgotten.push(Forgotten {
            session,
            until,
            ending,
        });
    }

    /// A server that went down meanwhile has ended the transaction already.
    pub fn end_forgotten(&mut self, now: Instant) {
        let (over, lasting) = std::mem::take(&mut self.forgotten)
            .into_iter()
            .partition(|forgotten| forgotten.until <= now);
        self.forgotten = lasting;
        for Forgotten {
            mut session,
            ending,
            ..
        } in over
        {
            match ending {
                Ending::Rollback => drop(session),
                Ending::Redelivers(name, calls) => {
                    let mut hooks = self.scene.hooks();
                    if session.batch_execute("commit").is_ok() {
                        let hook = hooks.iter_mut().find(|hook| hook.name == name);
                        hook.expect("it was made").redelivered += calls;
                    }
                }
            }
        }
    }

    pub fn lock_table(&mut self) -> Done {
        let mut session = self.session();
        let table = self.one_of_ours(&mut session)?;
        let mode = *self.chance.pick(MODES);
        session.batch_execute(&format!("begin; lock table {table} in {mode} mode"))?;
        thread::sleep(self.chance.millis(LOCKED_MS));
        session.batch_execute("rollback")
    }

    pub fn rebuild_ours(&mut self) -> Done {
        let mut session = self.session();
        let table = self.one_of_ours(&mut session)?;
        let command = *self.chance.pick(&["vacuum full", "reindex table"]);
        session.batch_execute(&format!("{command} {table}"))
    }

    fn one_of_ours(&mut self, session: &mut Client) -> Result<String, postgres::Error> {
        let tables = session.query(OURS, &[])?;
        Ok(self.chance.pick(&tables).get(0))
    }

    pub fn cancel_writers(&mut self) -> Done {
        self.interrupt_writers("pg_cancel_backend")
    }

    pub fn terminate_writers(&mut self) -> Done {
        self.interrupt_writers("pg_terminate_backend")
    }

    /// At random moments of whatever they do, COMMIT included.
    fn interrupt_writers(&mut self, function: &str) -> Done {
        let mut session = self.session();
        for _ in 0..self.chance.within(INTERRUPTED) {
            let pids: Vec<i32> = lock(&self.scene.writer_pids).values().copied().collect();
            if !pids.is_empty() {
                let pid = *self.chance.pick(&pids);
                // A number may belong to another process by now.
                session.execute(
                    &format!(
                        "select {function}(pid) from pg_stat_activity
                         where pid = $1 and backend_type = 'client backend'
                           and pid <> pg_backend_pid()"
                    ),
                    &[&pid],
                )?;
            }
            thread::sleep(self.chance.millis(BETWEEN_MS));
        }
        Ok(())
    }
}
