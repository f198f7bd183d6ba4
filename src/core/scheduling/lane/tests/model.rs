//! Nothing is lost, whatever happens when: a lane and what the worker does around it, by random schedules.

use super::*;

/// What the worker does around one lane, and what PostgreSQL holds meanwhile.
/// Message n is the n-th to commit; a window holds those between two moments.
struct World {
    committed: u64,
    tail: Cursor,
    lane: Lane<()>,
    flying: Vec<(u64, MessagePosition)>,
    next_token: u64,
    /// Known, not written.
    outcomes: Vec<Known>,
    /// As of the last settlement.
    stored: Stored,
    /// How often each message may be sent from here on, by its place.
    may_send: HashMap<u64, u32>,
}

struct Known {
    at: MessagePosition,
    is_delivered: bool,
}

struct Stored {
    tail: Cursor,
    lane: DurableLane,
    retries: HashSet<MessagePosition>,
    delivered: HashSet<MessagePosition>,
}

#[derive(Clone, Debug)]
enum Step {
    /// So many commit, and the tail reads a page of so many.
    Offer {
        commits: u64,
        page: usize,
    },
    /// The same, but the lane is full and leaves.
    Leave {
        commits: u64,
        page: usize,
    },
    TakePage(usize),
    LoadRetries,
    DropQueue,
    Start(u64),
    Finish {
        which: usize,
        is_delivered: bool,
    },
    Recall(usize),
    Settle {
        works: bool,
    },
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let sizes = || (0_u64..90, 1_usize..90);
    prop_oneof![
        4 => sizes().prop_map(|(commits, page)| Step::Offer { commits, page }),
        2 => sizes().prop_map(|(commits, page)| Step::Leave { commits, page }),
        4 => (1_usize..40).prop_map(Step::TakePage),
        1 => Just(Step::LoadRetries),
        1 => Just(Step::DropQueue),
        4 => (1_u64..30).prop_map(Step::Start),
        6 => (any::<usize>(), prop::bool::weighted(0.8))
            .prop_map(|(which, is_delivered)| Step::Finish { which, is_delivered }),
        2 => any::<usize>().prop_map(Step::Recall),
        3 => prop::bool::weighted(0.7).prop_map(|works| Step::Settle { works }),
        2 => Just(Step::Crash),
    ]
}

/// Ids are not drawn in the order of commits: neighbours are swapped.
fn nth(n: u64) -> MessagePosition {
    MessagePosition {
        xid: n,
        id: (n ^ 3) as i64 + 1,
    }
}

fn page_after(position: &Cursor, size: usize) -> (Vec<MessagePosition>, Cursor) {
    let window = &position.window;
    let mut page: Vec<MessagePosition> = (window.from.xmin..window.to.xmin)
        .map(nth)
        .filter(|at| at.id > position.id)
        .collect();
    page.sort_unstable_by_key(|at| at.id);
    page.truncate(size);
    let id = match page.last() {
        Some(last) if page.len() == size => last.id,
        _ => END_OF_WINDOW,
    };
    let end = Cursor {
        window: Arc::clone(window),
        id,
    };
    (page, end)
}

fn entry(at: MessagePosition, window: Option<&Arc<Window>>, is_retry: bool) -> Entry<()> {
    Entry {
        at,
        window: window.cloned(),
        message: (),
        keys: OrderKeys::default(),
        attempts: 0,
        is_retry,
    }
}

impl World {
    fn new() -> Self {
        let tail = Cursor::end_of(Window::ending(moment(0), 0));
        Self {
            committed: 0,
            tail: tail.clone(),
            lane: lane(),
            flying: Vec::new(),
            next_token: 0,
            outcomes: Vec::new(),
            stored: Stored {
                tail,
                lane: lane().durable(),
                retries: HashSet::new(),
                delivered: HashSet::new(),
            },
            may_send: HashMap::new(),
        }
    }

