//! Keeps the layers apart: a `use` only goes down, pgrx stays out of the pure
//! half, `unsafe` stays in `src/pg/`, and the worker's folders name each other
//! in one direction only. Reads the source as text, so that it also sees code
//! behind features.

use std::collections::{BTreeMap, BTreeSet};
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
    /// The path of its module, from the crate on.
    module: Vec<String>,
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
                module: module_of(inside),
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

fn module_of(file: &Path) -> Vec<String> {
    let mut parts: Vec<String> = file
        .with_extension("")
        .components()
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .collect();
    if parts
        .last()
        .is_some_and(|last| matches!(last.as_str(), "mod" | "lib"))
    {
        parts.pop();
    }
    parts
}

/// Each path of a list as `a::{b, c::{d, e}}`, written out.
fn written_out(path: &str) -> Vec<String> {
    let Some(open) = path.find('{') else {
        return vec![path.trim().to_owned()];
    };
    let (before, rest) = path.split_at(open);
    let (mut depth, mut start, mut end) = (0, 1, rest.len());
    let mut parts = Vec::new();
    for (place, c) in rest.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if (c == ',' && depth == 1) || (c == '}' && depth == 0) {
            parts.push(&rest[start..place]);
            start = place + 1;
        }
        if depth == 0 {
            end = place;
            break;
        }
    }
    let after = rest.get(end + 1..).unwrap_or_default();
    let parts = parts.into_iter().filter(|part| !part.trim().is_empty());
    parts
        .flat_map(|part| written_out(&format!("{}{}{after}", before.trim(), part.trim())))
        .collect()
}

/// What the code names in this crate, as paths from the crate on.
fn named_paths(code: &str, module: &[String]) -> Vec<Vec<String>> {
    let mut named = Vec::new();
    let starts = ["crate::", "super::", "self::"];
    let mut rest = code;
    while let Some(place) = starts.iter().filter_map(|start| rest.find(start)).min() {
        let is_start =
            !rest[..place].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
        let tail = &rest[place..];
        let length = path_length(tail);
        if is_start {
            let paths = written_out(&tail[..length]);
            named.extend(paths.iter().map(|path| resolved(path, module)));
        }
        rest = &tail[length.max(1)..];
    }
    named
}

/// How long the path is that the text starts with, lists in braces included.
fn path_length(text: &str) -> usize {
    let mut depth = 0;
    for (place, c) in text.char_indices() {
        match c {
            '{' if text[..place].ends_with("::") || depth > 0 => depth += 1,
            '}' if depth == 1 => return place + 1,
            '}' if depth > 1 => depth -= 1,
            _ if depth > 0 || c.is_alphanumeric() || matches!(c, '_' | ':') => {}
            _ => return place,
        }
    }
    text.len()
}

fn resolved(path: &str, module: &[String]) -> Vec<String> {
    let mut at: Vec<String> = Vec::new();
    for (place, part) in path.split("::").map(str::trim).enumerate() {
        match part {
            "crate" => at.clear(),
            "self" if place == 0 => at = module.to_vec(),
            "super" if place == 0 => at = module[..module.len().saturating_sub(1)].to_vec(),
            "super" => {
                at.pop();
            }
            part => at.push(part.split_whitespace().next().unwrap_or("").to_owned()),
        }
    }
    at
}

/// The layers that the code names.
fn named_layers(code: &str, module: &[String]) -> BTreeSet<String> {
    let paths = named_paths(code, module).into_iter();
    paths
        .filter_map(|path| path.into_iter().next())
        .filter(|word| MAY_NAME.iter().any(|(layer, _)| layer == word))
        .collect()
}

