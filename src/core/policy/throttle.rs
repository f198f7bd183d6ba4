//! The most calls per second of a webhook, exactly.
//!
//! Not a token bucket: a full bucket lets 2 N calls through in one second. It
//! remembers when the last calls went out and lets the next one go when fewer
//! than N of them lie in the window behind it. Pure: the time, nanoseconds of
//! a monotonic clock, is an argument.

use std::collections::VecDeque;

const SECOND_NS: u64 = 1_000_000_000;

/// For clocks that count in microseconds.
const MARGIN_NS: u64 = 500_000;

/// So many calls in so many seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    calls: u32,
    seconds: u32,
}

/// Which part of a webhook's rate is this node's, where several nodes send for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// How many nodes send.
    pub nodes: u32,
    /// How many of them come before this one.
    pub place: u32,
}

impl Part {
    /// A database by itself.
    pub const WHOLE: Self = Self { nodes: 1, place: 0 };

    /// The calls in one second are dealt out to the nodes. With fewer calls than nodes each makes one in so many
    /// seconds that all together keep to the rate over these seconds, if not in each single one.
    pub fn of(self, calls_per_second: u32) -> Rate {
        let (calls, nodes) = (calls_per_second.max(1), self.nodes.max(1));
        if calls < nodes {
            return Rate {
                calls: 1,
                seconds: nodes.div_ceil(calls),
            };
        }
        Rate {
            calls: calls / nodes + u32::from(self.place < calls % nodes),
            seconds: 1,
        }
    }
}

impl From<u32> for Rate {
    fn from(calls_per_second: u32) -> Self {
        Part::WHOLE.of(calls_per_second)
    }
}

/// A request reaches its receiver within this time after it was written, or at the latest
/// when its answer is here. Where receivers answer at once nearly the whole rate is
/// used; where they do not, at least 98 % of it.
pub const ARRIVES_WITHIN_NS: u64 = 15_000_000;

/// Calls this close together count as made at the time of the last of them.
/// That bounds the history at about a thousand entries whatever the rate, and
/// errs to the slow side by at most 0.1 %.
const GRAIN_NS: u64 = 1_000_000;

/// Calls of one grain.
#[derive(Clone, Copy, Debug)]
struct Grain {
    first_ns: u64,
    last_ns: u64,
    calls: u64,
}

/// Lets at most so many calls go in any second, or so many seconds.
#[derive(Clone, Debug)]
pub struct Throttle {
    calls: u64,
    window_ns: u64,
    history: VecDeque<Grain>,
    calls_in_history: u64,
}

impl Throttle {
    /// A limiter without a past. A rate of 0 is taken as 1: no limit at all is
    /// having no `Throttle`.
    pub fn new(rate: impl Into<Rate>) -> Self {
        let mut throttle = Self {
            calls: 0,
            window_ns: 0,
            history: VecDeque::new(),
            calls_in_history: 0,
        };
        throttle.set_rate(rate);
        throttle
    }

    /// A limiter after a restart: it cannot know what was sent just before, so
    /// it assumes the worst, that the whole allowance went out right now.
    pub fn starting_full(rate: impl Into<Rate>, now_ns: u64) -> Self {
        let mut throttle = Self::new(rate);
        throttle.record(now_ns, throttle.calls);
        throttle
    }

    /// Changes the rate; what was sent still counts.
    pub fn set_rate(&mut self, rate: impl Into<Rate>) {
        let rate = rate.into();
        self.calls = rate.calls.into();
        self.window_ns = u64::from(rate.seconds) * SECOND_NS + MARGIN_NS;
    }

    /// Counts a call if it may go now; else says in how many nanoseconds the
    /// next one may.
    pub fn try_take(&mut self, now_ns: u64) -> Result<(), u64> {
        self.may_take(now_ns)?;
        self.record(self.not_before_history(now_ns), 1);
        Ok(())
    }

