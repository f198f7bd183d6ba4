//! A lane that keeps the order: what holds it, and what lets it go on.

use super::*;

/// A lane that keeps the order, was offered 1 to `count`, and knows that nothing waits.
fn fifo(count: i64) -> Lane<()> {
    let (mut lane, _) = fed(count);
    assert!(lane.keep_order(DeliveryOrder::Fifo).is_empty());
    lane.learn_waiting(None);
    lane
}

/// The lane's next message fails and is due again at 70.
fn fail_next(lane: &mut Lane<()>, token: u64) -> MessagePosition {
    let at = lane.start(token).expect("something goes next").at;
    lane.finish(token, Health::Unknown, 0).unwrap();
    drop(lane.wait_for_retry(at, 70));
    at
}

/// Started, delivered and settled.
fn deliver_next(lane: &mut Lane<()>, token: u64) -> i64 {
    let id = lane.start(token).expect("something goes next").at.id;
    lane.finish(token, Health::Up, 0).unwrap();
    settle(lane);
    id
}

#[test]
fn it_stands_still_until_it_was_told_what_waits() {
    let (mut lane, _) = fed(2);
    assert!(!lane.keeps_order() && lane.has_next());
    drop(lane.keep_order(DeliveryOrder::Fifo));
    assert!(lane.keeps_order() && lane.wants_answer());
    assert!(!lane.has_next() && lane.peek().is_none() && lane.start(1).is_none());
    assert!(!lane.learn_waiting(None), "the views know of nothing else");
    assert!(!lane.wants_answer());
    assert_eq!(order(lane), [1, 2]);
}

#[test]
fn it_makes_one_run_at_a_time_and_the_run_is_as_long_as_one_connection_may_have() {
    let mut lane = fifo(40);
    lane.max_in_flight = 16;
    lane.note_duration(1_000);
    assert_eq!(lane.run_length(), RUN_AT_MOST);
    lane.begin_run();
    assert!(!lane.may_start(0));
    lane.end_run();
    assert!(lane.may_start(0));
    drop(lane.keep_order(DeliveryOrder::None));
    assert_eq!(lane.run_length(), 2, "forty for sixteen connections");
    lane.begin_run();
    assert!(lane.may_start(0));
}

#[test]
fn a_message_that_waits_for_its_retry_holds_what_came_back_and_the_queue() {
    let mut lane = fifo(5);
    start(&mut lane, 3);
    lane.finish(1, Health::Down, 0).unwrap();
    drop(lane.wait_for_retry(at(1), 70));
    lane.recall(2).unwrap();
    lane.recall(3).unwrap();
    assert!(!lane.has_next() && lane.start(9).is_none());
    assert_eq!(
        lane.held_until(),
        Some(70),
        "the views say so before the table does"
    );
    assert!(!lane.wants_answer(), "the table does not know it yet");
    settle(&mut lane);
    assert!(lane.wants_answer());
    assert!(
        !lane.learn_waiting(Some(70)),
        "the views know of it already"
    );
    assert_eq!(lane.blocked_until(), Some(70));
    assert!(!lane.has_next());

    assert!(lane.retry(due(1)));
    assert_eq!((lane.blocked_until(), lane.held_until()), (None, None));
    assert_eq!(lane.run_length(), 1);
    assert_eq!(deliver_next(&mut lane, 10), 1);
    assert!(lane.wants_answer() && !lane.has_next());
    lane.learn_waiting(None);
    assert_eq!(order(lane), [2, 3, 4, 5]);
}

#[test]
fn a_message_that_is_given_up_at_once_holds_nothing() {
    let mut lane = fifo(2);
    lane.start(1).unwrap();
    lane.finish(1, Health::Unknown, 0).unwrap();
    assert!(lane.has_next() && !lane.wants_answer());
    assert_eq!(order(lane), [2]);
}

#[test]
fn a_retry_that_is_given_up_lets_the_lane_ask_and_go_on() {
    let mut lane = fifo(2);
    fail_next(&mut lane, 1);
    settle(&mut lane);
    lane.learn_waiting(Some(70));
    lane.retry(due(1));
    lane.start(2).unwrap();
    lane.finish(2, Health::Unknown, 0).unwrap();
    assert!(!lane.has_next() && lane.held_until().is_none());
    settle(&mut lane);
    assert!(lane.wants_answer());
    lane.learn_waiting(None);
    assert_eq!(order(lane), [2]);
}