/// Whether a module is reached again by what it names.
fn circle(names: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn visit(
        at: &str,
        names: &BTreeMap<String, BTreeSet<String>>,
        way: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> bool {
        if way.iter().any(|passed| passed == at) {
            way.push(at.to_owned());
            return true;
        }
        if !done.contains(at) {
            way.push(at.to_owned());
            for next in names.get(at).into_iter().flatten() {
                if visit(next, names, way, done) {
                    return true;
                }
            }
            way.pop();
            done.insert(at.to_owned());
        }
        false
    }
    let (mut way, mut done) = (Vec::new(), BTreeSet::new());
    names
        .keys()
        .any(|start| visit(start, names, &mut way, &mut done))
        .then_some(way)
}

/// What each folder and file of a layer names of the layer's others. The layer's own module, which
/// only puts them together, is left out.
fn names_within(layer: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut names: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let sources: Vec<_> = sources()
        .into_iter()
        .filter(|source| source.layer == layer && source.module.len() > 1)
        .collect();
    let rooms: BTreeSet<String> = sources
        .iter()
        .map(|source| source.module[1].clone())
        .collect();
    for source in &sources {
        let own = &source.module[1];
        let named = named_paths(&source.code, &source.module).into_iter();
        let others = named
            .filter(|path| path.first().is_some_and(|first| first == layer))
            .filter_map(|path| path.into_iter().nth(1))
            .filter(|room| room != own && rooms.contains(room));
        names.entry(own.clone()).or_default().extend(others);
    }
    names
}

fn assert_no_circle(layer: &str, folders: &[&str]) -> BTreeMap<String, BTreeSet<String>> {
    let names = names_within(layer);
    for folder in folders {
        assert!(names.contains_key(*folder), "{folder}: {names:#?}");
    }
    assert_eq!(circle(&names), None, "{names:#?}");
    names
}

#[test]
fn the_workers_folders_form_no_circle() {
    let names = assert_no_circle(
        "worker",
        &[
            "definitions",
            "reading",
            "scheduling",
            "sending",
            "settling",
            "maintenance",
        ],
    );
    assert!(!names["engine"].is_empty(), "{names:#?}");
}

#[test]
fn the_folders_of_the_pure_half_form_no_circle() {
    let names = assert_no_circle(
        "core",
        &[
            "values",
            "messages",
            "policy",
            "definitions",
            "payloads",
            "scheduling",
        ],
    );
    assert!(names["payloads"].contains("values"), "{names:#?}");
}

#[test]
fn a_use_only_goes_down() {
    let mut wrong = Vec::new();
    for source in sources() {
        let Some((_, allowed)) = MAY_NAME.iter().find(|(layer, _)| *layer == source.layer) else {
            continue;
        };
        for named in named_layers(&source.code, &source.module) {
            if !allowed.contains(&named.as_str()) {
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

/// The library cannot be linked without a server, so that no other layer's unit tests would run.
#[test]
fn unit_tests_stand_where_they_run() {
    let wrong: Vec<_> = sources()
        .into_iter()
        .filter(|source| !["core", "delivery"].contains(&source.layer.as_str()))
        .filter(|source| source.code.contains("#[test]"))
        .map(|source| source.path)
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_scanner_sees_what_it_looks_for() {
    let code = without_comments("use crate::worker::Loop; // unsafe\nlet x = crate::core::y();");
    let module = ["api".to_owned(), "rest".to_owned()];
    let layers = |code: &str| Vec::from_iter(named_layers(code, &module));
    assert_eq!(layers(&code), ["core", "worker"]);
    assert_eq!(
        layers("use crate::{core::{a, b::C}, store::X};"),
        ["core", "store"]
    );
    assert_eq!(layers("use super::super::worker::{Loop, End};"), ["worker"]);
    assert_eq!(layers("use super::drop; fn f() { self::g() }"), ["api"]);
    assert!(!words(&code).any(|word| word == "unsafe"));
    assert!(words("pub unsafe fn").any(|word| word == "unsafe"));
}

#[test]
fn the_scanner_sees_a_circle() {
    let names = |pairs: &[(&str, &str)]| {
        let mut names: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, to) in pairs {
            names
                .entry((*from).to_owned())
                .or_default()
                .insert((*to).to_owned());
        }
        names
    };
    assert_eq!(circle(&names(&[("a", "b"), ("b", "c"), ("a", "c")])), None);
    let way = circle(&names(&[("a", "b"), ("b", "c"), ("c", "a")]));
    assert_eq!(way.map(|way| way.len()), Some(4));
}
