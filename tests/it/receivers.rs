//! The receivers' code on docs/receive.md and in README.md, with messages as they come and with forged ones.
//!
//! Where a language is not on the machine the test says so and goes on.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::support::definitions::{create_event, create_webhook, wait_idle};
use super::support::signature::python;
use super::support::{ready_cluster, Received};

const PAGES: &[&str] = &["README.md", "docs/receive.md"];
const MARK: &str = "<!-- receiver -->\n```";

struct Snippet {
    language: String,
    code: String,
}

/// How a snippet becomes a program: it defines `receive`, and the file beside calls it with the files `secret`,
/// `headers` and `body`, and prints `accepted` or `refused: why`.
struct Language {
    name: &'static str,
    /// Tells whether it is on the machine.
    probe: &'static [&'static str],
    snippet: &'static str,
    caller: (&'static str, &'static str),
    /// Run by sh where both files are; PYTHON is the one with the packages of the tests.
    run: &'static str,
}

const LANGUAGES: &[Language] = &[
    Language {
        name: "python",
        probe: &["python3", "--version"],
        snippet: "receive.py",
        caller: ("call.py", include_str!("support/receivers/python.py")),
        run: "cat receive.py call.py >all.py && \"$PYTHON\" all.py",
    },
    Language {
        name: "js",
        probe: &["node", "--version"],
        snippet: "receive.js",
        caller: ("call.js", include_str!("support/receivers/node.js")),
        run: "cat receive.js call.js >all.js && node all.js",
    },
    Language {
        name: "go",
        probe: &["go", "version"],
        snippet: "receive.go",
        caller: ("main.go", include_str!("support/receivers/main.go")),
        run: "GOCACHE=$PWD/cache go run receive.go main.go",
    },
    Language {
        name: "ruby",
        probe: &["ruby", "--version"],
        snippet: "receive.rb",
        caller: ("call.rb", include_str!("support/receivers/ruby.rb")),
        run: "cat receive.rb call.rb >all.rb && ruby all.rb",
    },
    Language {
        name: "php",
        probe: &["php", "--version"],
        snippet: "receive.php",
        caller: ("call.php", include_str!("support/receivers/php.php")),
        run: "cat receive.php call.php >all.php && php all.php",
    },
    Language {
        name: "java",
        probe: &["javac", "--version"],
        snippet: "Receiver.java",
        caller: ("Main.java", include_str!("support/receivers/Main.java")),
        run: "javac Receiver.java Main.java && java Main",
    },
    // With Mono: the SDK of .NET is in no Debian.
    Language {
        name: "csharp",
        probe: &["mcs", "--version"],
        snippet: "Receiver.cs",
        caller: ("Main.cs", include_str!("support/receivers/Main.cs")),
        run: "mcs -out:all.exe Receiver.cs Main.cs && mono all.exe",
    },
];

impl Language {
    fn named(name: &str) -> &'static Self {
        let known = LANGUAGES.iter().find(|language| language.name == name);
        known.unwrap_or_else(|| panic!("a receiver in the unknown language {name:?}"))
    }

    fn is_here(&self) -> bool {
        let (program, arguments) = self.probe.split_first().expect("a probe is a command");
        let output = Command::new(program).args(arguments).output();
        output.is_ok_and(|output| output.status.success())
    }
}

fn snippets() -> Vec<Snippet> {
    let mut snippets = Vec::new();
    for page in PAGES {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
        let text = fs::read_to_string(path).unwrap();
        for rest in text.split(MARK).skip(1) {
            let (language, rest) = rest.split_once('\n').expect("a block has lines");
            let code = rest.split("```").next().expect("split gives at least one");
            snippets.push(Snippet {
                language: language.to_owned(),
                code: code.to_owned(),
            });
        }
    }
    snippets
}

/// What the program says of a request.
fn verdict(language: &Language, code: &str, secret: &str, request: &Received) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("wh-receiver-{}-{number}", std::process::id());
    let place: PathBuf = std::env::temp_dir().join(name);
    fs::create_dir(&place).unwrap();
    let headers = request.headers.iter();
    let headers: String = headers
        .map(|(name, value)| format!("{name}: {value}\n"))
        .collect();
    let files = [
        (language.snippet, code),
        (language.caller.0, language.caller.1),
        ("secret", secret),
        ("headers", &headers),
        ("body", &request.raw),
    ];
    for (file, content) in files {
        fs::write(place.join(file), content).unwrap();
    }
    let output = Command::new("sh")
        .args(["-c", language.run])
        .env("PYTHON", python())
        .current_dir(&place)
        .output()
        .unwrap();
    let _ = fs::remove_dir_all(&place);
    let (said, errors) = (output.stdout, output.stderr);
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    let errors = String::from_utf8_lossy(&errors).into_owned();
    assert!(
        output.status.success(),
        "{}: {said}\n{errors}",
        language.name
    );
    // A snippet may print what it got.
    said.lines().last().unwrap_or_default().to_owned()
}

#[test]
fn receivers_accept_messages_and_refuse_forged_ones() {
    let (cluster, receiver) = ready_cluster("receivers");
    cluster.sql("create table items (id integer, name text)");
    let secret = create_webhook(&cluster, "hook", &[receiver.url("/ok")], "");
    create_event(&cluster, "hook", "items", "Insert", "");
    // Two signatures, the second of which is the one to find.
    cluster.sql("select webhook.regenerate_secret('hook')");
    cluster.sql("insert into items values (1, 'Zoë')");
    wait_idle(&cluster);
    let request = receiver.received_at("/ok").remove(0);

    let mut changed = request.clone();
    changed.raw = changed.raw.replace("Zoë", "Eve");
    let mut old = request.clone();
    old.headers
        .insert("webhook-timestamp".into(), "1700000000".into());
    let stranger = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYqr";

    let snippets = snippets();
    assert!(
        snippets.len() >= 9,
        "only {} snippets were found",
        snippets.len()
    );
    let mut run = 0;
    let mut languages = BTreeSet::new();
    for Snippet { language, code } in &snippets {
        let language = Language::named(language);
        if !language.is_here() {
            // Not println!, which a test that passes hides.
            let note = format!(
                "receivers: {} is not here, its snippet was NOT run\n",
                language.name
            );
            let _ = io::stderr().write_all(note.as_bytes());
            continue;
        }
        let verdict = |secret, request| verdict(language, code, secret, request);
        assert_eq!(verdict(&secret, &request), "accepted", "{}", language.name);
        for (what, secret, request) in [
            ("a changed body", secret.as_str(), &changed),
            ("an old message", secret.as_str(), &old),
            ("another secret", stranger, &request),
        ] {
            let said = verdict(secret, request);
            assert!(
                said.starts_with("refused: "),
                "{} and {what}: {said}",
                language.name
            );
        }
        run += 1;
        languages.insert(language.name);
    }
    println!(
        "{run} of {} snippets were run: {languages:?}",
        snippets.len()
    );
    assert!(
        run >= 3,
        "only {run} snippets were run; Python at least is always here"
    );
}
