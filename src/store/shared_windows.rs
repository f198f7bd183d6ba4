//! Windows that many lanes read, looked through once for all of them.
//!
//! A lane that lags reads its webhook's rows out of each window, and the index knows nothing
//! of webhooks. With a thousand lanes behind, each window would be scanned a thousand times. So
//! when a second one comes to a window, the places of all its rows are noted by webhook, in
//! steps, and from then on each lane reads just its own.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::outbox::OutboxReader;
use super::window_reader::{Scan, WindowReader};
use crate::core::messages::position::{Coordinate, Window};

/// Windows that are remembered: those between a few ticks, where lanes that lag together stand.
const WINDOWS: usize = 16;
/// Places that are remembered, all windows together (16 bytes each). A larger window is read by
/// each lane for itself.
const PLACES: usize = 1_000_000;

/// The places of a window's rows, in order, by webhook.
type Places = HashMap<i32, Vec<Coordinate>>;

enum Known {
    /// One lane has read it.
    Once,
    /// It is being looked through.
    Partly(Scan, Places, usize),
    Wholly(Places, usize),
    TooLarge,
}

impl Known {
    fn places(&self) -> usize {
        match self {
            Self::Partly(_, _, count) | Self::Wholly(_, count) => *count,
            Self::Once | Self::TooLarge => 0,
        }
    }

    /// The next step of looking through the window.
    fn proceed(self, outbox: &OutboxReader, window: &Window) -> Self {
        let (mut scan, mut places, mut count) = match self {
            Self::Once => (Scan::of(window), Places::new(), 0),
            Self::Partly(scan, places, count) => (scan, places, count),
            known => return known,
        };
        let is_through = outbox.next_places(window, &mut scan, |webhook_key, at| {
            count += 1;
            places.entry(webhook_key).or_default().push(at);
        });
        if count > PLACES {
            return Self::TooLarge;
        }
        if !is_through {
            return Self::Partly(scan, places, count);
        }
        for own in places.values_mut() {
            own.sort_unstable_by_key(|at| at.id);
        }
        Self::Wholly(places, count)
    }
}

/// See the module.
#[derive(Default)]
pub struct SharedWindows(VecDeque<(Arc<Window>, Known)>);

impl SharedWindows {
    /// Spares a reader that has not begun the scan of its window, if another one has done it.
    /// `false` while the window is being looked through: the reader is to come again. In a
    /// transaction.
    pub fn prepare(&mut self, outbox: &OutboxReader, reader: &mut WindowReader) -> bool {
        if !reader.is_fresh() {
            return true;
        }
        let window = Arc::clone(reader.window());
        let same = |known: &Window| known.from == window.from && known.to == window.to;
        let Some(place) = self.0.iter().position(|(known, _)| same(known)) else {
            self.remember(window);
            return true;
        };
        let known = &mut self.0[place].1;
        *known = std::mem::replace(known, Known::Once).proceed(outbox, &window);
        let is_ready = match known {
            Known::Wholly(places, _) => {
                reader.read_places(places);
                true
            }
            Known::Partly(..) => false,
            Known::Once | Known::TooLarge => true,
        };
        self.make_room(place);
        is_ready
    }

    fn remember(&mut self, window: Arc<Window>) {
        if self.0.len() == WINDOWS {
            self.0.pop_front();
        }
        self.0.push_back((window, Known::Once));
    }

    /// The oldest go, but for the one that was just used.
    fn make_room(&mut self, used: usize) {
        let mut total: usize = self.0.iter().map(|(_, known)| known.places()).sum();
        for (place, (_, known)) in self.0.iter_mut().enumerate() {
            if total <= PLACES {
                return;
            }
            if place != used {
                total -= known.places();
                *known = Known::Once;
            }
        }
    }
}