    /// Whether a call may go now; else in how many nanoseconds.
    pub fn may_take(&mut self, now_ns: u64) -> Result<(), u64> {
        let now_ns = self.not_before_history(now_ns);
        self.forget(now_ns);
        match self.wait_ns(now_ns) {
            0 => Ok(()),
            wait_ns => Err(wait_ns),
        }
    }

    /// A call that was let go at `taken_ns` reached its receiver by `reached_ns`: after a
    /// wait for a processor, a look-up, a handshake. It counts from then on, or it could
    /// meet a later and quicker one within one second of the receiver's.
    pub fn reached(&mut self, taken_ns: u64, reached_ns: u64) {
        let place = self
            .history
            .partition_point(|grain| grain.last_ns < taken_ns);
        let taken = self.history.get_mut(place);
        // Where its second is over already, it is in no grain any more.
        if let Some(grain) = taken.filter(|grain| grain.first_ns <= taken_ns && grain.calls > 0) {
            grain.calls -= 1;
            self.calls_in_history -= 1;
        }
        self.count(reached_ns);
    }

    /// A clock that steps back must not open a second window.
    fn not_before_history(&self, now_ns: u64) -> u64 {
        self.history
            .back()
            .map_or(now_ns, |grain| now_ns.max(grain.last_ns))
    }

    fn forget(&mut self, now_ns: u64) {
        while let Some(oldest) = self.history.front() {
            if oldest.last_ns.saturating_add(self.window_ns) > now_ns {
                break;
            }
            self.calls_in_history -= oldest.calls;
            self.history.pop_front();
        }
    }

    /// Until enough of the oldest calls have left the window.
    fn wait_ns(&self, now_ns: u64) -> u64 {
        let mut left = self.calls_in_history;
        let mut free_at_ns = now_ns;
        for grain in &self.history {
            if left < self.calls {
                break;
            }
            left -= grain.calls;
            free_at_ns = grain.last_ns.saturating_add(self.window_ns);
        }
        free_at_ns - now_ns
    }

    /// Counts a call of which others may have been let go since.
    fn count(&mut self, at_ns: u64) {
        let next = self.history.partition_point(|grain| grain.last_ns < at_ns);
        let Some(grain) = self.history.get_mut(next) else {
            return self.record(at_ns, 1);
        };
        self.calls_in_history += 1;
        if grain.last_ns - at_ns < GRAIN_NS {
            grain.calls += 1;
            return;
        }
        let grain = Grain {
            first_ns: at_ns,
            last_ns: at_ns,
            calls: 1,
        };
        self.history.insert(next, grain);
    }

