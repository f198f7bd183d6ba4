//! The registry of delivery threads: which exist, which are idle, which is woken next.
//!
//! One mutex guards it; no other lock is taken while it is held. Each submitted job checks for
//! idle threads without the mutex. The memory ordering that this needs is documented at each use.

use std::sync::atomic::{fence, AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::{self, Thread};
use std::time::Instant;

use super::super::client::{Client, Rules};
use super::Shared;

/// The state of one thread that other threads read.
pub(super) struct ThreadSlot {
    /// Set while the thread is listed in [`ThreadRegistry::idle`].
    is_idle: AtomicBool,
    pub client: Mutex<Option<Arc<dyn Client>>>,
}

/// Changed when a thread starts, ends, or becomes idle.
pub(super) struct ThreadRegistry {
    /// The last one is woken first.
    idle: Vec<(Arc<ThreadSlot>, Thread)>,
    /// A thread was woken and does not run yet. It takes the jobs that were submitted
    /// meanwhile and wakes another thread if more remain, so a burst costs its submitter
    /// one wake-up.
    is_waking: bool,
    pub slots: Vec<Arc<ThreadSlot>>,
    pub rules: Arc<Rules>,
}

impl ThreadSlot {
    pub fn new() -> Self {
        Self {
            is_idle: AtomicBool::new(false),
            client: Mutex::default(),
        }
    }
}

impl ThreadRegistry {
    pub fn empty(rules: Arc<Rules>) -> Self {
        Self {
            idle: Vec::new(),
            is_waking: false,
            slots: Vec::new(),
            rules,
        }
    }
}

impl Shared {
    /// Wakes every idle thread.
    pub(super) fn wake_all(&self, registry: &mut ThreadRegistry) {
        for (slot, thread) in registry.idle.drain(..) {
            slot.is_idle.store(false, SeqCst);
            thread.unpark();
        }
        self.idle.store(0, SeqCst);
    }

    /// Removes the thread from the idle list, if it is still there.
    fn unmark_idle(&self, registry: &mut ThreadRegistry, slot: &Arc<ThreadSlot>) {
        registry.idle.retain(|(other, _)| !Arc::ptr_eq(other, slot));
        self.idle.store(registry.idle.len(), SeqCst);
        slot.is_idle.store(false, SeqCst);
    }

    /// Wakes one idle thread; called after a job was queued or found queued. An idle
    /// thread announces itself before it checks the queue, and this checks in the opposite
    /// order, so one of the two sees the other.
    pub(super) fn wake_one(&self) {
        fence(SeqCst);
        if self.idle.load(SeqCst) == 0 {
            return;
        }
        let mut registry = self.registry();
        if registry.is_waking {
            return;
        }
        let Some((slot, thread)) = registry.idle.pop() else {
            return;
        };
        registry.is_waking = true;
        self.idle.store(registry.idle.len(), SeqCst);
        slot.is_idle.store(false, SeqCst);
        drop(registry);
        thread.unpark();
    }

    /// Marks the woken thread as running: it, or a thread that it wakes, takes what is
    /// queued. An extra call costs a wake-up; a missing one stalls the pool.
    fn finish_waking(&self) {
        self.registry().is_waking = false;
    }

    /// Waits to be woken. `false` if nothing woke the thread within
    /// [`Pace::end_after_idle`](super::Pace): its slot is removed and the thread ends.
    pub(super) fn wait_for_work(&self, slot: &Arc<ThreadSlot>, generation: u64) -> bool {
        self.mark_idle(slot);
        // What was submitted before this thread was listed woke another one. An idle thread
        // keeps no connection that new settings forbid.
        if !self.jobs.is_empty()
            || self.is_closing.load(SeqCst)
            || self.generation.load(SeqCst) != generation
        {
            self.unmark_idle(&mut self.registry(), slot);
        }
        let since = Instant::now();
        while slot.is_idle.load(SeqCst) {
            let left = self.pace.end_after_idle.saturating_sub(since.elapsed());
            if left.is_zero() && self.end_idle(slot) {
                return false;
            }
            thread::park_timeout(left);
        }
        self.finish_waking();
        true
    }

    fn mark_idle(&self, slot: &Arc<ThreadSlot>) {
        let me = (Arc::clone(slot), thread::current());
        let mut registry = self.registry();
        slot.is_idle.store(true, SeqCst);
        registry.idle.push(me);
        self.idle.store(registry.idle.len(), SeqCst);
        drop(registry);
        fence(SeqCst);
    }

    /// Removes an idle thread. The count of threads drops before the count of idle threads,
    /// which submitters read first, so a submitter either wakes this thread or no longer counts
    /// it. `false` if it was woken at the last moment.
    fn end_idle(&self, slot: &Arc<ThreadSlot>) -> bool {
        let mut registry = self.registry();
        let is_idle = slot.is_idle.load(SeqCst);
        if is_idle {
            self.remove_slot(&mut registry, slot);
            self.unmark_idle(&mut registry, slot);
        }
        is_idle
    }

    pub(super) fn remove_slot(&self, registry: &mut ThreadRegistry, slot: &Arc<ThreadSlot>) {
        registry.slots.retain(|other| !Arc::ptr_eq(other, slot));
        self.threads.store(registry.slots.len(), SeqCst);
    }
}
