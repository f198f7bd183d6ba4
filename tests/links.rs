//! Links of the documentation lead somewhere: between pages, to anchors, to pictures.
//!
//! Reads Markdown as text. The built site is checked by scripts/docs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Folders with Markdown for readers.
const FOLDERS: &[&str] = &[".", "docs", "monitoring"];

const SUMMARY: &str = "docs/SUMMARY.md";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every page, by its path from the top, without its code.
fn pages() -> BTreeMap<PathBuf, String> {
    let mut pages = BTreeMap::new();
    for folder in FOLDERS {
        for entry in fs::read_dir(root().join(folder)).expect("the folder can be read") {
            let path = entry.expect("the folder can be read").path();
            if path.extension().is_some_and(|extension| extension == "md") {
                let text = fs::read_to_string(&path).expect("Markdown is UTF-8");
                let name = path.strip_prefix(root()).expect("it is below the top");
                pages.insert(plain(name), without_code(&text));
            }
        }
    }
    pages
}

/// `docs/../a.md` as `a.md`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

fn without_code(text: &str) -> String {
    let mut is_code = false;
    let lines = text.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The targets of `[text](target)` outside `code`, which may hold the same signs.
fn targets(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("](") {
        let before = &rest[..start];
        let line = before.rsplit('\n').next().unwrap_or_default();
        rest = &rest[start + 2..];
        let is_code = line.matches('`').count() % 2 == 1;
        if let Some(end) = rest.find(')').filter(|_| !is_code) {
            found.push(rest[..end].to_owned());
        }
    }
    found
}

/// The anchors that a forge and mdBook give to headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for heading in text.lines().filter(|line| line.starts_with('#')) {
        let title = heading.trim_start_matches('#').trim().to_lowercase();
        let slug: String = title
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        let mut numbered = (0..).map(|number| match number {
            0 => slug.clone(),
            _ => format!("{slug}-{number}"),
        });
        let free = numbered.find(|name| !anchors.contains(name));
        anchors.insert(free.expect("the numbers do not end"));
    }
    anchors
}

#[test]
fn links_between_pages_lead_somewhere() {
    let pages = pages();
    let mut dead = Vec::new();
    let mut seen = 0;
    for (page, text) in &pages {
        for target in targets(text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            seen += 1;
            let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let path = match file {
                "" => page.clone(),
                _ => plain(&page.parent().expect("a file has a folder").join(file)),
            };
            let is_there = match pages.get(&path) {
                Some(text) => anchor.is_empty() || anchors(text).contains(anchor),
                None => anchor.is_empty() && root().join(&path).exists(),
            };
            if !is_there {
                dead.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(seen > 100, "only {seen} links were found");
    assert!(dead.is_empty(), "dead links:\n{}", dead.join("\n"));
}

#[test]
fn pages_of_the_site_link_to_pages_of_the_site() {
    let pages = pages();
    let summary = pages
        .get(Path::new(SUMMARY))
        .expect("docs/SUMMARY.md is there");
    let listed = targets(summary)
        .into_iter()
        .map(|target| plain(&Path::new("docs").join(target)));
    let listed: BTreeSet<PathBuf> = listed.collect();
    let mut missing = Vec::new();
    for page in &listed {
        let text = pages.get(page);
        for target in targets(text.unwrap_or_else(|| panic!("{} is missing", page.display()))) {
            let file = target.split('#').next().unwrap_or_default();
            let is_page = file.ends_with(".md") && !file.contains("://");
            let path = plain(&page.parent().expect("a file has a folder").join(file));
            if is_page && !listed.contains(&path) {
                missing.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(
        missing.is_empty(),
        "not in {SUMMARY}:\n{}",
        missing.join("\n")
    );
}
