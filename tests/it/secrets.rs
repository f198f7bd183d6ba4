//! No credential in what the server logs, what its statistics keep, or what a reader sees,
//! whatever is logged.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use postgres::Client;

use super::support::{Cluster, PATIENCE};

/// All that PostgreSQL can log.
const TALKATIVE: &[(&str, &str)] = &[
    ("webhook.allowed_networks", "127.0.0.0/8"),
    ("webhook.retry_schedule", "100ms"),
    ("webhook.max_response_size", "2kB"),
    (
        "shared_preload_libraries",
        "auto_explain,pg_stat_statements",
    ),
    ("log_min_messages", "debug5"),
    ("log_error_verbosity", "verbose"),
    ("log_statement", "all"),
    ("log_min_duration_statement", "0"),
    ("log_parameter_max_length", "-1"),
    ("log_parameter_max_length_on_error", "-1"),
    ("debug_print_parse", "on"),
    ("debug_print_plan", "on"),
    ("auto_explain.log_min_duration", "0"),
    ("auto_explain.log_nested_statements", "on"),
    ("auto_explain.log_verbose", "on"),
    ("auto_explain.log_triggers", "on"),
    ("auto_explain.log_analyze", "on"),
    ("pg_stat_statements.track", "all"),
];

/// A header is an argument, so its caller decides whether it is logged. Here he does not want it:
/// whatever shows it then is the extension's.
const DISCREET: &str = "
    set log_parameter_max_length = 0;
    set log_parameter_max_length_on_error = 0;
    set plan_cache_mode = force_generic_plan";

/// Answers every request with 500 and the request itself, twice: as it is and cut anywhere.
fn start_echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || echo(stream));
        }
    });
    port
}

