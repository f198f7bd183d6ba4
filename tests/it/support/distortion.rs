//! A server whose wall clock and host names are what the test says.
//!
//! The machine's own clock and resolver are left alone: a small library
//! (distortion.c, built with the C compiler that Rust links with) is preloaded
//! into the server and answers in place of the system.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cluster::{Builder, Cluster};

const SOURCE: &str = include_str!("distortion.c");

const CLOCK_FILE: &str = "clock";
const NAMES_FILE: &str = "names";

/// What a distorted server believes.
pub struct Distortion {
    clock: File,
    names: PathBuf,
}

/// A server that can be distorted; until then it sees the world as it is.
pub fn distorted(builder: Builder) -> (Cluster, Distortion) {
    let cluster = builder.environment(prepare).start();
    let clock = OpenOptions::new()
        .write(true)
        .open(cluster.directory().join(CLOCK_FILE))
        .unwrap();
    let names = cluster.directory().join(NAMES_FILE);
    (cluster, Distortion { clock, names })
}

fn prepare(directory: &Path) -> Vec<(String, String)> {
    let (clock, names) = (directory.join(CLOCK_FILE), directory.join(NAMES_FILE));
    fs::write(&clock, 0_i64.to_ne_bytes()).unwrap();
    fs::write(&names, "").unwrap();
    let variable = |name: &str, value: &Path| (name.to_owned(), value.display().to_string());
    vec![
        variable("LD_PRELOAD", &build(directory)),
        variable("DISTORTED_CLOCK", &clock),
        variable("DISTORTED_NAMES", &names),
    ]
}

fn build(directory: &Path) -> PathBuf {
    let (source, library) = (
        directory.join("distortion.c"),
        directory.join("distortion.so"),
    );
    fs::write(&source, SOURCE).unwrap();
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
        .arg(&library)
        .arg(&source)
        .arg("-ldl")
        .output()
        .expect("there is a C compiler: Rust links with it");
    let complaint = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{complaint}");
    library
}

impl Distortion {
    /// From now on the server's wall clock is so many seconds ahead of the true time.
    pub fn set_clock_ahead(&self, seconds: i64) {
        self.clock.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    }

    /// From now on these names are these addresses, or `unknown`, or looking them up `hangs`.
    pub fn set_names(&self, names: &[(&str, &str)]) {
        let draft = self.names.with_extension("new");
        let mut file = File::create(&draft).unwrap();
        for (name, answer) in names {
            writeln!(file, "{name} {answer}").unwrap();
        }
        fs::rename(draft, &self.names).unwrap();
    }
}