    fn record(&mut self, now_ns: u64, calls: u64) {
        self.calls_in_history += calls;
        match self.history.back_mut() {
            Some(grain) if now_ns - grain.first_ns < GRAIN_NS => {
                grain.last_ns = now_ns;
                grain.calls += calls;
            }
            _ => self.history.push_back(Grain {
                first_ns: now_ns,
                last_ns: now_ns,
                calls,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW_NS: u64 = SECOND_NS + MARGIN_NS;
    use proptest::prelude::*;

    #[test]
    fn a_call_that_arrived_late_counts_from_then_on() {
        let mut throttle = Throttle::new(2);
        assert_eq!(throttle.try_take(0), Ok(()));
        assert_eq!(throttle.try_take(0), Ok(()));
        throttle.reached(0, 300_000_000);
        let next = throttle.try_take(WINDOW_NS);
        assert_eq!(
            next,
            Ok(()),
            "the call that arrived in time frees its place"
        );
        let wait = throttle.try_take(WINDOW_NS);
        assert_eq!(
            wait,
            Err(300_000_000),
            "the other one holds its place longer"
        );
    }

    #[test]
    fn a_late_call_whose_second_is_over_counts_again() {
        let mut throttle = Throttle::new(2);
        assert_eq!(throttle.try_take(0), Ok(()));
        assert_eq!(throttle.try_take(2 * WINDOW_NS), Ok(()));
        throttle.reached(0, 2 * WINDOW_NS);
        assert_eq!(
            throttle.try_take(2 * WINDOW_NS + WINDOW_NS / 2),
            Err(WINDOW_NS / 2),
            "both calls are in this second"
        );
    }

    #[test]
    fn a_call_that_arrived_before_others_were_let_go_frees_its_place_before_theirs() {
        let mut throttle = Throttle::new(2);
        assert_eq!(throttle.try_take(0), Ok(()));
        assert_eq!(throttle.try_take(500_000_000), Ok(()));
        throttle.reached(0, 200_000_000);
        assert_eq!(throttle.try_take(WINDOW_NS), Err(200_000_000));
        assert_eq!(throttle.try_take(WINDOW_NS + 200_000_000), Ok(()));
        assert!(throttle.try_take(WINDOW_NS + 400_000_000).is_err());
    }

    /// Brute force: the most calls that lie in any one second.
    fn most_in_any_second(taken_ns: &[u64]) -> usize {
        let within = |start: u64| {
            taken_ns
                .iter()
                .filter(|&&at| at >= start && at - start < SECOND_NS)
                .count()
        };
        taken_ns
            .iter()
            .map(|&start| within(start))
            .max()
            .unwrap_or(0)
    }

    /// Takes whenever it may, for so long.
    fn drain(throttle: &mut Throttle, from_ns: u64, for_ns: u64) -> Vec<u64> {
        let mut taken = Vec::new();
        let mut now_ns = from_ns;
        while now_ns < from_ns + for_ns {
            match throttle.try_take(now_ns) {
                Ok(()) => taken.push(now_ns),
                Err(wait_ns) => now_ns += wait_ns,
            }
        }
        taken
    }

    #[test]
    fn under_a_backlog_the_rate_is_at_least_98_percent_and_never_above() {
        for per_second in [1, 3, 50, 700] {
            let taken = drain(&mut Throttle::new(per_second), 5, 100 * SECOND_NS);
            let asked = 100 * usize::try_from(per_second).unwrap();
            assert!(most_in_any_second(&taken[..taken.len().min(3000)]) <= asked / 100);
            assert!(
                taken.len() * 100 >= asked * 98,
                "{per_second}: {}",
                taken.len()
            );
        }
    }

    #[test]
    fn after_a_restart_the_first_second_is_empty() {
        let mut throttle = Throttle::starting_full(5, 7 * SECOND_NS);
        let wait_ns = throttle.try_take(7 * SECOND_NS).unwrap_err();
        assert!(wait_ns >= SECOND_NS);
        assert_eq!(throttle.try_take(7 * SECOND_NS + wait_ns), Ok(()));
    }

    #[test]
    fn a_lower_rate_counts_what_the_higher_one_let_go() {
        let mut throttle = Throttle::new(10);
        for _ in 0..10 {
            throttle.try_take(0).unwrap();
        }
        throttle.set_rate(2);
        assert!(throttle.try_take(SECOND_NS / 2).is_err());
        throttle.set_rate(11);
        assert_eq!(throttle.try_take(SECOND_NS / 2), Ok(()));
        assert!(throttle.try_take(SECOND_NS / 2).is_err());
    }

    #[test]
    fn memory_does_not_grow_with_the_rate() {
        let mut throttle = Throttle::new(u32::MAX);
        for step in 0..3_000_000_u64 {
            throttle.try_take(step * 1_000).unwrap();
        }
        assert!(
            throttle.history.len() <= 1_100,
            "{}",
            throttle.history.len()
        );
    }

    proptest! {
        #[test]
        fn no_second_holds_more_than_the_rate(
            per_second in 1_u32..20,
            steps_ns in prop::collection::vec(prop_oneof![0_u64..2_000, 0_u64..900_000_000], 1..300),
        ) {
            let mut throttle = Throttle::new(per_second);
            let (mut now_ns, mut taken) = (0, Vec::new());
            for step_ns in steps_ns {
                now_ns += step_ns;
                if throttle.try_take(now_ns).is_ok() {
                    taken.push(now_ns);
                }
            }
            prop_assert!(most_in_any_second(&taken) <= usize::try_from(per_second).unwrap());
        }

        /// What counts is the receiver's second: calls arrive when they may, each at
        /// most a second after it was let go, and are heard of in any order.
        #[test]
        fn no_second_of_the_receiver_holds_more_than_the_rate(
            per_second in 1_u32..20,
            steps in prop::collection::vec((0_u64..200_000_000, 0_u64..990_000_000), 1..300),
        ) {
            let mut throttle = Throttle::new(per_second);
            let (mut now_ns, mut on_the_way, mut arrivals) = (0, Vec::new(), Vec::new());
            for (step_ns, way_ns) in steps {
                now_ns += step_ns;
                on_the_way.retain(|&(taken_ns, reached_ns)| {
                    let is_on_the_way = reached_ns > now_ns;
                    if !is_on_the_way {
                        throttle.reached(taken_ns, reached_ns);
                    }
                    is_on_the_way
                });
                if throttle.try_take(now_ns).is_ok() {
                    on_the_way.push((now_ns, now_ns + way_ns));
                    arrivals.push(now_ns + way_ns);
                }
            }
            arrivals.sort_unstable();
            prop_assert!(most_in_any_second(&arrivals) <= usize::try_from(per_second).unwrap());
        }

        #[test]
        fn a_refusal_is_needed_and_its_wait_is_exact(
            per_second in 1_u32..20,
            steps_ns in prop::collection::vec(0_u64..300_000_000, 1..200),
        ) {
            let mut throttle = Throttle::new(per_second);
            let (mut now_ns, mut taken) = (0_u64, Vec::new());
            for step_ns in steps_ns {
                now_ns += step_ns;
                let Err(wait_ns) = throttle.try_take(now_ns) else {
                    taken.push(now_ns);
                    continue;
                };
                let horizon_ns = WINDOW_NS + GRAIN_NS;
                let recent = taken.iter().filter(|&&at| at + horizon_ns > now_ns).count();
                prop_assert!(recent >= usize::try_from(per_second).unwrap());
                let mut earlier = throttle.clone();
                prop_assert!(earlier.try_take(now_ns + wait_ns - 1).is_err());
                prop_assert_eq!(throttle.clone().try_take(now_ns + wait_ns), Ok(()));
            }
        }

        #[test]
        fn rate_changes_and_steps_back_never_exceed_the_highest_rate(
            steps in prop::collection::vec((1_u32..20, -50_000_000_i64..300_000_000), 1..200),
        ) {
            let mut throttle = Throttle::new(1);
            let (mut now_ns, mut taken) = (SECOND_NS, Vec::<u64>::new());
            for (rate, step_ns) in steps {
                now_ns = now_ns.saturating_add_signed(step_ns);
                throttle.set_rate(rate);
                if throttle.try_take(now_ns).is_ok() {
                    taken.push(taken.last().map_or(now_ns, |&last| now_ns.max(last)));
                }
            }
            prop_assert!(most_in_any_second(&taken) < 20);
        }
    }

    #[test]
    fn the_parts_of_all_nodes_are_the_rate() {
        for nodes in 1..20 {
            for calls in 1..100 {
                let parts: Vec<Rate> = (0..nodes)
                    .map(|place| Part { nodes, place }.of(calls))
                    .collect();
                let seconds: u32 = parts.iter().map(|part| part.seconds).max().unwrap();
                let sum: u32 = parts
                    .iter()
                    .map(|part| part.calls * seconds / part.seconds)
                    .sum();
                assert!(sum <= calls * seconds, "{calls} over {nodes}");
                assert!(calls < nodes || sum == calls, "{calls} over {nodes}");
                assert!(parts.iter().all(|part| part.calls > 0));
            }
        }
    }

    #[test]
    fn less_than_a_call_a_second_is_one_in_several() {
        let mut throttle = Throttle::new(Part { nodes: 3, place: 2 }.of(2));
        assert_eq!(throttle.try_take(0), Ok(()));
        assert_eq!(throttle.try_take(SECOND_NS + MARGIN_NS), Err(SECOND_NS));
        assert_eq!(throttle.try_take(2 * SECOND_NS + MARGIN_NS), Ok(()));
    }
}
