//! A flag for threads that run until their test ends, however it ends.

use std::sync::atomic::{AtomicBool, Ordering};

/// Sets the flag when it goes out of scope, so that a panic does not leave threads behind.
pub struct SetOnDrop<'a>(pub &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
