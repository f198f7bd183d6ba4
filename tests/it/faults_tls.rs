//! Receivers whose certificates are wrong, or that never finish the handshake
//! (fault 24): a failure, and not a byte of the message leaves.

use std::fs;
use std::time::Duration;

use super::support::calls::{assert_within_deadline, wait_until_repeated};
use super::support::listener::SilentListener;
use super::support::secure::{Authority, Certificate, SecureReceiver};
use super::support::watched::{
    assert_all_received, insert_items, wait_until_nothing_is_left, watch_items, watch_items_at,
};
use super::support::worker::cluster_restarts;
use super::support::{Cluster, Receiver, PATIENCE, RECOVERY};

const DEADLINE: Duration = Duration::from_secs(1);

const STUBBORN: &str = ", timeout_ms => 1000, max_attempts => 1000";

const WRONG: [(Certificate, &str); 5] = [
    (
        Certificate::Expired,
        "^tls: the server's certificate expired on 2020-01-01 00:00:00 UTC$",
    ),
    (
        Certificate::NotYetValid,
        "^tls: the server's certificate is not valid yet, but from 2999-01-01 00:00:00 UTC on$",
    ),
    (
        Certificate::ForAnotherName,
        "^tls: the server's certificate is not valid for name localhost, only for other.example$",
    ),
    (
        Certificate::SelfSigned,
        "^tls: the server's certificate is not signed by an authority that is trusted; webhook.ca_file",
    ),
    (
        Certificate::OfAuthority,
        "^tls: the server's certificate is a CA certificate, not a server's$",
    ),
];

/// A cluster that trusts this authority.
fn trusting(name: &str, authority: &Authority) -> Cluster {
    let cluster = Cluster::builder(name)
        .set("webhook.allowed_networks", "127.0.0.1, ::1")
        .set("webhook.retry_schedule", "200ms")
        .start();
    let file = cluster.directory().join("ca.pem");
    fs::write(&file, authority.pem()).unwrap();
    cluster.configure("webhook.ca_file", &file.display().to_string());
    cluster.sql("create extension webhook_ext");
    cluster.reload();
    cluster
}

#[test]
fn nothing_is_sent_to_a_receiver_with_a_wrong_certificate_until_it_has_a_right_one() {
    let authority = Authority::new();
    let cluster = trusting("tls", &authority);
    let good = SecureReceiver::start(&authority, Certificate::Good);
    let wrong = WRONG.map(|(fault, _)| SecureReceiver::start(&authority, fault));
    watch_items_at(&cluster, "good", &good.url("/"), "");
    for ((fault, _), receiver) in WRONG.iter().zip(&wrong) {
        watch_items_at(
            &cluster,
            &format!("{fault:?}"),
            &receiver.url("/"),
            STUBBORN,
        );
    }
    insert_items(&cluster, 1..=20);
    for (fault, reason) in WRONG {
        wait_until_repeated(&cluster, PATIENCE, &format!("{fault:?}"), reason);
    }
    for receiver in &wrong {
        assert!(receiver.connections() > 0, "nobody knocked");
        assert_eq!(receiver.bytes(), 0, "something was sent");
    }
    let delivered = "select count(*)::text from webhook.calls
                     where webhook_name = 'good' and status = 'Success'";
    cluster.wait_for_text(PATIENCE, delivered, "20");
    assert_all_received(&cluster, &good.received());

    for receiver in &wrong {
        receiver.present(&authority, Certificate::Good);
    }
    // A handshake of a debug build may take its time on a slow machine.
    cluster.sql("select webhook.update_webhook(name, timeout_ms => 30000) from webhook.webhooks");
    wait_until_nothing_is_left(&cluster, RECOVERY);
    for receiver in &wrong {
        assert_all_received(&cluster, &receiver.received());
    }
    assert_eq!(cluster_restarts(&cluster), 0, "{}", cluster.log());
}

#[test]
fn a_handshake_that_stalls_or_is_none_ends_the_call_and_delays_nobody() {
    let authority = Authority::new();
    let cluster = trusting("handshake", &authority);
    let (plain, silent) = (Receiver::start(), SilentListener::new());
    watch_items(&cluster, &plain, "/ok/healthy");
    let at = |port| format!("https://localhost:{port}/ok/tls");
    watch_items_at(&cluster, "silent", &at(silent.port), STUBBORN);
    watch_items_at(&cluster, "plain", &at(plain.port()), STUBBORN);
    insert_items(&cluster, 1..=20);
    wait_until_repeated(&cluster, PATIENCE, "silent", "^timed out while");
    wait_until_repeated(
        &cluster,
        PATIENCE,
        "plain",
        "^(tls: the server did not answer with TLS|timed out )",
    );
    plain.wait_for(PATIENCE, "/ok/healthy", 20);
    assert_all_received(&cluster, &plain.received_at("/ok/healthy"));
    assert!(plain.received_at("/ok/tls").is_empty());
    assert!(silent.take_connections() > 0, "nobody knocked");
    assert_within_deadline(&cluster, DEADLINE);
    assert_eq!(cluster_restarts(&cluster), 0, "{}", cluster.log());
}
