//! The worker and other server processes as the operating system shows them.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use std::{fs, thread};

use postgres::Client;

use super::cluster::{is_alive, Cluster};
use super::ending::SetOnDrop;
use super::PATIENCE;

/// What pg_stat_activity calls it.
const BACKEND_TYPE: &str = "webhook_ext";

const MEASURE_EVERY: Duration = Duration::from_millis(10);

fn title_of(pid: i32) -> String {
    let title = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&title).into_owned()
}

/// Private memory of a process in kB: what it has allocated itself, without shared buffers and code.
pub fn private_kb(pid: i32) -> Option<u64> {
    status_field(pid, "RssAnon:")
}

pub fn threads(pid: i32) -> Option<u64> {
    status_field(pid, "Threads:")
}

/// CPU time a process has used, in ticks of 10 ms.
pub fn cpu_ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    // The command name stands in parentheses and may hold any character.
    let (_, fields) = stat.rsplit_once(") ").expect("a stat line has a name");
    let fields: Vec<&str> = fields.split(' ').collect();
    // utime and stime are fields 14 and 15; the state, behind the name, is 3.
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// How often the threads of a process have gone to sleep so far.
pub fn sleeps(pid: i32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let statuses = tasks.flatten().map(|task| task.path().join("status"));
    statuses
        .filter_map(|status| field_in(&status, "voluntary_ctxt_switches:"))
        .sum()
}

/// Runs `work` and returns the most that `measure` saw of a process meanwhile.
pub fn peak(pid: i32, measure: fn(i32) -> Option<u64>, work: impl FnOnce()) -> u64 {
    let (peak, done) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                peak.fetch_max(measure(pid).unwrap_or(0), Ordering::Relaxed);
                thread::sleep(MEASURE_EVERY);
            }
        });
        // Also when `work` panics the watcher must end.
        let _done = SetOnDrop(&done);
        work();
    });
    peak.into_inner()
}

/// The first word after `name` in /proc/<pid>/status.
fn status_field(pid: i32, name: &str) -> Option<u64> {
    field_in(Path::new(&format!("/proc/{pid}/status")), name)
}

fn field_in(status: &Path, name: &str) -> Option<u64> {
    let status = fs::read_to_string(status).ok()?;
    let line = status.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// The worker that serves a database; waits until there is exactly one. A second one may
/// start and find that it is not needed.
pub fn worker_of(cluster: &Cluster, database: &str) -> i32 {
    let mut session = cluster.connect("postgres");
    cluster.wait_until(
        PATIENCE,
        &format!("one worker in {database}"),
        || match workers_in(&mut session, database)[..] {
            [pid] => Ok(pid),
            ref others => Err(format!("{others:?}")),
        },
    )
}

pub fn workers_in(session: &mut Client, database: &str) -> Vec<i32> {
    let query = "select pid from pg_stat_activity where backend_type = $1 and datname = $2";
    let rows = session.query(query, &[&BACKEND_TYPE, &database]);
    let rows = rows.expect("pg_stat_activity can be read");
    rows.iter().map(|row| row.get(0)).collect()
}

pub fn wait_until_gone(cluster: &Cluster, limit: Duration, pid: i32) {
    cluster.wait_until(limit, &format!("process {pid} to end"), || {
        if is_alive(pid) {
            Err(format!("it runs: {}", title_of(pid)))
        } else {
            Ok(())
        }
    });
}

/// Waits until the server takes sessions again after a crash.
pub fn wait_until_up(cluster: &Cluster) {
    cluster.wait_until(PATIENCE, "the server to take sessions", || {
        let session = cluster.try_connect_as("postgres", "postgres");
        let mut session = session.map_err(|error| format!("{error:?}"))?;
        let looked = session.simple_query("select 1");
        looked.map(drop).map_err(|error| format!("{error:?}"))
    });
}

/// How often a crash of one process made the postmaster start all of them again.
pub fn cluster_restarts(cluster: &Cluster) -> usize {
    let said = "all server processes terminated; reinitializing";
    cluster.log().matches(said).count()
}

/// Waits until so many crashes were dealt with. The postmaster hears of one a moment later, and
/// takes sessions until then.
pub fn wait_for_restarts(cluster: &Cluster, wanted: usize) {
    let what = format!("{wanted} restarts of all server processes");
    cluster.wait_until(PATIENCE, &what, || match cluster_restarts(cluster) {
        seen if seen >= wanted => Ok(()),
        seen => Err(format!("{seen} restarts")),
    });
    wait_until_up(cluster);
}
