//! Removes what a test process leaves behind when it is interrupted or killed.
//!
//! A dropped cluster removes itself, but nothing is dropped after Ctrl-C, and
//! servers are in sessions of their own. So each test process has a child that
//! waits for its end, whatever that is, and then stops and removes its clusters.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// Arguments: where clusters are made, and the id of the process that makes
/// them. SIGQUIT is PostgreSQL's immediate shutdown. A server may be starting
/// and a program writing just then, so it looks again until nothing is left.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
cat >/dev/null
looks=0
while [ $looks -lt 100 ]; do
    set -- "$1" "$2" "$1"/wh-"$2"-*
    [ -e "$3" ] || exit 0
    for file in "$1"/wh-"$2"-*/*/postmaster.pid; do
        [ -f "$file" ] || continue
        pid=$(head -n 1 "$file")
        [ "$(cat "/proc/$pid/comm" 2>/dev/null)" != postgres ] || kill -QUIT "$pid"
    done
    sleep 0.1
    rm -rf "$1"/wh-"$2"-*
    looks=$((looks + 1))
done
"#;

/// Starts the child once a process and place. It holds the other end of a pipe that only
/// the end of this process closes.
pub fn watch(parent_of_clusters: &Path) {
    static SWEEPERS: Mutex<BTreeMap<PathBuf, Child>> = Mutex::new(BTreeMap::new());
    let mut sweepers = SWEEPERS.lock().unwrap_or_else(PoisonError::into_inner);
    sweepers
        .entry(parent_of_clusters.to_owned())
        .or_insert_with(|| {
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
