//! What happens to the user's tables while they are written: other columns, other files.

use super::chaos::Chaos;
use super::scene::TABLES;

type Done = Result<(), postgres::Error>;

/// Beyond, the oldest goes before another one is added.
const MOST_ADDED: usize = 3;

impl Chaos<'_> {
    /// Columns that no writer names come, go, or are called otherwise.
    pub fn alter_table(&mut self) -> Done {
        let table = *self.chance.pick(TABLES);
        if self.chance.one_in(2) {
            return self.rename_column(table);
        }
        if self.added_columns.len() >= MOST_ADDED {
            let (table, column) = self.added_columns[0].clone();
            self.run(&format!("alter table {table} drop column {column}"))?;
            self.added_columns.remove(0);
            return Ok(());
        }
        let column = format!("added_{}", self.chance.within(1..=1_000_000_000));
        let default = *self
            .chance
            .pick(&["text", "integer default 7", "boolean default true"]);
        self.run(&format!(
            "alter table {table} add column {column} {default}"
        ))?;
        self.added_columns.push((table, column));
        Ok(())
    }

    fn rename_column(&mut self, table: &str) -> Done {
        let is_there = format!(
            "select exists (select from pg_attribute
                            where attrelid = '{table}'::regclass and attname = 'spare')"
        );
        let mut session = self.session();
        let (from, to) = if session.query_one(&is_there, &[])?.get(0) {
            ("spare", "reserve")
        } else {
            ("reserve", "spare")
        };
        session.batch_execute(&format!("alter table {table} rename column {from} to {to}"))
    }

    pub fn rebuild(&mut self) -> Done {
        let table = *self.chance.pick(TABLES);
        match self.chance.within(1..=4) {
            1 => self.run(&format!("vacuum full {table}")),
            2 => self.run(&format!("reindex table {table}")),
            3 => self.run(&format!(
                "drop index if exists {table}_stamp; create index {table}_stamp on {table} (stamp)"
            )),
            _ => self.run("checkpoint"),
        }
    }

    /// Keeps what was deleted meanwhile from being cleared away.
    pub fn hold_snapshot(&mut self) -> Done {
        let mut session = self.session();
        // No table is named: its lock would keep others from changing it.
        session.batch_execute("begin isolation level repeatable read; select 1")?;
        let until = self.in_seconds(1, 10);
        self.snapshots.push((session, until));
        Ok(())
    }
}
