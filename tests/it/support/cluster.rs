//! Private PostgreSQL clusters: made, broken, restarted and removed by the tests.
//!
//! The server binaries come from PG_CONFIG. As root the server runs as user
//! postgres (initdb refuses root), else as the caller. A cluster lives in one
//! directory with everything that belongs to it and goes with it when dropped.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;
use std::{env, fs, thread};

use super::bookkeeping;
use super::crashes::crashes_in;
use super::wait::{failure, try_until};
use host::{is_root, run, text};

mod builder;
mod host;
mod place;
mod sessions;

pub use builder::Builder;
pub use host::{free_port, is_alive};

/// The account that runs servers when the tests run as root.
const SERVER_ACCOUNT: &str = "postgres";

const SUPERUSER: &str = "postgres";

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

pub struct Cluster {
    directory: PathBuf,
    port: u16,
    bindir: PathBuf,
    /// What the server sees of its environment beside our own.
    environment: Vec<(String, String)>,
    /// Why what the extension counts is not held against what happened.
    exemption: OnceLock<&'static str>,
}

impl Cluster {
    /// A running cluster with default settings. The name shows in its directory.
    pub fn start(name: &str) -> Self {
        Self::builder(name).start()
    }

    pub fn builder(name: &str) -> Builder {
        Builder::named(name)
    }

    /// Spares the cluster of a test that changes what the extension has written the
    /// comparison at its end (`bookkeeping`).
    pub fn exempt_from_bookkeeping(&self, why: &'static str) {
        let _ = self.exemption.set(why);
    }

    /// Adds a line to postgresql.conf; takes effect with [`Self::reload`] or a restart.
    pub fn configure(&self, name: &str, value: &str) {
        let file = self.data_directory().join("postgresql.conf");
        let line = format!("{name} = '{}'\n", value.replace('\'', "''"));
        let mut file = fs::OpenOptions::new().append(true).open(file).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }

    /// Makes a standby a server of its own.
    pub fn promote(&self) {
        run(&mut self.pg_ctl("promote"));
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

    /// A command line that must run as the server's account.
    pub fn shell_as_server(&self, line: &str) -> Command {
        let mut command = Command::new(if is_root() { "runuser" } else { "sh" });
        if is_root() {
            command.args(["-u", SERVER_ACCOUNT, "--", "sh"]);
        }
        command.args(["-c", line]);
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
        // Best effort until all is cleared away: a panic here would hide the test's own.
        let is_running = self.postmaster_pid().is_some();
        let mut findings = Vec::new();
        if is_running && !thread::panicking() && self.exemption.get().is_none() {
            findings = bookkeeping::findings(self);
        }
        if is_running {
            let _ = self.pg_ctl("stop").args(["--mode", "immediate"]).output();
        }
        if !thread::panicking() {
            findings.extend(crashes_in(&self.log()).into_iter().map(str::to_owned));
        }
        let has_failed = thread::panicking() || !findings.is_empty();
        if has_failed && is_kept_on_failure() {
            eprintln!("kept for inspection: {}", self.directory.display());
        } else {
            let _ = fs::remove_dir_all(&self.directory);
        }
        if !findings.is_empty() {
            panic!(
                "the test went well, but not the server:\n{}",
                findings.join("\n")
            );
        }
    }
}

/// Whether the cluster of a failed test stays for inspection.
fn is_kept_on_failure() -> bool {
    env::var_os("WEBHOOK_KEEP").is_some_and(|keep| keep == "1")
}
