//! Looks up host names, with a cache and a deadline.
//!
//! `getaddrinfo` cannot be interrupted, so it runs in its own thread and the caller waits no
//! longer than its deadline. The number of such threads is bounded, and one thread serves all
//! callers of a name. A failure is text for the call's detail.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::core::error::system_text;

use super::local::{is_local, lacks_descriptors};
use crate::core::policy::descriptors::MOST_LOOK_UPS;

/// How long an answer is cached. Short, because `getaddrinfo` does not return the record's TTL.
const KEEP_KNOWN: Duration = Duration::from_secs(5);

/// How long a failure is cached: a burst of calls causes one look-up.
const KEEP_FAILED: Duration = Duration::from_secs(1);

/// A local failure says nothing about the name; cached just long enough to reach its callers.
const KEEP_LOCAL_FAILURE: Duration = Duration::from_millis(100);

/// Concurrent look-ups before [`Names::set_limit`], so a resolver that hangs holds at most this
/// many threads. A look-up outlives the calls that wait for it: with a limit below the default
/// of `webhook.connections`, the names of a few dead domains would block all others.
const MAX_LOOKUPS: usize = MOST_LOOK_UPS;

/// Names in the cache; above this the expired ones are removed.
const MAX_NAMES: usize = 4096;

/// Enough for glibc's resolver and its modules.
const STACK_BYTES: usize = 256 * 1024;

type LookUp = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;
type Addresses = Arc<[IpAddr]>;

/// Why a look-up gave no address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameFailure {
    TimedOut,
    Unknown(String),
    /// This machine lacked the resources to ask.
    Local(String),
}

enum Entry {
    Underway,
    Known {
        until: Instant,
        answer: Result<Addresses, NameFailure>,
    },
}

#[derive(Default)]
struct State {
    entries: HashMap<String, Entry>,
    lookups: usize,
}

/// The name cache that all clients share.
pub struct Names {
    state: Mutex<State>,
    changed: Condvar,
    limit: AtomicUsize,
    look_up: Box<LookUp>,
}

impl Names {
    /// Resolves names with the operating system.
    pub fn of_system() -> Self {
        Self::with_look_up(Box::new(ask_system))
    }

