//! Failures of this machine: a call that met one was not made.
//!
//! Without a free descriptor, port or page of memory nothing is known of the receiver, so that
//! nothing is held against it.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use ureq::Error;

/// What was lacking, in the words of the system.
#[derive(Debug)]
pub struct LocalFailure(pub String);

impl fmt::Display for LocalFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LocalFailure {}

/// The same as an error of a call.
pub fn local_failure(why: impl fmt::Display) -> Error {
    Error::Other(Box::new(LocalFailure(why.to_string())))
}

/// Whether this machine had no descriptor or memory left.
pub fn is_local(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    )
}

/// Whether a connection to `address` failed because no port is left for it. The same error
/// tells that this machine has no address that could reach it; then no datagram could, either.
pub fn lacks_port(error: &io::Error, address: SocketAddr) -> bool {
    let any = if address.is_ipv4() {
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))
    } else {
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))
    };
    error.kind() == ErrorKind::AddrNotAvailable
        && UdpSocket::bind(any)
            .and_then(|socket| socket.connect(address))
            .is_ok()
}

/// Whether a look-up that failed, for whatever reason it gives, had a descriptor to ask with.
pub fn lacks_descriptors() -> bool {
    File::open("/dev/null").is_err_and(|error| is_local(&error))
}

/// Why a call was not made; `None` if it was, or the receiver is to blame.
pub fn reason(error: &Error) -> Option<String> {
    match error {
        Error::Io(error) if is_local(error) => Some(error.to_string()),
        Error::Other(other) => other
            .downcast_ref::<LocalFailure>()
            .map(ToString::to_string),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_machine_lacks_is_not_the_receivers_fault() {
        for code in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM] {
            let error = Error::Io(io::Error::from_raw_os_error(code));
            assert!(reason(&error).is_some(), "{error}");
        }
        assert_eq!(
            reason(&local_failure("no port")).as_deref(),
            Some("no port")
        );
        for code in [libc::ECONNREFUSED, libc::ECONNRESET, libc::ENETUNREACH] {
            let error = Error::Io(io::Error::from_raw_os_error(code));
            assert_eq!(reason(&error), None, "{error}");
        }
    }

    #[test]
    fn a_port_is_lacking_only_where_datagrams_could_go() {
        let none = io::Error::from_raw_os_error(libc::EADDRNOTAVAIL);
        assert!(lacks_port(&none, ([127, 0, 0, 1], 80).into()));
        let refused = io::Error::from_raw_os_error(libc::ECONNREFUSED);
        assert!(!lacks_port(&refused, ([127, 0, 0, 1], 80).into()));
    }
}
