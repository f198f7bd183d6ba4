//! What the soak test acts upon: cluster, receivers, tables and webhooks, and what its
//! threads tell each other.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::super::support::cluster::free_port;
use super::super::support::definitions::{create_event, create_webhook};
use super::super::support::{Cluster, Receiver};
use super::arrivals::Arrivals;
use super::hooks::{Hook, Issued, Plan, Shape, PLANS, TEMPLATE};
use super::standby;
use super::truth;

pub const TABLES: &[&str] = &["accounts", "orders", "readings"];

/// `spare` is renamed and columns are added while writers write, who do not name it.
const CREATE_TABLES: &str = "
create sequence ids;
create sequence stamps;
create table accounts (
    id bigint primary key, version integer not null, stamp bigint not null,
    amount numeric(12,2), note text, spare integer default (random() * 1000)::integer
);
create table orders (like accounts including all);
create table readings (like accounts including all) partition by hash (id);
create table readings_0 partition of readings for values with (modulus 3, remainder 0);
create table readings_1 partition of readings for values with (modulus 3, remainder 1);
create table readings_2 partition of readings for values with (modulus 3, remainder 2);";

/// A secret that never was replaced.
const FOR_EVER: u64 = u64::MAX;

/// More findings only repeat one another.
const MOST_FINDINGS: usize = 20;

pub struct Scene {
    pub seed: u64,
    pub cluster: Cluster,
    pub standby: Cluster,
    pub receiver: Receiver,
    pub falling: Mutex<Falling>,
    pub hooks: Mutex<Vec<Hook>>,
    /// The server processes of the writers, by their numbers.
    pub writer_pids: Mutex<BTreeMap<u64, i32>>,
    /// `accountId` of every payload.
    pub account: String,
    pub arrivals: Mutex<Arrivals>,
    /// Whether the library is preloaded, so that workers start with the server.
    pub is_preloaded: bool,
    /// Set while so much waits that the writers have to pause.
    pub brake: AtomicBool,
    pub findings: Findings,
    pub progress: Progress,
}

/// The receiver that goes down and comes back on the same port.
pub struct Falling {
    pub receiver: Option<Receiver>,
    pub port: u16,
    starts: usize,
}

impl Falling {
    pub fn rise(&mut self, cluster: &Cluster, arrivals: &Mutex<Arrivals>) {
        self.starts += 1;
        let journal = cluster
            .directory()
            .join(format!("falling-{}.jsonl", self.starts));
        self.receiver = Some(Receiver::start_logging(self.port, &journal));
        lock(arrivals).read_also(journal);
    }
}

impl Scene {
    pub fn new(seed: u64) -> Self {
        let is_preloaded = seed.is_multiple_of(2);
        let cluster = start_cluster(is_preloaded);
        cluster.sql("create extension webhook_ext");
        cluster.sql(CREATE_TABLES);
        truth::watch(&cluster, TABLES);
        let journal = cluster.directory().join("receiver.jsonl");
        let receiver = Receiver::start_logging(0, &journal);
        let mut falling = Falling {
            receiver: None,
            port: free_port(),
            starts: 0,
        };
        let arrivals: Mutex<Arrivals> = Mutex::default();
        lock(&arrivals).read_also(journal);
        falling.rise(&cluster, &arrivals);
        let account =
            cluster.value("select current_setting('webhook.account_id') from webhook.worker");
        let standby = standby::follow(&cluster);
        let scene = Self {
            seed,
            cluster,
            standby,
            receiver,
            falling: Mutex::new(falling),
            hooks: Mutex::default(),
            writer_pids: Mutex::default(),
            account,
            arrivals,
            is_preloaded,
            brake: AtomicBool::new(false),
            findings: Findings::default(),
            progress: Progress::default(),
        };
        for plan in PLANS {
            scene.make_hook(plan);
        }
        scene
    }

