//! Calls per second to one URL: bare ureq with a pinned resolver, and our pool.
//!
//! `webhook-http-bench URL [threads] [seconds] [body bytes]` prints one line of
//! JSON. The receiver must be on an address literal. Bare ureq is measured with
//! one agent for all threads and with one per thread; the faster one counts.
//! Both sides read the answer to its end, under the same total deadline. Only
//! our side signs, names the call in headers and reports an outcome.

#![allow(dead_code)]

#[path = "../../src/core/mod.rs"]
mod core;
#[path = "../../src/delivery/mod.rs"]
mod delivery;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::Agent;
use uuid::Uuid;

use crate::core::policy::address::AddressPolicy;
use crate::core::policy::descriptors::Plan;
use crate::core::policy::endpoint::Endpoint;
use crate::core::policy::secret::Secret;
use crate::core::policy::signing::Signer;
use crate::delivery::call::{CallStamp, Job, Payload, Target, Verdict};
use crate::delivery::client::ClientConfig;
use crate::delivery::pool::Pool;

const TIMEOUT: Duration = Duration::from_secs(15);

/// Rounds of each side, taken in turn: the machine's noise hits both alike.
const ROUNDS: u32 = 3;

/// Jobs ahead of each thread, so that none waits for the submitter.
const JOBS_PER_THREAD: usize = 4;

struct Bench {
    url: Endpoint,
    threads: usize,
    round: Duration,
    body: Vec<u8>,
}

#[derive(Debug)]
struct Pinned(SocketAddr);

impl Resolver for Pinned {
    fn resolve(
        &self,
        _: &Uri,
        _: &Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut addresses = self.empty();
        addresses.push(self.0);
        Ok(addresses)
    }
}

struct Fixed(Vec<u8>);

impl Payload for Fixed {
    fn render(&self, _: &CallStamp, _: usize, out: &mut Vec<u8>) -> Result<usize, String> {
        out.extend_from_slice(&self.0);
        Ok(out.len())
    }
}

impl Bench {
    fn from_arguments() -> Self {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let number = |index: usize, default: usize| {
            arguments.get(index).map_or(default, |text| {
                text.parse()
                    .unwrap_or_else(|_| usage(&format!("{text} is not a number")))
            })
        };
        let url = arguments.first().unwrap_or_else(|| usage("no URL given"));
        Self {
            url: Endpoint::parse(url).unwrap_or_else(|error| usage(&error.message)),
            threads: number(1, 16).max(1),
            round: Duration::from_secs(u64::try_from(number(2, 9)).unwrap_or(9)) / ROUNDS,
            body: vec![b'x'; number(3, 350)],
        }
    }

    fn address(&self) -> SocketAddr {
        let literal = self.url.literal_address();
        let address = literal.unwrap_or_else(|| usage("the host is no address literal"));
        SocketAddr::new(address, self.url.port())
    }

    fn bare_agent(&self) -> Agent {
        let config = Agent::config_builder()
            .proxy(None)
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .max_idle_connections(self.threads)
            .max_idle_connections_per_host(self.threads)
            .build();
        Agent::with_parts(config, DefaultConnector::default(), Pinned(self.address()))
    }

    /// Calls a second of bare ureq; `agents` has one agent per thread.
    fn bare(&self, agents: Vec<Agent>) -> f64 {
        let (calls, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let started = Instant::now();
        thread::scope(|scope| {
            for agent in &agents {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let mut answer = agent
                            .post(self.url.as_str())
                            .header("content-type", "application/json")
                            .send(&self.body[..])
                            .expect("the receiver answers");
                        assert!(answer.status().is_success(), "{}", answer.status());
                        answer
                            .body_mut()
                            .read_to_vec()
                            .expect("the answer has an end");
                        calls.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            thread::sleep(self.round);
            stop.store(true, Ordering::Relaxed);
        });
        calls.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64()
    }

    fn bare_shared(&self) -> f64 {
        let agent = self.bare_agent();
        self.bare(vec![agent; self.threads])
    }

    fn bare_per_thread(&self) -> f64 {
        self.bare((0..self.threads).map(|_| self.bare_agent()).collect())
    }

    /// Calls a second of the pool, fed and drained by this thread.
    fn pool(&self) -> f64 {
        let main = thread::current();
        let config = ClientConfig {
            policy: AddressPolicy::parse(&self.address().ip().to_string())
                .expect("an address is a network of one"),
            ..ClientConfig::default()
        };
        let pool = Pool::new(config, Arc::new(move || main.unpark()));
        pool.fit(&Plan::unlimited(self.threads));
        for _ in 0..self.threads {
            pool.spawn_thread().expect("a thread can start");
        }
        let calls = self.feed(&pool);
        assert!(pool.shutdown(TIMEOUT), "a thread hangs");
        calls
    }

    fn feed(&self, pool: &Pool) -> f64 {
        let target = Arc::new(Target {
            url: self.url.clone(),
            timeout: TIMEOUT,
            headers: vec![],
            signers: vec![(Signer::new(&Secret::from_random([1; 32])), None)],
            confidential: Arc::default(),
        });
        let payload: Arc<dyn Payload> = Arc::new(Fixed(self.body.clone()));
        let (mut calls, mut outcomes) = (0_u64, Vec::new());
        let started = Instant::now();
        while started.elapsed() < self.round || pool.in_flight() > 0 {
            while started.elapsed() < self.round
                && pool.in_flight() < self.threads * JOBS_PER_THREAD
            {
                let job = Job {
                    token: calls,
                    target: Arc::clone(&target),
                    payload: Arc::clone(&payload),
                    message_id: Uuid::from_u128(1),
                    call_id: Uuid::from_u128(2),
                    attempt: 1,
                    sent: None,
                };
                pool.submit(vec![job]).expect("the queue has room");
            }
            if pool.drain_outcomes(1000, &mut outcomes) == 0 {
                thread::park_timeout(Duration::from_millis(100));
            }
            for outcome in outcomes.drain(..) {
                assert_eq!(outcome.verdict, Verdict::Delivered, "{outcome:?}");
                calls += 1;
            }
        }
        calls as f64 / started.elapsed().as_secs_f64()
    }
}

fn usage(what: &str) -> ! {
    eprintln!("{what}\nusage: webhook-http-bench URL [threads] [seconds] [body bytes]");
    std::process::exit(2)
}

fn main() {
    let bench = Bench::from_arguments();
    let rounds = f64::from(ROUNDS);
    let (mut shared, mut per_thread, mut pool) = (0.0, 0.0, 0.0);
    for _ in 0..ROUNDS {
        shared += bench.bare_shared() / rounds;
        per_thread += bench.bare_per_thread() / rounds;
        pool += bench.pool() / rounds;
    }
    let bare = f64::max(shared, per_thread);
    println!(
        "{}",
        serde_json::json!({
            "threads": bench.threads,
            "body_bytes": bench.body.len(),
            "bare_ureq_shared_agent_per_s": shared.round(),
            "bare_ureq_agent_per_thread_per_s": per_thread.round(),
            "bare_ureq_per_s": bare.round(),
            "pool_per_s": pool.round(),
            "ratio": (pool / bare * 100.0).round() / 100.0,
        })
    );
}
