//! Faults of the worker, of other processes, of the whole server and of receivers.

use std::sync::atomic::Ordering;
use std::thread;

use super::super::support::cluster::is_alive;
use super::super::support::worker::{
    cluster_restarts, wait_for_restarts, wait_until_gone, worker_of,
};
use super::super::support::{StopMode, PATIENCE};
use super::chaos::Chaos;
use super::scene::lock;

type Done = Result<(), postgres::Error>;

/// Answers of a receiver that is in trouble. Those that never end are for the webhook with a
/// short timeout alone.
const TROUBLE: &[&str] = &[
    "/status/503",
    "/status/503?retry-after=1",
    "/status/429?retry-after=1",
    "/status/404",
    "/reset",
    "/drop",
    "/garbage",
    "/large/100000",
    "/close",
];
const HANGING: &[&str] = &["/hang", "/hang-headers", "/drip", "/endless"];

const FULL_SPEED: &[(&str, &str)] = &[("webhook.connections", "64"), ("webhook.delivery", "on")];

/// So that at the end outbox and log become empty.
const FORGETTING: &[(&str, &str)] = &[
    ("webhook.log_max_size", "1MB"),
    ("webhook.log_retention", "2s"),
];

/// A session, or what lives as long as the server.
const ANY_BACKEND: &str = "
    select pid from pg_stat_activity
    where backend_type in ('client backend', 'checkpointer', 'background writer')
      and pid <> pg_backend_pid()
    order by random() limit 1";

impl Chaos<'_> {
    pub fn kill_worker(&mut self) -> Done {
        let worker = worker_of(&self.scene.cluster, "postgres");
        self.kill(worker);
        Ok(())
    }

    pub fn kill_backend(&mut self) -> Done {
        if let Some(row) = self.session().query_opt(ANY_BACKEND, &[])? {
            self.kill(row.get(0));
        }
        Ok(())
    }

    /// The postmaster then restarts all processes. A session may have ended by itself before.
    fn kill(&mut self, pid: i32) {
        let cluster = &self.scene.cluster;
        let restarts = cluster_restarts(cluster);
        if !is_alive(pid) {
            return;
        }
        self.scene.progress.kills.fetch_add(1, Ordering::Relaxed);
        self.count_end();
        cluster.signal(pid, "KILL");
        wait_for_restarts(cluster, restarts + 1);
    }

    fn count_end(&self) {
        self.scene.progress.ends.fetch_add(1, Ordering::Relaxed);
    }

    pub fn terminate_worker(&mut self) -> Done {
        self.count_end();
        let worker = worker_of(&self.scene.cluster, "postgres");
        self.run(&format!("select pg_terminate_backend({worker})"))?;
        wait_until_gone(&self.scene.cluster, PATIENCE, worker);
        Ok(())
    }

    pub fn stop_worker(&mut self) -> Done {
        self.count_end();
        self.run("select webhook.stop_worker()")?;
        thread::sleep(self.chance.millis(0..=2000));
        self.run("select webhook.start_worker()")
    }

    /// It may hold locks meanwhile that everybody needs.
    pub fn freeze_worker(&mut self) -> Done {
        let cluster = &self.scene.cluster;
        let worker = worker_of(cluster, "postgres");
        cluster.signal(worker, "STOP");
        thread::sleep(self.chance.millis(200..=5000));
        cluster.signal(worker, "CONT");
        Ok(())
    }

    pub fn restart_fast(&mut self) -> Done {
        self.restart(StopMode::Fast)
    }

    pub fn restart_immediate(&mut self) -> Done {
        self.restart(StopMode::Immediate)
    }

    fn restart(&mut self, mode: StopMode) -> Done {
        self.count_end();
        self.scene.cluster.stop(mode);
        thread::sleep(self.chance.millis(0..=1000));
        self.start_again()
    }

    /// The other processes end when they notice.
    pub fn kill_postmaster(&mut self) -> Done {
        self.count_end();
        self.scene.cluster.kill9_postmaster();
        self.start_again()
    }

    fn start_again(&self) -> Done {
        self.scene.cluster.start_again();
        if self.scene.is_preloaded {
            return Ok(());
        }
        // Else it comes with the first change, and the writers may be pausing.
        self.run("select webhook.start_worker()")
    }

    pub fn kill_receiver(&mut self) -> Done {
        let mut falling = lock(&self.scene.falling);
        falling.receiver = None;
        thread::sleep(self.chance.millis(0..=4000));
        falling.rise(&self.scene.cluster, &self.scene.arrivals);
        Ok(())
    }

    pub fn let_receiver_misbehave(&mut self) -> Done {
        if self.chance.one_in(3) {
            let behaviour = *self.chance.pick(HANGING);
            let times = self.chance.within(1..=30);
            let falling = lock(&self.scene.falling);
            let receiver = falling.receiver.as_ref().expect("it is up between faults");
            receiver.behave_for("/ok/falling", behaviour, times);
            return Ok(());
        }
        let paths = [
            "/ok/plain",
            "/ok/multicast/a",
            "/ok/multicast/b",
            "/slow/5/multicast",
            "/unsteady/3/fifo",
            "/unsteady/3/keyed",
            "/ok/throttled/a",
            "/ok/template",
            "/ok/sourced",
        ];
        let path = *self.chance.pick(&paths);
        let trouble = *self.chance.pick(TROUBLE);
        self.scene.receiver.behave(path, trouble);
        let until = self.in_seconds(0, 6);
        self.misbehaving.push((path, until));
        Ok(())
    }

    /// A reload reaches the processes some time; nobody waits for it. What keeps nearly
    /// everything from being sent is over soon.
    pub fn change_settings(&mut self) -> Done {
        let (name, values): (&str, &[&str]) = *self.chance.pick(&[
            ("webhook.connections", &["1", "4", "16"] as &[&str]),
            ("webhook.delivery", &["off"]),
            ("webhook.log_max_size", &["1MB", "1MB", "2MB", "0"]),
            ("webhook.log_retention", &["0", "2s", "10s", "1min"]),
            ("webhook.max_response_size", &["0", "16kB"]),
        ]);
        let value = *self.chance.pick(values);
        self.configure(&[(name, value)]);
        thread::sleep(self.chance.millis(0..=2000));
        self.configure(FULL_SPEED);
        Ok(())
    }

    pub fn set_defaults(&self) {
        self.configure(FULL_SPEED);
        self.configure(FORGETTING);
    }

    fn configure(&self, settings: &[(&str, &str)]) {
        for (name, value) in settings {
            self.scene.cluster.configure(name, value);
        }
        self.scene.cluster.reload();
    }
}
