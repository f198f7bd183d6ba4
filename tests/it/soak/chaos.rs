//! One fault after the other, as chance has it.
//!
//! A fault ends before the next one begins, but for what lasts on purpose: pauses, an old
//! snapshot, a receiver that misbehaves. Nothing here judges; what a fault makes of the
//! product shows in the comparison at the end. A statement that is refused because a table
//! is in use is no fault of anybody; any other error is a finding.

use std::thread;
use std::time::{Duration, Instant};

use postgres::Client;

use super::super::support::worker::wait_until_up;
use super::admin_faults::Forgotten;
use super::chance::Chance;
use super::hooks::PLANS;
use super::scene::Scene;
use super::writers::is_of_fault;

/// Between two faults; long enough for some deliveries.
const PAUSE_MS: std::ops::RangeInclusive<u64> = 100..=1500;

/// A prepared transaction this old has lost its writer.
const ORPHANED: &str = "select gid from pg_prepared_xacts where prepared < now() - interval '2 s'";

/// Faults wait no longer than this for a lock, so that a test of ten minutes has many.
const LIMITS: &str = "set lock_timeout = '2s'; set statement_timeout = '20s'";

#[derive(Clone, Copy)]
enum Fault {
    KillWorker,
    TerminateWorker,
    StopWorker,
    FreezeWorker,
    KillBackend,
    RestartFast,
    RestartImmediate,
    KillPostmaster,
    KillReceiver,
    ReceiverMisbehaves,
    Pause,
    Settings,
    Redeliver,
    RegenerateSecret,
    EditWebhook,
    Passing,
    AlterTable,
    Rebuild,
    OldSnapshot,
    ForgetCancellation,
    ForgetRedelivery,
    LockTable,
    RebuildOurs,
    CancelWriters,
    TerminateWriters,
    FreezeStandby,
}

const FAULTS: &[(u64, Fault)] = &[
    (3, Fault::KillWorker),
    (4, Fault::TerminateWorker),
    (2, Fault::StopWorker),
    (4, Fault::FreezeWorker),
    (2, Fault::KillBackend),
    (2, Fault::RestartFast),
    (2, Fault::RestartImmediate),
    (1, Fault::KillPostmaster),
    (4, Fault::KillReceiver),
    (6, Fault::ReceiverMisbehaves),
    (5, Fault::Pause),
    (7, Fault::Settings),
    (8, Fault::Redeliver),
    (5, Fault::RegenerateSecret),
    (4, Fault::EditWebhook),
    (6, Fault::Passing),
    (6, Fault::AlterTable),
    (6, Fault::Rebuild),
    (4, Fault::OldSnapshot),
    (5, Fault::ForgetCancellation),
    (5, Fault::ForgetRedelivery),
    (6, Fault::LockTable),
    (5, Fault::RebuildOurs),
    (4, Fault::CancelWriters),
    (4, Fault::TerminateWriters),
    (5, Fault::FreezeStandby),
];

