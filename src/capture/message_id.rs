//! Message ids: UUID version 7 (RFC 9562), so that they sort by time.
//!
//! Randomness comes from the operating system in blocks: one system call serves
//! many messages.

use std::cell::RefCell;

use uuid::Builder;

/// 80 random bits a message; one block serves this many messages.
const BLOCK_MESSAGES: usize = 256;
const BYTES: usize = 10;
/// PostgreSQL's epoch, 2000-01-01, in Unix milliseconds.
const PG_EPOCH_UNIX_MS: i64 = 946_684_800_000;

struct Block {
    bytes: [u8; BLOCK_MESSAGES * BYTES],
    used: usize,
}

thread_local! {
    static BLOCK: RefCell<Block> = const {
        RefCell::new(Block {
            bytes: [0; BLOCK_MESSAGES * BYTES],
            used: BLOCK_MESSAGES * BYTES,
        })
    };
}

/// A new id for a message captured at `captured_at` (microseconds since 2000-01-01).
pub fn next(captured_at: i64) -> [u8; 16] {
    let millis = (captured_at.div_euclid(1000) + PG_EPOCH_UNIX_MS).max(0) as u64;
    let random = BLOCK.with_borrow_mut(|block| {
        if block.used == block.bytes.len() {
            if let Err(error) = getrandom::fill(&mut block.bytes) {
                pgrx::error!("the operating system gives no random numbers: {error}");
            }
            block.used = 0;
        }
        let start = block.used;
        block.used += BYTES;
        let mut random = [0; BYTES];
        random.copy_from_slice(&block.bytes[start..start + BYTES]);
        random
    });
    *Builder::from_unix_timestamp_millis(millis, &random)
        .into_uuid()
        .as_bytes()
}
