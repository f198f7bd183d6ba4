//! How the allocator of this process treats large bodies.

/// Blocks above this go back to the system when they are freed.
#[cfg(target_env = "gnu")]
const GIVEN_BACK_BYTES: i32 = 2 << 20;
/// So much of a heap may stay unused.
#[cfg(target_env = "gnu")]
const KEPT_BYTES: i32 = 4 << 20;

/// Keeps glibc from raising its thresholds after each large block that is freed: bodies would
/// then stay in the heaps of the threads that had them.
pub fn release_large_blocks() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets parameters of the allocator before there are other threads.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, GIVEN_BACK_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_BYTES);
    }
}
