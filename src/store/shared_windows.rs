//! Windows that many lanes read, looked through once for all of them.
//!
//! A lane that lags reads its webhook's rows out of each window, and the index knows nothing
//! of webhooks. With a thousand lanes behind, each window would be scanned a thousand times. So
//! when a second one comes to a window, the places of all its rows are noted by webhook, and
//! from then on each lane reads just its own.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use super::outbox::OutboxReader;
use super::window_reader::WindowReader;
use crate::core::position::{Coordinate, Window};

/// Windows that are remembered: those between a few ticks, where lanes that lag together stand.
const WINDOWS: usize = 16;
/// A larger window is read by each lane for itself: noting it would take too long at once, and
/// too much memory (16 bytes a row).
const ROWS: usize = 50_000;

/// The places of a window's rows, in order, by webhook.
type Places = HashMap<i32, Vec<Coordinate>>;

enum Known {
    /// One lane has read it.
    Once,
    Noted(Rc<Places>),
    TooLarge,
}

/// See the module.
#[derive(Default)]
pub struct SharedWindows(VecDeque<(Arc<Window>, Known)>);

impl SharedWindows {
    /// Spares a reader that has not begun the scan of its window, if it is known. In a
    /// transaction.
    pub fn prepare(&mut self, outbox: &OutboxReader, reader: &mut WindowReader) {
        if !reader.is_fresh() {
            return;
        }
        let window = Arc::clone(reader.window());
        let same = |known: &Window| known.from == window.from && known.to == window.to;
        let Some((_, known)) = self.0.iter_mut().find(|(known, _)| same(known)) else {
            self.remember(window);
            return;
        };
        if let Known::Once = known {
            *known = match outbox.places(&window, ROWS) {
                Some(rows) => Known::Noted(Rc::new(by_webhook(rows))),
                None => Known::TooLarge,
            };
        }
        if let Known::Noted(places) = known {
            reader.read_places(places);
        }
    }

    fn remember(&mut self, window: Arc<Window>) {
        if self.0.len() == WINDOWS {
            self.0.pop_front();
        }
        self.0.push_back((window, Known::Once));
    }
}

fn by_webhook(rows: Vec<(i32, Coordinate)>) -> Places {
    let mut places = Places::new();
    for (webhook_key, at) in rows {
        places.entry(webhook_key).or_default().push(at);
    }
    for own in places.values_mut() {
        own.sort_unstable_by_key(|at| at.id);
    }
    places
}
