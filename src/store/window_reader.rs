//! How far the reading of one window has come.
//!
//! Says what is known of the window and what is left of it; the statements that read it stand
//! in `store::outbox`. Nothing here touches the database.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::core::messages::flush_map::{Flush, FlushMap};
use crate::core::messages::position::{Cursor, MessagePosition, Window};

/// A window over more transactions than this is large, whatever it holds for this reader.
const LARGE_XIDS: u64 = 20_000;

/// What is known of a window.
pub(super) enum Plan {
    /// Nothing: it may be small.
    Unknown,
    /// It is large, and being looked through.
    Mapping(Mapping),
    Mapped {
        map: FlushMap,
        /// The next ones.
        flushes: VecDeque<Flush>,
    },
    /// Where its rows are, in order.
    Places {
        places: VecDeque<MessagePosition>,
        /// They are those with lower ids, if not all.
        end: Option<i64>,
    },
}

/// How far a large window has been looked through.
pub(super) struct Mapping {
    pub scan: Scan,
    pub map: FlushMap,
}

/// What is left of a window, in the order of the index.
pub struct Scan {
    /// Transactions: from … to.
    pub ranges: VecDeque<(u64, u64)>,
    /// The last row that was seen of the first range.
    pub after: MessagePosition,
}

impl Scan {
    pub fn of(window: &Window) -> Self {
        let (from, to) = (&window.from, &window.to);
        let ended = |xid: &&u64| **xid < to.xmax && !to.running.contains(xid);
        let mut ranges: VecDeque<_> = from
            .running
            .iter()
            .filter(ended)
            .map(|xid| (*xid, *xid))
            .collect();
        if to.xmax > from.xmax {
            ranges.push_back((from.xmax, to.xmax - 1));
        }
        Self {
            ranges,
            after: NOWHERE,
        }
    }
}

/// Of which rows of which window.
pub(super) struct Step<'a> {
    pub window: &'a Window,
    pub after_id: i64,
}

/// How far the reading of one window has come.
pub struct WindowReader {
    pub(super) window: Arc<Window>,
    pub(super) after_id: i64,
    /// 0 reads every webhook's messages.
    pub(super) webhook_key: i32,
    pub(super) plan: Plan,
    pub(super) done: bool,
    /// Rows whose places were found and that were gone when they were read.
    pub(super) missing: usize,
}

/// Before every row.
pub(super) const NOWHERE: MessagePosition = MessagePosition { xid: 0, id: 0 };

impl WindowReader {
    pub fn new(position: &Cursor, webhook_key: Option<i32>) -> Self {
        Self {
            window: Arc::clone(&position.window),
            after_id: position.id,
            webhook_key: webhook_key.unwrap_or(0),
            plan: Plan::Unknown,
            done: position.window_is_done() || position.window.from == position.window.to,
            missing: 0,
        }
    }

    pub fn window(&self) -> &Arc<Window> {
        &self.window
    }

    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Whether nothing of the window has been looked at.
    pub fn is_fresh(&self) -> bool {
        !self.done && matches!(self.plan, Plan::Unknown)
    }

    /// Takes over the places of its rows up to `end`, or all, which were found for all webhooks of
    /// the window.
    pub fn read_places(&mut self, places: VecDeque<MessagePosition>, end: Option<i64>) {
        self.plan = Plan::Places { places, end };
    }

    pub fn after_id(&self) -> i64 {
        self.after_id
    }

    /// How many rows were gone that had been found in the window, since it was asked last.
    pub fn take_missing(&mut self) -> usize {
        std::mem::take(&mut self.missing)
    }

    pub fn webhook_key(&self) -> i32 {
        self.webhook_key
    }

    /// Whether the window spans so many transactions that one statement may take long.
    pub(super) fn is_wide(&self) -> bool {
        self.window.to.xmax.saturating_sub(self.window.from.xmax) > LARGE_XIDS
    }

    pub(super) fn begin_mapping(&mut self) {
        self.plan = Plan::Mapping(Mapping {
            scan: Scan::of(&self.window),
            map: FlushMap::default(),
        });
    }

    /// Where the pages read so far end.
    pub fn position(&self) -> Cursor {
        if self.done {
            Cursor::end_of(Arc::clone(&self.window))
        } else {
            Cursor {
                window: Arc::clone(&self.window),
                id: self.after_id,
            }
        }
    }
}
