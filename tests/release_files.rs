//! Each file that names the version names the same one, and what is generated is up to date.
//!
//! What META.json has to look like is checked by PGXN's own validator (scripts/lint).

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The versions of the releases in CHANGELOG.md, newest first, and whether each has its date.
fn in_changelog() -> Vec<(String, bool)> {
    read("CHANGELOG.md")
        .lines()
        .filter_map(|line| line.strip_prefix("## ["))
        .map(|heading| {
            let (version, rest) = heading.split_once(']').expect("a version in brackets");
            (version.to_owned(), !rest.contains("unreleased"))
        })
        .collect()
}

/// The versions in debian/changelog, newest first, and the distribution of each.
fn in_debian_changelog() -> Vec<(String, String)> {
    read("debian/changelog")
        .lines()
        .filter_map(|line| line.strip_prefix("webhook-ext ("))
        .map(|entry| {
            let (version, rest) = entry.split_once(") ").expect("a version in parentheses");
            let (upstream, _revision) = version.split_once('-').expect("a revision of the package");
            let (distribution, _) = rest.split_once(';').expect("an urgency");
            (upstream.to_owned(), distribution.to_owned())
        })
        .collect()
}

/// Upgrade scripts, as the versions they lead from and to.
fn upgrades() -> Vec<(String, String)> {
    let files = fs::read_dir(root().join("sql")).expect("sql can be read");
    files
        .map(|file| file.expect("sql can be read").file_name())
        .filter_map(|name| {
            let name = name.into_string().expect("names are text");
            let versions = name
                .strip_prefix("webhook_ext--")?
                .strip_suffix(".sql")?
                .to_owned();
            let (from, to) = versions.split_once("--").expect("two versions");
            Some((from.to_owned(), to.to_owned()))
        })
        .collect()
}

#[test]
fn each_file_names_the_same_version() {
    let meta: Value = serde_json::from_str(&read("META.json")).expect("META.json is JSON");
    assert_eq!(meta["version"], VERSION, "META.json");
    let provided = &meta["provides"]["webhook_ext"]["version"];
    assert_eq!(provided, VERSION, "META.json, provides");
    assert_eq!(in_changelog()[0].0, VERSION, "CHANGELOG.md");
    assert_eq!(in_debian_changelog()[0].0, VERSION, "debian/changelog");
    let dockerfile = read("images/server.Dockerfile");
    assert!(
        dockerfile.contains(&format!("ARG VERSION={VERSION}\n")),
        "images/server.Dockerfile"
    );
    assert!(
        read("images/cluster.yaml").contains(&format!(":{VERSION}-18\n")),
        "images/cluster.yaml"
    );
}

/// What is released in one place is released in the other, and former releases all are.
#[test]
fn the_changelogs_agree_on_what_is_released() {
    let ours = in_changelog();
    let packaged = in_debian_changelog();
    for ((version, is_released), (upstream, distribution)) in ours.iter().zip(&packaged) {
        assert_eq!(version, upstream);
        assert_eq!(
            *is_released,
            distribution != "UNRELEASED",
            "{version} in CHANGELOG.md and debian/changelog"
        );
    }
    assert_eq!(ours.len(), packaged.len());
    assert!(ours[1..].iter().all(|(_, is_released)| *is_released));
}

#[test]
fn each_former_release_has_its_upgrade_its_schema_and_its_commit() {
    let releases = read("tests/packages/releases");
    let mut newer = VERSION.to_owned();
    for (former, _) in &in_changelog()[1..] {
        assert!(
            upgrades().contains(&(former.clone(), newer.clone())),
            "sql/webhook_ext--{former}--{newer}.sql"
        );
        let schema = PathBuf::from(format!("tests/upgrade/webhook_ext--{former}.sql"));
        assert!(root().join(&schema).is_file(), "{schema:?}");
        assert!(
            releases
                .lines()
                .any(|line| line.starts_with(&format!("{former} "))),
            "tests/packages/releases has no commit of {former}"
        );
        newer = former.clone();
    }
}

/// scripts/package-control makes it.
#[test]
fn the_packages_are_those_of_their_template() {
    let template = read("debian/control.in");
    let (source, package) = template.split_once("\n\n").expect("two paragraphs");
    let mut expected = format!("{source}\n");
    for major in ["15", "16", "17", "18"] {
        expected += &format!("\n{}", package.replace("PGVERSION", major));
    }
    assert_eq!(read("debian/control"), expected, "debian/control");
}
