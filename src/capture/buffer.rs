//! What a transaction has captured and not yet written.
//!
//! Rows wait here until PRE_COMMIT, so that one flush writes them all. A rolled
//! back savepoint cuts the buffer back to where it began. Memory is bounded:
//! beyond [`FLUSH_AT_BYTES`] the rows of the innermost open subtransaction are
//! written early; rows of outer ones stay, because a write inside the inner one
//! would be undone with it. Where these are few, as in a loop with an exception block,
//! they are written early only beyond [`FLUSH_FEW_AT_BYTES`].

use std::mem;
use std::ops::Range;
use std::rc::Rc;

use pgrx::pg_sys;

use crate::pg::growth;

/// Written early from here on. Large enough that a bulk statement pays for few
/// flushes, small enough to be nothing beside work_mem.
pub const FLUSH_AT_BYTES: usize = 4 << 20;
/// Opening table and indexes costs as much as some ten rows, so fewer bytes than this wait for
/// more, until so many are buffered.
const FEW_BYTES: usize = 64 << 10;
pub const FLUSH_FEW_AT_BYTES: usize = 32 << 20;
/// So much memory is kept from one flush to the next of a transaction, and from one
/// transaction to the next.
const KEPT_WITHIN_BYTES: usize = 2 * FLUSH_AT_BYTES;
const KEPT_BETWEEN_BYTES: usize = FLUSH_AT_BYTES / 4;
/// What a row costs beside its text.
const ROW_BYTES: usize = std::mem::size_of::<Captured>();
/// Places within one flush number; a flush of 32 MB holds far fewer rows.
const PLACE_BITS: u32 = 20;

/// One message of the running transaction. Text is kept in the buffer's arena.
pub struct Captured {
    /// 0 until an order is assigned.
    pub id: i64,
    /// The extension whose event this is: once it is dropped, the message is of no use.
    pub extension: pg_sys::Oid,
    pub message_id: [u8; 16],
    pub event_key: i32,
    pub webhook_key: i32,
    pub captured_at: i64,
    pub source: Option<Rc<str>>,
    pub actor: Option<Rc<str>>,
    pub changed: Option<Range<usize>>,
    /// `None`: too large to be sent; `changed` says how large.
    pub record: Option<Range<usize>>,
    pub old_record: Option<Range<usize>>,
}

#[derive(Clone, Copy, Default)]
struct Mark {
    rows: usize,
    text: usize,
}

/// See the module.
#[derive(Default)]
pub struct Buffer {
    rows: Vec<Captured>,
    /// So many rows at the front have their ids. Rows of outer subtransactions stay while those of
    /// inner ones are written one after the other, so no flush may look at all of them.
    with_ids: usize,
    /// UTF-8 text of all rows, one after the other.
    text: Vec<u8>,
    /// One mark an open subtransaction: what was there when it began.
    marks: Vec<Mark>,
}

/// The rows of one flush, out of the buffer: while PostgreSQL runs, nothing is borrowed that
/// a callback may need.
#[derive(Default)]
pub struct Batch {
    rows: Vec<Captured>,
    text: Vec<u8>,
    /// Where `text` began in the buffer's.
    text_from: usize,
}

impl Batch {
    pub fn rows(&self) -> &[Captured] {
        &self.rows
    }

    pub fn slice(&self, range: &Range<usize>) -> &[u8] {
        &self.text[range.start - self.text_from..range.end - self.text_from]
    }
}

impl Buffer {
    /// Keeps a text of the row that is pushed next.
    pub fn add_text(&mut self, text: &[u8]) -> Range<usize> {
        let start = self.text.len();
        growth::extend(&mut self.text, text);
        start..self.text.len()
    }

    pub fn push(&mut self, row: Captured) {
        growth::reserve(&mut self.rows, 1);
        self.rows.push(row);
    }

    pub fn is_full(&self) -> bool {
        let buffered = self.bytes_from(Mark::default());
        buffered >= FLUSH_AT_BYTES
            && (buffered >= FLUSH_FEW_AT_BYTES
                || self.bytes_from(self.writable_from()) >= FEW_BYTES)
    }

    fn bytes_from(&self, from: Mark) -> usize {
        self.text.len() - from.text + (self.rows.len() - from.rows) * ROW_BYTES
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn here(&self) -> Mark {
        Mark {
            rows: self.rows.len(),
            text: self.text.len(),
        }
    }

    fn cut(&mut self, mark: Mark) {
        self.rows.truncate(mark.rows);
        self.text.truncate(mark.text);
        self.with_ids = self.with_ids.min(mark.rows);
    }

    pub fn subtransaction_started(&mut self) {
        self.marks.push(self.here());
    }

    pub fn subtransaction_committed(&mut self) {
        self.marks.pop();
    }

    /// Without a mark the subtransaction is older than the buffer: all of it goes.
    pub fn subtransaction_aborted(&mut self) {
        let mark = self.marks.pop().unwrap_or_default();
        self.cut(mark);
    }

    /// Subtransactions that were open before anybody listened.
    pub fn assume_depth(&mut self, open_subtransactions: usize) {
        self.marks.resize(open_subtransactions, Mark::default());
    }

    /// The first row that may be written now.
    fn writable_from(&self) -> Mark {
        self.marks.last().copied().unwrap_or_default()
    }

    /// Gives every row without one its id: the flush number, then its place. Rows that
    /// stay behind keep theirs, so that order holds across flushes.
    pub fn assign_ids(&mut self, flush_number: i64) {
        for (place, row) in self.rows[self.with_ids..].iter_mut().enumerate() {
            row.id = (flush_number << PLACE_BITS) | place as i64;
        }
        self.with_ids = self.rows.len();
    }

    /// Takes out the rows that may be written now, oldest first. If writing them fails, they go
    /// with the subtransaction whose rows they are: nothing has to be put back.
    pub fn take_writable(&mut self) -> Batch {
        let from = self.writable_from();
        self.with_ids = self.with_ids.min(from.rows);
        if from.rows == 0 {
            return Batch {
                rows: mem::take(&mut self.rows),
                text: mem::take(&mut self.text),
                text_from: 0,
            };
        }
        let mut batch = Batch {
            text_from: from.text,
            ..Batch::default()
        };
        growth::reserve_exact(&mut batch.rows, self.rows.len() - from.rows);
        growth::reserve_exact(&mut batch.text, self.text.len() - from.text);
        batch.rows.extend(self.rows.drain(from.rows..));
        batch.text.extend_from_slice(&self.text[from.text..]);
        self.text.truncate(from.text);
        batch
    }

    /// Keeps the memory of a written batch for the rows that follow, unless it is much.
    pub fn reuse(&mut self, batch: Batch) {
        let Batch {
            mut rows, mut text, ..
        } = batch;
        if self.rows.is_empty() && memory_of(&rows, &text) <= KEPT_WITHIN_BYTES {
            rows.clear();
            text.clear();
            self.rows = rows;
            self.text = text;
        }
    }

    /// The transaction is over.
    pub fn clear(&mut self) {
        self.marks.clear();
        self.cut(Mark::default());
        if memory_of(&self.rows, &self.text) > KEPT_BETWEEN_BYTES {
            self.rows = Vec::new();
            self.text = Vec::new();
        }
    }
}

fn memory_of(rows: &Vec<Captured>, text: &Vec<u8>) -> usize {
    rows.capacity() * ROW_BYTES + text.capacity()
}