#[test]
fn it_does_not_ask_while_it_knows_more_than_the_table() {
    let mut lane = fifo(3);
    fail_next(&mut lane, 1);
    lane.begin_settling();
    assert!(!lane.wants_answer(), "it is being written");
    lane.settling_failed();
    assert!(!lane.wants_answer(), "it could not be written");
    drop(lane.keep_order(DeliveryOrder::Fifo));
    assert!(!lane.wants_answer(), "the definitions were read in between");
    settle(&mut lane);
    assert!(lane.wants_answer());
}

#[test]
fn several_retries_go_in_order_and_the_first_that_fails_again_stops_them() {
    let mut lane = fifo(1);
    drop(lane.keep_order(DeliveryOrder::Fifo));
    lane.learn_waiting(Some(0));
    for id in [-3, -2, -1] {
        assert!(lane.retry(due(id)));
    }
    assert_eq!(deliver_next(&mut lane, 1), -3);
    assert!(
        lane.has_next() && !lane.wants_answer(),
        "the others are loaded"
    );
    lane.start(2).unwrap();
    lane.finish(2, Health::Unknown, 0).unwrap();
    let behind = lane.wait_for_retry(at(-2), 70);
    assert_eq!(ids(&behind), [-1]);
    assert!(!lane.has_next());
    settle(&mut lane);
    lane.learn_waiting(Some(70));
    for id in [-2, -1] {
        assert!(lane.retry(due(id)), "{id} can be loaded again");
    }
    assert_eq!(deliver_next(&mut lane, 3), -2);
    assert_eq!(deliver_next(&mut lane, 4), -1);
    assert!(lane.wants_answer());
    lane.learn_waiting(None);
    assert_eq!(order(lane), [1]);
}

#[test]
fn a_retry_that_comes_back_untried_goes_again() {
    let mut lane = fifo(1);
    fail_next(&mut lane, 1);
    settle(&mut lane);
    lane.learn_waiting(Some(70));
    lane.retry(due(1));
    lane.start(2).unwrap();
    drop(lane.keep_order(DeliveryOrder::Fifo));
    lane.recall(2).unwrap();
    assert_eq!(lane.peek().unwrap().at.id, 1);
    assert_eq!(deliver_next(&mut lane, 3), 1);
    assert!(lane.wants_answer());
}

#[test]
fn a_retry_whose_row_is_gone_or_that_was_canceled_lets_the_lane_ask() {
    let mut lane = fifo(2);
    fail_next(&mut lane, 1);
    settle(&mut lane);
    lane.learn_waiting(Some(70));
    lane.retry(due(1));
    lane.skip();
    assert!(lane.wants_answer());

    lane.learn_waiting(Some(70));
    assert!(!lane.wants_answer());
    // A cancellation makes the definitions be read again.
    drop(lane.keep_order(DeliveryOrder::Fifo));
    assert!(lane.wants_answer() && !lane.has_next());
    assert!(lane.learn_waiting(None), "the views said that it waits");
    assert!(lane.dirty);
    assert_eq!(order(lane), [2]);
}

#[test]
fn memory_can_be_taken_from_it_while_a_retry_is_loaded() {
    let mut lane = fifo(3);
    fail_next(&mut lane, 1);
    settle(&mut lane);
    lane.learn_waiting(Some(70));
    lane.retry(due(1));
    assert_eq!(ids(&lane.drop_queue()), [2, 3, 1]);
    assert_eq!(lane.blocked_until(), Some(70), "it can be loaded again");
    assert!(!lane.has_next());
}

#[test]
fn without_the_order_a_retry_holds_nothing() {
    let mut lane = fifo(2);
    fail_next(&mut lane, 1);
    drop(lane.keep_order(DeliveryOrder::None));
    assert!(!lane.wants_answer() && lane.held_until().is_none());
    assert_eq!(order(lane), [2]);

    let (mut lane, _) = fed(2);
    assert!(lane.start(1).is_some());
    lane.finish(1, Health::Down, 0).unwrap();
    assert!(lane.wait_for_retry(at(1), 70).is_empty());
    assert_eq!(order(lane), [2]);
}

#[test]
fn retries_that_were_loaded_in_any_order_are_loaded_anew_when_the_order_counts() {
    let (mut lane, _) = fed(1);
    for id in [30, 20] {
        lane.retry(due(id));
    }
    let unloaded = lane.keep_order(DeliveryOrder::Fifo);
    assert_eq!(ids(&unloaded), [30, 20]);
    assert_eq!(lane.retries_loaded(), 0);
    assert!(lane.retry(due(20)));
}
