//! A lane that keeps the order of each key: what goes at once, what waits in memory, and what is
//! held back.

use super::super::keys::LOOKAHEAD;
use super::*;

fn keyed(id: i64, key: u64, other: Option<u64>, window: &Arc<Window>) -> Entry<()> {
    Entry {
        keys: OrderKeys::new(key, other),
        ..read_in(window, id)
    }
}

/// A lane that was offered messages with these keys, as 1, 2, …, and knows that none waits.
fn by_key(keys: &[u64]) -> Lane<()> {
    let window = window(0, 10_000);
    let mut lane = lane();
    lane.max_in_flight = 64;
    drop(lane.keep_order(DeliveryOrder::Key));
    lane.learn_blocked_keys(Vec::new());
    for (id, key) in (1..).zip(keys) {
        lane.offer(keyed(id, *key, None, &window));
    }
    lane
}

/// Starts what may start, as tokens equal to the ids.
fn start_all(lane: &mut Lane<()>) -> Vec<i64> {
    let mut started = Vec::new();
    while let Some(id) = lane.peek().map(|entry| entry.at.id) {
        lane.start(id.unsigned_abs()).unwrap();
        started.push(id);
    }
    started
}

fn end(lane: &mut Lane<()>, id: i64) {
    lane.finish(id.unsigned_abs(), Health::Up, 0).unwrap();
}

/// The call fails, and the message is due again at 70.
fn fail_one(lane: &mut Lane<()>, id: i64) {
    lane.finish(id.unsigned_abs(), Health::Unknown, 0).unwrap();
    drop(lane.wait_for_retry(at(id), 70));
}

fn held_back(lane: &mut Lane<()>) -> Vec<i64> {
    ids(&lane.take_held_back())
}

fn due_with(id: i64, key: u64) -> Entry<()> {
    Entry {
        keys: OrderKeys::new(key, None),
        ..due(id)
    }
}

/// The table says that messages wait for these of the keys it is asked about.
fn answer(lane: &mut Lane<()>, waited_for: &[u64]) -> Vec<u64> {
    let asked = lane.keys_to_ask(100);
    lane.learn_keys(&asked, |key| waited_for.contains(&key));
    asked
}

#[test]
fn it_starts_nothing_until_it_was_told_which_keys_are_blocked() {
    let mut lane = by_key(&[7, 8]);
    drop(lane.keep_order(DeliveryOrder::Key));
    assert!(lane.wants_blocked_keys() && !lane.has_next());
    lane.learn_blocked_keys(vec![7]);
    assert_eq!(start_all(&mut lane), [2]);
    assert_eq!(held_back(&mut lane), [1]);
}

#[test]
fn different_keys_go_at_once_and_one_key_one_after_the_other() {
    let mut lane = by_key(&[7, 7, 8, 7, 9]);
    assert_eq!(start_all(&mut lane), [1, 3, 5]);
    end(&mut lane, 3);
    assert!(start_all(&mut lane).is_empty());
    end(&mut lane, 1);
    assert_eq!(start_all(&mut lane), [2]);
    end(&mut lane, 2);
    assert_eq!(start_all(&mut lane), [4]);
    assert!(held_back(&mut lane).is_empty());
}

#[test]
fn a_message_without_a_key_waits_for_nothing() {
    let mut lane = by_key(&[7, 7]);
    let window = window(0, 10_000);
    lane.offer(read_in(&window, 3));
    assert_eq!(start_all(&mut lane), [1, 3]);
}

#[test]
fn a_message_that_changes_its_key_waits_for_both_and_both_wait_for_it() {
    let window = window(0, 10_000);
    let mut lane = by_key(&[7, 8]);
    lane.offer(keyed(3, 7, Some(8), &window));
    lane.offer(keyed(4, 7, None, &window));
    lane.offer(keyed(5, 8, None, &window));
    assert_eq!(start_all(&mut lane), [1, 2]);
    end(&mut lane, 1);
    assert!(start_all(&mut lane).is_empty());
    end(&mut lane, 2);
    assert_eq!(start_all(&mut lane), [3]);
    end(&mut lane, 3);
    assert_eq!(start_all(&mut lane), [4, 5]);
}

