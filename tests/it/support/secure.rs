//! A receiver behind TLS, with whatever certificate a test wants, and what came
//! to it. Certificates are made when they are needed; nothing is kept.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use rcgen::{date_time_ymd, BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::Received;

/// What is wrong with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certificate {
    Good,
    Expired,
    NotYetValid,
    ForAnotherName,
    SelfSigned,
    /// One of an authority, signed by the one that is trusted.
    OfAuthority,
}

/// Signs certificates of test receivers. A client that has to trust it needs its [`Self::pem`].
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    pub fn pem(&self) -> &str {
        &self.pem
    }

    fn server_config(&self, certificate: Certificate) -> ServerConfig {
        let name = match certificate {
            Certificate::ForAnotherName => "other.example",
            _ => "localhost",
        };
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        match certificate {
            Certificate::Expired => params.not_after = date_time_ymd(2020, 1, 1),
            Certificate::NotYetValid => params.not_before = date_time_ymd(2999, 1, 1),
            // Otherwise it names the authority that is trusted.
            Certificate::SelfSigned => params.distinguished_name.push(DnType::CommonName, "nobody"),
            Certificate::OfAuthority => params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
            _ => {}
        }
        let key = KeyPair::generate().unwrap();
        let signed = match certificate {
            Certificate::SelfSigned => params.self_signed(&key),
            _ => params.signed_by(&key, &self.issuer),
        };
        let chain = vec![signed.unwrap().der().clone()];
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap()
    }
}

#[derive(Default)]
struct Seen {
    /// Connections on which somebody began a handshake.
    connections: usize,
    /// Bytes that came through TLS.
    bytes: usize,
    received: Vec<Received>,
}

/// Answers every request with 200. Ends with the test's process.
pub struct SecureReceiver {
    port: u16,
    config: Arc<Mutex<Arc<ServerConfig>>>,
    seen: Arc<Mutex<Seen>>,
}

impl SecureReceiver {
    pub fn start(authority: &Authority, certificate: Certificate) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let config = Arc::new(authority.server_config(certificate));
        let receiver = Self {
            port: listener.local_addr().unwrap().port(),
            config: Arc::new(Mutex::new(config)),
            seen: Arc::default(),
        };
        let (config, seen) = (Arc::clone(&receiver.config), Arc::clone(&receiver.seen));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, seen) = (Arc::clone(&config.lock().unwrap()), Arc::clone(&seen));
                // How a connection ends is the point of a test, not an error here.
                thread::spawn(move || serve(stream, config, &seen));
            }
        });
        receiver
    }

    /// Shows another certificate to clients that connect from now on.
    pub fn present(&self, authority: &Authority, certificate: Certificate) {
        *self.config.lock().unwrap() = Arc::new(authority.server_config(certificate));
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port)
    }

    pub fn connections(&self) -> usize {
        self.seen.lock().unwrap().connections
    }

    /// Bytes that somebody sent once the handshake was over.
    pub fn bytes(&self) -> usize {
        self.seen.lock().unwrap().bytes
    }

    pub fn received(&self) -> Vec<Received> {
        self.seen.lock().unwrap().received.clone()
    }
}

fn serve(mut stream: TcpStream, config: Arc<ServerConfig>, seen: &Mutex<Seen>) -> Option<()> {
    // A handshake begins with a byte; who connects and leaves is not counted.
    stream.peek(&mut [0]).ok().filter(|bytes| *bytes > 0)?;
    seen.lock().unwrap().connections += 1;
    let mut tls = ServerConnection::new(config).ok()?;
    while tls.is_handshaking() {
        tls.complete_io(&mut stream).ok()?;
    }
    let mut stream = StreamOwned::new(tls, stream);
    let (mut request, mut some) = (Vec::new(), [0; 4096]);
    loop {
        let bytes = stream.read(&mut some).ok().filter(|bytes| *bytes > 0)?;
        seen.lock().unwrap().bytes += bytes;
        request.extend_from_slice(&some[..bytes]);
        if let Some(received) = parse(&request) {
            seen.lock().unwrap().received.push(received);
            request.clear();
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                .ok()?;
        }
    }
}

/// The request, once head and body are there; the sender waits for an answer before it
/// sends more.
fn parse(request: &[u8]) -> Option<Received> {
    let text = String::from_utf8_lossy(request);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ').map(str::to_owned);
    let fields = lines.filter_map(|line| line.split_once(": "));
    let headers: BTreeMap<String, String> = fields
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers
        .get("content-length")
        .expect("a request says its length");
    let is_complete = body.len() >= length.parse().expect("a length is a number");
    is_complete.then(|| Received {
        seq: 0,
        received_at_us: 0,
        method: first.next().unwrap_or_default(),
        path: first.next().unwrap_or_default(),
        headers,
        raw: body.to_owned(),
    })
}
