//! Lanes that left the tail read their own backlog, window by window.

use super::Reader;
use crate::core::messages::position::Cursor;
use crate::core::scheduling::next_window::{self, next_window, TailPlace};
use crate::store::outbox::StoredMessage;
use crate::store::window_reader::WindowReader;

/// What comes next for a lane.
pub enum Next {
    /// This window, or the rest of it.
    Window(WindowReader),
    /// It has read all that the tail has: the tail feeds it again.
    Join,
    /// The tail is in the middle of what it has read.
    Wait,
}

/// A page of a lane's backlog.
pub struct BacklogPage {
    pub messages: Vec<StoredMessage>,
    /// Rows that were there when the window was looked through and are gone.
    pub missing: usize,
    /// Behind the page.
    pub reader: WindowReader,
}

impl Reader {
    /// Where a lane that stands at `position` reads on. In a transaction.
    pub fn next_of_backlog(&self, position: &Cursor, webhook_key: i32) -> Next {
        if !position.window_is_done() {
            return Next::Window(WindowReader::new(position, Some(webhook_key)));
        }
        let tail = TailPlace {
            position: &self.tail.position,
            last_tick: self.tail.last_tick,
            last_tick_snapshot: self.tail.last_tick_snapshot.as_ref(),
            has_seen: self.tail.has_seen(webhook_key),
        };
        let next = next_window(position, &tail, |tick| self.ticks.after(tick, webhook_key));
        match next {
            next_window::Next::Window(window) => {
                let start = Cursor::start_of(window);
                Next::Window(WindowReader::new(&start, Some(webhook_key)))
            }
            next_window::Next::Join => Next::Join,
            next_window::Next::Wait => Next::Wait,
        }
    }

    /// The next page of a window. Empty and not at the end while the window is being looked
    /// through. `is_canceled`: nothing of it is sent. In a transaction.
    pub fn backlog_page(&mut self, mut reader: WindowReader, is_canceled: bool) -> BacklogPage {
        let (mut messages, mut missing) = (Vec::new(), 0);
        if self.shared_windows.prepare(&self.outbox, &mut reader) {
            messages = self.outbox.next_page(&mut reader, !is_canceled);
            missing = reader.take_missing();
            let window = std::sync::Arc::clone(reader.window());
            self.make_durable(&messages, &window);
        }
        BacklogPage {
            messages,
            missing,
            reader,
        }
    }
}
