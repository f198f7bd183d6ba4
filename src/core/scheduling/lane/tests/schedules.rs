//! Random schedules: whatever happens when, nothing is lost, nothing comes twice but what
//! a crash left in doubt, the rate holds, the order is kept where it is asked for, and an
//! outage burns no attempts of what waits.

use super::world::{stream, Answer, Rules, Step, World};
use super::*;
use crate::core::policy::retry::Schedule;

/// Enough for a few crashes with work in between.
const STEPS: usize = 150;

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        12 => Just(Answer::Taken),
        2 => Just(Answer::Failed(Health::Unknown)),
        1 => Just(Answer::Failed(Health::Down)),
        1 => Just(Answer::Unsendable),
    ]
}

/// What other sessions do to the tables.
fn change() -> impl Strategy<Value = Step> {
    let session = || 0..stream::SESSIONS;
    prop_oneof![
        12 => (session(), 0..stream::ROWS)
            .prop_map(|(session, row)| Step::Change { session, row }),
        2 => session().prop_map(Step::Flush),
        6 => session().prop_map(Step::Commit),
        1 => session().prop_map(Step::Abort),
    ]
}

/// What the worker does, in any order.
fn work() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (1_usize..8, prop::bool::weighted(0.2))
            .prop_map(|(page, is_full)| Step::ReadTail { page, is_full }),
        5 => (1_usize..6).prop_map(|page| Step::ReadOwn { page }),
        5 => Just(Step::ReadRetries),
        8 => prop::bool::weighted(0.9).prop_map(|accepts| Step::Dispatch { accepts }),
        10 => (any::<usize>(), answer())
            .prop_map(|(which, answer)| Step::End { which, answer }),
        6 => (prop::bool::weighted(0.8), any::<bool>(), any::<bool>())
            .prop_map(|(works, ticks, others_lag)| Step::Settle { works, ticks, others_lag }),
        1 => (0_i64..3).prop_map(|others_need| Step::Compact { others_need }),
    ]
}

/// What happens to it.
fn fate() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Crash),
        3 => prop::bool::weighted(0.3).prop_map(Step::Pause),
        2 => Just(Step::MakeRoom),
        3 => prop::bool::weighted(0.4).prop_map(Step::Down),
        12 => prop_oneof![2 => 0_u64..300, 1 => 300_u64..3_000]
            .prop_map(|milliseconds| Step::Wait { milliseconds }),
        1 => Just(Step::Cancel),
        1 => Just(Step::Redeliver),
        1 => order().prop_map(Step::Order),
    ]
}

