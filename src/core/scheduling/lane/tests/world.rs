//! A lane and everything around it, with a clock of its own: sessions, tail, ticks,
//! retries, throttle, a receiver that fails, and a worker that may die at any step.
//!
//! The worker is modelled as far as it touches PostgreSQL or the network; what is pure
//! (lane, windows, throttle, schedule) is the real thing.

mod by_key;
mod checks;
mod reading;
mod sending;
pub mod stream;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::*;
use crate::core::policy::retry::Schedule;
use crate::core::policy::throttle::Throttle;
use checks::Witness;
use stream::Stream;

const MILLISECOND: u64 = 1_000_000;
/// Long enough for every retry and most silences to be over.
const LONG: u64 = 70 * SECOND;
/// When a message is due that waits for another one of its keys.
const NEVER: i64 = i64::MAX;

/// How the lane's webhook is defined.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub order: DeliveryOrder,
    /// It changes now and then, and nothing is said of the order.
    pub switches: bool,
    /// Blocked keys that a lane knows.
    pub blocked_at_most: usize,
    pub per_second: Option<u32>,
    pub max_in_flight: usize,
    pub max_attempts: u32,
}

#[derive(Clone, Copy, Debug)]
pub enum Answer {
    Taken,
    Failed(Health),
    /// It cannot be sent at all.
    Unsendable,
}

/// What became of a message.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Delivered,
    GivenUp,
    /// Called again at, in microseconds.
    Waits(i64),
}

#[derive(Clone, Copy, Debug)]
struct Known {
    at: MessagePosition,
    attempts: u32,
    fate: Fate,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    attempts: u32,
    next_at: i64,
}

/// A message handed to a thread; the first of its run is on the wire.
#[derive(Clone, Copy, Debug)]
struct Handed {
    token: u64,
    at: MessagePosition,
    attempts: u32,
}

struct Tick {
    number: i64,
    snapshot: Arc<Snapshot>,
    names_us: bool,
}

/// What PostgreSQL holds.
struct Stored {
    tail: Cursor,
    lane: DurableLane,
    ticks: Vec<Tick>,
    /// By id, as a lane that keeps the order wants them.
    retries: BTreeMap<(i64, u64), Waiting>,
    delivered: BTreeSet<MessagePosition>,
    failed: BTreeSet<MessagePosition>,
    canceled: BTreeSet<MessagePosition>,
}

/// What the worker knows of the tail.
struct Tail {
    position: Cursor,
    last_tick: i64,
    last_tick_snapshot: Option<Arc<Snapshot>>,
    has_seen_us: bool,
    has_seen_any: bool,
}

/// See the module.
pub struct World {
    pub stream: Stream,
    pub witness: Witness,
    now: u64,
    rules: Rules,
    schedule: Schedule,
    is_paused: bool,
    is_down: bool,
    lane: Lane<()>,
    tail: Tail,
    throttle: Option<Throttle>,
    runs: Vec<VecDeque<Handed>>,
    next_token: u64,
    outcomes: Vec<Known>,
    stored: Stored,
}

#[derive(Clone, Copy, Debug)]
pub enum Step {
    Change {
        session: usize,
        row: usize,
    },
    Flush(usize),
    Commit(usize),
    Abort(usize),
    ReadTail {
        page: usize,
        is_full: bool,
    },
    ReadOwn {
        page: usize,
    },
    ReadRetries,
    /// The pool may be too full for the first run.
    Dispatch {
        accepts: bool,
    },
    End {
        which: usize,
        answer: Answer,
    },
    /// `ticks`: this lane lags, or `others_lag`.
    Settle {
        works: bool,
        ticks: bool,
        others_lag: bool,
    },
    /// The worker deletes ticks. Of other lanes the last one needs so many of the newest.
    Compact {
        others_need: i64,
    },
    Crash,
    Pause(bool),
    MakeRoom,
    Down(bool),
    Wait {
        milliseconds: u64,
    },
    Cancel,
    Redeliver,
    Order(DeliveryOrder),
}

