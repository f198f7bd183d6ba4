//! Where clusters are made.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::OnceLock;
use std::{env, fs, process};

use super::super::sweeper;
use super::host::{is_root, run};
use super::{is_kept_on_failure, SERVER_ACCOUNT};

/// Where files take little time, since a cluster has a thousand: in memory, if there is room for all tests that run at
/// once.
pub(super) fn fast() -> &'static Path {
    const ROOM_KB: u64 = 8 << 20;
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    PLACE.get_or_init(|| {
        let memory = Path::new("/dev/shm");
        if env::var_os("TMPDIR").is_none() && room_kb(memory) >= ROOM_KB {
            memory.to_owned()
        } else {
            env::temp_dir()
        }
    })
}

/// 0 where there is none.
fn room_kb(place: &Path) -> u64 {
    let df = Command::new("df")
        .args(["--block-size=1K", "--output=avail"])
        .arg(place)
        .output()
        .expect("df is a part of every system");
    let room = String::from_utf8_lossy(&df.stdout);
    let room = room.split_whitespace().last();
    room.and_then(|room| room.parse().ok()).unwrap_or(0)
}

/// A new directory that the server's account owns. Its path stays short: a
/// socket's path may have 107 characters.
pub(super) fn new_directory(place: &Path, name: &str) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let short: String = name.chars().take(24).collect();
    // A cluster that is kept on purpose is not swept away either.
    if !is_kept_on_failure() {
        sweeper::watch(place);
    }
    let directory = place.join(format!("wh-{}-{number}-{short}", process::id()));
    fs::create_dir(&directory).unwrap();
    if is_root() {
        let account = |flag| {
            let output = run(Command::new("id").args([flag, SERVER_ACCOUNT]));
            Some(
                String::from_utf8_lossy(&output.stdout)
                    .trim()
                    .parse()
                    .unwrap(),
            )
        };
        chown(&directory, account("-u"), account("-g")).unwrap();
    }
    directory
}
