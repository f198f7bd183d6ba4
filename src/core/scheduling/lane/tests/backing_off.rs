//! When a lane falls silent, and for how long.

use super::*;

#[test]
fn the_fifth_failure_in_a_row_silences_the_lane_for_a_second() {
    let now = 7 * SECOND;
    let lane = failed(4, now);
    assert!(lane.may_start(now));
    assert_eq!(lane.backoff_until(now), None);
    let lane = failed(5, now);
    assert!(!lane.may_start(now));
    assert_eq!(lane.backoff_until(now), Some(now + SECOND));
    assert!(!lane.may_start(now + SECOND - 1));
    assert!(lane.may_start(now + SECOND));
    assert_eq!(lane.backoff_until(now + SECOND), None);
}

#[test]
fn after_the_pause_one_call_probes() {
    let mut lane = failed(5, 0);
    lane.begin_run();
    assert!(!lane.may_start(SECOND));
    lane.end_run();
    assert!(lane.may_start(SECOND));
}

#[test]
fn a_success_in_between_starts_the_count_anew_and_a_refusal_does_not() {
    let mut lane = failed(4, 0);
    start(&mut lane, 1);
    lane.finish(1, Health::Up, 0).unwrap();
    lane.start(2).unwrap();
    fail(&mut lane, 2, 0);
    assert_eq!(lane.backoff_until(0), None);

    let mut lane = failed(4, 0);
    start(&mut lane, 1);
    lane.finish(1, Health::Unknown, 0).unwrap();
    lane.start(2).unwrap();
    fail(&mut lane, 2, 0);
    assert_eq!(lane.backoff_until(0), Some(SECOND));
}

#[test]
fn many_calls_that_fail_together_are_one_outage() {
    assert_eq!(failed(50, 0).backoff_until(0), Some(SECOND));
}

#[test]
fn each_failed_probe_doubles_the_pause_up_to_a_minute_for_ever() {
    let mut lane = failed(5, 0);
    let mut now = 0;
    for probe in 0..200_u32 {
        let until = lane.backoff_until(now).unwrap();
        let expected_s = 2_u64.saturating_pow(probe).min(60);
        assert_eq!(until - now, expected_s * SECOND, "{probe}");
        now = until;
        let window = window(0, 1);
        lane.offer(read_in(&window, 1_000 + i64::from(probe)));
        lane.start(1_000).unwrap();
        fail(&mut lane, 1_000, now);
    }
}

#[test]
fn a_probe_that_succeeds_opens_the_lane() {
    let mut lane = failed(5, 0);
    lane.start(100).unwrap();
    lane.finish(100, Health::Up, SECOND).unwrap();
    lane.begin_run();
    assert!(lane.may_start(SECOND));
    // The next outage begins with a short pause.
    for token in 101..=105 {
        lane.start(token).unwrap();
        fail(&mut lane, token, 2 * SECOND);
    }
    assert_eq!(lane.backoff_until(2 * SECOND), Some(3 * SECOND));
}

#[test]
fn reopening_forgets_failures_and_pauses() {
    let mut lane = failed(9, 0);
    lane.back_off_until(1_000 * SECOND);
    lane.reopen();
    assert_eq!(lane.backoff_until(0), None);
    lane.begin_run();
    assert!(lane.may_start(0), "it is no probe");
}

#[test]
fn the_longest_silence_that_was_asked_for_counts() {
    let mut lane = lane();
    settle(&mut lane);
    lane.back_off_until(30);
    assert!(lane.dirty);
    lane.back_off_until(20);
    assert_eq!(lane.backoff_until(0), Some(30));
    assert_eq!(lane.backoff_until(29), Some(30));
    assert_eq!(lane.backoff_until(30), None);
    assert!(!lane.may_start(29));
    assert!(lane.may_start(30));
}

#[test]
fn a_lane_has_moved_since_its_last_call_ended() {
    let (mut lane, _) = fed(2);
    assert!(!lane.moved_since(1));
    start(&mut lane, 2);
    lane.finish(1, Health::Up, 50).unwrap();
    assert!(lane.moved_since(50));
    assert!(!lane.moved_since(51));
    lane.recall(2).unwrap();
    assert!(!lane.moved_since(51));
}
