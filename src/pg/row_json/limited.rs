//! The JSON text of a row, which ends where its limit does.
//!
//! A row that is larger than a message may be is not written in full: the first write that does
//! not fit says so, and the row's writer stops. The text never grows by itself, because a failed
//! allocation in Rust aborts the process. Every so many bytes it lets the statement be canceled,
//! so loops that write need no look of their own.

use crate::core::values::json_text;
use crate::pg::growth;

/// How much is written between two looks for an interrupt: a fraction of a millisecond.
const LOOK_EVERY: usize = 64 * 1024;
/// A string is escaped in pieces, for each of which the longest form has room.
const PIECE: usize = 8 * 1024;
pub(super) const LONGEST_ESCAPE: usize = 6;
/// A text is given back after the row if it has more room than this.
const KEPT_BYTES: usize = 256 * 1024;

/// The text would become longer than its limit: [`LimitedText::size`] says how long at least.
#[derive(Clone, Copy, Debug)]
pub struct TooLarge;

/// What a write comes to.
pub type Written = Result<(), TooLarge>;

/// See the module.
#[derive(Default)]
pub struct LimitedText {
    bytes: Vec<u8>,
    limit: usize,
    /// Beyond this length the next write looks at the limit and for interrupts.
    look_at: usize,
    /// Length of what is written and what did not fit.
    wanted: usize,
}

impl LimitedText {
    /// An empty text with this limit.
    pub fn begin(&mut self, limit: usize) {
        self.bytes.clear();
        self.limit = limit;
        self.look_at = limit.min(LOOK_EVERY);
        self.wanted = 0;
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What it was written for is UTF-8.
    pub(super) fn into_string(self) -> String {
        String::from_utf8(self.bytes).expect("the writers convert to UTF-8")
    }

    /// Bytes of the text; of one that is too large, those that are known.
    pub fn size(&self) -> usize {
        self.wanted.max(self.bytes.len())
    }

    /// Whether it was small enough to the end.
    pub(super) fn end(&mut self) -> Written {
        self.require(0)
    }

    /// Empties it; a large one gives its memory back.
    pub fn release(&mut self) {
        self.bytes.clear();
        if self.bytes.capacity() > KEPT_BYTES {
            self.bytes = Vec::new();
        }
    }

    /// Fails if so many more bytes do not fit.
    #[inline(always)]
    pub(super) fn require(&mut self, more: usize) -> Written {
        if more > self.limit.saturating_sub(self.bytes.len()) || self.bytes.len() > self.limit {
            return self.exceeded(more);
        }
        Ok(())
    }

    #[cold]
    fn exceeded(&mut self, more: usize) -> Written {
        self.wanted = self.bytes.len().saturating_add(more);
        Err(TooLarge)
    }

    /// The text with room for `bytes` more, of which a write may use less. It must not use more.
    #[inline(always)]
    pub(super) fn room(&mut self, bytes: usize) -> Result<&mut Vec<u8>, TooLarge> {
        let free = self.bytes.capacity() - self.bytes.len();
        if free < bytes || self.bytes.len() > self.look_at {
            self.look(bytes)?;
        }
        Ok(&mut self.bytes)
    }

    #[cold]
    fn look(&mut self, bytes: usize) -> Written {
        self.require(0)?;
        pgrx::check_for_interrupts!();
        let len = self.bytes.len();
        self.look_at = self.limit.min(len + LOOK_EVERY);
        if self.bytes.capacity() - len < bytes {
            // Doubled, as a Vec does, but not far beyond the limit.
            let doubled = (2 * self.bytes.capacity()).min(self.limit);
            growth::reserve_exact(&mut self.bytes, bytes.max(doubled.saturating_sub(len)));
        }
        Ok(())
    }

    #[inline(always)]
    pub(super) fn push(&mut self, byte: u8) -> Written {
        self.room(1)?.push(byte);
        Ok(())
    }

    /// Appends bytes as they are.
    #[inline(always)]
    pub(super) fn push_bytes(&mut self, bytes: &[u8]) -> Written {
        self.require(bytes.len())?;
        self.room(bytes.len())?.extend_from_slice(bytes);
        Ok(())
    }

    /// Appends UTF-8 text as a JSON string, quotes included.
    #[inline(always)]
    pub(super) fn push_string(&mut self, text: &[u8]) -> Written {
        if text.len() > PIECE {
            return self.push_long_string(text);
        }
        let out = self.room(text.len() * LONGEST_ESCAPE + 2)?;
        out.push(b'"');
        json_text::push_escaped(out, text);
        out.push(b'"');
        Ok(())
    }

    fn push_long_string(&mut self, text: &[u8]) -> Written {
        self.require(text.len() + 2)?;
        self.push(b'"')?;
        self.push_escaped(text)?;
        self.push(b'"')
    }

    /// Appends the inside of a JSON string.
    pub(super) fn push_escaped(&mut self, text: &[u8]) -> Written {
        for piece in text.chunks(PIECE) {
            json_text::push_escaped(self.room(piece.len() * LONGEST_ESCAPE)?, piece);
        }
        Ok(())
    }
}
