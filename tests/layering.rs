//! Keeps the layers apart: a `use` only goes down, pgrx stays out of the pure
//! half, `unsafe` stays in `src/pg/`. Reads the source as text, so that it
//! also sees code behind features.

use std::fs;
use std::path::{Path, PathBuf};

/// Each layer and the layers it may name.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("core", &["core"]),
    ("delivery", &["delivery", "core"]),
    ("pg", &["pg", "core"]),
    ("store", &["store", "pg", "core"]),
    ("capture", &["capture", "store", "pg", "core"]),
    ("api", &["api", "store", "pg", "core"]),
    ("worker", &["worker", "store", "delivery", "pg", "core"]),
];

/// Layers that must compile without a server.
const WITHOUT_PGRX: &[&str] = &["core", "delivery"];

/// The only layer that may hold `unsafe`.
const UNSAFE_LAYER: &str = "pg";

struct Source {
    path: PathBuf,
    layer: String,
    code: String,
}

fn source_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("src can be read");
    entries
        .map(|entry| entry.expect("src can be read").path())
        .flat_map(|path| match path.is_dir() {
            true => rust_files(&path),
            false => vec![path],
        })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

/// Drops line comments; what else looks like code is judged as code.
fn without_comments(text: &str) -> String {
    text.lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}

fn sources() -> Vec<Source> {
    let root = source_root();
    let sources: Vec<_> = rust_files(&root)
        .into_iter()
        .map(|path| {
            let inside = path.strip_prefix(&root).expect("found below src");
            let layer = inside.components().next().expect("a file has a name");
            let layer = layer.as_os_str().to_string_lossy();
            Source {
                layer: layer.trim_end_matches(".rs").to_owned(),
                code: without_comments(&fs::read_to_string(&path).expect("source is text")),
                path,
            }
        })
        .collect();
    assert!(
        sources.len() > 5,
        "only {} files found in {root:?}",
        sources.len()
    );
    sources
}

/// An exported symbol is a promise to the linker, not code that is unsafe.
const EXPORT: &str = "#[unsafe(no_mangle)]";

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_')
}

/// The layer each `crate::…` path starts with.
fn named_layers(code: &str) -> Vec<&str> {
    code.split("crate::")
        .skip(1)
        .filter_map(|after| words(after).next())
        .filter(|word| MAY_NAME.iter().any(|(layer, _)| layer == word))
        .collect()
}

#[test]
fn a_use_only_goes_down() {
    let mut wrong = Vec::new();
    for source in sources() {
        let Some((_, allowed)) = MAY_NAME.iter().find(|(layer, _)| *layer == source.layer) else {
            continue;
        };
        for named in named_layers(&source.code) {
            if !allowed.contains(&named) {
                wrong.push(format!("{} names crate::{named}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_pure_half_does_not_name_pgrx() {
    let wrong: Vec<_> = sources()
        .into_iter()
        .filter(|source| WITHOUT_PGRX.contains(&source.layer.as_str()))
        .filter(|source| words(&source.code).any(|word| matches!(word, "pgrx" | "pg_sys")))
        .map(|source| source.path)
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn unsafe_stands_only_in_pg() {
    let wrong: Vec<_> = sources()
        .into_iter()
        .filter(|source| source.layer != UNSAFE_LAYER)
        .filter(|source| words(&source.code.replace(EXPORT, "")).any(|word| word == "unsafe"))
        .map(|source| source.path)
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_scanner_sees_what_it_looks_for() {
    let code = without_comments("use crate::worker::Loop; // unsafe\nlet x = crate::core::y();");
    assert_eq!(named_layers(&code), ["worker", "core"]);
    assert!(!words(&code).any(|word| word == "unsafe"));
    assert!(words("pub unsafe fn").any(|word| word == "unsafe"));
}
