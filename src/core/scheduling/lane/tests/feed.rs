//! Who feeds a lane.

use super::*;

#[test]
fn a_lane_that_leaves_the_tail_keeps_what_it_has() {
    let (mut lane, window) = fed(2);
    lane.leave_tail(position(&window, 2));
    assert!(!lane.is_at_tail());
    assert_eq!(lane.feed(), &Feed::Own(position(&window, 2)));
    assert_eq!(lane.durable().position, Some(position(&window, 0)));
    start(&mut lane, 2);
    assert_eq!(lane.durable().position, Some(position(&window, 2)));
}

#[test]
fn a_page_follows_what_waits_and_moves_the_lane_to_its_end() {
    let (mut lane, window) = fed(2);
    lane.leave_tail(position(&window, 2));
    let page = [read_in(&window, 3), read_in(&window, 4)];
    lane.take_page(page, position(&window, 4));
    assert_eq!(lane.feed(), &Feed::Own(position(&window, 4)));
    assert_eq!(lane.queued(), 4);
    assert_eq!(order(lane), [1, 2, 3, 4]);
}

#[test]
fn an_empty_page_moves_the_lane_as_well() {
    let mut lane = Lane::<()>::new(1, 1, Feed::Own(Cursor::start_of(window(0, 5))));
    let end = Cursor::end_of(window(0, 5));
    lane.take_page([], end.clone());
    assert_eq!(lane.durable().position, Some(end));
}

#[test]
fn a_lane_that_joins_the_tail_lists_what_it_still_has() {
    let window = window(0, 5);
    let mut lane = Lane::new(1, 1, Feed::Own(Cursor::start_of(window.clone())));
    lane.take_page([read_in(&window, 3)], Cursor::end_of(window.clone()));
    lane.join_tail();
    assert!(lane.is_at_tail());
    assert_eq!(lane.durable().position, None);
    assert_eq!(busy(&lane), [3]);
    lane.offer(read_in(&window, 4));
    assert_eq!(order(lane), [3, 4]);
}

#[test]
fn dropping_the_queue_leaves_the_position_before_its_first_message() {
    let (mut lane, window) = fed(5);
    start(&mut lane, 2);
    let dropped = lane.drop_queue();
    assert_eq!(ids(&dropped), [3, 4, 5]);
    assert_eq!(lane.queued(), 0);
    assert_eq!(lane.feed(), &Feed::Own(position(&window, 2)));
    assert_eq!(busy(&lane), [1, 2]);
}

#[test]
fn dropping_the_queue_forgets_the_pages_that_were_read_of_it() {
    let (first, second) = (window(0, 5), window(5, 10));
    let mut lane = Lane::new(1, 1, Feed::Own(Cursor::start_of(first.clone())));
    lane.take_page([read_in(&first, 3)], Cursor::end_of(first.clone()));
    lane.take_page([read_in(&second, 1)], position(&second, 1));
    assert_eq!(ids(&lane.drop_queue()), [3, 1]);
    assert_eq!(lane.feed(), &Feed::Own(position(&first, 2)));
}

#[test]
fn dropping_the_queue_keeps_what_only_its_coordinate_names() {
    let (mut lane, _) = fed(3);
    lane.requeue(named(1));
    lane.drop_queue();
    assert_eq!(busy(&lane), [1]);
    assert_eq!(order(lane), [1]);
}

#[test]
fn dropping_an_empty_queue_leaves_the_lane_where_it_is() {
    let mut at_tail = lane();
    at_tail.requeue(named(1));
    assert!(at_tail.drop_queue().is_empty());
    assert!(at_tail.is_at_tail());

    let own = Feed::Own(position(&window(0, 9), 4));
    let mut reading = Lane::<()>::new(1, 1, own.clone());
    assert!(reading.drop_queue().is_empty());
    assert_eq!(reading.feed(), &own);
}

#[test]
fn retries_that_were_dropped_can_be_loaded_again() {
    let mut lane = lane();
    lane.retry(due(1));
    lane.retry(due(2));
    lane.start(1).unwrap();
    assert_eq!(ids(&lane.drop_queue()), [2]);
    assert_eq!(lane.retries_loaded(), 0);
    assert!(lane.retry(due(2)));
    assert!(!lane.retry(due(1)), "it is on the wire");
}
