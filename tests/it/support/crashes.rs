//! What no server's log may hold, whatever a test does to it.

/// A process of the server that ends so takes all sessions with it. Tests kill with signal 9 only.
const CRASHES: &[&str] = &[
    "PANIC:",
    // A failed assertion, where the server is built with them.
    "TRAP:",
    "terminated by signal 4",
    "terminated by signal 6",
    "terminated by signal 7",
    "terminated by signal 8",
    "terminated by signal 11",
    "stack smashing",
];

/// The lines that tell of a crash.
pub fn crashes_in(log: &str) -> Vec<&str> {
    log.lines()
        .filter(|line| CRASHES.iter().any(|text| line.contains(text)))
        .collect()
}
