//! The machine that the clusters run on: programs, processes, ports.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU16, Ordering};
use std::{env, fs, process};

/// Below Linux's range for outgoing connections (32768 and up), which could take a port meanwhile.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A port nobody listens on. Two test processes start at different places of the range.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let width = PORTS.end - PORTS.start;
    let first = (process::id() % u32::from(width)) as u16;
    (0..width)
        .map(|_| PORTS.start + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % width)
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("one of 12,000 ports is free")
}

pub fn server_bindir() -> PathBuf {
    bindir_of(&env::var_os("PG_CONFIG").unwrap_or_else(|| "pg_config".into()))
}

pub fn bindir_of(pg_config: &OsStr) -> PathBuf {
    let output = run(Command::new(pg_config).arg("--bindir"));
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}

pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Whether a process runs; one that has ended and waits for its parent does not.
pub fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the command name, which stands in parentheses and may contain any character.
    let state = stat
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next());
    state.is_some_and(|state| state != 'Z')
}

pub fn run(command: &mut Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}\n{}", text(&output));
    output
}

pub fn text(output: &Output) -> String {
    let stdout = String::from_utf8_lossy(&output.stdout);
    format!("{stdout}{}", String::from_utf8_lossy(&output.stderr))
}
