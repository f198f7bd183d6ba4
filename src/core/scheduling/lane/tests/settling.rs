//! From the end of a call until it is written.

use super::*;

#[test]
fn what_finishes_while_outcomes_are_written_waits_for_the_next_time() {
    let (mut lane, _) = fed(2);
    start(&mut lane, 2);
    lane.finish(1, Health::Up, 0).unwrap();
    lane.begin_settling();
    lane.finish(2, Health::Up, 0).unwrap();
    assert_eq!(busy(&lane), [2]);
    lane.settled();
    assert_eq!(busy(&lane), [2]);
    settle(&mut lane);
    assert!(busy(&lane).is_empty());
}

#[test]
fn outcomes_that_could_not_be_written_stay_busy_until_they_are() {
    let (mut lane, _) = fed(2);
    settle(&mut lane);
    start(&mut lane, 2);
    lane.finish(1, Health::Up, 0).unwrap();
    lane.begin_settling();
    lane.finish(2, Health::Up, 0).unwrap();
    lane.settling_failed();
    assert!(lane.dirty);
    assert_eq!(busy(&lane), [1, 2]);
    lane.begin_settling();
    assert!(busy(&lane).is_empty());
    lane.settled();
    assert!(!lane.dirty);
}

#[test]
fn a_retry_is_not_loaded_twice_until_its_outcome_is_written() {
    let mut lane = lane();
    assert!(lane.retry(due(1)));
    assert!(!lane.retry(due(1)), "it waits");
    assert_eq!(lane.retries_loaded(), 1);
    lane.start(1).unwrap();
    assert!(!lane.retry(due(1)), "it is on the wire");
    lane.recall(1).unwrap();
    assert!(!lane.retry(due(1)), "it was handed back");
    lane.start(2).unwrap();
    lane.finish(2, Health::Unknown, 0).unwrap();
    assert!(!lane.retry(due(1)), "its outcome is not written");
    lane.begin_settling();
    assert!(!lane.retry(due(1)), "its outcome is being written");
    lane.settling_failed();
    assert!(!lane.retry(due(1)), "its outcome could not be written");
    settle(&mut lane);
    assert!(lane.retry(due(1)));
}

#[test]
fn a_message_whose_row_is_gone_is_forgotten() {
    let (mut lane, _) = fed(2);
    lane.retry(due(9));
    lane.skip();
    assert!(lane.retry(due(9)), "a skipped retry is no longer under way");
    lane.skip();
    lane.skip();
    assert_eq!(busy(&lane), [2]);
    lane.skip();
    lane.skip();
    assert!(!lane.has_next());
    assert!(busy(&lane).is_empty());
}

#[test]
fn a_canceled_message_stays_busy_until_that_is_written() {
    let (mut lane, _) = fed(2);
    settle(&mut lane);
    lane.cancel(false);
    assert_eq!(busy(&lane), [1, 2]);
    assert!(lane.holds(named(1).at));
    // The tail's position may be written without it.
    lane.written();
    assert!(!lane.dirty);
    assert_eq!(busy(&lane), [1, 2]);
    lane.begin_settling();
    assert!(lane.dirty, "what is busy changes with it");
    assert_eq!(busy(&lane), [2]);
    lane.settled();
    assert_eq!(busy(&lane), [2]);
}

#[test]
fn a_token_that_nobody_knows_changes_nothing() {
    let (mut lane, _) = fed(1);
    start(&mut lane, 1);
    assert!(lane.finish(7, Health::Down, 0).is_none());
    assert!(lane.recall(7).is_none());
    lane.finish(1, Health::Up, 0).unwrap();
    assert!(lane.finish(1, Health::Up, 0).is_none());
    assert!(lane.recall(1).is_none());
    assert!(lane.start(2).is_none());
    assert_eq!(busy(&lane), [1]);
}
