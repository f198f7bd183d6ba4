//! What goes next.

use super::*;

#[test]
fn interrupted_messages_go_first_then_due_retries_then_the_queue() {
    let (mut lane, _) = fed(1);
    lane.retry(due(20));
    lane.requeue(named(30));
    let waiting: Vec<i64> = lane.waiting().map(|entry| entry.at.id).collect();
    assert_eq!(waiting, [30, 20, 1]);
    assert_eq!(lane.peek().unwrap().at.id, 30);
    assert_eq!(order(lane), [30, 20, 1]);
}

#[test]
fn the_rest_of_a_run_goes_first_and_in_order() {
    let (mut lane, _) = fed(6);
    start(&mut lane, 4);
    fail(&mut lane, 1, 0);
    for token in 2..=4 {
        assert_eq!(lane.recall(token).unwrap().at.id, token as i64);
    }
    assert_eq!(busy(&lane), [1, 2, 3, 4, 5, 6]);
    assert_eq!(order(lane), [2, 3, 4, 5, 6]);
}

#[test]
fn a_message_that_comes_back_alone_goes_before_those_it_left_behind() {
    let mut lane = lane();
    for id in 1..=3 {
        lane.requeue(named(id));
    }
    start(&mut lane, 1);
    lane.recall(1).unwrap();
    assert_eq!(order(lane), [1, 2, 3]);
}

#[test]
fn runs_that_come_back_one_after_the_other_are_sent_in_the_order_of_messages() {
    let (mut lane, _) = fed(7);
    start(&mut lane, 6);
    for token in [5, 6, 2, 3] {
        lane.recall(token).unwrap();
    }
    assert_eq!(order(lane), [2, 3, 5, 6, 7]);
}

#[test]
fn what_is_named_after_a_restart_goes_before_later_messages_that_came_back() {
    let (mut lane, _) = fed(7);
    start(&mut lane, 6);
    lane.recall(6).unwrap();
    lane.requeue(named(0));
    assert_eq!(order(lane), [0, 6, 7]);
}

#[test]
fn a_retry_that_comes_back_goes_before_the_others() {
    let (mut lane, _) = fed(1);
    for id in [30, 20] {
        lane.retry(due(id));
    }
    start(&mut lane, 1);
    assert_eq!(lane.recall(1).unwrap().at.id, 30);
    assert_eq!(order(lane), [30, 20, 1]);
}
