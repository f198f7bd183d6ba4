//! Reading the outbox: the tail, the backlogs of lanes that lag, messages by their positions.
//!
//! Owns where the tail stands, how far standbys have come, and the windows that several lanes
//! read. Takes positions and gives pages. All of it reads under the snapshot of the running
//! transaction; if that fails, positions stay where they were and the page is read again.

#![forbid(unsafe_code)]

mod backlog;
mod retries;
mod standbys;
mod tail;

pub use backlog::Next;
pub use tail::{TailPage, TailState};

use super::time::Ticker;
use crate::core::messages::position::MessagePosition;
use crate::pg::settings::Delivery;
use crate::store::key_order::KeyOrderStore;
use crate::store::outbox::{OutboxReader, StoredMessage};
use crate::store::retries::RetryStore;
use crate::store::settlement_log::TailState as StoredTail;
use crate::store::shared_windows::SharedWindows;
use crate::store::ticks::TickStore;
use standbys::Standbys;
use tail::Tail;

/// See the module.
pub struct Reader {
    outbox: OutboxReader,
    ticks: TickStore,
    retries: RetryStore,
    key_order: KeyOrderStore,
    tail: Tail,
    standbys: Standbys,
    shared_windows: SharedWindows,
    ticker: Ticker,
}

impl Reader {
    pub fn new(settings: &Delivery, tail: &StoredTail, ticker: Ticker) -> Self {
        Self {
            outbox: OutboxReader::new(),
            ticks: TickStore::new(),
            retries: RetryStore::new(),
            key_order: KeyOrderStore::new(),
            tail: Tail::restored(tail),
            standbys: Standbys::new(&settings.standby_slots),
            shared_windows: SharedWindows::default(),
            ticker,
        }
    }

    /// SIGHUP. `true` if other standbys have to be waited for: what is in memory is read again,
    /// behind the barrier.
    pub fn reconfigure(&mut self, settings: &Delivery) -> bool {
        let slots = &settings.standby_slots;
        if self.standbys.slots() == slots {
            return false;
        }
        self.standbys = Standbys::new(slots);
        true
    }

    /// Whether what the tail has passed may be sent.
    pub fn has_passed_barrier(&self) -> bool {
        self.standbys.has_passed_barrier()
    }

    /// Whether the tail may go on without news: standbys have caught up.
    pub fn standbys_want_tail(&self) -> bool {
        self.standbys.wants_tail(self.ticker.now())
    }

    /// How long nothing is to be done for standbys.
    pub fn standbys_due_in(&self) -> Option<std::time::Duration> {
        self.standbys.due_in(self.ticker.now())
    }

    /// What standbys lack that messages wait for; the outer `None`: nothing new.
    pub fn look_at_standbys(&mut self) -> Option<Option<String>> {
        self.standbys.look_if_due(self.ticker.now())
    }

    /// The messages at these positions; what is gone is left out. `whole`: with large bodies.
    pub fn at(&self, positions: &[MessagePosition], whole: bool) -> Vec<StoredMessage> {
        self.outbox.at(positions, whole)
    }
}
