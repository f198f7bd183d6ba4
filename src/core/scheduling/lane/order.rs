//! What a lane that keeps the order may start next.
//!
//! Such a lane ('fifo') sends one message after the other. One that failed and
//! will be repeated waits in the retry table, and holds everything behind it
//! until it was delivered, given up or canceled. The table alone knows what
//! waits there: other sessions redeliver and cancel, and a restart forgets what
//! was in memory. So a lane that does not know sends nothing until it was told
//! ([`Lane::learn_waiting`]), and it is told only when everything that it knows
//! itself is written ([`Lane::wants_answer`]).
//!
//! Why the order is right: a lane starts what came back before its queue, sorted
//! by id, and reads its queue window by window, each sorted by id. For changes
//! that depend on one another the order of ids is the true one (an id is drawn
//! while the transaction still holds its row locks), and a snapshot that sees the
//! later one sees the earlier one, too.

use super::{Entry, Lane};
use crate::core::definitions::words::DeliveryOrder;
use crate::core::messages::position::MessagePosition;

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Turn {
    /// Nothing waits for a retry: what came back, then the queue.
    #[default]
    Onward,
    /// Nobody, until the retry table was asked.
    Unknown,
    /// The retries that wait, in the order of ids; nothing else.
    Retries,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Order {
    pub is_kept: bool,
    turn: Turn,
    /// When the first waiting retry is due, as far as is known: PostgreSQL's time in
    /// microseconds.
    due_at: Option<i64>,
}

/// Where the next message comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Requeued(usize),
    DueRetries(usize),
    Queue,
    Nowhere,
}

impl<M> Lane<M> {
    /// Whether messages go one after the other, and one that fails holds the rest.
    pub fn keeps_order(&self) -> bool {
        self.order.is_kept
    }

    /// The definitions were read, or another session changed retries: from now on this order
    /// is kept. Returns the retries that have to be loaded again.
    #[must_use = "what was taken out of memory has to be counted"]
    pub fn keep_order(&mut self, order: DeliveryOrder) -> Vec<Entry<M>> {
        let is_fifo = order == DeliveryOrder::Fifo;
        let was_kept = std::mem::replace(&mut self.order.is_kept, is_fifo);
        let unloaded = match order {
            DeliveryOrder::None => Vec::new(),
            DeliveryOrder::Fifo | DeliveryOrder::Key => self.unload_retries(),
        };
        if order == DeliveryOrder::Key {
            self.order_keys();
        } else if self.keys.take().is_some() {
            self.dirty = true;
        }
        if is_fifo {
            self.order.turn = Turn::Unknown;
        } else if was_kept {
            self.order = Order::default();
            self.dirty = true;
        }
        unloaded
    }

    /// The message whose call has just ended is to be called again at `due_at`. Returns
    /// retries that were loaded behind it.
    #[must_use = "what was taken out of memory has to be counted"]
    pub fn wait_for_retry(&mut self, at: MessagePosition, due_at: i64) -> Vec<Entry<M>> {
        let mut ended = self.unsettled.iter_mut().rev();
        if let Some(finished) = ended.find(|finished| finished.at == at && !finished.waits) {
            finished.waits = true;
            let of = finished.keys;
            if let Some(keys) = &mut self.keys {
                keys.will_wait(of);
                let behind = self.unload_behind(of);
                self.advance();
                return behind;
            }
        }
        if !self.order.is_kept {
            return Vec::new();
        }
        self.order.turn = Turn::Unknown;
        self.order.due_at = Some(due_at);
        self.unload_retries()
    }

    /// Whether the retry table has to be asked what of this lane waits. Not while the lane
    /// knows more than the table.
    pub fn wants_answer(&self) -> bool {
        let ended = self.unsettled.iter().chain(&self.settling);
        self.order.turn == Turn::Unknown
            && ended
                .into_iter()
                .all(|finished| !finished.is_retry && !finished.waits)
    }

    /// The table's answer: when the first waiting retry is due, if any waits. `true` if the
    /// views do not know it yet.
    pub fn learn_waiting(&mut self, due_at: Option<i64>) -> bool {
        let is_news = self.order.due_at != due_at;
        self.order.turn = match due_at {
            Some(_) => Turn::Retries,
            None => Turn::Onward,
        };
        self.order.due_at = due_at;
        self.dirty |= is_news;
        is_news
    }

    /// When the waiting retry that everything else waits for is due. `None` once it is in
    /// memory, on the wire or not settled.
    pub fn blocked_until(&self) -> Option<i64> {
        let stands = self.order.turn == Turn::Retries && self.retries.is_empty();
        self.order.due_at.filter(|_| stands)
    }

    /// Nothing waits for a retry, as far as is known, or the order is not kept.
    pub(super) fn is_free(&self) -> bool {
        self.order.turn == Turn::Onward && self.keys.as_ref().is_none_or(|keys| keys.is_free())
    }

    /// When the retry that holds the lane is due; not while it has its turn.
    pub fn held_until(&self) -> Option<i64> {
        match self.order.turn {
            Turn::Onward => None,
            Turn::Unknown => self.order.due_at,
            Turn::Retries => self.blocked_until(),
        }
    }

    /// A retry is no longer under way: what comes next is known as long as another is loaded.
    pub fn retry_ended(&mut self) {
        if self.order.is_kept && self.due_retries.is_empty() {
            self.order.turn = Turn::Unknown;
            self.order.due_at = None;
        }
    }

    /// A retry came back untried: it goes next, whatever was learnt meanwhile.
    pub(super) fn retry_came_back(&mut self) {
        if self.order.is_kept {
            self.order.turn = Turn::Retries;
        }
    }

    /// Due retries go back to where they came from, to be loaded in the order of ids.
    pub fn unload_retries(&mut self) -> Vec<Entry<M>> {
        let unloaded: Vec<_> = self.due_retries.drain(..).collect();
        self.forget_loaded(&unloaded);
        self.advance();
        unloaded
    }

    pub(super) fn source(&self) -> Source {
        if let Some(keys) = &self.keys {
            return keys.next();
        }
        let (requeued, retries) = (!self.requeued.is_empty(), !self.due_retries.is_empty());
        match self.order.turn {
            Turn::Unknown => Source::Nowhere,
            Turn::Retries if retries => Source::DueRetries(0),
            Turn::Retries => Source::Nowhere,
            Turn::Onward if requeued => Source::Requeued(0),
            Turn::Onward if retries => Source::DueRetries(0),
            Turn::Onward if self.queue.is_empty() => Source::Nowhere,
            Turn::Onward => Source::Queue,
        }
    }
}
