//! TLS over a [`Socket`], and its trusted roots.
//!
//! All clients share one configuration: the roots are parsed once, and any thread can resume a
//! session. ureq's own connector builds both per agent and cannot add roots to the built-in ones.

use std::fmt;
use std::io::{Read, Write};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, NextTimeout, Transport, TransportAdapter,
};
use ureq::Error;

use super::buffers::WireBuffers;
use super::failure_class::FailureClass;
use super::resolver::Refused;
use super::socket::Socket;
use super::tls_failures::{describe, describe_ca};

/// The number of usable certificates in `webhook.ca_file`.
///
/// # Errors
/// If the text is not PEM or has no usable certificate.
pub fn check_ca_pem(pem: &[u8]) -> Result<usize, String> {
    let mut roots = RootCertStore::empty();
    for (certificate, number) in CertificateDer::pem_slice_iter(pem).zip(1..) {
        let certificate =
            certificate.map_err(|_| format!("certificate {number} is not valid PEM"))?;
        roots.add(certificate).map_err(|error| {
            format!(
                "certificate {number} cannot be used: {}",
                describe_ca(&error)
            )
        })?;
    }
    match roots.len() {
        0 => Err("no certificate in it".to_owned()),
        usable => Ok(usable),
    }
}

/// Trusts the built-in roots and those of the PEM text. Unusable certificates are ignored, which
/// only trusts less; [`check_ca_pem`] reports them.
pub fn trusting(ca_pem: Option<&[u8]>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    let own = CertificateDer::pem_slice_iter(ca_pem.unwrap_or_default());
    roots.add_parsable_certificates(own.filter_map(Result::ok));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring supports the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// A secured connection.
pub struct TlsSocket {
    buffers: WireBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter<Socket>>,
}

impl TlsSocket {
    /// Completes the handshake, so that an untrusted certificate fails before anything is sent.
    pub fn handshake(
        socket: Socket,
        config: &Arc<ClientConfig>,
        details: &ConnectionDetails,
    ) -> Result<Self, Error> {
        let host = details.uri.host().ok_or(Error::HostNotFound)?;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(bare.to_owned())
            .map_err(|_| tls_failure("the host name cannot be one of a certificate"))?;
        let mut connection = ClientConnection::new(Arc::clone(config), name)
            .map_err(|error| tls_failure(&describe(&error)))?;
        let mut adapter = TransportAdapter::new(socket, Arc::clone(&details.current_time));
        connection
            .complete_io(&mut adapter)
            .map_err(handshake_failure)?;
        Ok(Self {
            buffers: WireBuffers::default(),
            stream: StreamOwned::new(connection, adapter),
        })
    }
}

fn tls_failure(why: &str) -> Error {
    let why = format!("tls: {why}");
    let class = FailureClass::Tls;
    Error::Other(Box::new(Refused { why, class }))
}

/// Timeouts and broken connections keep their error kind.
fn handshake_failure(error: std::io::Error) -> Error {
    match tls_error(&error) {
        Some(why) => tls_failure(&describe(why)),
        None => Error::from(error),
    }
}

/// What TLS says of a connection that failed, if it was not the connection itself.
pub fn tls_error(error: &std::io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

impl Transport for TlsSocket {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream.sock.set_timeout(timeout);
        self.stream.write_all(&self.buffers.output()[..amount])?;
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.sock.set_timeout(timeout);
        let received = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(received);
        Ok(received > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.sock.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

impl fmt::Debug for TlsSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsSocket")
    }
}
