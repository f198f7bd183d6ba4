//! Text that a database's encoding cannot give as UTF-8: each character is replaced, in linear
//! time, and the statement can be canceled.

use std::time::{Duration, Instant};

use postgres::Client;

use super::support::{ready_cluster_with, Cluster, PATIENCE};

/// Generous: 0.2 s on an idle machine. Quadratic time would be hours.
const MILLION_LIMIT: Duration = Duration::from_secs(20);
const CANCEL_LIMIT: Duration = Duration::from_secs(10);

fn database_in(cluster: &Cluster, encoding: &str, url: &str) -> Client {
    let name = encoding.to_lowercase();
    cluster.sql(&format!(
        "create database {name} encoding '{encoding}' template template0 locale 'C'"
    ));
    let mut session = cluster.connect(&name);
    session
        .batch_execute(&format!(
            "create extension webhook_ext;
             create table t (id integer, x text);
             select webhook.create_webhook('w', array['{url}']);
             select webhook.create_event('w', 't', 'table.recordInsert')"
        ))
        .expect("the event is made");
    session
}

#[test]
fn what_cannot_be_converted_takes_linear_time_and_can_be_canceled() {
    let (cluster, receiver) =
        ready_cluster_with("conversion", &[("webhook.max_message_size", "512MB")]);
    // No character of WIN1252; an empty place of JIS X 0208.
    for (encoding, character) in [
        ("WIN1252", "chr(129)"),
        ("EUC_JP", r"convert_from('\xa9a1', 'EUC_JP')"),
    ] {
        let path = format!("/ok/{encoding}");
        let mut session = database_in(&cluster, encoding, &receiver.url(&path));
        let begun = Instant::now();
        session
            .batch_execute(&format!(
                "insert into t select 1, 'a' || repeat({character}, 1000000) || 'z'"
            ))
            .unwrap();
        println!("{encoding}: {:?} for a million", begun.elapsed());
        assert!(
            begun.elapsed() < MILLION_LIMIT,
            "{encoding}: {:?}",
            begun.elapsed()
        );
        // A body of this size is written down some time after the request was counted.
        let received = cluster.wait_until(PATIENCE, "the request", || {
            receiver
                .received_at(&path)
                .pop()
                .ok_or_else(|| "none".to_owned())
        });
        let record = &received.body()["data"][0]["x"];
        let wanted = format!("a{}z", "?".repeat(1_000_000));
        assert!(
            record == wanted.as_str(),
            "{encoding}: {} bytes",
            received.raw.len()
        );

        session
            .batch_execute("set statement_timeout = '1s'")
            .unwrap();
        let begun = Instant::now();
        let canceled = session.batch_execute(&format!(
            "insert into t select 2, repeat({character}, 20000000)"
        ));
        let canceled = canceled.expect_err("it takes longer than a second");
        let canceled = canceled.as_db_error().expect("the server answered");
        println!("{encoding}: canceled after {:?}", begun.elapsed());
        assert_eq!(canceled.code().code(), "57014", "{canceled:?}");
        assert!(
            begun.elapsed() < CANCEL_LIMIT,
            "{encoding}: {:?}",
            begun.elapsed()
        );
    }
}
