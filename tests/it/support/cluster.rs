//! Private PostgreSQL clusters: made, broken, restarted and removed by the tests.
//!
//! The server binaries come from PG_CONFIG. As root the server runs as user
//! postgres (initdb refuses root), else as the caller. A cluster lives in one
//! directory with everything that belongs to it and goes with it when dropped.

use std::fmt::Display;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{chown, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::Duration;
use std::{env, fs, process, thread};

use postgres::types::FromSqlOwned;
use postgres::{Client, NoTls};

use super::sweeper;
use super::wait::{failure, try_until};

/// The account that runs servers when the tests run as root.
const SERVER_ACCOUNT: &str = "postgres";

const SUPERUSER: &str = "postgres";

/// Below Linux's range for outgoing connections (32768 and up), which could take a port meanwhile.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// Starting may have to wait until the backends of a killed postmaster have gone.
const START_LIMIT: Duration = Duration::from_secs(60);

const LOG_TAIL_LINES: usize = 40;

#[derive(Clone, Copy, Debug)]
pub enum StopMode {
    Smart,
    Fast,
    Immediate,
}

impl StopMode {
    fn name(self) -> &'static str {
        match self {
            Self::Smart => "smart",
            Self::Fast => "fast",
            Self::Immediate => "immediate",
        }
    }
}

/// Prepares the directory of a cluster and names the variables its server shall see.
type Environment = fn(&Path) -> Vec<(String, String)>;

pub struct Builder {
    name: String,
    settings: Vec<(String, String)>,
    environment: Option<Environment>,
}

impl Builder {
    /// A line of postgresql.conf; a later one for the same name wins.
    pub fn set(mut self, name: &str, value: impl Display) -> Self {
        self.settings.push((name.into(), value.to_string()));
        self
    }

    /// Clusters forgo fsync unless a test is about what survives a crash.
    pub fn durable(self) -> Self {
        self.set("fsync", "on")
    }

    /// Variables for the server, made once its directory is there.
    pub fn environment(mut self, environment: Environment) -> Self {
        self.environment = Some(environment);
        self
    }

    pub fn start(self) -> Cluster {
        let directory = new_directory(&self.name);
        let environment = self.environment.map(|prepare| prepare(&directory));
        let cluster = Cluster {
            directory,
            port: free_port(),
            bindir: server_bindir(),
            environment: environment.unwrap_or_default(),
        };
        cluster.init(&self.settings);
        cluster.start_again();
        cluster
    }
}

pub struct Cluster {
    directory: PathBuf,
    port: u16,
    bindir: PathBuf,
    /// What the server sees of its environment beside our own.
    environment: Vec<(String, String)>,
}

impl Cluster {
    /// A running cluster with default settings. The name shows in its directory.
    pub fn start(name: &str) -> Self {
        Self::builder(name).start()
    }

    pub fn builder(name: &str) -> Builder {
        Builder {
            name: name.into(),
            settings: Vec::new(),
            environment: None,
        }
    }

    /// A running hot standby of this cluster, with its settings.
    pub fn follow(&self, name: &str) -> Self {
        let standby = Self {
            directory: new_directory(name),
            port: free_port(),
            bindir: self.bindir.clone(),
            environment: self.environment.clone(),
        };
        run(self
            .server_program("pg_basebackup")
            .args(["--checkpoint=fast", "--no-sync", "--write-recovery-conf"])
            .arg(format!("--host={}", self.directory.display()))
            .args(["--port", &self.port.to_string(), "--username", SUPERUSER])
            .arg("--pgdata")
            .arg(standby.data_directory()));
        standby.listen_in_its_directory();
        standby.start_again();
        standby
    }

    /// Makes a standby a server of its own.
    pub fn promote(&self) {
        run(&mut self.pg_ctl("promote"));
    }

    fn listen_in_its_directory(&self) {
        self.configure("port", &self.port.to_string());
        self.configure(
            "unix_socket_directories",
            &self.directory.display().to_string(),
        );
    }

    fn init(&self, settings: &[(String, String)]) {
        run(self
            .server_program("initdb")
            .args([
                "--no-sync",
                "--auth=trust",
                "--locale=C.UTF-8",
                "--encoding=UTF8",
            ])
            .arg(format!("--username={SUPERUSER}"))
            .arg("--pgdata")
            .arg(self.data_directory()));
        let own = [
            ("listen_addresses", "127.0.0.1"),
            ("fsync", "off"),
            ("log_line_prefix", "%m [%p] %b "),
        ];
        for (name, value) in own {
            self.configure(name, value);
        }
        self.listen_in_its_directory();
        for (name, value) in settings {
            self.configure(name, value);
        }
    }

    /// Adds a line to postgresql.conf; takes effect with [`Self::reload`] or a restart.
    pub fn configure(&self, name: &str, value: &str) {
        let file = self.data_directory().join("postgresql.conf");
        let line = format!("{name} = '{}'\n", value.replace('\'', "''"));
        let mut file = fs::OpenOptions::new().append(true).open(file).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }

    pub fn reload(&self) {
        run(&mut self.pg_ctl("reload"));
    }

