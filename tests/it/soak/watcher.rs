//! Watches the worker's memory, threads and files, pauses the writers while too much waits,
//! and says every half a minute how far the test is.

use std::collections::HashMap;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use postgres::Client;

use super::super::support::worker::{private_kb, threads};
use super::hooks::{PASSING, PLANS};
use super::scene::Scene;

const LOOK_EVERY: Duration = Duration::from_millis(500);
const SAY_EVERY: Duration = Duration::from_secs(30);

/// The views wait for nobody but a server that is stopped.
const STATEMENT_LIMIT: &str = "set statement_timeout = '20s'";

pub fn watch(scene: &Scene, done: &AtomicBool) {
    let mut session: Option<Client> = None;
    let mut said = Instant::now();
    while !done.load(Ordering::Relaxed) {
        thread::sleep(LOOK_EVERY);
        if said.elapsed() >= SAY_EVERY {
            said = Instant::now();
            say(scene);
        }
        // Servers come and go.
        let Some(mut connected) = session.take().or_else(|| connect(scene)) else {
            continue;
        };
        if let Ok(pids) = worker_pids(&mut connected) {
            pids.into_iter().for_each(|pid| measure(scene, pid));
            if look_at_queues(scene, &mut connected).is_ok() {
                session = Some(connected);
            }
        }
    }
}

fn connect(scene: &Scene) -> Option<Client> {
    let mut session = scene.cluster.try_connect_as("postgres", "postgres").ok()?;
    session.batch_execute(STATEMENT_LIMIT).ok()?;
    Some(session)
}

fn say(scene: &Scene) {
    let progress = &scene.progress;
    println!(
        "soak: {:.1} minutes left; {}; {}{}",
        progress.minutes_left(),
        progress.summary(),
        progress.faults(),
        if scene.brake.load(Ordering::Relaxed) {
            "; the writers pause"
        } else {
            ""
        }
    );
}

fn worker_pids(session: &mut Client) -> Result<Vec<i32>, postgres::Error> {
    let rows = session.query("select pid from webhook.worker where pid is not null", &[])?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Of a process that has just ended there is nothing to measure.
fn measure(scene: &Scene, pid: i32) {
    let progress = &scene.progress;
    let note = |most: &AtomicU64, now: Option<u64>| {
        most.fetch_max(now.unwrap_or(0), Ordering::Relaxed);
    };
    note(&progress.most_kb, private_kb(pid));
    note(&progress.most_threads, threads(pid));
    let (sockets, files) = open_files(pid);
    note(&progress.most_sockets, Some(sockets));
    note(&progress.most_files, Some(files));
}

/// Sockets, and everything else that a process has open.
pub fn open_files(pid: i32) -> (u64, u64) {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return (0, 0);
    };
    let targets = entries
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok());
    targets.fold((0, 0), |(sockets, files), target| {
        if target.to_string_lossy().starts_with("socket:") {
            (sockets + 1, files)
        } else {
            (sockets, files + 1)
        }
    })
}

fn look_at_queues(scene: &Scene, session: &mut Client) -> Result<(), postgres::Error> {
    let rows = session.query(
        "select webhook_name, max(pending + retrying)::bigint from webhook.queue group by 1",
        &[],
    )?;
    let most: HashMap<&str, i64> = PLANS
        .iter()
        .map(|plan| (plan.name, plan.most_waiting))
        .collect();
    let is_too_much = rows.iter().any(|row| {
        let waiting: i64 = row.get(1);
        let name: &str = row.get(0);
        waiting > *most.get(name).unwrap_or(&PASSING.most_waiting)
    });
    scene.brake.store(is_too_much, Ordering::Relaxed);
    Ok(())
}
