//! Which window a lane reads next that has left the tail.
//!
//! Pure: where the tail stands and what ticks are stored are arguments.

use std::sync::Arc;

use crate::core::messages::position::{Cursor, Window};
use crate::core::messages::snapshot::Snapshot;

/// What comes after a window that a lane has read to its end.
#[derive(Debug)]
pub enum Next {
    Window(Arc<Window>),
    /// The lane stands where the tail stands: the tail feeds it again.
    Join,
    /// The lane is ahead of the tail, which is in the middle of the window that the lane
    /// has finished. It would get that window a second time.
    Wait,
}

/// Where the tail stands.
pub struct TailPlace<'a> {
    pub position: &'a Cursor,
    /// The last stored tick …
    pub last_tick: i64,
    /// … and its snapshot, if it is known.
    pub last_tick_snapshot: Option<&'a Arc<Snapshot>>,
    /// Whether the lane's webhook had messages since.
    pub has_seen: bool,
}

impl TailPlace<'_> {
    /// Everything up to here was counted and routed, whatever window is being read.
    fn passed(&self) -> &Arc<Snapshot> {
        let window = &self.position.window;
        if self.position.window_is_done() {
            &window.to
        } else {
            &window.from
        }
    }
}

/// The stored ticks behind a lane's position.
#[derive(Default)]
pub struct TicksAhead {
    /// None has been deleted: a stretch between two ticks that do not name the webhook has no
    /// message of it. Ticks are deleted by where lanes stand, and a restart may put a lane back to
    /// an earlier position.
    pub are_complete: bool,
    /// The first that names the lane's webhook.
    pub next: Option<NextTick>,
}

/// A stored tick that names the lane's webhook.
pub struct NextTick {
    pub number: i64,
    pub snapshot: Snapshot,
    /// The snapshot of the tick before it: what the webhook has lies between the two, if no tick
    /// has been deleted. `None` if that is the one asked for.
    pub before: Option<Snapshot>,
}

/// What a lane does that has read up to `position`, the end of a window: the next one goes up
/// to the next tick that names its webhook, or else up to the tail.
pub fn next_window(
    position: &Cursor,
    tail: &TailPlace<'_>,
    ticks_after: impl FnOnce(i64) -> TicksAhead,
) -> Next {
    let (to, tick) = (&position.window.to, position.window.tick);
    let tail_window = &tail.position.window;
    let tail_is_between = !tail.position.window_is_done();
    if tail_is_between && *to == tail_window.to {
        return Next::Wait;
    }
    let mut may_skip = true;
    if tick < tail.last_tick {
        let ticks = ticks_after(tick);
        may_skip = ticks.are_complete;
        if let Some(next) = ticks.next {
            let before = next.before.filter(|_| may_skip);
            let from = before.map_or_else(|| Arc::clone(to), Arc::new);
            return Next::Window(Window::new(from, Arc::new(next.snapshot), next.number));
        }
    }
    let passed = tail.passed();
    if to != passed {
        let from = match tail.last_tick_snapshot {
            _ if !may_skip => to,
            _ if !tail.has_seen => passed,
            Some(snapshot) if tick < tail.last_tick => snapshot,
            _ => to,
        };
        let (from, to) = (Arc::clone(from), Arc::clone(passed));
        return Next::Window(Window::new(from, to, tail.last_tick));
    }
    if tail_is_between {
        // The tail is in the middle of a large window: the lane reads it for itself.
        let (from, to) = (Arc::clone(&tail_window.from), Arc::clone(&tail_window.to));
        return Next::Window(Window::new(from, to, tail.last_tick));
    }
    Next::Join
}
