//! What README.md and docs/ tell people to type is typed.
//!
//! Each page's SQL blocks run in their order in one psql session, against a server of their own. A comment
//! before a block says what is different; docs/develop.md lists the comments.

use std::fs;
use std::path::{Path, PathBuf};

use super::support::{Cluster, Receiver};

/// What pages call the receiver; the port is that of `make receiver`.
const RECEIVER: &str = "http://127.0.0.1:8080";

/// Printed before each block, so that a failure and an output belong to one.
const MARK: &str = "-- block";

#[derive(Debug)]
enum Step {
    /// Statements that the page does not show.
    Setup(String),
    Runs(String),
    /// It ends with this SQLSTATE.
    Fails(String, String),
    /// It is only shown, for a reason.
    Shown,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The SQL of a page and what its comments say of it. A comment of another kind is a mistake.
fn steps(page: &str) -> Vec<Step> {
    let text = fs::read_to_string(root().join(page)).unwrap_or_else(|e| panic!("{page}: {e}"));
    let mut steps = Vec::new();
    let mut pending: Option<String> = None;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(begun) = line.strip_prefix("<!--") {
            let mut comment = begun.to_owned();
            while !comment.contains("-->") {
                let more = lines.next();
                comment += "\n";
                comment += more.unwrap_or_else(|| panic!("{page}: a comment does not end"));
            }
            let comment = comment.replace("-->", "").trim().to_owned();
            if let Some(setup) = comment.strip_prefix("setup") {
                steps.push(Step::Setup(setup.trim().to_owned()));
            } else {
                pending = Some(comment);
            }
        } else if let Some(language) = line.strip_prefix("```") {
            let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            let block = block.join("\n");
            let comment = pending.take();
            if language == "sql" {
                steps.push(step(page, comment.as_deref(), block));
            } else {
                let known = comment
                    .as_deref()
                    .is_none_or(|comment| comment == "receiver");
                assert!(known, "{page}: {comment:?} before a block of {language}");
            }
        } else if !line.trim().is_empty() {
            // The first comment of a generated page is about the page.
            let about = pending
                .take()
                .is_none_or(|comment| comment.starts_with("Written by"));
            assert!(about, "{page}: a comment stands before no block: {line}");
        }
    }
    steps
}

fn step(page: &str, comment: Option<&str>, block: String) -> Step {
    let Some(comment) = comment else {
        return Step::Runs(block);
    };
    let (kind, reason) = comment.split_once(": ").unwrap_or((comment, ""));
    assert!(!reason.is_empty(), "{page}: {comment:?} gives no reason");
    match kind.split_once(' ') {
        Some(("fails", state)) => Step::Fails(state.to_owned(), block),
        Some(("not", "run")) => Step::Shown,
        _ => panic!("{page}: unknown comment {comment:?}"),
    }
}

/// One script for psql, which says what became of each block.
fn script(steps: &[Step], receiver: &Receiver) -> String {
    let mut script = String::from("\\set ON_ERROR_STOP on\n");
    for (number, step) in steps.iter().enumerate() {
        let number = number + 1;
        match step {
            Step::Shown => {}
            Step::Setup(block) | Step::Runs(block) => {
                script += &format!("\\echo {MARK} {number}\n{block}\n;\n");
            }
            Step::Fails(_, block) => {
                script += &format!(
                    "\\echo {MARK} {number}\n\\set ON_ERROR_STOP off\n{block}\n;\n\
                     \\echo {MARK} {number} failed :LAST_ERROR_SQLSTATE\n\\set ON_ERROR_STOP on\n"
                );
            }
        }
    }
    script.replace(RECEIVER, receiver.url("").trim_end_matches('/'))
}

fn run_page(page: &str) {
    let steps = steps(page);
    let cluster = Cluster::builder("page")
        .set("webhook.retry_schedule", "1h")
        .start();
    cluster.exempt_from_bookkeeping("a page does what it likes");
    let receiver = Receiver::start();
    let output = cluster.psql(&script(&steps, &receiver));
    let mut executed = 0;
    for (number, step) in steps.iter().enumerate() {
        if let Step::Fails(state, block) = step {
            let line = format!("{MARK} {} failed {state}", number + 1);
            assert!(
                output.lines().any(|seen| seen == line),
                "{page}: not {state}:\n{block}\n{output}"
            );
        }
        executed += usize::from(matches!(step, Step::Runs(_) | Step::Fails(..)));
    }
    println!("{page}: {executed} blocks executed");
}

/// A test for each page; `every_page_is_run` sees to it that none is missing.
macro_rules! pages {
    ($($name:ident = $page:literal),+ $(,)?) => {
        const PAGES: &[&str] = &[$($page),+];
        $(
            #[test]
            fn $name() {
                run_page($page);
            }
        )+
    };
}

pages! {
    readme = "README.md",
    backup_and_copies = "docs/backup-and-copies.md",
    delivery = "docs/delivery.md",
    faq = "docs/faq.md",
    filters = "docs/filters.md",
    install = "docs/install.md",
    migrate = "docs/migrate.md",
    monitoring = "docs/monitoring.md",
    networks_and_tls = "docs/networks-and-tls.md",
    operate = "docs/operate.md",
    payloads = "docs/payloads.md",
    quickstart = "docs/quickstart.md",
    receive = "docs/receive.md",
    rest = "docs/rest.md",
    roles = "docs/roles.md",
    secrets = "docs/secrets.md",
    templates = "docs/templates.md",
    upgrade = "docs/upgrade.md",
}

/// README.md and the pages of docs/, but for what is generated and checked by a test of its own.
fn all_pages() -> Vec<String> {
    let docs = fs::read_dir(root().join("docs")).unwrap();
    let mut pages: Vec<String> = docs
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .map(|path| name_of(&path))
        .collect();
    pages.push("README.md".into());
    pages.sort();
    pages
}

fn name_of(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

#[test]
fn every_page_is_run() {
    let mut executed = 0;
    let mut shown = 0;
    for page in all_pages() {
        let steps = steps(&page);
        let runs = |step: &&Step| matches!(step, Step::Runs(_) | Step::Fails(..));
        let runs = steps.iter().filter(runs).count();
        executed += runs;
        shown += steps
            .iter()
            .filter(|step| matches!(step, Step::Shown))
            .count();
        assert!(
            runs == 0 || PAGES.contains(&page.as_str()),
            "{page} is missing in the list of pages"
        );
    }
    println!("{executed} blocks are executed, {shown} only shown");
    assert!(executed >= 75, "only {executed} blocks were found");
}
