//! What a path makes the receiver do.
//!
//! The first segment of a path names the behaviour, the second is its argument
//! where it takes one; what follows is free and keeps endpoints apart
//! (`/status/503/crm`, `/ok/billing`). A path may be told to behave as another
//! for a while (`POST /_control/behaviour`), so that an endpoint can fail and
//! recover without a change of its URL.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// Prefix of the paths that are counted and otherwise forgotten.
pub const COUNT_PREFIX: &[u8] = b"/count";

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// `/ok…`, `/status/<code>?retry-after=<value>&body=<text>`, `/slow/<ms>`, `/close`, `/redirect?to=<url>`.
    Answer(Plain),
    /// `/count…`: 200 at once, counted but not kept.
    Count,
    /// `/tally…`: 200 at once; kept is only which row and message it was about.
    Tally,
    /// `/flaky/<n>`: the first n calls of each webhook-id get 500, then 200.
    Flaky { failures: u32 },
    /// `/unsteady/<percent>`: so many of a hundred calls of this path get 500, which ones is
    /// the same every time and looks random.
    Unsteady { percent: u32 },
    /// `/refuses/<id>?ms=<delay>`: 422 for a body with `"id":<id>,`, 200 for all others.
    Refusing { id: u64, delay: Duration },
    /// `/once-500`: the first call of this path gets 500, all others 200.
    OnceFailing,
    /// `/hang`: reads the request and never answers.
    Hang,
    /// `/hold`: reads the request and waits until its path is told to behave in another way;
    /// then that is how it is answered. `order`: how often the path had been told something.
    Hold { order: u64 },
    /// `/hang-headers`: stops within the head of the answer.
    HangHeaders,
    /// `/deaf`: reads the head, then neither reads the body nor answers.
    Deaf,
    /// `/drip`: the answer from its first byte on, one byte a second.
    Drip,
    /// `/drip-body`: the head at once, the body one byte a second.
    DripBody,
    /// `/endless`: a body that never ends.
    Endless,
    /// `/endless-chunks`: the same in chunks.
    EndlessChunks,
    /// `/endless-headers`: header fields without end.
    EndlessHeaders,
    /// `/informational`: 1xx answers without end.
    Informational,
    /// `/large/<bytes>`: 200 with a body of this size.
    Large { bytes: usize },
    /// `/reset`: a TCP reset instead of an answer.
    Reset,
    /// `/drop`: closes instead of answering.
    Drop,
    /// `/garbage`: a status line that is none.
    Garbage,
    /// `/binary`: a body with NUL and bytes that are not UTF-8.
    Binary,
    /// `/raw?answer=<text>`: exactly this, and then the end.
    Raw { answer: String },
    /// `/both-lengths`: content-length and chunked at once, contradicting each other.
    BothLengths,
    /// `/gzip-bomb`: a small body that unpacks to a large one.
    GzipBomb,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plain {
    pub status: u16,
    pub delay: Duration,
    pub retry_after: Option<String>,
    pub location: Option<String>,
    pub body: String,
    /// Closes afterwards without having said so.
    pub closes: bool,
}

impl Plain {
    pub fn status(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }
}

impl Behaviour {
    /// What `target` (path and query) stands for; an unknown one is answered with 404.
    pub fn of(target: &str) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut segments = path.trim_start_matches('/').split('/');
        let name = segments.next().unwrap_or_default();
        let argument = segments.next().unwrap_or_default();
        let parameter = |wanted: &str| {
            url::form_urlencoded::parse(query.as_bytes())
                .find(|(name, _)| name == wanted)
                .map(|(_, value)| value.into_owned())
        };
        Self::named(name, argument, &parameter).unwrap_or(Self::Answer(Plain {
            body: format!("no behaviour is called {path}"),
            ..Plain::status(404)
        }))
    }

    fn named(
        name: &str,
        argument: &str,
        parameter: &dyn Fn(&str) -> Option<String>,
    ) -> Option<Self> {
        let plain = Plain {
            retry_after: parameter("retry-after"),
            body: parameter("body").unwrap_or_default(),
            ..Plain::status(200)
        };
        Some(match name {
            "status" => Self::Answer(Plain {
                status: argument.parse().ok()?,
                ..plain
            }),
            "slow" => Self::Answer(Plain {
                delay: Duration::from_millis(argument.parse().ok()?),
                ..plain
            }),
            "close" => Self::Answer(Plain {
                closes: true,
                ..plain
            }),
            "redirect" => Self::Answer(Plain {
                status: 302,
                location: Some(parameter("to")?),
                ..plain
            }),
            "flaky" => Self::Flaky {
                failures: argument.parse().ok()?,
            },
            "unsteady" => Self::Unsteady {
                percent: argument.parse().ok()?,
            },
            "refuses" => Self::Refusing {
                id: argument.parse().ok()?,
                delay: Duration::from_millis(
                    parameter("ms").map_or(Some(0), |ms| ms.parse().ok())?,
                ),
            },
            "large" => Self::Large {
                bytes: argument.parse().ok()?,
            },
            "once-500" => Self::OnceFailing,
            "hang" => Self::Hang,
            "hold" => Self::Hold { order: 0 },
            "hang-headers" => Self::HangHeaders,
            "deaf" => Self::Deaf,
            "drip" => Self::Drip,
            "drip-body" => Self::DripBody,
            "endless" => Self::Endless,
            "endless-chunks" => Self::EndlessChunks,
            "endless-headers" => Self::EndlessHeaders,
            "informational" => Self::Informational,
            "reset" => Self::Reset,
            "drop" => Self::Drop,
            "garbage" => Self::Garbage,
            "binary" => Self::Binary,
            "raw" => Self::Raw {
                answer: parameter("answer")?,
            },
            "both-lengths" => Self::BothLengths,
            "gzip-bomb" => Self::GzipBomb,
            "tally" => Self::Tally,
            name if name.starts_with("ok") => Self::Answer(plain),
            name if name.starts_with("count") => Self::Count,
            _ => return None,
        })
    }
}