    pub fn hooks(&self) -> MutexGuard<'_, Vec<Hook>> {
        lock(&self.hooks)
    }

    fn make_hook(&self, plan: &'static Plan) {
        let urls: Vec<String> = plan.paths.iter().map(|path| self.url(plan, path)).collect();
        let options = match plan.options {
            "" => "max_attempts => 1000".to_owned(),
            options => format!("max_attempts => 1000, {options}"),
        };
        create_webhook(&self.cluster, plan.name, &urls, &options);
        let mut event_options = plan.event_options.to_owned();
        if let Shape::Template = plan.shape {
            event_options += &format!("'{TEMPLATE}'");
        }
        let mut events = BTreeMap::new();
        for table in plan.tables {
            for kind in plan.kinds {
                let id = create_event(&self.cluster, plan.name, table, kind, &event_options);
                events.insert(id, ((*table).to_owned(), (*kind).to_owned()));
            }
        }
        let hook = Hook {
            plan,
            name: plan.name.to_owned(),
            id: self.hook_id(plan.name),
            paths: plan.paths.iter().map(|path| (*path).to_owned()).collect(),
            events: events.into_iter().collect(),
            after_place: 0,
            made_at: UNIX_EPOCH,
            is_dropped: false,
            issued: vec![self.newest_secret(plan.name)],
            redelivered: 0,
        };
        self.hooks().push(hook);
    }

    pub fn hook_id(&self, name: &str) -> String {
        self.cluster.value(&format!(
            "select id from webhook.webhooks where name = '{name}'"
        ))
    }

    pub fn newest_secret(&self, name: &str) -> Issued {
        let mut session = self.cluster.connect("postgres");
        let row = session.query_one(
            "select secret, token from webhook.reveal_secret($1) limit 1",
            &[&name],
        );
        let row = row.expect("a webhook has a secret");
        Issued {
            secret: row.get(0),
            token: row.get(1),
            from: now_s(),
            until: FOR_EVER,
        }
    }

    pub fn url(&self, plan: &Plan, path: &str) -> String {
        if plan.falls {
            format!("http://127.0.0.1:{}{path}", lock(&self.falling).port)
        } else {
            self.receiver.url(path)
        }
    }
}

/// Small rings, so that they rotate all the time, and short pauses, so that everything ends.
fn start_cluster(is_preloaded: bool) -> Cluster {
    let builder = Cluster::builder("soak")
        .set("webhook.allowed_networks", "127.0.0.0/8")
        .set("webhook.retry_schedule", "100ms,300ms")
        .set("webhook.log_max_size", "1MB")
        .set("webhook.log_retention", "10s")
        .set("max_prepared_transactions", 20)
        .set("deadlock_timeout", "100ms")
        .set("autovacuum_naptime", "5s");
    if is_preloaded {
        builder
            .set("shared_preload_libraries", "webhook_ext")
            .start()
    } else {
        builder.start()
    }
}

/// What is wrong so far; the test fails at its end if there is anything.
#[derive(Default)]
pub struct Findings(Mutex<BTreeMap<String, usize>>);

impl Findings {
    pub fn add(&self, finding: impl Into<String>) {
        let finding = finding.into();
        let mut all = lock(&self.0);
        if !all.contains_key(&finding) {
            println!("soak: FOUND {finding}");
        }
        *all.entry(finding).or_default() += 1;
    }

    pub fn are_few(&self) -> bool {
        lock(&self.0).len() < MOST_FINDINGS
    }

    /// One a line, with how often it was found.
    pub fn all(&self) -> String {
        let all = lock(&self.0);
        let lines = all
            .iter()
            .map(|(finding, times)| format!("{times} × {finding}\n"));
        lines.collect()
    }
}

/// For the line every thirty seconds, and the limits of the worker.
#[derive(Default)]
pub struct Progress {
    pub received: AtomicUsize,
    pub transactions: AtomicUsize,
    /// How often the worker was ended, by whatever means.
    pub ends: AtomicUsize,
    /// Signals 9 that were sent to server processes.
    pub kills: AtomicUsize,
    pub most_kb: AtomicU64,
    pub most_threads: AtomicU64,
    pub most_sockets: AtomicU64,
    pub most_files: AtomicU64,
    faults: Mutex<BTreeMap<String, usize>>,
    ends_at: Mutex<Option<Instant>>,
}

impl Progress {
    pub fn end_at(&self, at: Instant) {
        *lock(&self.ends_at) = Some(at);
    }

    pub fn minutes_left(&self) -> f64 {
        let left = lock(&self.ends_at).map(|at| at.saturating_duration_since(Instant::now()));
        left.unwrap_or_default().as_secs_f64() / 60.0
    }

    pub fn count_fault(&self, name: &str) {
        *lock(&self.faults).entry(name.to_owned()).or_default() += 1;
    }

    pub fn faults(&self) -> String {
        let faults = lock(&self.faults);
        let named: Vec<String> = faults
            .iter()
            .map(|(name, n)| format!("{name} {n}"))
            .collect();
        format!(
            "{} faults: {}",
            faults.values().sum::<usize>(),
            named.join(", ")
        )
    }

    pub fn summary(&self) -> String {
        let number = |n: &AtomicU64| n.load(Ordering::Relaxed);
        format!(
            "{} transactions, {} calls received, the worker had at most {} MB, {} threads, {} sockets, {} files",
            self.transactions.load(Ordering::Relaxed),
            self.received.load(Ordering::Relaxed),
            number(&self.most_kb) / 1024,
            number(&self.most_threads),
            number(&self.most_sockets),
            number(&self.most_files),
        )
    }
}

pub fn now_s() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("it is after 1970").as_secs()
}

/// A thread that panicked has ended the test; what it held is of use for its report.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
