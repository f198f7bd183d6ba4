//! What was received: counters for every path, and the requests themselves.
//!
//! Bounded: beyond `--keep` requests the oldest are forgotten (counters stay).

use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{json, Map, Value};

use crate::behaviour::path_of;
use crate::http;

/// One request, complete.
pub struct Received {
    pub seq: u64,
    pub received_at_us: u64,
    pub method: String,
    /// Path and query as sent.
    pub target: String,
    head: Box<[u8]>,
    pub body: Vec<u8>,
}

impl Received {
    /// The value of a header; of several, the first.
    pub fn header(&self, wanted: &str) -> Option<String> {
        http::header(&self.head, wanted)
    }

    /// One line of the log. Header names are in lower case; values of a repeated header are joined with `, `.
    pub fn to_json(&self) -> Value {
        let mut headers = Map::new();
        for (name, value) in http::fields(&self.head) {
            let value = String::from_utf8_lossy(value);
            headers
                .entry(String::from_utf8_lossy(name).to_ascii_lowercase())
                .and_modify(|all| *all = format!("{}, {value}", all.as_str().unwrap_or("")).into())
                .or_insert_with(|| value.into());
        }
        json!({
            "seq": self.seq,
            "received_at_us": self.received_at_us,
            "method": self.method,
            "path": self.target,
            "headers": headers,
            "body": String::from_utf8_lossy(&self.body),
        })
    }
}

/// Requests to one path.
#[derive(Default)]
pub struct Counter {
    pub requests: AtomicU64,
    in_flight: AtomicU64,
    most_in_flight: AtomicU64,
}

impl Counter {
    /// A request is arriving and will be answered later.
    fn enter(&self) {
        let now = self.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_in_flight.fetch_max(now, Ordering::Relaxed);
    }

    fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request that is being answered; counts as in flight until dropped.
pub struct InFlight(Arc<Counter>);

impl InFlight {
    /// The request is here as a whole, and kept: whoever sees its count finds it.
    pub fn arrived(&self) {
        self.0.requests.fetch_add(1, Ordering::Release);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.leave();
    }
}

pub struct Journal {
    keep: usize,
    kept: Mutex<Kept>,
    counters: Mutex<HashMap<String, Arc<Counter>>>,
    file: Option<Mutex<File>>,
}

#[derive(Default)]
struct Kept {
    last_seq: u64,
    requests: VecDeque<Arc<Received>>,
}

impl Journal {
    pub fn new(keep: usize, file: Option<&str>) -> io::Result<Self> {
        let open = |path| OpenOptions::new().create(true).append(true).open(path);
        Ok(Self {
            keep,
            kept: Mutex::default(),
            counters: Mutex::default(),
            file: file.map(open).transpose()?.map(Mutex::new),
        })
    }

    /// The counter of a path; good for the life of the process.
    pub fn counter(&self, target: &str) -> Arc<Counter> {
        let mut counters = lock(&self.counters);
        if let Some(counter) = counters.get(path_of(target)) {
            return Arc::clone(counter);
        }
        let counter = Arc::<Counter>::default();
        counters.insert(path_of(target).to_owned(), Arc::clone(&counter));
        counter
    }

    pub fn enter(&self, target: &str) -> InFlight {
        let counter = self.counter(target);
        counter.enter();
        InFlight(counter)
    }

    /// Keeps a request and gives it the next number.
    pub fn keep(
        &self,
        method: String,
        target: String,
        head: Box<[u8]>,
        body: Vec<u8>,
    ) -> io::Result<Arc<Received>> {
        let mut kept = lock(&self.kept);
        kept.last_seq += 1;
        let received = Arc::new(Received {
            seq: kept.last_seq,
            received_at_us: now_us(),
            method,
            target,
            head,
            body,
        });
        kept.requests.push_back(Arc::clone(&received));
        if kept.requests.len() > self.keep {
            kept.requests.pop_front();
        }
        drop(kept);
        if let Some(file) = &self.file {
            // One write a line, so that a reader of the file sees whole lines.
            lock(file).write_all(format!("{}\n", received.to_json()).as_bytes())?;
        }
        Ok(received)
    }

    /// Requests after number `since`, oldest first.
    pub fn since(&self, since: u64) -> Vec<Arc<Received>> {
        let kept = lock(&self.kept);
        let first = kept
            .requests
            .partition_point(|received| received.seq <= since);
        kept.requests.iter().skip(first).cloned().collect()
    }

    /// Counters of a path and all paths below it added up; of everything without a path.
    pub fn count(&self, path: Option<&str>) -> Value {
        let counters = lock(&self.counters);
        let wanted = |candidate: &str| match path {
            None => true,
            Some(path) => candidate
                .strip_prefix(path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        };
        let sum = |value: fn(&Counter) -> &AtomicU64| -> u64 {
            let wanted = counters.iter().filter(|(path, _)| wanted(path));
            wanted
                .map(|(_, counter)| value(counter).load(Ordering::Relaxed))
                .sum()
        };
        json!({
            "count": sum(|counter| &counter.requests),
            "in_flight": sum(|counter| &counter.in_flight),
            "most_in_flight": sum(|counter| &counter.most_in_flight),
        })
    }

    /// Forgets requests and counts; numbering goes on.
    pub fn reset(&self) {
        lock(&self.kept).requests.clear();
        // Connections hold on to their counters, so they are emptied, not removed.
        for counter in lock(&self.counters).values() {
            counter.requests.store(0, Ordering::Relaxed);
            let now = counter.in_flight.load(Ordering::Relaxed);
            counter.most_in_flight.store(now, Ordering::Relaxed);
        }
    }
}

fn now_us() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    since_epoch.map_or(0, |duration| duration.as_micros() as u64)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .expect("no thread panics while it holds this lock")
}
