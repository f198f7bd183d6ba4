//! What of a lane must be durable.

use super::*;

#[test]
fn a_new_lane_at_the_tail_has_nothing_to_remember_but_is_written_once() {
    let mut lane = lane();
    assert!(lane.dirty && lane.is_at_tail() && !lane.has_next());
    let nothing = DurableLane {
        position: None,
        busy: Vec::new(),
    };
    assert_eq!(lane.durable(), nothing);
    settle(&mut lane);
    assert!(!lane.dirty);
}

#[test]
fn a_short_queue_at_the_tail_is_listed_message_by_message() {
    let (lane, _) = fed(LISTED_AT_MOST as i64);
    assert_eq!(lane.durable().position, None);
    assert_eq!(busy(&lane), (1..=64).collect::<Vec<_>>());
}

#[test]
fn a_long_queue_at_the_tail_is_written_as_the_position_before_it() {
    let (mut lane, window) = fed(LISTED_AT_MOST as i64 + 3);
    assert_eq!(lane.durable().position, Some(position(&window, 0)));
    assert!(busy(&lane).is_empty());
    start(&mut lane, 2);
    assert_eq!(lane.durable().position, Some(position(&window, 2)));
    assert_eq!(busy(&lane), [1, 2]);
    // One fewer, and they are listed again.
    lane.start(3).unwrap();
    assert_eq!(lane.durable().position, None);
    assert_eq!(busy(&lane), (1..=67).collect::<Vec<_>>());
}

#[test]
fn the_position_is_in_the_window_of_the_first_message_that_waits() {
    let (earlier, later) = (window(0, 10), window(10, 20));
    let mut lane = Lane::new(1, 1, Feed::Own(position(&earlier, 4)));
    // Ids of a later window may be lower.
    lane.take_page([read_in(&earlier, 9)], Cursor::end_of(earlier.clone()));
    lane.take_page([read_in(&later, 5)], Cursor::end_of(later.clone()));
    assert_eq!(lane.durable().position, Some(position(&earlier, 8)));
    lane.start(1).unwrap();
    assert_eq!(lane.durable().position, Some(position(&later, 4)));
    lane.start(2).unwrap();
    assert_eq!(lane.durable().position, Some(Cursor::end_of(later)));
    assert_eq!(busy(&lane), [5, 9]);
}

#[test]
fn a_message_is_busy_from_its_start_until_its_outcome_is_being_written() {
    let (mut lane, window) = fed(100);
    lane.leave_tail(position(&window, 100));
    start(&mut lane, 2);
    assert_eq!(busy(&lane), [1, 2]);
    lane.finish(1, Health::Up, 0).unwrap();
    assert_eq!(busy(&lane), [1, 2], "finished, but not written");
    lane.begin_settling();
    assert_eq!(busy(&lane), [2], "what is written with its outcome");
    lane.settled();
    assert_eq!(busy(&lane), [2]);
}

#[test]
fn what_was_requeued_after_a_restart_is_busy_until_it_is_settled() {
    let window = window(0, 10);
    let mut lane = Lane::new(1, 1, Feed::Own(position(&window, 7)));
    lane.requeue(named(3));
    lane.requeue(named(5));
    assert_eq!(busy(&lane), [3, 5]);
    lane.start(1).unwrap();
    assert_eq!(busy(&lane), [3, 5]);
    lane.finish(1, Health::Up, 0).unwrap();
    settle(&mut lane);
    assert_eq!(busy(&lane), [5]);
    assert_eq!(lane.durable().position, Some(position(&window, 7)));
}

#[test]
fn retries_are_never_busy_for_they_have_rows_of_their_own() {
    let mut lane = lane();
    for id in 1..=3 {
        assert!(lane.retry(due(id)));
    }
    start(&mut lane, 2);
    lane.finish(1, Health::Unknown, 0).unwrap();
    assert!(busy(&lane).is_empty());
    lane.recall(2).unwrap();
    assert!(busy(&lane).is_empty());
}

#[test]
fn whatever_changes_the_durable_state_makes_the_lane_dirty() {
    type Change = fn(&mut Lane<()>);
    let changes: [(&str, Change); 11] = [
        ("offer", |lane| lane.offer(read_in(&window(0, 9), 9))),
        ("leave", |lane| {
            lane.leave_tail(Cursor::end_of(window(0, 9)));
        }),
        ("join", Lane::join_tail),
        ("page", |lane| {
            lane.take_page([], Cursor::end_of(window(0, 9)));
        }),
        ("requeue", |lane| lane.requeue(named(9))),
        ("drop", |lane| drop(lane.drop_queue())),
        ("start", |lane| drop(lane.start(9).cloned())),
        ("finish", |lane| drop(lane.finish(1, Health::Up, 0))),
        ("recall", |lane| drop(lane.recall(1).cloned())),
        ("skip", Lane::skip),
        ("reopen", Lane::reopen),
    ];
    for (name, change) in changes {
        let (mut lane, _) = fed(3);
        start(&mut lane, 1);
        settle(&mut lane);
        assert!(!lane.dirty);
        change(&mut lane);
        assert!(lane.dirty, "{name}");
    }
}
