//! The input and output buffers of a connection.
//!
//! Unlike ureq's own, the output buffer collects, so head and body of a small request leave in
//! one write. The input buffer grows with the head of the answer, up to a limit.

use ureq::unversioned::transport::Buffers;

/// Room for one write: holds the longest header line (8 kB, see
/// `core::policy::headers`) beside what is pending.
const OUTPUT_BYTES: usize = 16 * 1024;

/// With less free space than this, pending output is sent first.
const OUTPUT_FLUSH_BELOW_BYTES: usize = 9 * 1024;

/// Most answers fit in the initial size; none needs more than the limit, because heads end at
/// [`super::client::MAX_HEAD_BYTES`].
const INPUT_START_BYTES: usize = 4 * 1024;
const INPUT_MOST_BYTES: usize = 64 * 1024;

/// Collects output until a flush, and keeps unread input.
#[derive(Debug, Default)]
pub struct WireBuffers {
    input: Vec<u8>,
    consumed: usize,
    filled: usize,
    output: Vec<u8>,
    pending: usize,
    made_progress: bool,
}

impl WireBuffers {
    /// Collected output that is not sent yet.
    pub fn pending(&self) -> &[u8] {
        &self.output[..self.pending]
    }

    /// Adds collected output; `true` if it must be sent before more fits.
    pub fn add_pending(&mut self, bytes: usize) -> bool {
        self.pending += bytes;
        self.output.len() - self.pending < OUTPUT_FLUSH_BELOW_BYTES
    }

    pub fn clear_pending(&mut self) {
        self.pending = 0;
    }

    fn make_room(&mut self) {
        if self.consumed > 0 {
            self.input.copy_within(self.consumed..self.filled, 0);
            self.filled -= self.consumed;
            self.consumed = 0;
        }
        if self.filled == self.input.len() && self.input.len() < INPUT_MOST_BYTES {
            let grown = (2 * self.input.len()).max(INPUT_START_BYTES);
            self.input.resize(grown, 0);
        }
        self.output.resize(OUTPUT_BYTES, 0);
    }
}

impl Buffers for WireBuffers {
    fn output(&mut self) -> &mut [u8] {
        self.output.resize(OUTPUT_BYTES, 0);
        &mut self.output[self.pending..]
    }

    fn input(&self) -> &[u8] {
        &self.input[self.consumed..self.filled]
    }

    fn input_append_buf(&mut self) -> &mut [u8] {
        self.make_room();
        &mut self.input[self.filled..]
    }

    fn input_appended(&mut self, amount: usize) {
        self.filled += amount;
    }

    fn input_consume(&mut self, amount: usize) {
        self.made_progress = amount > 0;
        self.consumed += amount;
    }

    fn tmp_and_output(&mut self) -> (&mut [u8], &mut [u8]) {
        self.make_room();
        (
            &mut self.input[self.filled..],
            &mut self.output[self.pending..],
        )
    }

    fn can_use_input(&self) -> bool {
        self.consumed < self.filled && self.made_progress
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_collects_until_cleared() {
        let mut buffers = WireBuffers::default();
        buffers.output()[..4].copy_from_slice(b"head");
        assert!(!buffers.add_pending(4));
        buffers.output()[..4].copy_from_slice(b"body");
        assert!(!buffers.add_pending(4));
        assert_eq!(buffers.pending(), b"headbody");
        buffers.clear_pending();
        let all = buffers.output().len();
        assert_eq!(all, OUTPUT_BYTES);
        assert!(buffers.add_pending(all));
    }

    #[test]
    fn input_is_read_in_order_and_grows_to_its_bound() {
        let mut buffers = WireBuffers::default();
        buffers.input_append_buf()[..6].copy_from_slice(b"abcdef");
        buffers.input_appended(6);
        buffers.input_consume(2);
        assert!(buffers.can_use_input());
        assert_eq!(buffers.input(), b"cdef");
        buffers.input_consume(0);
        assert!(!buffers.can_use_input());
        loop {
            let free = buffers.input_append_buf().len();
            if free == 0 {
                break;
            }
            buffers.input_appended(free);
        }
        assert_eq!(buffers.input().len(), INPUT_MOST_BYTES);
        assert_eq!(&buffers.input()[..4], b"cdef");
    }
}
