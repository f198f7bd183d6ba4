//! How much goes at once.

use super::*;

#[test]
fn the_first_call_goes_alone_for_nobody_knows_how_long_it_takes() {
    let (mut lane, _) = fed(100);
    assert_eq!(lane.run_length(), 1);
    lane.note_duration(100_000);
    assert_eq!(lane.run_length(), RUN_AT_MOST);
}

#[test]
fn a_run_is_shared_among_the_connections_that_the_lane_may_use() {
    let (mut lane, _) = fed(40);
    lane.note_duration(1_000);
    for (connections, length) in [(0, 16), (1, 16), (4, 10), (30, 1), (1_000, 1)] {
        lane.max_in_flight = connections;
        assert_eq!(lane.run_length(), length, "{connections}");
    }
}

#[test]
fn a_run_takes_five_milliseconds_at_most() {
    for (micros, length) in [
        (100, 16),
        (500, 10),
        (2_000, 2),
        (6_000, 1),
        (60_000_000, 1),
    ] {
        let (mut lane, _) = fed(100);
        lane.note_duration(micros * 1_000);
        assert_eq!(lane.run_length(), length, "{micros}");
    }
}

#[test]
fn one_slow_call_ends_long_runs_and_only_several_quick_ones_bring_them_back() {
    let (mut lane, _) = fed(100);
    lane.note_duration(100_000);
    lane.note_duration(40_000_000);
    assert_eq!(lane.run_length(), 1);
    lane.note_duration(100_000);
    assert_eq!(lane.run_length(), 1);
    for _ in 0..100 {
        lane.note_duration(100_000);
    }
    assert_eq!(lane.run_length(), RUN_AT_MOST);
}

#[test]
fn an_unhealthy_receiver_gets_one_message_at_a_time() {
    let (mut lane, _) = fed(100);
    lane.note_duration(1_000);
    start(&mut lane, 3);
    fail(&mut lane, 1, 0);
    assert_eq!(lane.run_length(), 1);
    lane.finish(2, Health::Unknown, 0).unwrap();
    assert_eq!(lane.run_length(), 1, "nothing says that it is well");
    lane.finish(3, Health::Up, 0).unwrap();
    assert_eq!(lane.run_length(), RUN_AT_MOST);
}

#[test]
fn interrupted_messages_and_retries_go_alone() {
    let (mut lane, _) = fed(100);
    lane.note_duration(1_000);
    lane.retry(due(1_000));
    assert_eq!(lane.run_length(), 1);
    start(&mut lane, 1);
    assert_eq!(lane.run_length(), RUN_AT_MOST);
    lane.requeue(named(2_000));
    assert_eq!(lane.run_length(), 1);
}

#[test]
fn runs_count_as_calls_in_flight() {
    let (mut lane, _) = fed(3);
    lane.max_in_flight = 2;
    lane.begin_run();
    assert!(lane.may_start(0));
    lane.begin_run();
    assert_eq!(lane.in_flight(), 2);
    assert!(!lane.may_start(0));
    lane.end_run();
    assert!(lane.may_start(0));
    lane.end_run();
    lane.end_run();
    assert_eq!(lane.in_flight(), 0);
}

#[test]
fn a_held_lane_starts_nothing() {
    let (mut lane, _) = fed(1);
    for hold in [Hold::Paused, Hold::Disabled] {
        lane.hold = Some(hold);
        assert!(!lane.may_start(0));
    }
    lane.hold = None;
    assert!(lane.may_start(0));
}