impl World {
    pub fn new(rules: Rules) -> Self {
        let stream = Stream::default();
        let start = Cursor::end_of(Window::ending(stream.snapshot(), 0));
        let stored = Stored {
            tail: start.clone(),
            lane: DurableLane {
                position: None,
                busy: Vec::new(),
            },
            ticks: Vec::new(),
            retries: BTreeMap::new(),
            delivered: BTreeSet::new(),
            failed: BTreeSet::new(),
            canceled: BTreeSet::new(),
        };
        let mut world = Self {
            stream,
            witness: Witness::default(),
            now: 0,
            rules,
            schedule: Schedule::parse("50ms,400ms,2s").unwrap(),
            is_paused: false,
            is_down: false,
            lane: lane(),
            tail: Tail::restored(start),
            throttle: None,
            runs: Vec::new(),
            next_token: 0,
            outcomes: Vec::new(),
            stored,
        };
        world.start_worker();
        world
    }

    pub fn take(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Change { session, row } => self.stream.change(session, row),
            Step::Flush(session) => self.stream.flush(session),
            Step::Commit(session) => self.stream.commit(session),
            Step::Abort(session) => self.stream.abort(session),
            Step::ReadTail { page, is_full } => self.read_tail(page, is_full),
            Step::ReadOwn { page } => self.read_own(page),
            Step::ReadRetries => self.read_retries(),
            Step::Dispatch { accepts } => self.dispatch(accepts)?,
            Step::End { which, answer } => self.end_call(which, answer)?,
            Step::Settle {
                works,
                ticks,
                others_lag,
            } => self.settle(works, ticks, others_lag),
            Step::Compact { others_need } => self.compact(others_need),
            Step::Crash => self.crash(),
            Step::Pause(is_paused) => self.pause(is_paused),
            Step::MakeRoom => drop(self.lane.drop_queue()),
            Step::Down(is_down) => self.is_down = is_down,
            Step::Wait { milliseconds } => self.now += milliseconds * MILLISECOND,
            Step::Cancel => self.cancel(),
            Step::Redeliver => self.redeliver(),
            Step::Order(order) => self.change_order(order),
        }
        self.take_held_back();
        Ok(())
    }

    fn now_micros(&self) -> i64 {
        (self.now / 1000) as i64
    }

    fn pause(&mut self, is_paused: bool) {
        self.is_paused = is_paused;
        self.read_definitions();
    }

    /// As the worker does whenever something in them changed.
    fn read_definitions(&mut self) {
        drop(self.lane.keep_order(self.rules.order));
        self.lane.know_at_most(self.rules.blocked_at_most);
        if self.rules.order != DeliveryOrder::Key {
            self.release_held_back();
        }
        self.lane.max_in_flight = self.rules.max_in_flight;
        let hold = self.is_paused.then_some(Hold::Paused);
        if self.lane.hold.is_some() && hold.is_none() {
            self.lane.reopen();
        }
        self.lane.hold = hold;
        if hold.is_some() {
            drop(self.lane.drop_queue());
        }
    }

    /// Another session cancels a message that waits for its retry.
    fn cancel(&mut self) {
        let Some(((id, xid), _)) = self.stored.retries.pop_first() else {
            return;
        };
        let at = MessagePosition { xid, id };
        self.stored.canceled.insert(at);
        self.witness.is_done(self.stream.place(at));
        self.read_definitions();
    }

    /// Another session wants a message sent that was given up: that is no longer in order.
    fn redeliver(&mut self) {
        let Some(at) = self.stored.failed.pop_first() else {
            return;
        };
        let waiting = Waiting {
            attempts: 0,
            next_at: match self.rules.order {
                DeliveryOrder::Key => NEVER,
                _ => self.now_micros(),
            },
        };
        self.stored.retries.insert((at.id, at.xid), waiting);
        self.witness.is_redelivered(self.stream.place(at));
        self.read_definitions();
    }

    /// The worker does nothing else between the beginning and the end of a settlement.
    fn settle(&mut self, works: bool, ticks: bool, others_lag: bool) {
        self.take_held_back();
        self.lane.begin_settling();
        if !works {
            self.lane.settling_failed();
            return;
        }
        for known in std::mem::take(&mut self.outcomes) {
            self.write(known);
        }
        let tick = self.store_tick(ticks, others_lag);
        self.tail.position = self.tail.durable_position(tick);
        self.stored.tail = self.tail.position.clone();
        if self.lane.dirty {
            self.stored.lane = self.lane.durable();
        }
        self.lane.settled();
    }

    fn write(&mut self, known: Known) {
        let key = (known.at.id, known.at.xid);
        match known.fate {
            Fate::Delivered => {
                self.stored.retries.remove(&key);
                self.stored.delivered.insert(known.at);
            }
            // Who canceled it meanwhile has the last word.
            _ if self.stored.canceled.contains(&known.at) => {}
            Fate::GivenUp => {
                self.stored.retries.remove(&key);
                self.stored.failed.insert(known.at);
            }
            Fate::Waits(next_at) => {
                let attempts = known.attempts;
                let waiting = Waiting { attempts, next_at };
                self.stored.retries.insert(key, waiting);
            }
        }
    }

    /// The worker dies at once, and another one starts from what was stored.
    fn crash(&mut self) {
        for run in std::mem::take(&mut self.runs) {
            // The receiver may have taken what was on the wire; nobody will ever know.
            if let Some(handed) = run.front() {
                self.witness.accepted_in_doubt(self.stream.place(handed.at));
            }
        }
        for known in std::mem::take(&mut self.outcomes) {
            if matches!(known.fate, Fate::Delivered) {
                self.witness.is_in_doubt(self.stream.place(known.at));
            }
        }
        self.witness.begins_a_life();
        self.start_worker();
    }

    fn start_worker(&mut self) {
        let now = self.now;
        self.tail = Tail::restored(self.stored.tail.clone());
        let DurableLane { position, mut busy } = self.stored.lane.clone();
        self.lane = Lane::new(1, 1, position.map_or(Feed::Tail, Feed::Own));
        let rate = self.rules.per_second;
        self.throttle = rate.map(|rate| Throttle::starting_full(rate, now));
        self.read_definitions();
        busy.sort_unstable_by_key(|at| at.id);
        for at in busy {
            let keys = self.stream.keys(at);
            self.lane.requeue(entry(at, None, keys, 0, false));
        }
    }

    /// From here on everything works, until nothing is left to do.
    pub fn run_dry(&mut self) -> Result<(), TestCaseError> {
        self.is_down = false;
        self.pause(false);
        for session in 0..stream::SESSIONS {
            self.stream.commit(session);
        }
        for _ in 0..self.stream.committed.len() * 3 + 20 {
            self.now += LONG;
            self.read_tail(usize::MAX, false);
            self.read_own(usize::MAX);
            self.read_retries();
            self.dispatch(true)?;
            while !self.runs.is_empty() {
                self.end_call(0, Answer::Taken)?;
            }
            self.settle(true, true, false);
            if self.is_at_rest() {
                break;
            }
        }
        Ok(())
    }

    fn is_at_rest(&self) -> bool {
        let tail_is_through = self.tail.position.window_is_done()
            && self.tail.position.window.to == self.stream.snapshot();
        let lane = &self.lane;
        tail_is_through
            && self.stored.retries.is_empty()
            && lane.is_at_tail()
            && !lane.has_next()
            && !lane.wants_answer()
            && !lane.wants_blocked_keys()
            && !lane.has_keys_to_ask()
    }

    /// Every message arrived, or was given up or canceled; nothing is left anywhere.
    pub fn assert_nothing_is_lost(&self) -> Result<(), TestCaseError> {
        let stored = &self.stored;
        for change in self.stream.committed.iter().filter(|c| c.is_ours()) {
            let ends = [&stored.delivered, &stored.failed, &stored.canceled];
            let ended = ends.iter().any(|end| end.contains(&change.at));
            prop_assert!(ended, "{:?} is lost", change);
        }
        prop_assert!(stored.retries.is_empty(), "{:?} still wait", stored.retries);
        prop_assert!(self.lane.is_at_tail() && !self.lane.has_next());
        prop_assert!(self.lane.durable().busy.is_empty());
        Ok(())
    }
}

fn entry(
    at: MessagePosition,
    window: Option<&Arc<Window>>,
    keys: OrderKeys,
    attempts: u32,
    is_retry: bool,
) -> Entry<()> {
    Entry {
        at,
        window: window.cloned(),
        message: (),
        keys,
        attempts,
        is_retry,
    }
}