pub struct Chaos<'a> {
    pub scene: &'a Scene,
    pub chance: Chance,
    /// What lasts, and when it ends.
    pub paused: Vec<(&'static str, Instant)>,
    pub misbehaving: Vec<(&'static str, Instant)>,
    pub snapshots: Vec<(Client, Instant)>,
    pub forgotten: Vec<Forgotten>,
    /// How many webhooks have come and gone.
    pub passing: usize,
    pub added_columns: Vec<(&'static str, String)>,
}

impl<'a> Chaos<'a> {
    pub fn new(scene: &'a Scene, chance: Chance) -> Self {
        Self {
            scene,
            chance,
            paused: Vec::new(),
            misbehaving: Vec::new(),
            snapshots: Vec::new(),
            forgotten: Vec::new(),
            passing: 0,
            added_columns: Vec::new(),
        }
    }

    /// A pause, and a fault.
    pub fn step(&mut self) {
        thread::sleep(self.chance.millis(PAUSE_MS));
        self.end_what_lasted(Instant::now());
        self.end_orphans();
        let (name, done) = self.strike();
        match done {
            Ok(()) => self.scene.progress.count_fault(name),
            Err(error) if is_of_fault(&error) => self.scene.progress.count_fault("refused"),
            Err(error) => self.scene.findings.add(format!("{name}: {error:?}")),
        }
    }

    fn strike(&mut self) -> (&'static str, Result<(), postgres::Error>) {
        match self.chance.weighed(FAULTS) {
            Fault::KillWorker => ("worker killed", self.kill_worker()),
            Fault::TerminateWorker => ("worker terminated", self.terminate_worker()),
            Fault::StopWorker => ("worker stopped and started", self.stop_worker()),
            Fault::FreezeWorker => ("worker frozen", self.freeze_worker()),
            Fault::KillBackend => ("backend killed", self.kill_backend()),
            Fault::RestartFast => ("fast restart", self.restart_fast()),
            Fault::RestartImmediate => ("immediate restart", self.restart_immediate()),
            Fault::KillPostmaster => ("postmaster killed", self.kill_postmaster()),
            Fault::KillReceiver => ("receiver killed", self.kill_receiver()),
            Fault::ReceiverMisbehaves => ("receiver misbehaves", self.let_receiver_misbehave()),
            Fault::Pause => ("webhook paused", self.pause_webhook()),
            Fault::Settings => ("settings reloaded", self.change_settings()),
            Fault::Redeliver => ("redelivered", self.redeliver()),
            Fault::RegenerateSecret => ("secret regenerated", self.regenerate_secret()),
            Fault::EditWebhook => ("webhook edited", self.edit_webhook()),
            Fault::Passing if self.has_room_for_passing() => {
                ("webhook created", self.make_passing())
            }
            Fault::Passing => ("webhook dropped", self.drop_passing()),
            Fault::AlterTable => ("table altered", self.alter_table()),
            Fault::Rebuild => ("table rebuilt", self.rebuild()),
            Fault::OldSnapshot => ("old snapshot", self.hold_snapshot()),
            Fault::ForgetCancellation => ("cancellation left open", self.forget_cancellation()),
            Fault::ForgetRedelivery => ("redelivery left open", self.forget_redelivery()),
            Fault::LockTable => ("table of the extension locked", self.lock_table()),
            Fault::RebuildOurs => ("table of the extension rebuilt", self.rebuild_ours()),
            Fault::CancelWriters => ("writers canceled", self.cancel_writers()),
            Fault::TerminateWriters => ("writers terminated", self.terminate_writers()),
            Fault::FreezeStandby => ("standby frozen", self.freeze_standby()),
        }
    }

    /// A session of its own for each fault: servers come and go.
    pub fn session(&self) -> Client {
        wait_until_up(&self.scene.cluster);
        let mut session = self.scene.cluster.connect("postgres");
        session.batch_execute(LIMITS).expect("the server is up");
        session
    }

    pub fn run(&self, statements: &str) -> Result<(), postgres::Error> {
        self.session().batch_execute(statements)
    }

    /// `least` to `most` seconds from now.
    pub fn in_seconds(&mut self, least: u64, most: u64) -> Instant {
        Instant::now() + self.chance.millis(least * 1000..=most * 1000)
    }

    fn end_what_lasted(&mut self, now: Instant) {
        self.end_forgotten(now);
        let receiver = &self.scene.receiver;
        self.misbehaving.retain(|(path, until)| {
            if *until <= now {
                receiver.behave_normally(path);
            }
            *until > now
        });
        self.snapshots.retain(|(_, until)| *until > now);
        let over: Vec<&str> = self
            .paused
            .iter()
            .filter(|(_, until)| *until <= now)
            .map(|(name, _)| *name)
            .collect();
        self.paused.retain(|(_, until)| *until > now);
        for name in over {
            self.resume(name);
        }
    }

    /// Later if a transaction that was left open locks the webhook.
    fn resume(&mut self, name: &'static str) {
        match self.run(&format!("select webhook.resume_webhook('{name}')")) {
            Ok(()) => {}
            Err(error) if is_of_fault(&error) => {
                let until = self.in_seconds(1, 1);
                self.paused.push((name, until));
            }
            Err(error) => self
                .scene
                .findings
                .add(format!("{name} was not resumed: {error:?}")),
        }
    }

    /// Whoever prepared these has lost its session. One that is just ending them is quicker.
    pub fn end_orphans(&mut self) {
        let mut session = self.session();
        let orphans = session.query(ORPHANED, &[]).unwrap_or_default();
        for orphan in orphans {
            let name: String = orphan.get(0);
            let end = if self.chance.one_in(2) {
                "commit"
            } else {
                "rollback"
            };
            // As likely as not it is gone.
            let _ = session.batch_execute(&format!("{end} prepared '{name}'"));
        }
    }

    /// Nothing lasts any more; what is waiting can go out.
    pub fn end(&mut self) {
        let long_after = Instant::now() + Duration::from_secs(3600);
        self.end_what_lasted(long_after);
        self.set_defaults();
        for plan in PLANS {
            self.resume(plan.name);
        }
        while !self.paused.is_empty() {
            self.end_what_lasted(long_after);
        }
        self.scene
            .cluster
            .wait_until(Duration::from_secs(60), "no prepared transaction", || {
                self.end_orphans();
                match self.session().query(ORPHANED, &[]).map(|rows| rows.len()) {
                    Ok(0) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            });
        self.run("select webhook.start_worker()")
            .expect("a worker may start");
    }
}
