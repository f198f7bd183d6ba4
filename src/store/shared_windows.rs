//! Windows that many lanes read, looked through once for all of them.
//!
//! A lane that lags reads its webhook's rows out of each window, and the index knows nothing
//! of webhooks. With a thousand lanes behind, each window would be scanned a thousand times. So
//! when a second one comes to a window, the window is looked through once, in steps, and cut into
//! chunks of ids. The places of a chunk's rows are noted by webhook when a lane comes to it, and each
//! lane reads just its own. Lanes that lag together are in the same few chunks.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::outbox::OutboxReader;
use super::window_reader::{Scan, WindowReader};
use crate::core::messages::chunks::{self, Chunk};
use crate::core::messages::flush_map::FlushMap;
use crate::core::messages::position::{MessagePosition, Window};

/// Windows that are remembered: those between a few ticks, where lanes that lag together stand.
const WINDOWS: usize = 16;
/// Tests have few rows, and are to see several chunks all the same, and chunks that are forgotten.
const IS_SMALL: bool = cfg!(feature = "fault_injection");
/// Places that are remembered, all windows together (16 bytes each).
const PLACES: usize = if IS_SMALL { 3_000 } else { 1_000_000 };
/// Rows of a chunk: read in some ten milliseconds.
const CHUNK_ROWS: i64 = if IS_SMALL { 1_000 } else { 20_000 };
/// Places that are worth a page. A lane with fewer in a chunk goes on to the next one.
const PAGE_PLACES: usize = 250;
/// Chunks that are gathered for one page at most: together they fit what is remembered.
const PAGE_CHUNKS: usize = 32;
/// Of which so many may be read for it.
const READ_AT_ONCE: usize = 2;

/// The places of a chunk's rows, in order, by webhook.
struct Places {
    by_webhook: HashMap<i32, Vec<MessagePosition>>,
    count: usize,
    /// When they were last asked for.
    used: u64,
}

impl Places {
    fn of(outbox: &OutboxReader, window: &Window, chunk: &Chunk) -> Self {
        let mut by_webhook: HashMap<i32, Vec<MessagePosition>> = HashMap::new();
        outbox.chunk_places(window, chunk, |webhook_key, at| {
            by_webhook.entry(webhook_key).or_default().push(at);
        });
        for own in by_webhook.values_mut() {
            own.sort_unstable_by_key(|at| at.id);
            own.dedup();
        }
        Self {
            count: by_webhook.values().map(Vec::len).sum(),
            by_webhook,
            used: 0,
        }
    }
}

enum Known {
    /// One lane has read it.
    Once,
    /// It is being looked through.
    Partly(Scan, FlushMap),
    Wholly(Vec<(Chunk, Option<Places>)>),
}

impl Known {
    /// The next step of looking through the window.
    fn proceed(self, outbox: &OutboxReader, window: &Window) -> Self {
        let (mut scan, mut map) = match self {
            Self::Once => (Scan::of(window), FlushMap::default()),
            Self::Partly(scan, map) => (scan, map),
            known @ Self::Wholly(_) => return known,
        };
        if !outbox.next_places(window, &mut scan, |_, at| map.add(at)) {
            return Self::Partly(scan, map);
        }
        map.end_flush();
        let chunks = chunks::cut(map, CHUNK_ROWS).into_iter();
        Self::Wholly(chunks.map(|chunk| (chunk, None)).collect())
    }
}

/// See the module.
#[derive(Default)]
pub struct SharedWindows {
    windows: VecDeque<(Arc<Window>, Known)>,
    /// Counts what is asked for.
    moment: u64,
}

impl SharedWindows {
    /// Spares a reader that has not begun the scan of its window, or of the rest of it, if another
    /// one has done it. `false` while it is being looked through: the reader is to come again. In a
    /// transaction.
    pub fn prepare(&mut self, outbox: &OutboxReader, reader: &mut WindowReader) -> bool {
        if !reader.is_fresh() {
            return true;
        }
        self.moment += 1;
        let window = Arc::clone(reader.window());
        let same = |known: &Window| known.from == window.from && known.to == window.to;
        let Some(place) = self.windows.iter().position(|(known, _)| same(known)) else {
            self.remember(window);
            return true;
        };
        let known = &mut self.windows[place].1;
        *known = std::mem::replace(known, Known::Once).proceed(outbox, &window);
        let Known::Wholly(chunks) = known else {
            return false;
        };
        gather(outbox, &window, chunks, reader, self.moment);
        self.make_room();
        true
    }

    fn remember(&mut self, window: Arc<Window>) {
        if self.windows.len() == WINDOWS {
            self.windows.pop_front();
        }
        self.windows.push_back((window, Known::Once));
    }

    /// What was not asked for the longest goes first, but not what was just used.
    fn make_room(&mut self) {
        let mut loaded = Vec::new();
        let mut total = 0;
        for (_, known) in &mut self.windows {
            let Known::Wholly(chunks) = known else {
                continue;
            };
            for (_, places) in chunks {
                if let Some(found) = places {
                    total += found.count;
                    loaded.push((found.used, found.count, places));
                }
            }
        }
        loaded.sort_unstable_by_key(|(used, ..)| *used);
        for (used, count, places) in loaded {
            if total <= PLACES || used == self.moment {
                return;
            }
            total -= count;
            *places = None;
        }
    }
}

/// Gives the reader its next places. It gets on with each call, whatever was forgotten since the
/// last one: lanes that are far apart would otherwise read chunks for one another's, in turn, and
/// never find all of their own.
fn gather(
    outbox: &OutboxReader,
    window: &Window,
    chunks: &mut [(Chunk, Option<Places>)],
    reader: &mut WindowReader,
    moment: u64,
) {
    let after_id = reader.after_id();
    let mut own = VecDeque::new();
    let mut read = 0;
    let first = chunks.partition_point(|(chunk, _)| chunk.end <= after_id + 1);
    for (step, (chunk, places)) in (0..).zip(&mut chunks[first..]) {
        let is_known = places.is_some();
        if own.len() >= PAGE_PLACES || step == PAGE_CHUNKS || (read == READ_AT_ONCE && !is_known) {
            reader.read_places(own, Some(chunk.first));
            return;
        }
        read += usize::from(!is_known);
        let places = places.get_or_insert_with(|| Places::of(outbox, window, chunk));
        places.used = moment;
        let found = places.by_webhook.get(&reader.webhook_key());
        let found = found.map_or(&[][..], Vec::as_slice);
        let from = found.partition_point(|at| at.id <= after_id);
        own.extend(&found[from..]);
    }
    reader.read_places(own, None);
}