#[test]
fn what_waits_for_a_key_on_the_wire_is_bounded_and_stays_in_the_queue_beyond() {
    let mut lane = by_key(&vec![7; LOOKAHEAD + 100]);
    let window = window(0, 10_000);
    lane.offer(keyed(1_000, 8, None, &window));
    assert_eq!(start_all(&mut lane), [1]);
    assert_eq!(lane.looked_ahead(), LOOKAHEAD);
    assert_eq!(lane.queued(), 100);
    assert!(held_back(&mut lane).is_empty());
    end(&mut lane, 1);
    assert_eq!(start_all(&mut lane), [2]);
    assert_eq!(lane.looked_ahead(), LOOKAHEAD);
}

#[test]
fn a_message_that_failed_holds_back_its_key_alone_until_the_table_says_that_nothing_waits() {
    let mut lane = by_key(&[7, 8, 7, 8, 7]);
    assert_eq!(start_all(&mut lane), [1, 2]);
    fail_one(&mut lane, 1);
    assert_eq!(held_back(&mut lane), [3, 5]);
    end(&mut lane, 2);
    assert_eq!(start_all(&mut lane), [4]);
    assert!(
        !lane.has_keys_to_ask(),
        "the table knows nothing of them yet"
    );
    assert_eq!(busy(&lane), [1, 2, 3, 4, 5]);
    settle(&mut lane);
    assert_eq!(busy(&lane), [4]);
    assert_eq!(answer(&mut lane, &[7]), [7]);

    assert!(lane.retry(due_with(1, 7)));
    assert_eq!(start_all(&mut lane), [1]);
    end(&mut lane, 1);
    assert!(!lane.has_keys_to_ask(), "its row still waits");
    settle(&mut lane);
    assert_eq!(answer(&mut lane, &[7]), [7]);
    // What follows was loaded together, and goes one after the other.
    assert!(lane.retry(due_with(5, 7)) && lane.retry(due_with(3, 7)));
    assert_eq!(start_all(&mut lane), [3]);
    end(&mut lane, 3);
    assert_eq!(start_all(&mut lane), [5]);
    end(&mut lane, 5);
    settle(&mut lane);
    assert_eq!(answer(&mut lane, &[]), [7]);
    assert!(!lane.has_keys_to_ask() && lane.blocked_keys() == 0);
}

#[test]
fn retries_behind_one_that_fails_again_are_loaded_again_and_not_before_it_is_written() {
    let mut lane = by_key(&[]);
    lane.learn_blocked_keys(vec![7]);
    answer(&mut lane, &[7]);
    for id in [1, 2, 3] {
        assert!(lane.retry(due_with(id, 7)));
    }
    assert_eq!(start_all(&mut lane), [1]);
    lane.finish(1, Health::Unknown, 0).unwrap();
    assert_eq!(ids(&lane.wait_for_retry(at(1), 70)), [2, 3]);
    assert!(!lane.retry(due_with(2, 7)), "the table may not know yet");
    settle(&mut lane);
    assert_eq!(answer(&mut lane, &[7]), [7]);
    assert!(lane.retry(due_with(1, 7)), "it can be loaded again");
}

#[test]
fn a_message_that_comes_back_goes_before_those_of_its_key() {
    let mut lane = by_key(&[7, 8, 9, 7, 8]);
    assert_eq!(start_all(&mut lane), [1, 2, 3]);
    assert_eq!(lane.recall(1).unwrap().at.id, 1);
    assert!(!lane.has_next(), "nothing starts before it is looked for");
    lane.advance();
    assert_eq!(start_all(&mut lane), [1]);
    end(&mut lane, 1);
    assert_eq!(start_all(&mut lane), [4]);
}

#[test]
fn a_retry_that_is_loaded_waits_for_a_message_that_came_back() {
    let mut lane = by_key(&[7]);
    assert_eq!(start_all(&mut lane), [1]);
    // Another session redelivered a later message of the key.
    drop(lane.keep_order(DeliveryOrder::Key));
    lane.learn_blocked_keys(vec![7]);
    answer(&mut lane, &[7]);
    assert!(lane.retry(due_with(5, 7)));
    assert!(!lane.has_next(), "its key is on the wire");
    lane.recall(1).unwrap();
    lane.advance();
    assert_eq!(held_back(&mut lane), [1]);
    assert_eq!(ids(&lane.take_unloaded()), [5]);
    assert!(!lane.has_next());
}

