use super::*;
use crate::core::position::END_OF_WINDOW;
use crate::core::snapshot::Snapshot;
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;

/// A moment of the stream: everything before `at` had committed.
fn moment(at: u64) -> Arc<Snapshot> {
    Arc::new(Snapshot {
        xmin: at,
        xmax: at,
        running: Vec::new(),
    })
}

fn window(from: u64, to: u64) -> Arc<Window> {
    Window::new(moment(from), moment(to), 0)
}

fn at(id: i64) -> Coordinate {
    Coordinate {
        xid: id.unsigned_abs(),
        id,
    }
}

fn named(id: i64) -> Entry<()> {
    Entry {
        at: at(id),
        window: None,
        message: (),
        attempts: 0,
        is_retry: false,
    }
}

fn read_in(window: &Arc<Window>, id: i64) -> Entry<()> {
    Entry {
        window: Some(Arc::clone(window)),
        ..named(id)
    }
}

fn due(id: i64) -> Entry<()> {
    Entry {
        attempts: 1,
        is_retry: true,
        ..named(id)
    }
}

fn lane() -> Lane<()> {
    Lane::new(1, 1, Feed::Tail)
}

/// A lane at the tail that was offered the ids 1 to `count`, all in one window.
fn fed(count: i64) -> (Lane<()>, Arc<Window>) {
    let window = window(0, 1_000);
    let mut lane = lane();
    for id in 1..=count {
        lane.offer(read_in(&window, id));
    }
    (lane, window)
}

/// Starts the next messages as the tokens 1 to `count`.
fn start(lane: &mut Lane<()>, count: u64) {
    for token in 1..=count {
        lane.start(token).unwrap();
    }
}

fn fail(lane: &mut Lane<()>, token: u64, now: u64) {
    lane.finish(token, Health::Down, now).unwrap();
}

/// A lane whose last calls, `count` of them, failed one after the other at `now`.
fn failed(count: u64, now: u64) -> Lane<()> {
    let (mut lane, _) = fed(100);
    lane.max_in_flight = 8;
    for token in 1..=count {
        lane.start(token).unwrap();
        fail(&mut lane, token, now);
    }
    lane
}

fn settle(lane: &mut Lane<()>) {
    lane.begin_settling();
    lane.settled();
}

fn busy(lane: &Lane<()>) -> Vec<i64> {
    let mut ids: Vec<i64> = lane.durable().busy.iter().map(|at| at.id).collect();
    ids.sort_unstable();
    ids
}

fn ids(entries: &[Entry<()>]) -> Vec<i64> {
    entries.iter().map(|entry| entry.at.id).collect()
}

/// What the lane would send, in order.
fn order(mut lane: Lane<()>) -> Vec<i64> {
    (1_000..)
        .map_while(|token| lane.start(token).map(|entry| entry.at.id))
        .collect()
}

fn position(window: &Arc<Window>, id: i64) -> Position {
    Position {
        window: Arc::clone(window),
        id,
    }
}

