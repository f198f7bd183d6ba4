//! A disk of a few megabytes for some of a cluster's tables, which can be made larger.
//!
//! It is a tmpfs, so the test must be root, or may become it with sudo.

use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs};

use super::cluster::Cluster;

const TABLESPACE: &str = "small";

pub struct SmallDisk {
    place: PathBuf,
}

impl SmallDisk {
    /// `None` where nobody may mount anything.
    pub fn mount(size: &str) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let place = env::temp_dir().join(format!("wh-disk-{}-{number}", process::id()));
        fs::create_dir(&place).expect("a new directory can be made");
        let options = format!("size={size},mode=0777");
        let is_mounted = as_root(&["mount", "-t", "tmpfs", "-o", &options, "tmpfs"], &place);
        let disk = Self { place };
        is_mounted.then_some(disk)
    }

    /// Moves these tables there, named with their schema.
    pub fn take(&self, cluster: &Cluster, tables: &[&str]) {
        let location = self.place.join("tables");
        let made = cluster
            .shell_as_server(&format!("mkdir '{}'", location.display()))
            .status();
        assert!(made.is_ok_and(|status| status.success()), "{location:?}");
        cluster.sql(&format!(
            "create tablespace {TABLESPACE} location '{}'",
            location.display()
        ));
        for table in tables {
            cluster.sql(&format!("alter table {table} set tablespace {TABLESPACE}"));
        }
    }

    /// Leaves no more room than this beside what is there.
    pub fn leave(&self, room_kb: u64) {
        let used = Command::new("df")
            .args(["--block-size=1K", "--output=used"])
            .arg(&self.place)
            .output()
            .expect("df is a part of every system");
        let used = String::from_utf8_lossy(&used.stdout);
        let used_kb: u64 = used
            .split_whitespace()
            .last()
            .and_then(|number| number.parse().ok())
            .expect("df says how much is used");
        self.resize(&format!("{}k", used_kb + room_kb));
    }

    pub fn resize(&self, size: &str) {
        let options = format!("remount,size={size}");
        assert!(as_root(&["mount", "-o", &options], &self.place));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Best effort; the cluster on it has gone.
        as_root(&["umount", "--lazy"], &self.place);
        let _ = fs::remove_dir(&self.place);
    }
}

fn as_root(command: &[&str], place: &Path) -> bool {
    let is_root = fs::metadata("/proc/self").is_ok_and(|metadata| {
        use std::os::unix::fs::MetadataExt;
        metadata.uid() == 0
    });
    let sudo: &[&str] = if is_root {
        &[]
    } else {
        &["sudo", "--non-interactive"]
    };
    let words: Vec<&str> = sudo.iter().chain(command).copied().collect();
    let done = Command::new(words[0]).args(&words[1..]).arg(place).output();
    done.is_ok_and(|output| output.status.success())
}
