//! TLS: whom we trust, and that nothing is sent to anyone else.
//!
//! `tests/tls` holds an authority whose own key is thrown away, and one
//! certificate of it for `localhost`, both valid for a hundred years.

use std::net::TcpStream;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::super::call::Verdict;
use super::super::tls::check_ca_pem;
use super::scripted::{ReadWrite, Receiver, OK};
use super::*;

const AUTHORITY: &[u8] = include_bytes!("../../../tests/tls/ca.pem");
const CERTIFICATE: &[u8] = include_bytes!("../../../tests/tls/localhost.pem");
const KEY: &[u8] = include_bytes!("../../../tests/tls/localhost.key");

fn secure_receiver() -> Receiver {
    let chain = CertificateDer::pem_slice_iter(CERTIFICATE)
        .map(Result::unwrap)
        .collect();
    let key = PrivateKeyDer::from_pem_slice(KEY).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let config = Arc::new(config);
    let wrap = move |stream: TcpStream| -> Option<Box<dyn ReadWrite>> {
        let mut stream = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream);
        stream.conn.complete_io(&mut stream.sock).ok()?;
        Some(Box::new(stream))
    };
    Receiver::start_wrapped(wrap, |connection| connection.answer_all(OK))
}

fn trusting(ca_pem: Option<&[u8]>) -> PoolUser {
    PoolUser::new(ClientConfig {
        policy: AddressPolicy::parse("127.0.0.0/8, ::1").unwrap(),
        ca_pem: ca_pem.map(<[u8]>::to_vec),
        ..local_config()
    })
}

fn url(host: &str, receiver: &Receiver) -> Arc<Target> {
    target(&format!("https://{host}:{}/hook", receiver.address.port()))
}

/// Also: client, resolver and handshake in a debug build fit into the stack.
#[test]
fn a_tls_call_fits_into_the_stack_and_keeps_its_connection() {
    let receiver = secure_receiver();
    let user = trusting(Some(AUTHORITY));
    for _ in 0..3 {
        let outcome = user.call_with(
            &url("localhost", &receiver),
            Arc::new(Text(vec![b'x'; 100_000])),
        );
        assert_eq!(outcome.verdict, Verdict::Delivered, "{outcome:?}");
        assert_eq!(outcome.response, "ok");
    }
    assert_eq!((receiver.received().len(), receiver.connections()), (3, 1));
    let job = user.submit(&url("localhost", &receiver), Arc::new(Text(vec![])));
    user.wait_for(1);
    assert!(job.sent.unwrap().at().is_some(), "the request is noted");
}

#[test]
fn an_unknown_authority_is_a_failure_and_nothing_is_sent() {
    let receiver = secure_receiver();
    let outcome = trusting(None).call(&url("localhost", &receiver));
    assert_eq!(outcome.verdict, Verdict::Failed);
    assert!(
        detail(&outcome).starts_with("tls: the server's certificate is not "),
        "{outcome:?}"
    );
    assert!(receiver.received().is_empty());
}

#[test]
fn a_certificate_for_another_name_is_a_failure_and_nothing_is_sent() {
    let receiver = secure_receiver();
    let outcome = trusting(Some(AUTHORITY)).call(&url("127.0.0.1", &receiver));
    assert_eq!(outcome.verdict, Verdict::Failed);
    assert!(
        detail(&outcome).starts_with("tls: the server's certificate is not "),
        "{outcome:?}"
    );
    assert!(receiver.received().is_empty());
}

#[test]
fn a_stalled_handshake_ends_at_the_deadline() {
    let receiver = Receiver::start(|connection| connection.hang());
    let target = target_within(
        &format!("https://{}/", receiver.address),
        Duration::from_millis(300),
    );
    let user = trusting(None);
    let job = user.submit(&target, Arc::new(Text(b"{}".to_vec())));
    let outcome = user.wait_for(1).remove(0);
    assert!(detail(&outcome).contains("timed out"), "{outcome:?}");
    assert!(outcome.duration < Duration::from_secs(1), "{outcome:?}");
    assert_eq!(job.sent.unwrap().at(), None, "a handshake is no request");
}

#[test]
fn plain_text_in_place_of_a_handshake_is_a_failure() {
    let receiver = Receiver::start(|connection| {
        let _ = connection.send("HTTP/1.1 400 this is plain http\r\n\r\n");
        connection.hang();
    });
    let outcome = trusting(None).call(&target(&format!("https://{}/", receiver.address)));
    assert!(detail(&outcome).starts_with("tls: "), "{outcome:?}");
}

/// The record in which a server that knows no later version chooses this one.
fn server_hello(version: [u8; 2]) -> Vec<u8> {
    const ECDHE_RSA_WITH_AES_128_CBC_SHA: [u8; 2] = [0xc0, 0x13];
    let (no_session, no_compression) = ([0], [0]);
    let body = [
        &version[..],
        &[7; 32],
        &no_session,
        &ECDHE_RSA_WITH_AES_128_CBC_SHA,
        &no_compression,
    ]
    .concat();
    let len = u8::try_from(body.len()).unwrap();
    let handshake = [&[2, 0, 0, len][..], &body].concat();
    [&[22][..], &version, &[0, len + 4], &handshake].concat()
}

/// What OpenSSL answers where TLS 1.1 is all that it may speak.
const PROTOCOL_VERSION_ALERT: [u8; 7] = [21, 3, 2, 0, 2, 2, 70];

#[test]
fn a_receiver_that_speaks_an_old_protocol_is_refused_with_the_reason() {
    for answer in [
        server_hello([3, 1]),
        server_hello([3, 2]),
        PROTOCOL_VERSION_ALERT.to_vec(),
    ] {
        assert_eq!(
            detail_of_answer(answer),
            "tls: the server supports neither TLS 1.2 nor TLS 1.3"
        );
    }
}

/// What a call says to a server that answers the first message of the handshake with this.
fn detail_of_answer(answer: Vec<u8>) -> String {
    let receiver = Receiver::start(move |connection| {
        let _ = connection.stream.read(&mut [0; 4096]);
        let _ = connection.send(&answer);
        connection.hang();
    });
    let outcome = trusting(None).call(&target(&format!("https://{}/", receiver.address)));
    assert_eq!(outcome.verdict, Verdict::Failed);
    detail(&outcome).to_owned()
}

#[test]
fn an_answer_that_is_not_tls_is_described_in_words() {
    let alert = |number| vec![21, 3, 3, 0, 2, 2, number];
    for (answer, reason) in [
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
            "the server did not answer with TLS; it may expect plain http on this port",
        ),
        (
            alert(40),
            "the server found no parameters of TLS that both sides support",
        ),
        (alert(112), "the server does not know the URL's host name"),
        (
            alert(116),
            "the server asks for a client certificate, which is not supported",
        ),
        (
            alert(80),
            "the server ended the connection with alert \"internal error\"",
        ),
    ] {
        assert_eq!(detail_of_answer(answer), format!("tls: {reason}"));
    }
}

#[test]
fn a_ca_file_is_checked() {
    assert_eq!(check_ca_pem(AUTHORITY), Ok(1));
    assert_eq!(check_ca_pem(&[AUTHORITY, AUTHORITY].concat()), Ok(2));
    assert!(check_ca_pem(b"").is_err());
    assert!(check_ca_pem(b"not a certificate").is_err());
    let damaged = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert_eq!(
        check_ca_pem(&[AUTHORITY, damaged].concat()),
        Err("certificate 2 cannot be used: it is not a valid X.509 certificate".to_owned())
    );
    assert!(check_ca_pem(KEY).is_err());
}
