//! The lane by itself, because what it forgets at a crash is lost.

use super::durable::LISTED_AT_MOST;
use super::pace::RUN_AT_MOST;
use super::*;
use crate::core::definitions::words::DeliveryOrder;
use crate::core::messages::position::END_OF_WINDOW;
use crate::core::messages::snapshot::Snapshot;
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

fn at(id: i64) -> MessagePosition {
    MessagePosition {
        xid: id.unsigned_abs(),
        id,
    }
}

fn named(id: i64) -> Entry<()> {
    Entry {
        at: at(id),
        window: None,
        message: (),
        keys: OrderKeys::default(),
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

fn position(window: &Arc<Window>, id: i64) -> Cursor {
    Cursor {
        window: Arc::clone(window),
        id,
    }
}

mod backing_off;
mod durable;
mod feed;
mod keys;
mod model;
mod next;
mod order;
mod runs;
mod schedules;
mod settling;
mod world;
