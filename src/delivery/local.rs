//! Resource failures of this machine.
//!
//! A call that finds no free descriptor, port or memory was not made and counts as no attempt.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use ureq::Error;

/// The missing resource, as the operating system names it.
#[derive(Debug)]
pub struct LocalFailure(pub String);

impl fmt::Display for LocalFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LocalFailure {}

/// Wraps a [`LocalFailure`] as an error of ureq.
pub fn local_failure(why: impl fmt::Display) -> Error {
    Error::Other(Box::new(LocalFailure(why.to_string())))
}

/// Whether the error means that this machine has no descriptor or memory left.
pub fn is_local(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    )
}

/// Whether a connection to `address` failed because no local port is free. The same error code
/// also means that no local address can reach it; a datagram socket tells the two apart.
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

/// Whether no descriptor is free: then the reason that a failed look-up gives is not to be trusted.
pub fn lacks_descriptors() -> bool {
    File::open("/dev/null").is_err_and(|error| is_local(&error))
}

/// Which local resource was missing; `None` if the error is not local.
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
