//! A webhook that brings its secret along, from another system.

use super::support::definitions::wait_idle;
use super::support::items::{cluster_with, insert};
use super::support::signature::verify;

/// 24 and 64 bytes.
const FIRST: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const SECOND: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw==";

#[test]
fn messages_are_signed_with_a_secret_of_ones_own_and_during_the_overlap_with_both() {
    let (cluster, receiver) = cluster_with("own-secret", "1h");
    let url = receiver.url("/ok");
    let secret: String = cluster.value(&format!(
        "select secret from webhook.create_webhook('w', array['{url}'], secret => '{FIRST}')"
    ));
    assert_eq!(secret, FIRST);
    cluster.sql("select webhook.create_event('w', 'items', 'table.recordInsert')");
    insert(&cluster, 1..=1);
    wait_idle(&cluster);
    cluster.sql(&format!(
        "select webhook.update_webhook('w', secret => '{SECOND}')"
    ));
    insert(&cluster, 2..=2);
    wait_idle(&cluster);
    let received = receiver.received_at("/ok");
    verify(&received[0], FIRST).unwrap();
    verify(&received[0], SECOND).unwrap_err();
    verify(&received[1], FIRST).unwrap();
    verify(&received[1], SECOND).unwrap();
    let revealed =
        "select secret, expires_at between now() + interval '23 h' and now() + interval '24 h'
                    from webhook.reveal_secret('w')";
    assert_eq!(cluster.psql(revealed), format!("{SECOND}|\n{FIRST}|t\n"));
    // Back again
    cluster.sql(&format!(
        "select webhook.update_webhook('w', secret => '{FIRST}')"
    ));
    assert_eq!(cluster.psql(revealed), format!("{FIRST}|\n{SECOND}|t\n"));
}

#[test]
fn what_is_no_secret_is_refused_and_not_repeated() {
    let (cluster, _receiver) = cluster_with("no-secret", "1h");
    cluster.sql("select webhook.create_webhook('w', array['https://example.com/'])");
    let mut session = cluster.connect("postgres");
    for text in ["hunter2hunter2", "whsec_hunter2hunter2", "whsec_", ""] {
        for call in [
            format!(
                "webhook.create_webhook('x', array['https://example.com/'], secret => '{text}')"
            ),
            format!("webhook.update_webhook('w', secret => '{text}')"),
        ] {
            let refused = session
                .batch_execute(&format!("select {call}"))
                .unwrap_err();
            let refused = refused.as_db_error().expect("the server answered");
            assert_eq!(refused.code().code(), "22023", "{call}");
            assert_eq!(
                refused.message(),
                "secret is not whsec_ and base64 of 24 to 64 bytes"
            );
            assert!(refused
                .hint()
                .is_some_and(|hint| hint.contains("leave secret out")));
        }
    }
    assert_eq!(cluster.psql("select name from webhook.webhooks"), "w\n");
}

#[test]
fn a_name_that_is_the_id_of_another_webhook_is_refused() {
    let (cluster, _receiver) = cluster_with("id-as-name", "1h");
    let id: String =
        cluster.value("select id from webhook.create_webhook('a', array['https://example.com/'])");
    cluster.sql("select webhook.create_webhook('b', array['https://example.com/'])");
    let mut session = cluster.connect("postgres");
    for call in [
        format!("webhook.create_webhook('{id}', array['https://example.com/'])"),
        format!("webhook.update_webhook('b', name => '{id}')"),
    ] {
        let refused = session
            .batch_execute(&format!("select {call}"))
            .unwrap_err();
        let refused = refused.as_db_error().expect("the server answered");
        assert_eq!(refused.code().code(), "22023", "{call}");
        assert!(refused
            .hint()
            .is_some_and(|hint| hint.contains("choose another name")));
    }
    // One that a superuser has made by hand does not take the other's place.
    cluster.sql(&format!(
        "update webhook.webhook_def set name = '{id}' where name = 'b';
         select webhook.pause_webhook('{id}')"
    ));
    assert_eq!(
        cluster.psql("select name = 'a' from webhook.webhooks where status = 'Paused'"),
        "t\n"
    );
}