fn order() -> impl Strategy<Value = DeliveryOrder> {
    prop_oneof![
        3 => Just(DeliveryOrder::None),
        4 => Just(DeliveryOrder::Fifo),
        6 => Just(DeliveryOrder::Key),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![6 => change(), 10 => work(), 3 => fate()]
}

fn rules() -> impl Strategy<Value = Rules> {
    let rate = prop::option::weighted(0.4, 1_u32..20);
    let switches = prop::bool::weighted(0.15);
    let blocked_at_most = prop_oneof![3 => Just(1_000), 1 => 1_usize..4];
    (
        order(),
        switches,
        blocked_at_most,
        rate,
        1_usize..6,
        1_u32..5,
    )
        .prop_map(
            |(order, switches, blocked_at_most, per_second, max_in_flight, max_attempts)| Rules {
                order,
                switches,
                blocked_at_most,
                per_second,
                max_in_flight,
                max_attempts,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn whatever_happens_when_every_message_ends_and_the_rules_hold(
        rules in rules(), steps in prop::collection::vec(step(), 1..STEPS)
    ) {
        let mut world = World::new(rules);
        for step in steps {
            world.take(step)?;
        }
        world.run_dry()?;
        world.assert_nothing_is_lost()?;
        if let Some(rate) = rules.per_second {
            prop_assert!(world.witness.most_in_any_second() <= rate as usize);
        }
    }
}

/// One change of a row, committed, read and written, with a tick.
fn change_of(row: usize, is_full: bool) -> [Step; 4] {
    [
        Step::Change { session: 0, row },
        Step::Commit(0),
        Step::ReadTail { page: 8, is_full },
        settled(true),
    ]
}

fn settled(ticks: bool) -> Step {
    Step::Settle {
        works: true,
        ticks,
        others_lag: false,
    }
}

/// Another lane may need no tick that this one needs after a crash.
#[test]
fn what_lay_between_ticks_that_were_deleted_is_read_after_a_crash() {
    const OURS: usize = 0;
    const FOREIGN: usize = stream::ROWS - 1;
    let mut world = World::new(Rules {
        order: DeliveryOrder::None,
        switches: false,
        blocked_at_most: 1_000,
        per_second: None,
        max_in_flight: 5,
        max_attempts: 3,
    });
    let mut steps = Vec::from(change_of(OURS, true));
    for row in [OURS, OURS, OURS, FOREIGN, OURS] {
        steps.extend(change_of(row, true));
    }
    // The lane comes to the end of the third tick's window, which is not written; ticks are
    // deleted, and the worker dies.
    for _ in 0..8 {
        steps.push(Step::ReadOwn { page: 1 });
    }
    for _ in 0..5 {
        steps.push(Step::Dispatch { accepts: true });
        steps.push(Step::End {
            which: 0,
            answer: Answer::Taken,
        });
    }
    steps.push(Step::Compact { others_need: 1 });
    steps.push(Step::Crash);
    for step in steps {
        world.take(step).unwrap();
    }
    world.run_dry().unwrap();
    world.assert_nothing_is_lost().unwrap();
}

/// The calls that each of `queued` messages got, and how many there were in all, while the
/// receiver was down for `seconds`.
fn calls_in_an_outage(
    order: DeliveryOrder,
    queued: i64,
    seconds: u64,
    in_flight: usize,
) -> Vec<u32> {
    let (mut lane, _) = fed(queued);
    lane.max_in_flight = in_flight;
    let keeps_order = order == DeliveryOrder::Fifo;
    drop(lane.keep_order(order));
    lane.learn_blocked_keys(Vec::new());
    lane.learn_waiting(None);
    let schedule = Schedule::parse("1s").unwrap();
    let mut calls = vec![0; queued as usize];
    let mut waiting: Vec<(i64, u64)> = Vec::new();
    for now in (0..seconds * SECOND).step_by(SECOND as usize / 10) {
        waiting.sort_unstable();
        lane.learn_waiting(
            waiting
                .first()
                .map(|(_, due_at)| *due_at as i64)
                .filter(|_| keeps_order),
        );
        waiting.retain(|(id, due_at)| {
            let is_due = *due_at <= now;
            if is_due {
                lane.retry(due(*id));
            }
            !is_due
        });
        let mut token = 0;
        while lane.may_start(now) && lane.has_next() {
            token += 1;
            lane.start(token).unwrap();
            lane.begin_run();
        }
        for token in 1..=token {
            let failed = lane.finish(token, Health::Down, now).unwrap().at;
            lane.end_run();
            let attempts = &mut calls[failed.id as usize - 1];
            *attempts += 1;
            let due_at = now + schedule.delay(*attempts, 0).as_nanos() as u64;
            drop(lane.wait_for_retry(failed, due_at as i64));
            waiting.push((failed.id, due_at));
        }
        settle(&mut lane);
    }
    calls
}

proptest! {
    #[test]
    fn an_outage_burns_few_attempts_and_where_the_order_is_kept_those_of_one_message(
        order in order(), queued in 1_i64..300, seconds in 1_u64..600, in_flight in 1_usize..17
    ) {
        let calls = calls_in_an_outage(order, queued, seconds, in_flight);
        // Five to notice, what was on the wire meanwhile, then probes after 1, 2, 4 … 60 s.
        let probes = seconds.min(63).ilog2() as usize + 1 + seconds as usize / 60;
        let most = 5 + in_flight + probes;
        let all: u32 = calls.iter().sum();
        prop_assert!(all as usize <= most, "{} calls, {:?}", all, calls);
        if order == DeliveryOrder::Fifo {
            prop_assert_eq!(all, calls[0], "{:?}", calls);
        }
    }
}
