//! Panics, pauses and another extension's doings on demand, for tests of what a bug may cost,
//! what an interruption leaves behind, and what comes after this extension's own callbacks.
//!
//! Compiled only with the feature `fault_injection`, which no release has.

use std::ffi::CString;

use pgrx::prelude::*;
use pgrx::{pg_sys, GucContext, GucFlags, GucRegistry, GucSetting};

const PAUSE_MS: std::ffi::c_long = 10;

/// What follows is run by a callback that comes after this extension's own.
const AT_COMMIT: &str = "commit: ";

static FAULT: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);

/// Defines `webhook.fault`: the name of the place that panics or waits.
pub fn define() {
    GucRegistry::define_string_guc(
        c"webhook.fault",
        c"The place in webhook_ext's code that panics or waits.",
        c"\"trigger\", \"loop\", \"wait append\", \"slow_loop\" for a worker that is slow to hear, \
          \"slow_look\" for one that is slow to look for events that stop, \
          \"impatient\" for one to which a second is five minutes, or \
          \"commit: \" and a statement that runs at commit, \"version \" and the version that the \
          library claims; empty for none. Exists only in builds for tests.",
        &FAULT,
        GucContext::Suset,
        GucFlags::default(),
    );
}

/// Sleeps if `webhook.fault` names this place: what a slow machine does at its worst moment.
pub fn delay_if(place: &str, duration: std::time::Duration) {
    let named = FAULT
        .get()
        .is_some_and(|fault| fault.to_bytes() == place.as_bytes());
    if named {
        std::thread::sleep(duration);
    }
}

/// Registers a callback as an extension has that writes at commit. Callbacks run newest first,
/// so this comes before the extension's own is registered.
pub fn write_at_commit() {
    // SAFETY: a static callback without an argument.
    unsafe { pg_sys::RegisterXactCallback(Some(on_xact), std::ptr::null_mut()) }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_xact(event: pg_sys::XactEvent::Type, _arg: *mut std::ffi::c_void) {
    use pg_sys::XactEvent::{XACT_EVENT_PRE_COMMIT, XACT_EVENT_PRE_PREPARE};
    if event != XACT_EVENT_PRE_COMMIT && event != XACT_EVENT_PRE_PREPARE {
        return;
    }
    let fault = FAULT.get().and_then(|fault| fault.into_string().ok());
    let Some(statement) = fault
        .as_deref()
        .and_then(|fault| fault.strip_prefix(AT_COMMIT))
    else {
        return;
    };
    let statement = CString::new(statement).expect("it was a C string");
    super::spi::with_snapshot(|| {
        super::spi::connected(|| {
            // SAFETY: connected, under a snapshot; the statement is NUL-terminated.
            let code = unsafe { pg_sys::SPI_execute(statement.as_ptr(), false, 0) };
            assert!(code >= 0, "SPI_execute returned {code}");
        });
    });
}

/// Panics if `webhook.fault` names this place.
pub fn panic_if(place: &str) {
    assert!(!is_set(place), "fault injected: {place}");
}

/// Waits until an interrupt ends the statement or the session, if `webhook.fault` names
/// this place.
pub fn wait_if(place: &str) {
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    while is_set(place) {
        // SAFETY: waits on this process's own latch, as any backend may.
        unsafe {
            pg_sys::WaitLatch(
                pg_sys::MyLatch,
                events as i32,
                PAUSE_MS,
                pg_sys::PG_WAIT_EXTENSION,
            );
            pg_sys::ResetLatch(pg_sys::MyLatch);
        }
        pgrx::check_for_interrupts!();
    }
}

/// Whether `webhook.fault` is this.
pub fn is_set(name: &str) -> bool {
    FAULT
        .get()
        .is_some_and(|fault| fault.to_bytes() == name.as_bytes())
}

/// The version that the library is told to claim.
pub fn claimed_version() -> Option<String> {
    let fault = FAULT.get()?;
    let version = fault.to_str().ok()?.strip_prefix("version ")?;
    Some(version.to_owned())
}
