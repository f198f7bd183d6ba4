//! The delivery threads: runs of jobs go in, outcomes come out.
//!
//! Owns the pool, what it may use of this machine, and the allowance that threads ask for before
//! each call. Takes runs and gives outcomes; a run that finds no place is given back, a call that
//! lacks a resource comes back as not made, and what is lacking is said in words.

#![forbid(unsafe_code)]

mod allowance;
mod shortage;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::time::Ticker;
use crate::core::error::system_text;
use crate::core::policy::descriptors::Plan;
use crate::delivery::call::{Job, Outcome};
use crate::delivery::client::ClientConfig;
use crate::delivery::pool::{Permission, Pool, Wake};
use crate::delivery::tls::check_ca_pem;
use crate::pg::settings::Delivery;
use crate::pg::wake::Notes;
use crate::pg::{descriptors, signals};
use shortage::Shortage;

pub use allowance::Allowance;

/// Outcomes taken from the pool at once.
const OUTCOMES_AT_ONCE: usize = 4096;

/// See the module.
pub struct Sender {
    pool: Pool,
    /// At a time, after what this machine has room for.
    connections: usize,
    shortage: Shortage,
    allowance: Arc<Allowance>,
    ticker: Ticker,
}

impl Sender {
    /// `wake` runs in delivery threads.
    pub fn new(settings: &Delivery, wake: Wake, notes: Notes, ticker: Ticker) -> Self {
        let pool = Pool::new(client_config(settings), wake);
        let allowance = Arc::new(Allowance::new(notes));
        let asked: Arc<dyn Permission> = Arc::clone(&allowance) as _;
        pool.ask_before_calls(asked);
        let mut sender = Self {
            pool,
            connections: settings.connections,
            shortage: Shortage::default(),
            allowance,
            ticker,
        };
        sender.fit_connections(settings);
        sender
    }

    /// SIGHUP.
    pub fn reconfigure(&mut self, settings: &Delivery) {
        self.pool.reconfigure(client_config(settings));
        self.fit_connections(settings);
    }

    /// Makes room for as many connections as the settings ask for, or takes fewer.
    fn fit_connections(&mut self, settings: &Delivery) {
        let wanted = settings.connections;
        let room = descriptors::make_room(Plan::unlimited(wanted).descriptors());
        let plan = Plan::within(wanted, room.available);
        self.pool.fit(&plan);
        self.connections = plan.connections;
        let limited = (plan.connections < wanted).then(|| {
            format!(
                "webhook.connections is {wanted}, but the worker may open only {} files: {} calls \
                 are made at a time; raise the server's limit of open files",
                room.limit, plan.connections
            )
        });
        self.shortage.limit(limited);
    }

    /// What threads ask before each call.
    pub fn allowance(&self) -> &Allowance {
        &self.allowance
    }

    pub fn in_flight(&self) -> usize {
        self.pool.in_flight()
    }

    pub fn free_connections(&self) -> usize {
        self.connections.saturating_sub(self.pool.in_flight())
    }

    /// Hands a run to the threads; gives it back if there is no place for it.
    pub fn submit(&mut self, run: Vec<Job>) -> Result<(), Vec<Job>> {
        self.pool.submit(run)
    }

    /// Starts threads for what was submitted.
    pub fn grow(&mut self) {
        while self.pool.needs_thread() {
            if let Err(error) = signals::with_all_blocked(|| self.pool.spawn_thread()) {
                let now = self.ticker.now();
                self.shortage.note_missing_thread(&error, now);
                return;
            }
        }
    }

    /// What the threads have finished.
    pub fn take_outcomes(&mut self) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        while self.pool.drain_outcomes(OUTCOMES_AT_ONCE, &mut outcomes) == OUTCOMES_AT_ONCE {}
        outcomes
    }

    /// A call was not made because this machine lacks something.
    pub fn note_lacking(&mut self, lacking: String) {
        self.shortage.note(lacking, self.ticker.now());
    }

    /// What this machine lacks, in words.
    pub fn shortage(&mut self) -> Option<String> {
        self.shortage.forget_old(self.ticker.now());
        self.shortage.text()
    }

    /// How long nothing is to be tried again.
    pub fn due_in(&self) -> Option<Duration> {
        let nanos = self.shortage.due_in(self.ticker.now());
        nanos.map(Duration::from_nanos)
    }

    /// Interrupts the calls and ends the threads.
    pub fn shutdown(&mut self, deadline: Duration) {
        self.pool.shutdown(deadline);
    }
}

/// The settings that the delivery threads go by.
fn client_config(settings: &Delivery) -> ClientConfig {
    ClientConfig {
        policy: settings.allowed_networks.clone(),
        require_https: settings.require_https,
        max_message_size: settings.max_message_bytes,
        max_response_size: settings.max_response_bytes,
        ca_pem: settings.ca_file.as_deref().and_then(read_roots),
        refused_socket: crate::pg::process::server_port(),
        ..ClientConfig::default()
    }
}

/// The file of `webhook.ca_file`. One that cannot be used is a warning: public
/// receivers go on, the others fail with a TLS error in the log.
fn read_roots(path: &Path) -> Option<Vec<u8>> {
    let pem = std::fs::read(path).map_err(|error| system_text(&error));
    let checked = pem.and_then(|pem| check_ca_pem(&pem).map(|_| pem));
    checked
        .map_err(|error| {
            pgrx::warning!("webhook.ca_file {} is not used: {error}", path.display());
        })
        .ok()
}
