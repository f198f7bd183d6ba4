//! Panics on demand, for tests of what a bug of ours may cost.
//!
//! Compiled only with the feature `fault_injection`, which no release has.

use std::ffi::CString;

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};

static FAULT: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);

/// Defines `webhook.fault`: the name of the place that shall panic.
pub fn define() {
    GucRegistry::define_string_guc(
        c"webhook.fault",
        c"The place in webhook_ext's code that panics.",
        c"\"trigger\" or \"loop\", or \"slow_loop\" for a worker that is slow to hear; empty for none. Exists only in builds for tests.",
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

/// Panics if `webhook.fault` names this place.
pub fn panic_if(place: &str) {
    assert!(!is_set(place), "fault injected: {place}");
}

/// Whether `webhook.fault` is this.
pub fn is_set(name: &str) -> bool {
    FAULT
        .get()
        .is_some_and(|fault| fault.to_bytes() == name.as_bytes())
}