/// A path that behaves as another one for now.
#[derive(Debug)]
pub struct Override {
    pub target: String,
    /// Ends by itself after so many requests.
    pub times: Option<u64>,
}

#[derive(Default)]
struct Overrides {
    by_path: HashMap<String, Override>,
    /// How often each path was told how to behave, and how often everything was forgotten.
    orders: HashMap<String, u64>,
    resets: u64,
}

impl Overrides {
    fn order(&self, path: &str) -> u64 {
        self.orders.get(path).copied().unwrap_or(0) + self.resets
    }

    /// How this request is to be answered; uses it up where an override is for so many only.
    fn take(&mut self, target: &str) -> Behaviour {
        let path = path_of(target);
        let Some(entry) = self.by_path.get_mut(path) else {
            return Behaviour::of(target);
        };
        let behaviour = Behaviour::of(&entry.target);
        if let Some(times) = &mut entry.times {
            *times = times.saturating_sub(1);
            if *times == 0 {
                self.by_path.remove(path);
            }
        }
        behaviour
    }
}

/// The overrides in force, and what the failing-at-first behaviours remember.
#[derive(Default)]
pub struct Script {
    overrides: Mutex<Overrides>,
    told: Condvar,
    any_override: AtomicBool,
    calls: Mutex<HashMap<String, u32>>,
}

impl Script {
    /// Cheap enough to ask on every request.
    pub fn is_overridden(&self) -> bool {
        self.any_override.load(Ordering::Acquire)
    }

    pub fn behaviour(&self, target: &str) -> Behaviour {
        if !self.is_overridden() {
            let behaviour = Behaviour::of(target);
            if !matches!(behaviour, Behaviour::Hold { .. }) {
                return behaviour;
            }
        }
        let mut overrides = lock(&self.overrides);
        match overrides.take(target) {
            Behaviour::Hold { .. } => Behaviour::Hold {
                order: overrides.order(path_of(target)),
            },
            behaviour => behaviour,
        }
    }

    /// Waits until the path of `target` was told something after that order, and returns what
    /// it is to do then.
    pub fn behaviour_after(&self, target: &str, order: u64) -> Behaviour {
        let mut overrides = lock(&self.overrides);
        while overrides.order(path_of(target)) == order {
            overrides = self
                .told
                .wait(overrides)
                .expect("no thread panics while it holds this lock");
        }
        drop(overrides);
        self.behaviour(target)
    }

    /// Sets the override of a path, or takes it away.
    pub fn set(&self, path: &str, entry: Option<Override>) {
        let mut overrides = lock(&self.overrides);
        match entry {
            Some(entry) => overrides.by_path.insert(path.to_owned(), entry),
            None => overrides.by_path.remove(path),
        };
        *overrides.orders.entry(path.to_owned()).or_default() += 1;
        self.any_override
            .store(!overrides.by_path.is_empty(), Ordering::Release);
        self.told.notify_all();
    }

    pub fn reset(&self) {
        let mut overrides = lock(&self.overrides);
        overrides.by_path.clear();
        overrides.resets += 1;
        self.any_override.store(false, Ordering::Release);
        self.told.notify_all();
        lock(&self.calls).clear();
    }

    /// How often `key` was called before; this call counts from now on.
    pub fn calls_before(&self, key: String) -> u32 {
        let mut calls = lock(&self.calls);
        let count = calls.entry(key).or_default();
        *count += 1;
        *count - 1
    }
}

pub fn path_of(target: &str) -> &str {
    target.split('?').next().unwrap_or(target)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .expect("no thread panics while it holds this lock")
}