    /// Starts the server of this directory, after a stop or a crash.
    pub fn start_again(&self) {
        let log = self.log_file();
        let started = try_until(START_LIMIT, || {
            let output = self
                .pg_ctl("start")
                .arg("--log")
                .arg(&log)
                .envs(self.environment.iter().cloned())
                .output()
                .unwrap();
            if output.status.success() {
                Ok(())
            } else {
                Err(text(&output))
            }
        });
        if let Err(seen) = started {
            panic!(
                "{}",
                self.with_log(failure(START_LIMIT, "the server to start", &seen))
            );
        }
    }

    pub fn stop(&self, mode: StopMode) {
        run(self.pg_ctl("stop").args(["--mode", mode.name()]));
    }

    /// Kills the postmaster as the kernel would, and waits until it has gone.
    pub fn kill9_postmaster(&self) {
        let pid = self.postmaster_pid().expect("the server runs");
        self.signal(pid, "KILL");
        self.wait_until(START_LIMIT, "the postmaster to be gone", || {
            if is_alive(pid) {
                Err(format!("process {pid} is there"))
            } else {
                Ok(())
            }
        });
    }

    /// Sends a signal, by name without SIG, to a process of this cluster.
    pub fn signal(&self, pid: i32, signal: &str) {
        run(Command::new("kill").args(["-s", signal, &pid.to_string()]));
    }

    pub fn postmaster_pid(&self) -> Option<i32> {
        let file = fs::read_to_string(self.data_directory().join("postmaster.pid")).ok()?;
        file.lines().next()?.parse().ok()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn data_directory(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// A place for a test's own files; goes with the cluster. The server may read and write in it.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

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

    /// A client program of the server's version (pg_dump, pgbench …), ready to connect to `database`.
    pub fn client_program(&self, program: &str, database: &str) -> Command {
        let mut command = Command::new(self.bindir.join(program));
        command
            .env("PGHOST", &self.directory)
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", SUPERUSER)
            .env("PGDATABASE", database);
        command
    }

    /// A program that must run as the server's account (initdb, pg_ctl, pg_basebackup …).
    pub fn server_program(&self, program: &str) -> Command {
        let program = self.bindir.join(program);
        let mut command = if is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", SERVER_ACCOUNT, "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        // The account may have no right to be where the tests were started.
        command.current_dir("/");
        command
    }

    fn pg_ctl(&self, action: &str) -> Command {
        let mut command = self.server_program("pg_ctl");
        command
            .args([action, "--wait", "--silent", "--pgdata"])
            .arg(self.data_directory())
            .stdin(Stdio::null());
        command
    }

    /// As [`super::wait::wait_until`]; a failure also shows the end of the server log.
    pub fn wait_until<T>(
        &self,
        limit: Duration,
        what: &str,
        look: impl FnMut() -> Result<T, String>,
    ) -> T {
        try_until(limit, look)
            .unwrap_or_else(|seen| panic!("{}", self.with_log(failure(limit, what, &seen))))
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

    fn log_file(&self) -> PathBuf {
        self.directory.join("server.log")
    }

    /// Everything the server has logged since the cluster was made.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn with_log(&self, message: String) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..];
        format!("{message}\n--- end of the server log\n{}", tail.join("\n"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Best effort throughout: a panic here would hide the test's own.
        if self.postmaster_pid().is_some() {
            let _ = self.pg_ctl("stop").args(["--mode", "immediate"]).output();
        }
        if thread::panicking() && is_kept_on_failure() {
            eprintln!("kept for inspection: {}", self.directory.display());
        } else {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

/// Whether the cluster of a failed test stays for inspection.
fn is_kept_on_failure() -> bool {
    env::var_os("WEBHOOK_KEEP").is_some_and(|keep| keep == "1")
}

/// A new directory that the server's account owns. Its path stays short: a
/// socket's path may have 107 characters.
fn new_directory(name: &str) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let short: String = name.chars().take(24).collect();
    // A cluster that is kept on purpose is not swept away either.
    if !is_kept_on_failure() {
        sweeper::watch(&env::temp_dir());
    }
    let directory = env::temp_dir().join(format!("wh-{}-{number}-{short}", process::id()));
    fs::create_dir(&directory).unwrap();
    if is_root() {
        let account = |flag| {
            let output = run(Command::new("id").args([flag, SERVER_ACCOUNT]));
            Some(
                String::from_utf8_lossy(&output.stdout)
                    .trim()
                    .parse()
                    .unwrap(),
            )
        };
        chown(&directory, account("-u"), account("-g")).unwrap();
    }
    directory
}

/// A port nobody listens on. Two test processes start at different places of the range.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let width = PORTS.end - PORTS.start;
    let first = (process::id() % u32::from(width)) as u16;
    (0..width)
        .map(|_| PORTS.start + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % width)
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("one of 12,000 ports is free")
}

fn server_bindir() -> PathBuf {
    let pg_config = env::var_os("PG_CONFIG").unwrap_or_else(|| "pg_config".into());
    let output = run(Command::new(pg_config).arg("--bindir"));
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Whether a process runs; one that has ended and waits for its parent does not.
pub fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the command name, which stands in parentheses and may contain any character.
    let state = stat
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next());
    state.is_some_and(|state| state != 'Z')
}

fn run(command: &mut Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}\n{}", text(&output));
    output
}

fn text(output: &Output) -> String {
    let stdout = String::from_utf8_lossy(&output.stdout);
    format!("{stdout}{}", String::from_utf8_lossy(&output.stderr))
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