#[test]
fn with_too_many_blocked_keys_it_takes_nothing_but_retries_until_there_are_fewer() {
    let mut lane = by_key(&[1, 2, 3, 4, 1]);
    lane.know_at_most(2);
    lane.max_in_flight = 2;
    for id in [1_i64, 2] {
        lane.start(id.unsigned_abs()).unwrap();
    }
    fail_one(&mut lane, 1);
    fail_one(&mut lane, 2);
    assert!(lane.is_retry_capped() && !lane.has_next());
    assert!(held_back(&mut lane).is_empty());
    settle(&mut lane);
    assert_eq!(answer(&mut lane, &[1, 2]), [1, 2]);
    assert!(lane.retry(due_with(1, 1)));
    assert_eq!(start_all(&mut lane), [1]);
    end(&mut lane, 1);
    settle(&mut lane);
    answer(&mut lane, &[]);
    assert!(!lane.is_retry_capped());
    assert_eq!(start_all(&mut lane), [3, 4, 5]);
}

#[test]
fn of_more_blocked_keys_than_it_keeps_it_knows_some_and_asks_about_all() {
    let mut lane = by_key(&[9]);
    lane.know_at_most(2);
    assert_eq!(lane.blocked_keys_wanted(), 3);
    drop(lane.keep_order(DeliveryOrder::Key));
    lane.learn_blocked_keys(vec![1, 2, 3]);
    assert!(lane.is_retry_capped() && !lane.has_next());
    assert_eq!(lane.blocked_keys(), 2);
    assert_eq!(lane.unknown_keys_from(), Some(3));
    lane.asked_unknown_keys(None);
    assert_eq!(answer(&mut lane, &[]), [1, 2]);
    assert!(lane.wants_blocked_keys(), "there are more than it knows");
    lane.learn_blocked_keys(vec![3]);
    assert_eq!(start_all(&mut lane), [1]);
}

#[test]
fn memory_can_be_taken_from_it() {
    let mut lane = by_key(&[7, 7, 8, 7, 9]);
    lane.max_in_flight = 1;
    lane.start(1).unwrap();
    assert_eq!(lane.looked_ahead(), 1);
    assert_eq!(ids(&lane.drop_queue()), [3, 4, 5]);
    assert_eq!(held_back(&mut lane), [2]);
    assert_eq!(lane.waiting().count(), 0);
    assert!(!lane.is_at_tail());
}

#[test]
fn without_the_order_what_is_in_memory_goes_in_its_place() {
    let mut lane = by_key(&[7, 7, 8, 7]);
    assert_eq!(start_all(&mut lane), [1, 3]);
    fail_one(&mut lane, 3);
    drop(lane.keep_order(DeliveryOrder::None));
    assert!(!lane.orders_keys() && !lane.has_keys_to_ask());
    assert_eq!(start_all(&mut lane), [2, 4]);
}

#[test]
fn a_canceled_message_that_may_wait_holds_its_key_until_that_is_known() {
    let mut lane = by_key(&[7, 7]);
    lane.cancel(true);
    assert_eq!(held_back(&mut lane), [2]);
    settle(&mut lane);
    assert_eq!(answer(&mut lane, &[7]), [7]);

    let mut lane = by_key(&[7, 7]);
    lane.cancel(false);
    assert_eq!(start_all(&mut lane), [2]);
}

#[test]
fn those_behind_a_slow_call_leave_room_for_retries_of_other_keys() {
    let mut lane = by_key(&[]);
    for id in 1..=70 {
        assert!(lane.retry(due_with(id, 7)));
    }
    assert_eq!(lane.retries_loaded(), 70);
    assert_eq!(start_all(&mut lane), [1]);
    assert_eq!(lane.retries_loaded(), 0);
    assert!(lane.retry(due_with(71, 8)));
    assert_eq!(start_all(&mut lane), [71]);
}