    pub fn with_look_up(look_up: Box<LookUp>) -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            limit: AtomicUsize::new(MAX_LOOKUPS),
            look_up,
        }
    }

    /// Limits concurrent look-ups.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, SeqCst);
    }

    /// The addresses of a name, at least one. Waits no longer than `remaining`, which is called
    /// again after [`Names::wake_all`].
    ///
    /// # Errors
    /// [`NameFailure`] if the name has no address or the time is over.
    pub fn addresses(
        self: &Arc<Self>,
        host: &str,
        remaining: impl Fn() -> Option<Duration>,
    ) -> Result<Addresses, NameFailure> {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            match state.entries.get(host) {
                Some(Entry::Known { until, answer }) if *until > now => {
                    return answer.clone();
                }
                Some(Entry::Underway) => {}
                _ if state.lookups < self.limit.load(SeqCst) => self.start(&mut state, host)?,
                _ => {}
            }
            let left = remaining().ok_or(NameFailure::TimedOut)?;
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Makes every waiting caller check its remaining time.
    pub fn wake_all(&self) {
        // Under the lock, so that no caller is between its check and its wait.
        let _state = self.lock();
        self.changed.notify_all();
    }

    fn start(self: &Arc<Self>, state: &mut State, host: &str) -> Result<(), NameFailure> {
        make_room(state);
        let (names, asked) = (Arc::clone(self), host.to_owned());
        thread::Builder::new()
            .name("webhook names".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || names.finish(asked))
            .map_err(|error| NameFailure::Local(system_text(&error)))?;
        state.lookups += 1;
        state.entries.insert(host.to_owned(), Entry::Underway);
        Ok(())
    }

    fn finish(&self, host: String) {
        let answer = match (self.look_up)(&host) {
            Ok(addresses) if addresses.is_empty() => {
                Err(NameFailure::Unknown("it has no address".to_owned()))
            }
            Ok(addresses) => Ok(Addresses::from(addresses)),
            // The system reports an unknown name or a temporary failure if it can open neither
            // its files nor a socket.
            Err(error) if is_local(&error) || lacks_descriptors() => {
                Err(NameFailure::Local(system_text(&error)))
            }
            Err(error) => Err(NameFailure::Unknown(system_text(&error))),
        };
        let keep = match answer {
            Ok(_) => KEEP_KNOWN,
            Err(NameFailure::Local(_)) => KEEP_LOCAL_FAILURE,
            Err(_) => KEEP_FAILED,
        };
        let until = Instant::now() + keep;
        let mut state = self.lock();
        state.lookups -= 1;
        state.entries.insert(host, Entry::Known { until, answer });
        drop(state);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn make_room(state: &mut State) {
    if state.entries.len() < MAX_NAMES {
        return;
    }
    let now = Instant::now();
    state.entries.retain(|_, entry| match entry {
        Entry::Underway => true,
        Entry::Known { until, .. } => *until > now,
    });
    if state.entries.len() >= MAX_NAMES {
        state
            .entries
            .retain(|_, entry| matches!(entry, Entry::Underway));
    }
}

fn ask_system(host: &str) -> io::Result<Vec<IpAddr>> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for found in (host, 0).to_socket_addrs()? {
        if !addresses.contains(&found.ip()) {
            addresses.push(found.ip());
        }
    }
    Ok(addresses)
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Names")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;
    use std::sync::mpsc;

    fn soon() -> Option<Duration> {
        Some(Duration::from_secs(5))
    }

    fn until(deadline: Instant) -> impl Fn() -> Option<Duration> {
        move || {
            deadline
                .checked_duration_since(Instant::now())
                .filter(|left| !left.is_zero())
        }
    }

    #[test]
    fn a_burst_for_one_name_asks_once() {
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        let names = Arc::new(Names::with_look_up(Box::new(move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
            Ok(vec!["192.0.2.1".parse().unwrap()])
        })));
        thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| assert_eq!(names.addresses("a", soon).unwrap().len(), 1));
            }
        });
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_look_up_that_hangs_costs_its_callers_no_more_than_their_deadline() {
        let (release, hold) = mpsc::channel::<()>();
        let hold = Mutex::new(hold);
        let names = Arc::new(Names::with_look_up(Box::new(move |host| {
            if host == "hangs" {
                let _ = hold.lock().unwrap().recv();
            }
            Ok(vec!["192.0.2.1".parse().unwrap()])
        })));
        let started = Instant::now();
        let deadline = started + Duration::from_millis(50);
        assert_eq!(
            names.addresses("hangs", until(deadline)),
            Err(NameFailure::TimedOut)
        );
        assert!(started.elapsed() >= Duration::from_millis(50));
        assert!(names.addresses("works", soon).is_ok());
        drop(release);
        assert!(names.addresses("hangs", soon).is_ok());
    }

    #[test]
    fn no_more_threads_than_the_bound_hang() {
        let underway = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&underway);
        let (release, hold) = mpsc::channel::<()>();
        let hold = Mutex::new(hold);
        let names = Arc::new(Names::with_look_up(Box::new(move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
            let _ = hold.lock().unwrap().recv();
            Err(io::Error::other("no"))
        })));
        let deadline = Instant::now() + Duration::from_millis(100);
        for n in 0..3 * MAX_LOOKUPS {
            let found = names.addresses(&format!("host{n}"), until(deadline));
            assert_eq!(found, Err(NameFailure::TimedOut));
        }
        assert!(underway.load(Ordering::SeqCst) <= MAX_LOOKUPS);
        drop(release);
    }

    #[test]
    fn a_caller_whose_time_is_taken_away_stops_waiting() {
        let (release, hold) = mpsc::channel::<()>();
        let hold = Mutex::new(hold);
        let names = Arc::new(Names::with_look_up(Box::new(move |_| {
            let _ = hold.lock().unwrap().recv();
            Err(io::Error::other("no"))
        })));
        let (asked, was_asked) = mpsc::channel();
        let ended = AtomicUsize::new(0);
        thread::scope(|scope| {
            let caller = scope.spawn(|| {
                names.addresses("hangs", || {
                    asked.send(()).unwrap();
                    (ended.load(Ordering::SeqCst) == 0).then_some(Duration::from_secs(60))
                })
            });
            was_asked.recv().unwrap();
            ended.store(1, Ordering::SeqCst);
            names.wake_all();
            assert_eq!(caller.join().unwrap(), Err(NameFailure::TimedOut));
        });
        drop(release);
    }

    #[test]
    fn failures_and_empty_answers_say_why() {
        let names = Arc::new(Names::with_look_up(Box::new(|host| match host {
            "empty" => Ok(vec![]),
            _ => Err(io::Error::other("no such name")),
        })));
        let why = |host| match names.addresses(host, soon) {
            Err(NameFailure::Unknown(why)) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(why("empty"), "it has no address");
        assert_eq!(why("other"), "no such name");
    }

    #[test]
    fn a_look_up_that_found_no_descriptor_says_nothing_about_the_name() {
        let tries = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&tries);
        let names = Arc::new(Names::with_look_up(Box::new(move |_| {
            match counter.fetch_add(1, Ordering::SeqCst) {
                0 => Err(io::Error::from_raw_os_error(libc::EMFILE)),
                _ => Ok(vec!["192.0.2.1".parse().unwrap()]),
            }
        })));
        let first = names.addresses("a", soon);
        assert!(matches!(first, Err(NameFailure::Local(_))), "{first:?}");
        let until = Instant::now() + KEEP_FAILED * 5;
        while names.addresses("a", soon).is_err() {
            assert!(Instant::now() < until, "it is asked again soon");
            thread::yield_now();
        }
    }

    #[test]
    fn the_system_knows_localhost() {
        let names = Arc::new(Names::of_system());
        let found = names.addresses("localhost", soon).unwrap();
        assert!(found.iter().all(IpAddr::is_loopback), "{found:?}");
    }
}
