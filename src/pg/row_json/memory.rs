//! The memory of a row writer: what lives as long as the writer, and what a row
//! borrows for detoasted values and printed texts and gives back at its end, so
//! that a statement over 100,000 rows does not grow.
//!
//! Not below the transaction's memory: a writer outlives transactions.

use std::ptr;

use pgrx::pg_sys;

pub(super) struct RowMemory {
    lasting: pg_sys::MemoryContext,
    /// A child of `lasting`.
    row: pg_sys::MemoryContext,
    borrowed: bool,
}

impl RowMemory {
    pub(super) fn new() -> Self {
        // SAFETY: the top context lives as long as the process.
        let lasting = unsafe { new_context(pg_sys::TopMemoryContext, c"webhook row writer") };
        // SAFETY: just created.
        let row = unsafe { new_context(lasting, c"webhook row") };
        Self {
            lasting,
            row,
            borrowed: false,
        }
    }

    /// For what is kept as long as the writer.
    pub(super) fn lasting(&self) -> pg_sys::MemoryContext {
        self.lasting
    }

    /// Runs `work` with the row's memory as the current context.
    pub(super) fn within<T>(&mut self, work: impl FnOnce() -> T) -> T {
        self.borrowed = true;
        let _current = CurrentContext::switch_to(self.row);
        work()
    }

    /// Frees what the row borrowed.
    #[inline(always)]
    pub(super) fn release(&mut self) {
        if self.borrowed {
            self.borrowed = false;
            // SAFETY: nothing of an earlier row is referred to any more.
            unsafe { pg_sys::MemoryContextReset(self.row) };
        }
    }
}

impl Drop for RowMemory {
    fn drop(&mut self) {
        // SAFETY: created by this value, which was its only user.
        unsafe { pg_sys::MemoryContextDelete(self.lasting) };
    }
}

/// # Safety
/// `parent` is a memory context.
unsafe fn new_context(
    parent: pg_sys::MemoryContext,
    name: &'static std::ffi::CStr,
) -> pg_sys::MemoryContext {
    // SAFETY: the name is static, as the context keeps its pointer.
    unsafe {
        pg_sys::AllocSetContextCreateInternal(
            parent,
            name.as_ptr(),
            pg_sys::ALLOCSET_SMALL_MINSIZE as usize,
            pg_sys::ALLOCSET_SMALL_INITSIZE as usize,
            pg_sys::ALLOCSET_SMALL_MAXSIZE as usize,
        )
    }
}

/// The current memory context until dropped, also when an error passes through.
struct CurrentContext(pg_sys::MemoryContext);

impl CurrentContext {
    fn switch_to(context: pg_sys::MemoryContext) -> Self {
        // SAFETY: a backend has one thread that touches PostgreSQL's variables.
        unsafe { Self(ptr::replace(&raw mut pg_sys::CurrentMemoryContext, context)) }
    }
}

impl Drop for CurrentContext {
    fn drop(&mut self) {
        // SAFETY: as above; the former context outlives the switch.
        unsafe { pg_sys::CurrentMemoryContext = self.0 };
    }
}
