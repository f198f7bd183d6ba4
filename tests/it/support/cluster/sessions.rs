//! Asking a cluster: over a connection of the driver, or with psql.

use std::io::Write;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use postgres::types::FromSqlOwned;
use postgres::{Client, NoTls};

use super::host::text;
use super::{Cluster, SUPERUSER};

/// A test that waits for a lock that it holds itself fails, and the run goes on.
const NO_STATEMENT_HANGS: &str = "-c statement_timeout=10min";

impl Cluster {
    /// The first column of the first row that `query` returns in database `postgres`.
    pub fn value<T: FromSqlOwned>(&self, query: &str) -> T {
        let row = self.connect("postgres").query_one(query, &[]);
        row.unwrap_or_else(|error| panic!("{}", self.with_log(explain(query, &error))))
            .get(0)
    }

    /// Runs statements in database `postgres`.
    pub fn sql(&self, statements: &str) {
        self.sql_in("postgres", statements);
    }

    pub fn sql_in(&self, database: &str, statements: &str) {
        let done = self.connect(database).batch_execute(statements);
        done.unwrap_or_else(|error| panic!("{}", self.with_log(explain(statements, &error))));
    }

    /// A session of the superuser.
    pub fn connect(&self, database: &str) -> Client {
        self.connect_as(SUPERUSER, database)
    }

    pub fn connect_as(&self, role: &str, database: &str) -> Client {
        self.try_connect_as(role, database)
            .unwrap_or_else(|error| panic!("{}", self.with_log(explain(database, &error))))
    }

    pub fn try_connect_as(&self, role: &str, database: &str) -> Result<Client, postgres::Error> {
        Client::configure()
            .host_path(&self.directory)
            .port(self.port)
            .user(role)
            .dbname(database)
            .application_name("cluster test")
            .options(NO_STATEMENT_HANGS)
            .connect(NoTls)
    }

    /// Runs a script with psql, which stops at the first error; returns its unaligned output.
    pub fn psql(&self, script: &str) -> String {
        let mut psql = self.client_program("psql", "postgres");
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = psql.spawn().unwrap();
        let mut input = child.stdin.take().expect("stdin is piped");
        let script_owned = script.to_owned();
        let writer = thread::spawn(move || input.write_all(script_owned.as_bytes()));
        let output = child.wait_with_output().unwrap();
        // A broken pipe only follows from psql's failure, which is reported instead.
        let _ = writer.join().expect("the writer does not panic");
        assert!(output.status.success(), "{script}\n{}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Waits until `query`, cast to text, gives `wanted`.
    pub fn wait_for_text(&self, limit: Duration, query: &str, wanted: &str) {
        let mut session = self.connect("postgres");
        self.wait_until(limit, &format!("{wanted:?} from {query}"), || {
            let row = session
                .query_one(query, &[])
                .map_err(|error| explain(query, &error))?;
            let seen: Option<String> = row.get(0);
            if seen.as_deref() == Some(wanted) {
                Ok(())
            } else {
                Err(format!("{seen:?}"))
            }
        });
    }
}

/// The Display of an error of the postgres crate says little more than "db error".
fn explain(what: &str, error: &postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!(
            "{what}: {} {} ({:?}, {:?})",
            db.code().code(),
            db.message(),
            db.detail(),
            db.hint()
        ),
        None => format!("{what}: {error}"),
    }
}
