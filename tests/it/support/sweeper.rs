//! Removes what a test process leaves behind when it is interrupted or killed.
//!
//! A dropped cluster removes itself, but nothing is dropped after Ctrl-C, and
//! servers are in sessions of their own. So each test process has a child that
//! waits for its end, whatever that is, and then stops and removes its clusters.

use std::path::Path;
use std::process::{self, Child, Command, Stdio};
use std::sync::OnceLock;

/// Arguments: where clusters are made, and the id of the process that makes
/// them. SIGQUIT is PostgreSQL's immediate shutdown.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
cat >/dev/null
for directory in "$1"/wh-"$2"-*; do
    for file in "$directory"/*/postmaster.pid; do
        [ -f "$file" ] || continue
        pid=$(head -n 1 "$file")
        [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = postgres ] || continue
        kill -QUIT "$pid"
        looks=0
        while kill -0 "$pid" 2>/dev/null && [ $looks -lt 100 ]; do
            sleep 0.1
            looks=$((looks + 1))
        done
    done
    rm -rf "$directory"
done
"#;

/// Starts the child once a process. It holds the other end of a pipe that only
/// the end of this process closes.
pub fn watch(parent_of_clusters: &Path) {
    static SWEEPER: OnceLock<Child> = OnceLock::new();
    SWEEPER.get_or_init(|| {
        Command::new("sh")
            .args(["-c", SCRIPT, "sweeper"])
            .arg(parent_of_clusters)
            .arg(process::id().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("there is a shell")
    });
}
