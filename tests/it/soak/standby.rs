//! A standby that must have each commit before its messages are sent, and that lags.

use std::thread;
use std::time::Duration;

use super::super::support::{Cluster, PATIENCE};
use super::chaos::Chaos;

const SLOT: &str = "soak";

/// Long enough to notice it, short beside what the writers may leave waiting.
const LAG_MS: std::ops::RangeInclusive<u64> = 200..=5000;

/// Nobody writes any more.
const CATCH_UP: Duration = PATIENCE;

const RECEIVER: &str = "select pid from pg_stat_wal_receiver";

/// A standby of `primary`, whose messages wait for it from now on.
pub fn follow(primary: &Cluster) -> Cluster {
    primary.sql(&format!(
        "select pg_create_physical_replication_slot('{SLOT}', true)"
    ));
    let standby = primary.follow("soak-standby");
    standby.configure("primary_slot_name", SLOT);
    // Primaries come and go.
    standby.configure("wal_retrieve_retry_interval", "200ms");
    standby.reload();
    let active =
        format!("select active::text from pg_replication_slots where slot_name = '{SLOT}'");
    primary.wait_for_text(PATIENCE, &active, "true");
    primary.configure("webhook.synchronized_standby_slots", SLOT);
    primary.reload();
    standby
}

/// Waits until the standby has all that is committed now: the slot is still in use.
pub fn wait_until_caught_up(primary: &Cluster, standby: &Cluster) {
    let end: String = primary.value("select pg_current_wal_flush_lsn()::text");
    let has_all = format!("select (pg_last_wal_replay_lsn() >= '{end}')::text");
    standby.wait_for_text(CATCH_UP, &has_all, "true");
}

impl Chaos<'_> {
    /// Nothing may be sent meanwhile that the standby does not have.
    pub fn freeze_standby(&mut self) -> Result<(), postgres::Error> {
        let standby = &self.scene.standby;
        let receiver = standby.connect("postgres").query_opt(RECEIVER, &[])?;
        // It connects again a moment after the primary is back.
        if let Some(row) = receiver {
            let pid = row.get(0);
            standby.signal(pid, "STOP");
            thread::sleep(self.chance.millis(LAG_MS));
            standby.signal(pid, "CONT");
        }
        Ok(())
    }
}