// What must be durable.

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
    lane.take_page([read_in(&earlier, 9)], Position::end_of(earlier.clone()));
    lane.take_page([read_in(&later, 5)], Position::end_of(later.clone()));
    assert_eq!(lane.durable().position, Some(position(&earlier, 8)));
    lane.start(1).unwrap();
    assert_eq!(lane.durable().position, Some(position(&later, 4)));
    lane.start(2).unwrap();
    assert_eq!(lane.durable().position, Some(Position::end_of(later)));
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
            lane.leave_tail(Position::end_of(window(0, 9)));
        }),
        ("join", Lane::join_tail),
        ("page", |lane| {
            lane.take_page([], Position::end_of(window(0, 9)));
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

// Who feeds it.

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
    let mut lane = Lane::<()>::new(1, 1, Feed::Own(Position::start_of(window(0, 5))));
    let end = Position::end_of(window(0, 5));
    lane.take_page([], end.clone());
    assert_eq!(lane.durable().position, Some(end));
}

#[test]
fn a_lane_that_joins_the_tail_lists_what_it_still_has() {
    let window = window(0, 5);
    let mut lane = Lane::new(1, 1, Feed::Own(Position::start_of(window.clone())));
    lane.take_page([read_in(&window, 3)], Position::end_of(window.clone()));
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
    let mut lane = Lane::new(1, 1, Feed::Own(Position::start_of(first.clone())));
    lane.take_page([read_in(&first, 3)], Position::end_of(first.clone()));
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

// Settling.

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

// What goes next.

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

// How much goes at once.

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

// Backing off.

#[test]
fn the_fifth_failure_in_a_row_silences_the_lane_for_a_second() {
    let now = 7 * SECOND;
    let lane = failed(4, now);
    assert!(lane.may_start(now));
    assert_eq!(lane.silent_until(now), None);
    let lane = failed(5, now);
    assert!(!lane.may_start(now));
    assert_eq!(lane.silent_until(now), Some(now + SECOND));
    assert!(!lane.may_start(now + SECOND - 1));
    assert!(lane.may_start(now + SECOND));
    assert_eq!(lane.silent_until(now + SECOND), None);
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
    assert_eq!(lane.silent_until(0), None);

    let mut lane = failed(4, 0);
    start(&mut lane, 1);
    lane.finish(1, Health::Unknown, 0).unwrap();
    lane.start(2).unwrap();
    fail(&mut lane, 2, 0);
    assert_eq!(lane.silent_until(0), Some(SECOND));
}

#[test]
fn many_calls_that_fail_together_are_one_outage() {
    assert_eq!(failed(50, 0).silent_until(0), Some(SECOND));
}

#[test]
fn each_failed_probe_doubles_the_pause_up_to_a_minute_for_ever() {
    let mut lane = failed(5, 0);
    let mut now = 0;
    for probe in 0..200_u32 {
        let until = lane.silent_until(now).unwrap();
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
    assert_eq!(lane.silent_until(2 * SECOND), Some(3 * SECOND));
}

#[test]
fn reopening_forgets_failures_and_pauses() {
    let mut lane = failed(9, 0);
    lane.be_silent_until(1_000 * SECOND);
    lane.reopen();
    assert_eq!(lane.silent_until(0), None);
    lane.begin_run();
    assert!(lane.may_start(0), "it is no probe");
}

#[test]
fn the_longest_silence_that_was_asked_for_counts() {
    let mut lane = lane();
    settle(&mut lane);
    lane.be_silent_until(30);
    assert!(lane.dirty);
    lane.be_silent_until(20);
    assert_eq!(lane.silent_until(0), Some(30));
    assert_eq!(lane.silent_until(29), Some(30));
    assert_eq!(lane.silent_until(30), None);
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

// Nothing is lost, whatever happens when.

/// What the worker does around one lane, and what PostgreSQL holds meanwhile.
/// Message n is the n-th to commit; a window holds those between two moments.
struct World {
    committed: u64,
    tail: Position,
    lane: Lane<()>,
    flying: Vec<(u64, Coordinate)>,
    next_token: u64,
    /// Known, not written.
    outcomes: Vec<Known>,
    /// As of the last settlement.
    stored: Stored,
    /// How often each message may be sent from here on, by its place.
    may_send: HashMap<u64, u32>,
}

struct Known {
    at: Coordinate,
    is_delivered: bool,
}

struct Stored {
    tail: Position,
    lane: DurableLane,
    retries: HashSet<Coordinate>,
    delivered: HashSet<Coordinate>,
}

#[derive(Clone, Debug)]
enum Step {
    /// So many commit, and the tail reads a page of so many.
    Offer {
        commits: u64,
        page: usize,
    },
    /// The same, but the lane is full and leaves.
    Leave {
        commits: u64,
        page: usize,
    },
    TakePage(usize),
    LoadRetries,
    DropQueue,
    Start(u64),
    Finish {
        which: usize,
        is_delivered: bool,
    },
    Recall(usize),
    Settle {
        works: bool,
    },
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let sizes = || (0_u64..90, 1_usize..90);
    prop_oneof![
        4 => sizes().prop_map(|(commits, page)| Step::Offer { commits, page }),
        2 => sizes().prop_map(|(commits, page)| Step::Leave { commits, page }),
        4 => (1_usize..40).prop_map(Step::TakePage),
        1 => Just(Step::LoadRetries),
        1 => Just(Step::DropQueue),
        4 => (1_u64..30).prop_map(Step::Start),
        6 => (any::<usize>(), prop::bool::weighted(0.8))
            .prop_map(|(which, is_delivered)| Step::Finish { which, is_delivered }),
        2 => any::<usize>().prop_map(Step::Recall),
        3 => prop::bool::weighted(0.7).prop_map(|works| Step::Settle { works }),
        2 => Just(Step::Crash),
    ]
}

/// Ids are not drawn in the order of commits: neighbours are swapped.
fn nth(n: u64) -> Coordinate {
    Coordinate {
        xid: n,
        id: (n ^ 3) as i64 + 1,
    }
}

fn page_after(position: &Position, size: usize) -> (Vec<Coordinate>, Position) {
    let window = &position.window;
    let mut page: Vec<Coordinate> = (window.from.xmin..window.to.xmin)
        .map(nth)
        .filter(|at| at.id > position.id)
        .collect();
    page.sort_unstable_by_key(|at| at.id);
    page.truncate(size);
    let id = match page.last() {
        Some(last) if page.len() == size => last.id,
        _ => END_OF_WINDOW,
    };
    let end = Position {
        window: Arc::clone(window),
        id,
    };
    (page, end)
}

fn entry(at: Coordinate, window: Option<&Arc<Window>>, is_retry: bool) -> Entry<()> {
    Entry {
        at,
        window: window.cloned(),
        message: (),
        attempts: 0,
        is_retry,
    }
}

impl World {
    fn new() -> Self {
        let tail = Position::end_of(Window::ending(moment(0), 0));
        Self {
            committed: 0,
            tail: tail.clone(),
            lane: lane(),
            flying: Vec::new(),
            next_token: 0,
            outcomes: Vec::new(),
            stored: Stored {
                tail,
                lane: lane().durable(),
                retries: HashSet::new(),
                delivered: HashSet::new(),
            },
            may_send: HashMap::new(),
        }
    }

    fn take(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Offer { commits, page } => self.read_tail(commits, page, false),
            Step::Leave { commits, page } => self.read_tail(commits, page, true),
            Step::TakePage(size) => self.read_own(size),
            Step::LoadRetries => self.load_retries()?,
            Step::DropQueue => drop(self.lane.drop_queue()),
            Step::Start(count) => self.start(count)?,
            Step::Finish {
                which,
                is_delivered,
            } => self.finish(which, is_delivered),
            Step::Recall(which) => self.recall(which),
            Step::Settle { works } => self.settle(works),
            Step::Crash => self.crash(),
        }
        Ok(())
    }

    fn read_tail(&mut self, commits: u64, size: usize, is_full: bool) {
        for n in self.committed..self.committed + commits {
            self.may_send.insert(n, 1);
        }
        self.committed += commits;
        if self.tail.window_is_done() {
            let next = window(self.tail.window.to.xmin, self.committed);
            self.tail = Position::start_of(next);
        }
        let (page, end) = page_after(&self.tail, size);
        let window = Arc::clone(&self.tail.window);
        for at in page {
            if !self.lane.is_at_tail() {
                break;
            }
            if is_full {
                self.lane.leave_tail(position(&window, at.id - 1));
            } else {
                self.lane.offer(entry(at, Some(&window), false));
            }
        }
        self.tail = end;
    }

    fn read_own(&mut self, size: usize) {
        let Feed::Own(mut position) = self.lane.feed().clone() else {
            return;
        };
        if position.window_is_done() {
            let (here, tail) = (position.window.to.xmin, &self.tail.window);
            let is_between_windows = self.tail.window_is_done();
            let passed = if is_between_windows {
                tail.to.xmin
            } else {
                tail.from.xmin
            };
            if here < passed {
                position = Position::start_of(window(here, passed));
            } else if here == passed && is_between_windows {
                self.lane.join_tail();
                return;
            } else if here == passed {
                position = Position::start_of(Arc::clone(tail));
            } else {
                // It is through with the window that the tail is in: it waits.
                return;
            }
        }
        let (page, end) = page_after(&position, size);
        let entries = page
            .into_iter()
            .map(|at| entry(at, Some(&position.window), false));
        self.lane.take_page(entries, end);
    }

    fn load_retries(&mut self) -> Result<(), TestCaseError> {
        let mut retries: Vec<Coordinate> = self.stored.retries.iter().copied().collect();
        retries.sort_unstable();
        for at in retries {
            let is_under_way = self.lane.waiting().any(|entry| entry.at == at)
                || self.flying.iter().any(|(_, flying)| *flying == at)
                || self.outcomes.iter().any(|known| known.at == at);
            let is_loaded = self.lane.retry(entry(at, None, true));
            prop_assert_eq!(is_loaded, !is_under_way);
        }
        Ok(())
    }

    fn start(&mut self, count: u64) -> Result<(), TestCaseError> {
        for _ in 0..count {
            let Some(at) = self.lane.start(self.next_token).map(|entry| entry.at) else {
                break;
            };
            self.flying.push((self.next_token, at));
            self.next_token += 1;
            let left = self.may_send.get_mut(&at.xid).unwrap();
            prop_assert!(*left > 0, "{:?} is sent twice", at);
            *left -= 1;
        }
        Ok(())
    }

    fn pick(&mut self, which: usize) -> Option<(u64, Coordinate)> {
        let count = self.flying.len();
        (count > 0).then(|| self.flying.remove(which % count))
    }

    fn finish(&mut self, which: usize, is_delivered: bool) {
        if let Some((token, at)) = self.pick(which) {
            self.lane.finish(token, Health::Up, 0).unwrap();
            self.outcomes.push(Known { at, is_delivered });
        }
    }

    fn recall(&mut self, which: usize) {
        if let Some((token, at)) = self.pick(which) {
            self.lane.recall(token).unwrap();
            *self.may_send.get_mut(&at.xid).unwrap() += 1;
        }
    }

    /// The worker does nothing else between the beginning and the end of a settlement.
    fn settle(&mut self, works: bool) {
        self.lane.begin_settling();
        if !works {
            self.lane.settling_failed();
            return;
        }
        for known in self.outcomes.drain(..) {
            if known.is_delivered {
                self.stored.retries.remove(&known.at);
                self.stored.delivered.insert(known.at);
            } else {
                self.stored.retries.insert(known.at);
                *self.may_send.get_mut(&known.at.xid).unwrap() += 1;
            }
        }
        self.stored.tail = self.tail.clone();
        if self.lane.dirty {
            self.stored.lane = self.lane.durable();
        }
        self.lane.settled();
    }

    fn crash(&mut self) {
        // Nobody can know of these whether they arrived.
        let in_doubt = self.flying.drain(..).map(|(_, at)| at);
        for at in in_doubt.chain(self.outcomes.drain(..).map(|known| known.at)) {
            *self.may_send.get_mut(&at.xid).unwrap() += 1;
        }
        let DurableLane { position, mut busy } = self.stored.lane.clone();
        self.tail = self.stored.tail.clone();
        self.lane = Lane::new(1, 1, position.map_or(Feed::Tail, Feed::Own));
        busy.sort_unstable_by_key(|at| at.id);
        for at in busy {
            self.lane.requeue(entry(at, None, false));
        }
    }

    /// Everything works from here on.
    fn run_dry(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..8 {
            self.read_tail(0, usize::MAX, false);
            self.read_own(usize::MAX);
            self.load_retries()?;
            self.start(u64::MAX)?;
            while !self.flying.is_empty() {
                self.finish(0, true);
            }
            self.settle(true);
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn no_message_is_lost_and_only_what_was_busy_at_a_crash_is_sent_twice(
        steps in prop::collection::vec(step(), 1..80)
    ) {
        let mut world = World::new();
        for step in steps {
            world.take(step)?;
        }
        world.run_dry()?;
        for n in 0..world.committed {
            prop_assert!(world.stored.delivered.contains(&nth(n)), "message {} is lost", n);
        }
        prop_assert!(world.lane.is_at_tail() && world.stored.retries.is_empty());
        prop_assert_eq!(world.lane.durable(), lane().durable());
    }

    #[test]
    fn a_run_is_never_empty_and_never_too_long(
        queued in 0_i64..200, connections in 0_usize..20,
        durations in prop::collection::vec(0_u64..100_000_000_000, 0..20)
    ) {
        let (mut lane, _) = fed(queued);
        lane.max_in_flight = connections;
        for nanos in durations {
            lane.note_duration(nanos);
        }
        prop_assert!((1..=RUN_AT_MOST).contains(&lane.run_length()));
    }
}
