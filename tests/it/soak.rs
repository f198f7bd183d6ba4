//! The long test: random faults under load, then an exact comparison (`make soak`).
//!
//! Writers change rows in every way there is, while faults come one after the other, chosen
//! by a seed that is printed and can be given again (SOAK_SEED): it repeats what is done, not
//! how the processes take turns. Then the faults end, everything drains, and what every URL
//! received is held against what a plain trigger saw being committed. No part of the cluster
//! tier: it runs for SOAK_MINUTES.

mod admin_faults;
mod arrivals;
pub(crate) mod chance;
mod chaos;
mod definition_faults;
mod hooks;
mod scene;
mod server_faults;
mod server_log;
mod standby;
mod table_faults;
mod truth;
mod verdict;
mod watcher;
mod writers;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{env, thread};

use super::support::ending::SetOnDrop;
use super::support::watched::{wait_idle, wait_until_nothing_is_left};
use super::support::worker::worker_of;
use chance::Chance;
use chaos::Chaos;
use scene::Scene;

const MINUTES_DEFAULT: f64 = 10.0;

/// Sessions that change rows at a time.
const WRITERS: u64 = 6;

/// The writers stop for a while when more waits than this takes, also on a busy machine.
const DRAIN_LIMIT: Duration = Duration::from_secs(600);

const IDLE_LIMIT: Duration = Duration::from_secs(60);

#[test]
#[ignore = "runs for SOAK_MINUTES: make soak"]
fn soak_whatever_goes_wrong_each_committed_change_and_no_other_arrives() {
    let time = Duration::from_secs_f64(60.0 * number("SOAK_MINUTES", MINUTES_DEFAULT));
    let seed = number("SOAK_SEED", fresh_seed());
    println!("soak: {time:?}, SOAK_SEED={seed}");
    let scene = Scene::new(seed);
    let watching = AtomicBool::new(false);
    let mut chaos = Chaos::new(&scene, Chance::new(seed));
    thread::scope(|scope| {
        let _end = SetOnDrop(&watching);
        scope.spawn(|| watcher::watch(&scene, &watching));
        scope.spawn(|| arrivals::collect(&scene, &watching));
        strike_while_writing(&scene, &mut chaos, time);
        println!(
            "soak: the faults end, the rest is delivered; {}",
            scene.progress.faults()
        );
        chaos.end();
        drain(&scene);
    });
    arrivals::collect_rest(&scene);
    verdict::judge(&scene);
    println!("soak: passed");
}

/// Faults while the writers write, for so long or until enough is found.
fn strike_while_writing(scene: &Scene, chaos: &mut Chaos, time: Duration) {
    let written = AtomicBool::new(false);
    thread::scope(|threads| {
        let _end = SetOnDrop(&written);
        let writers: Vec<_> = (1..=WRITERS)
            .map(|number| {
                let written = &written;
                threads.spawn(move || writers::write(scene, number, written))
            })
            .collect();
        let until = Instant::now() + time;
        scene.progress.end_at(until);
        while Instant::now() < until && scene.findings.are_few() {
            chaos.step();
        }
        written.store(true, Ordering::Relaxed);
        // A writer may wait for a row of a prepared transaction that nobody else ends.
        scene
            .cluster
            .wait_until(IDLE_LIMIT, "the writers to end", || {
                chaos.end_orphans();
                match writers.iter().filter(|w| !w.is_finished()).count() {
                    0 => Ok(()),
                    writing => Err(format!("{writing} write")),
                }
            });
    });
}

fn drain(scene: &Scene) {
    worker_of(&scene.cluster, "postgres");
    wait_until_nothing_is_left(&scene.cluster, DRAIN_LIMIT);
    wait_idle(&scene.cluster, IDLE_LIMIT);
}

/// A number from the environment.
fn number<T: std::str::FromStr>(name: &str, otherwise: T) -> T {
    match env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} is {text:?}: give a number")),
        Err(_) => otherwise,
    }
}

/// Short, so that it is easily given again.
fn fresh_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("it is after 1970").as_millis() as u64 % 1_000_000_000
}
