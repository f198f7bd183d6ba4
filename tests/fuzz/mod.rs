//! Arbitrary input for the pure half: each target takes bytes and says with a panic what is wrong.
//!
//! A test run tries what was found before (`corpus/<target>/`) and a fixed number of inputs from a
//! fixed seed. `make fuzz FUZZ_MINUTES=…` goes on for so long from a new seed; an input that makes
//! a target panic is written to `corpus/<target>/`, to be kept with its mend.

mod http;
mod inputs;
mod stored;
mod targets;

use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{env, fs};

use inputs::Inputs;

/// Inputs of a short run: a debug build takes a few seconds for all targets.
const SHORT_INPUTS: u64 = 2_000;
const SHORT_SEED: u64 = 0x5eed;

/// How far a run goes.
enum Extent {
    Inputs(u64),
    Until(Instant),
}

impl Extent {
    fn allows(&self, done: u64) -> bool {
        match self {
            Self::Inputs(most) => done < *most,
            Self::Until(end) => Instant::now() < *end,
        }
    }
}

fn asked() -> (Extent, u64) {
    let Ok(seconds) = env::var("FUZZ_SECONDS") else {
        return (Extent::Inputs(SHORT_INPUTS), SHORT_SEED);
    };
    let seconds = seconds.parse().expect("FUZZ_SECONDS is a number");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = env::var("FUZZ_SEED").map_or(now.as_nanos() as u64, |seed| {
        seed.parse().expect("FUZZ_SEED is a number")
    });
    (
        Extent::Until(Instant::now() + Duration::from_secs(seconds)),
        seed,
    )
}

fn corpus(target: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.join("tests/fuzz/corpus").join(target)
}

/// Runs a target over its corpus and over inputs made from `seeds` and `words`.
fn fuzz(target: &str, seeds: &[&str], words: &[&str], check: impl Fn(&[u8])) {
    let mut known: Vec<Vec<u8>> = seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect();
    for file in fs::read_dir(corpus(target)).into_iter().flatten().flatten() {
        let input = fs::read(file.path()).unwrap();
        check(&input);
        known.push(input);
    }
    known.iter().for_each(|input| check(input));
    let (extent, seed) = asked();
    let mut inputs = Inputs::new(seed, known, words);
    let mut done = 0;
    while extent.allows(done) {
        let input = inputs.next();
        if panic::catch_unwind(AssertUnwindSafe(|| check(&input))).is_err() {
            let directory = corpus(target);
            fs::create_dir_all(&directory).unwrap();
            let file = directory.join(format!("found-{seed:x}-{done}"));
            fs::write(&file, &input).unwrap();
            panic!(
                "{target} failed, seed {seed}, input {done} (kept in {}): {}",
                file.display(),
                input.escape_ascii()
            );
        }
        done += 1;
    }
    println!("{target}: {done} inputs, seed {seed}");
}