fn echo(stream: TcpStream) -> Option<()> {
    let mut writer = stream.try_clone().ok()?;
    let mut reader = BufReader::new(stream);
    loop {
        let (mut request, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            reader
                .read_line(&mut line)
                .ok()
                .filter(|bytes| *bytes > 0)?;
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            let is_end = line.trim().is_empty();
            request.push_str(&line);
            if is_end {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        request.push_str(&String::from_utf8_lossy(&body));
        let answer = format!("echo {request}{request}{request}{request}");
        let head = "HTTP/1.1 500 Internal Server Error\r\ncontent-length:";
        write!(writer, "{head} {}\r\n\r\n{answer}", answer.len()).ok()?;
    }
}

fn credentials_of(session: &mut Client, webhook: &str) -> Vec<String> {
    let rows = session
        .query(
            "select secret, token from webhook.reveal_secret($1)",
            &[&webhook],
        )
        .unwrap();
    rows.iter()
        .flat_map(|row| [row.get(0), row.get(1)])
        .collect()
}

/// Runs everything that has to do with a secret, and returns what nobody may find.
fn run_everything(cluster: &Cluster, url: &str) -> BTreeSet<String> {
    let mut session = cluster.connect("postgres");
    session.batch_execute(DISCREET).unwrap();
    let mut known = BTreeSet::new();
    let headers = [
        "Bearer first/credential+of=headers",
        "second-credential-of-headers",
    ];
    for (place, header) in headers.iter().enumerate() {
        known.insert((*header).to_owned());
        let value = serde_json::json!({ "authorization": header });
        match place {
            0 => session.execute(
                "select webhook.create_webhook('w', array[$2::text], headers => $1)",
                &[&value, &url],
            ),
            _ => session.execute(
                "select webhook.update_webhook('w', headers => $1)",
                &[&value],
            ),
        }
        .unwrap();
        known.extend(credentials_of(&mut session, "w"));
        if place == 0 {
            session
                .batch_execute(
                    "create table items (id integer);
                     select webhook.create_event('w', 'items', 'table.recordInsert');
                     select webhook.create_event('w', 'items', 'table.recordInsert',
                         payload_template => '{\"mine\": \"[@out-hook:secret]\", \"id\": \"[@field:id]\"}')",
                )
                .unwrap();
        }
        session
            .batch_execute(
                "insert into items values (1);
                 select webhook.preview_payload(id), webhook.explain_event(id) from webhook.events;
                 select webhook.test_webhook('w')",
            )
            .unwrap();
        let calls = "select (count(*) >= 6)::text from webhook.calls";
        cluster.wait_for_text(PATIENCE, calls, "true");
        session
            .execute("select webhook.regenerate_secret('w')", &[])
            .unwrap();
        known.extend(credentials_of(&mut session, "w"));
    }
    let created: serde_json::Value = session
        .query_one(
            "select body from webhook.rest('POST', '/v3/outgoingWebhooks', $1)",
            &[&serde_json::json!({ "Name": "by rest", "OutgoingUrls": [url] })],
        )
        .unwrap()
        .get(0);
    known.insert(created["Secret"].as_str().expect("a secret").to_owned());
    session
        .batch_execute(
            "select webhook.rest('GET', '/v3/outgoingWebhooks');
             select webhook.redeliver_failed('w');
             select webhook.pause_webhook('w');
             insert into items values (2);
             select webhook.cancel_pending('w');
             select webhook.resume_webhook('w');
             select webhook.create_webhook('w', array['https://example.com/']) ",
        )
        .unwrap_err();
    session
        .execute("select webhook.drop_webhook('by rest')", &[])
        .unwrap();
    known.extend(
        known
            .clone()
            .iter()
            .filter_map(|secret| secret.strip_prefix("whsec_").map(str::to_owned)),
    );
    known
}

/// Each row of each view that a reader may read, and what the server's statistics keep.
fn what_is_seen(cluster: &Cluster) -> Vec<(String, String)> {
    cluster.sql("create role looker login; grant webhook_reader, pg_read_all_stats to looker");
    let mut reader = cluster.connect_as("looker", "postgres");
    let views = reader
        .query(
            "select format('%I.%I', n.nspname, c.relname)
             from pg_class c join pg_namespace n on n.oid = c.relnamespace
             where n.nspname in ('webhook', 'webhook_internal') and c.relkind in ('r', 'v') and has_table_privilege(c.oid, 'select')",
            &[],
        )
        .unwrap();
    let mut sources: Vec<String> = views.iter().map(|row| row.get(0)).collect();
    assert!(sources.len() > 5, "{sources:?}");
    sources.extend([
        "pg_stat_activity".to_owned(),
        "pg_stat_statements".to_owned(),
    ]);
    let seen_by = |session: &mut Client, source: &String| {
        let rows = session
            .query(&format!("select v::text from {source} v"), &[])
            .unwrap();
        rows.iter()
            .map(|row| row.get::<_, String>(0))
            .collect::<String>()
    };
    let mut seen: Vec<(String, String)> = sources
        .iter()
        .map(|source| (source.clone(), seen_by(&mut reader, source)))
        .collect();
    let mut superuser = cluster.connect("postgres");
    for table in [
        "webhook_internal.outbox",
        "webhook.calls",
        "webhook_internal.retry",
    ] {
        seen.push((table.to_owned(), seen_by(&mut superuser, &table.to_owned())));
    }
    seen.push(("the log".to_owned(), without_own_parameters(&cluster.log())));
    seen
}

/// From version 16 on auto_explain shows what the client itself has passed with its statement, as
/// log_statement does with what stands in it.
fn without_own_parameters(log: &str) -> String {
    let mut is_own = false;
    let mut kept = String::new();
    for line in log.lines() {
        let is_shown = !(is_own && line.trim_start().starts_with("Query Parameters: "));
        is_own = line.contains("Query Text: select webhook.");
        if is_shown {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

#[test]
fn no_credential_is_logged_kept_or_shown_whatever_is_logged() {
    let cluster = TALKATIVE
        .iter()
        .fold(Cluster::builder("secrets"), |builder, (name, value)| {
            builder.set(name, value)
        })
        .start();
    cluster.sql("create extension pg_stat_statements; create extension webhook_ext");
    let url = format!("http://127.0.0.1:{}/echo", start_echo());
    let known = run_everything(&cluster, &url);
    assert!(known.len() >= 12, "{known:?}");

    let seen = what_is_seen(&cluster);
    let mut found = Vec::new();
    for (place, text) in &seen {
        for credential in &known {
            if let Some(at) = text.find(credential.as_str()) {
                let start = (0..=at.saturating_sub(300))
                    .rev()
                    .find(|&at| text.is_char_boundary(at));
                let around = &text[start.unwrap_or(0)..at + credential.len()];
                found.push(format!("{place} has {credential}:\n{around}\n"));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));

    // There was something to find.
    let log = cluster.log();
    assert!(
        log.contains("insert into webhook.secret_def"),
        "nested statements are logged"
    );
    assert!(
        log.contains("Insert on webhook.secret_def"),
        "and their plans"
    );
    let echoed: i64 = cluster.value(
        "select count(*) from webhook.calls
         where http_response ~ 'authorization: \\*\\*\\*' and http_response ~ '\"secret\":\"\\*\\*\\*\"'",
    );
    assert!(
        echoed > 0,
        "{}",
        cluster.psql("select http_response from webhook.calls limit 3")
    );
}

#[test]
fn an_answer_that_repeats_the_url_brings_no_credential_of_it_into_the_log() {
    let cluster = Cluster::builder("echoed_url")
        .set("webhook.allowed_networks", "127.0.0.0/8")
        .start();
    cluster.sql("create extension webhook_ext");
    let url = format!(
        "http://127.0.0.1:{}/echo?api_key=hush%2Fhush&page=2",
        start_echo()
    );
    cluster.sql(&format!(
        "select webhook.create_webhook('w', array['{url}']);
         select webhook.test_webhook('w')"
    ));
    cluster.wait_for_text(
        PATIENCE,
        "select (count(*) > 0)::text from webhook.calls",
        "true",
    );
    let answer: String = cluster.value("select http_response from webhook.calls limit 1");
    assert!(answer.contains("/echo?api_key=***&page=2"), "{answer}");
    assert!(!answer.contains("hush"), "{answer}");
}
