//! Errors without backtraces, whatever RUST_BACKTRACE says in the server's environment.
//!
//! pgrx takes one at each error and puts it into DETAIL, where the client sees it, and into the
//! server log. A panic of a delivery thread is one line in the log.

use std::backtrace::Backtrace;
use std::io::{stderr, Write};
use std::{env, panic, thread};

/// The variable that the standard library asks first.
const VARIABLE: &str = "RUST_LIB_BACKTRACE";

/// Called once, when the library is loaded, after pgrx has set its hook for panics.
pub fn switch_off() {
    remember_that_none_is_wanted();
    let hook = panic::take_hook();
    let main_thread = thread::current().id();
    panic::set_hook(Box::new(move |panic| {
        if thread::current().id() == main_thread {
            hook(panic);
        } else {
            // Without a log there is nowhere to say so.
            let _ = writeln!(stderr(), "webhook_ext: a delivery thread {panic}");
        }
    }));
}

/// The standard library, of which this library has a copy of its own, looks at the environment
/// at the first backtrace and remembers the answer. Others find the environment as it was.
fn remember_that_none_is_wanted() {
    let before = env::var_os(VARIABLE);
    set(Some("0".as_ref()));
    drop(Backtrace::capture());
    set(before.as_deref());
}

fn set(value: Option<&std::ffi::OsStr>) {
    match value {
        Some(value) => env::set_var(VARIABLE, value),
        None => env::remove_var(VARIABLE),
    }
}
