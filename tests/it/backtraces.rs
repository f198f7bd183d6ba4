//! With RUST_BACKTRACE in the server's environment no error shows a backtrace, neither to the
//! client nor in the server log.

use std::path::Path;

use postgres::Client;

use super::support::definitions::create_event;
use super::support::{Cluster, Receiver, PATIENCE};

/// Parts of every backtrace that Rust prints.
const TRACES: &[&str] = &[
    "stack backtrace",
    "rust_begin_unwind",
    "core::panicking",
    "std::panic",
    "__libc_start",
];

/// Errors of the domain, of PostgreSQL below a statement of the extension, and of a cast.
const FAILING: &[&str] = &[
    "select webhook.create_webhook('', array['https://example.com'])",
    "select webhook.create_webhook('x', array['no url'])",
    "select webhook.drop_webhook('none')",
    "select webhook.create_event('w', 'items', 'table.recordInsert', condition => 'no such column')",
    "select webhook.create_event('w', 'items', 'table.recordInsert', payload_template => '{')",
    "select webhook.preview_payload('none')",
    "select webhook.rest(repeat('x', 10), '/v3/none', '{}'), webhook.pause_webhook('none')",
];

fn environment(_: &Path) -> Vec<(String, String)> {
    ["RUST_BACKTRACE", "RUST_LIB_BACKTRACE"]
        .map(|name| (name.to_owned(), "1".to_owned()))
        .to_vec()
}

fn assert_no_trace(text: &str, of: &str) {
    for trace in TRACES {
        assert!(!text.contains(trace), "{trace} in {of}:\n{text}");
    }
}

fn assert_fails_without_trace(session: &mut Client, statement: &str) {
    let error = session.batch_execute(statement).expect_err(statement);
    let error = error.as_db_error().expect("the server answered");
    assert_no_trace(&format!("{error:?}"), statement);
}

#[test]
fn no_error_shows_a_backtrace() {
    let cluster = Cluster::builder("backtraces")
        .set("webhook.allowed_networks", "127.0.0.0/8")
        .environment(environment)
        .start();
    let receiver = Receiver::start();
    let (url, panics) = (receiver.url("/ok/a"), receiver.url("/webhook-fault-panic"));
    cluster.sql(&format!(
        "create extension webhook_ext;
         create table items (id integer primary key, note text);
         select webhook.create_webhook('w', array['{url}', '{panics}'])"
    ));
    create_event(&cluster, "w", "items", "Insert", "");

    let mut session = cluster.connect("postgres");
    for statement in FAILING {
        assert_fails_without_trace(&mut session, statement);
    }
    session
        .batch_execute("set webhook.fault = 'trigger'")
        .unwrap();
    assert_fails_without_trace(&mut session, "insert into items values (1, null)");
    session.batch_execute("set webhook.fault = ''").unwrap();

    // A panic in a delivery thread is a failed call and one line in the log.
    session
        .batch_execute("insert into items values (2, null)")
        .unwrap();
    receiver.wait_for(PATIENCE, "/ok/a", 1);
    cluster.wait_for_text(
        PATIENCE,
        "select (count(*) > 0)::text from webhook.calls where detail ~ 'a fault test asked for it'",
        "true",
    );
    let log = cluster.log();
    assert!(log.contains("a fault test asked for it"), "{log}");
    assert_no_trace(&log, "the server log");
}
