//! What a transaction has captured and not yet written.
//!
//! Rows wait here until PRE_COMMIT, so that one flush writes them all. A rolled
//! back savepoint cuts the buffer back to where it began. Memory is bounded:
//! beyond [`FLUSH_AT_BYTES`] the rows of the innermost open subtransaction are
//! written early; rows of outer ones stay, because a write inside the inner one
//! would be undone with it.

use std::ops::Range;
use std::rc::Rc;

use crate::pg::growth;

/// Written early from here on. Large enough that a bulk statement pays for few
/// flushes, small enough to be nothing beside work_mem.
pub const FLUSH_AT_BYTES: usize = 4 << 20;
/// What a row costs beside its text.
const ROW_BYTES: usize = std::mem::size_of::<Captured>();
/// Places within one flush number; a flush of 4 MB holds far fewer rows.
const PLACE_BITS: u32 = 20;

/// One message of the running transaction. Text is kept in the buffer's arena.
pub struct Captured {
    /// 0 until an order is assigned.
    pub id: i64,
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
    /// UTF-8 text of all rows, one after the other.
    text: Vec<u8>,
    /// One mark an open subtransaction: what was there when it began.
    marks: Vec<Mark>,
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

    pub fn slice(&self, range: &Range<usize>) -> &[u8] {
        &self.text[range.clone()]
    }

    pub fn is_full(&self) -> bool {
        self.text.len() + self.rows.len() * ROW_BYTES >= FLUSH_AT_BYTES
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
        for (place, row) in self.rows.iter_mut().filter(|row| row.id == 0).enumerate() {
            row.id = (flush_number << PLACE_BITS) | place as i64;
        }
    }

    /// The rows that may be written now, oldest first.
    pub fn writable(&self) -> &[Captured] {
        &self.rows[self.writable_from().rows..]
    }

    /// Forgets what [`Buffer::writable`] gave. A transaction that was once large
    /// gives its memory back.
    pub fn written(&mut self) {
        self.cut(self.writable_from());
        if self.rows.is_empty() && self.text.capacity() > FLUSH_AT_BYTES / 4 {
            self.rows = Vec::new();
            self.text = Vec::new();
        }
    }

    /// The transaction is over.
    pub fn clear(&mut self) {
        self.marks.clear();
        self.written();
    }
}