    fn take(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Offer { commits, page } => self.read_tail(commits, page, false),
            Step::Leave { commits, page } => self.read_tail(commits, page, true),
            Step::TakePage(size) => self.read_own(size),
            Step::LoadRetries => self.load_retries()?,
            Step::DropQueue => drop(self.lane.drop_queue()),
            Step::Start(count) => self.start(count)?,
            Step::Finish {
                which,
                is_delivered,
            } => self.finish(which, is_delivered),
            Step::Recall(which) => self.recall(which),
            Step::Settle { works } => self.settle(works),
            Step::Crash => self.crash(),
        }
        Ok(())
    }

    fn read_tail(&mut self, commits: u64, size: usize, is_full: bool) {
        for n in self.committed..self.committed + commits {
            self.may_send.insert(n, 1);
        }
        self.committed += commits;
        if self.tail.window_is_done() {
            let next = window(self.tail.window.to.xmin, self.committed);
            self.tail = Cursor::start_of(next);
        }
        let (page, end) = page_after(&self.tail, size);
        let window = Arc::clone(&self.tail.window);
        for at in page {
            if !self.lane.is_at_tail() {
                break;
            }
            if is_full {
                self.lane.leave_tail(position(&window, at.id - 1));
            } else {
                self.lane.offer(entry(at, Some(&window), false));
            }
        }
        self.tail = end;
    }

    fn read_own(&mut self, size: usize) {
        let Feed::Own(mut position) = self.lane.feed().clone() else {
            return;
        };
        if position.window_is_done() {
            let (here, tail) = (position.window.to.xmin, &self.tail.window);
            let is_between_windows = self.tail.window_is_done();
            let passed = if is_between_windows {
                tail.to.xmin
            } else {
                tail.from.xmin
            };
            if here < passed {
                position = Cursor::start_of(window(here, passed));
            } else if here == passed && is_between_windows {
                self.lane.join_tail();
                return;
            } else if here == passed {
                position = Cursor::start_of(Arc::clone(tail));
            } else {
                // It is through with the window that the tail is in: it waits.
                return;
            }
        }
        let (page, end) = page_after(&position, size);
        let entries = page
            .into_iter()
            .map(|at| entry(at, Some(&position.window), false));
        self.lane.take_page(entries, end);
    }

    fn load_retries(&mut self) -> Result<(), TestCaseError> {
        let mut retries: Vec<MessagePosition> = self.stored.retries.iter().copied().collect();
        retries.sort_unstable();
        for at in retries {
            let is_under_way = self.lane.waiting().any(|entry| entry.at == at)
                || self.flying.iter().any(|(_, flying)| *flying == at)
                || self.outcomes.iter().any(|known| known.at == at);
            let is_loaded = self.lane.retry(entry(at, None, true));
            prop_assert_eq!(is_loaded, !is_under_way);
        }
        Ok(())
    }

    fn start(&mut self, count: u64) -> Result<(), TestCaseError> {
        for _ in 0..count {
            let Some(at) = self.lane.start(self.next_token).map(|entry| entry.at) else {
                break;
            };
            self.flying.push((self.next_token, at));
            self.next_token += 1;
            let left = self.may_send.get_mut(&at.xid).unwrap();
            prop_assert!(*left > 0, "{:?} is sent twice", at);
            *left -= 1;
        }
        Ok(())
    }

    fn pick(&mut self, which: usize) -> Option<(u64, MessagePosition)> {
        let count = self.flying.len();
        (count > 0).then(|| self.flying.remove(which % count))
    }

    fn finish(&mut self, which: usize, is_delivered: bool) {
        if let Some((token, at)) = self.pick(which) {
            self.lane.finish(token, Health::Up, 0).unwrap();
            self.outcomes.push(Known { at, is_delivered });
        }
    }

    fn recall(&mut self, which: usize) {
        if let Some((token, at)) = self.pick(which) {
            self.lane.recall(token).unwrap();
            *self.may_send.get_mut(&at.xid).unwrap() += 1;
        }
    }

    /// The worker does nothing else between the beginning and the end of a settlement.
    fn settle(&mut self, works: bool) {
        self.lane.begin_settling();
        if !works {
            self.lane.settling_failed();
            return;
        }
        for known in self.outcomes.drain(..) {
            if known.is_delivered {
                self.stored.retries.remove(&known.at);
                self.stored.delivered.insert(known.at);
            } else {
                self.stored.retries.insert(known.at);
                *self.may_send.get_mut(&known.at.xid).unwrap() += 1;
            }
        }
        self.stored.tail = self.tail.clone();
        if self.lane.dirty {
            self.stored.lane = self.lane.durable();
        }
        self.lane.settled();
    }

    fn crash(&mut self) {
        // Nobody can know of these whether they arrived.
        let in_doubt = self.flying.drain(..).map(|(_, at)| at);
        for at in in_doubt.chain(self.outcomes.drain(..).map(|known| known.at)) {
            *self.may_send.get_mut(&at.xid).unwrap() += 1;
        }
        let DurableLane { position, mut busy } = self.stored.lane.clone();
        self.tail = self.stored.tail.clone();
        self.lane = Lane::new(1, 1, position.map_or(Feed::Tail, Feed::Own));
        busy.sort_unstable_by_key(|at| at.id);
        for at in busy {
            self.lane.requeue(entry(at, None, false));
        }
    }

    /// Everything works from here on.
    fn run_dry(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..8 {
            self.read_tail(0, usize::MAX, false);
            self.read_own(usize::MAX);
            self.load_retries()?;
            self.start(u64::MAX)?;
            while !self.flying.is_empty() {
                self.finish(0, true);
            }
            self.settle(true);
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn no_message_is_lost_and_only_what_was_busy_at_a_crash_is_sent_twice(
        steps in prop::collection::vec(step(), 1..80)
    ) {
        let mut world = World::new();
        for step in steps {
            world.take(step)?;
        }
        world.run_dry()?;
        for n in 0..world.committed {
            prop_assert!(world.stored.delivered.contains(&nth(n)), "message {} is lost", n);
        }
        prop_assert!(world.lane.is_at_tail() && world.stored.retries.is_empty());
        prop_assert_eq!(world.lane.durable(), lane().durable());
    }

    #[test]
    fn a_run_is_never_empty_and_never_too_long(
        queued in 0_i64..200, connections in 0_usize..20,
        durations in prop::collection::vec(0_u64..100_000_000_000, 0..20)
    ) {
        let (mut lane, _) = fed(queued);
        lane.max_in_flight = connections;
        for nanos in durations {
            lane.note_duration(nanos);
        }
        prop_assert!((1..=RUN_AT_MOST).contains(&lane.run_length()));
    }
}
