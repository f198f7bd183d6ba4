//! Reading the outbox between two snapshots, page by page, in the order of ids.
//!
//! A small window is read in one statement and sorted here. A large one (a giant
//! transaction, or a long absence of the worker) is first looked through, in steps
//! (`large_window`), and each page is a few index ranges. Nothing is held open
//! between pages.

use std::collections::VecDeque;
use std::mem;

use uuid::Uuid;

use super::window_reader::{Plan, WindowReader};
use crate::core::messages::order_keys::OrderKeys;
use crate::core::messages::position::MessagePosition;
use crate::pg::spi::{Arg, Query};
use large_window::{CHUNK_PLACES, SMALL_FLUSHES, STEP};
use message_rows::{stored_message, BY_POSITION, FLUSH_ROWS, STRETCH_ROWS, WINDOW_PAGE};

mod large_window;
mod message_rows;

/// Rows of a page: enough to keep the threads busy during one look, few enough that
/// a look stays short.
pub const PAGE_ROWS: usize = 1000;
/// A larger body is left in the table until it is sent: pages stay small in memory.
const INLINE_BYTES: i32 = 8 * 1024;

/// A message as the outbox holds it.
#[derive(Clone, Debug)]
pub struct StoredMessage {
    pub at: MessagePosition,
    pub message_id: Uuid,
    pub event_key: i32,
    pub webhook_key: i32,
    /// Microseconds since 2000-01-01 UTC.
    pub captured_at: i64,
    /// Bytes of record and old record together.
    pub size: i32,
    /// Whether the row has a record. One that was too large has none, and `changed` says so.
    pub has_record: bool,
    /// `None`: too large for a page, or not asked for.
    pub record: Option<String>,
    /// Comes with the record, if the event's template needs it.
    pub old_record: Option<String>,
    /// Names of changed fields as a JSON array, likewise; or an `Oversize`. Without the keys.
    pub changed: Option<String>,
    pub keys: OrderKeys,
    pub source: Option<String>,
    pub actor: Option<String>,
    /// Since when its age counts, if it was redelivered.
    pub accepted_at: Option<i64>,
}

/// Kept plans of the statements.
pub struct OutboxReader {
    window_page: Query,
    step: Query,
    small_flushes: Query,
    flush_rows: Query,
    stretch_rows: Query,
    by_position: Query,
    chunk_places: Query,
}

impl OutboxReader {
    pub fn new() -> Self {
        Self {
            window_page: Query::new(WINDOW_PAGE),
            step: Query::new(STEP),
            small_flushes: Query::new(SMALL_FLUSHES),
            flush_rows: Query::new(FLUSH_ROWS),
            stretch_rows: Query::new(STRETCH_ROWS),
            by_position: Query::new(BY_POSITION),
            chunk_places: Query::new(CHUNK_PLACES),
        }
    }

    /// The next messages of the window, by id; none while a large one is looked through.
    /// `with_bodies: false` for a reader that only counts.
    pub fn next_page(&self, reader: &mut WindowReader, with_bodies: bool) -> Vec<StoredMessage> {
        if reader.done {
            return Vec::new();
        }
        let inline = if with_bodies { INLINE_BYTES } else { -1 };
        let mut page = match mem::replace(&mut reader.plan, Plan::Unknown) {
            Plan::Unknown if reader.is_wide() => {
                reader.begin_mapping();
                Vec::new()
            }
            Plan::Unknown => self.small_window(reader, inline),
            Plan::Mapping(mapping) => {
                reader.plan = self.look_through(reader, mapping);
                Vec::new()
            }
            Plan::Mapped { map, flushes } => self.planned_page(reader, map, flushes, inline),
            Plan::Places { places, end } => self.page_of_places(reader, places, end, inline),
        };
        page.sort_unstable_by_key(|message| message.at.id);
        if let Some(last) = page.last() {
            reader.after_id = reader.after_id.max(last.at.id);
        }
        page
    }

    /// The whole window if it fits a page; else it is looked through first.
    fn small_window(&self, reader: &mut WindowReader, inline: i32) -> Vec<StoredMessage> {
        let mut page = Vec::new();
        let (from, to) = (&reader.window.from, &reader.window.to);
        self.window_page.read(
            &[
                Arg::Xid(from.xmax),
                Arg::XidArray(&from.running),
                Arg::Xid(to.xmax),
                Arg::XidArray(&to.running),
                Arg::I64(reader.after_id),
                Arg::I32(reader.webhook_key),
                Arg::I32(inline),
                Arg::I64(PAGE_ROWS as i64 + 1),
            ],
            |row| page.extend(stored_message(row)),
        );
        if page.len() <= PAGE_ROWS {
            reader.done = true;
            return page;
        }
        reader.begin_mapping();
        Vec::new()
    }

    fn page_of_places(
        &self,
        reader: &mut WindowReader,
        mut places: VecDeque<MessagePosition>,
        end: Option<i64>,
        inline: i32,
    ) -> Vec<StoredMessage> {
        let page: Vec<MessagePosition> = places.drain(..places.len().min(PAGE_ROWS)).collect();
        if !places.is_empty() {
            reader.plan = Plan::Places { places, end };
        } else if let Some(end) = end {
            // The rest of the window comes later.
            reader.after_id = end - 1;
        } else {
            reader.done = true;
        }
        let found = self.at_positions(&page, inline);
        reader.missing += page.len().saturating_sub(found.len());
        found
    }

    /// The messages at these positions; what is gone is left out. `whole` also reads
    /// bodies that are too large for a page.
    pub fn at(&self, positions: &[MessagePosition], whole: bool) -> Vec<StoredMessage> {
        self.at_positions(positions, if whole { i32::MAX } else { INLINE_BYTES })
    }

    fn at_positions(&self, positions: &[MessagePosition], inline: i32) -> Vec<StoredMessage> {
        let xids: Vec<u64> = positions.iter().map(|at| at.xid).collect();
        let ids: Vec<i64> = positions.iter().map(|at| at.id).collect();
        let mut found = Vec::new();
        if positions.is_empty() {
            return found;
        }
        self.by_position.read(
            &[Arg::XidArray(&xids), Arg::I64Array(&ids), Arg::I32(inline)],
            |row| found.extend(stored_message(row)),
        );
        found
    }
}
