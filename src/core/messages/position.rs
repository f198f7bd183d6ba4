//! Where a reader stands in the stream of messages.
//!
//! The stream is cut into windows, each between two snapshots and sorted by id.
//! Windows are arbitrary: any later snapshot may end one. A position never names
//! "the last id" alone, because transactions commit in another order than they
//! take their ids.

use std::sync::Arc;

use super::snapshot::Snapshot;

/// A row of the outbox: the transaction that wrote it and its place in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessagePosition {
    pub xid: u64,
    pub id: i64,
}

/// The messages that `to` sees and `from` does not.
#[derive(Debug, PartialEq, Eq)]
pub struct Window {
    pub from: Arc<Snapshot>,
    pub to: Arc<Snapshot>,
    /// The last stored tick that lies at or before `to`.
    pub tick: i64,
}

impl Window {
    pub fn new(from: Arc<Snapshot>, to: Arc<Snapshot>, tick: i64) -> Arc<Self> {
        Arc::new(Self { from, to, tick })
    }

    /// An empty window: everything up to `at` is behind.
    pub fn ending(at: Arc<Snapshot>, tick: i64) -> Arc<Self> {
        Self::new(Arc::clone(&at), at, tick)
    }
}

/// Everything before the window, and everything in it with an id up to `id`, is behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub window: Arc<Window>,
    pub id: i64,
}

/// An id that nothing in a window exceeds.
pub const END_OF_WINDOW: i64 = i64::MAX;

impl Cursor {
    pub fn start_of(window: Arc<Window>) -> Self {
        Self { window, id: 0 }
    }

    pub fn end_of(window: Arc<Window>) -> Self {
        Self {
            window,
            id: END_OF_WINDOW,
        }
    }

    /// Whether a message lies before this position.
    pub fn has_passed(&self, at: MessagePosition) -> bool {
        self.window.from.sees(at.xid) || (self.window.to.sees(at.xid) && at.id <= self.id)
    }

    pub fn window_is_done(&self) -> bool {
        self.id == END_OF_WINDOW
    }
}
