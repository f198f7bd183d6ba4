//! A TCP connection under a total deadline.
//!
//! Replaces ureq's own transport for three reasons: no wait outlasts the call's deadline, not
//! even for a receiver that takes a byte at a time; head and body leave in one write; a request
//! on a kept connection costs one write and one read instead of twelve system calls.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, NextTimeout, ShutdownHandle, Transport,
};
use ureq::{Error, Timeout};

use super::buffers::WireBuffers;
use super::failure_class::FailureClass;
use super::local::{self, local_failure};
use super::ongoing::Ongoing;
use super::resolver::Refused;
use super::tls::TlsSocket;

/// A socket timeout this close to the wanted one is kept: setting it costs two system calls per
/// call. Deadlines are overrun by at most this.
const TIMEOUT_SLACK: Duration = Duration::from_millis(20);

/// A connection idle for less than this is used without checking whether the receiver closed
/// it; if it did, the call is repeated once on a new connection.
const PROBE_AFTER_IDLE: Duration = Duration::from_millis(10);

/// Dials the addresses that passed the policy; https is wrapped in TLS.
#[derive(Debug)]
pub struct Dialer {
    pub ongoing: Arc<Ongoing>,
    pub tls: Arc<rustls::ClientConfig>,
}

impl Connector for Dialer {
    type Out = Either<Socket, TlsSocket>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        _chained: Option<()>,
    ) -> Result<Option<Self::Out>, Error> {
        self.ongoing.note_dialled();
        let connect = |address: &SocketAddr, left| TcpStream::connect_timeout(address, left);
        let stream = dial(&details.addrs, &self.ongoing, connect)?;
        stream.set_nodelay(true)?;
        let socket = Socket::new(stream, Arc::clone(&self.ongoing));
        (details.register_shutdown)(socket.shutdown_handle())?;
        let connected = if details.needs_tls() {
            Either::B(TlsSocket::handshake(socket, &self.tls, details)?)
        } else {
            Either::A(socket)
        };
        self.ongoing.note_connected();
        Ok(Some(connected))
    }
}

/// Tries the addresses in order; each gets an equal share of the remaining time, the last one
/// all of it.
fn dial<S>(
    addresses: &[SocketAddr],
    ongoing: &Ongoing,
    connect: impl Fn(&SocketAddr, Duration) -> io::Result<S>,
) -> Result<S, Error> {
    let mut failure = Error::HostNotFound;
    let mut untried = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    for address in addresses {
        let Some(left) = ongoing.remaining() else {
            return Err(Error::Timeout(Timeout::Connect));
        };
        match connect(address, left / untried) {
            Ok(stream) => return Ok(stream),
            Err(error) if local::is_local(&error) || local::lacks_port(&error, *address) => {
                return Err(local_failure(error));
            }
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                failure = Error::Timeout(Timeout::Connect);
            }
            Err(error) => failure = Error::Io(error),
        }
        untried -= 1;
    }
    Err(failure)
}

/// One plain connection.
#[derive(Debug)]
pub struct Socket {
    /// The agent holds a weak reference, so that a shutdown interrupts it.
    stream: Arc<TcpStream>,
    ongoing: Arc<Ongoing>,
    buffers: WireBuffers,
    read_timeout: Duration,
    write_timeout: Duration,
    /// When it became idle.
    idle_since: Option<Instant>,
    /// The error that ended sending. The receiver may have answered before it stopped reading,
    /// so the error is reported only if no answer can be read.
    send_error: Option<Error>,
}

impl Socket {
    fn new(stream: TcpStream, ongoing: Arc<Ongoing>) -> Self {
        Self {
            stream: Arc::new(stream),
            ongoing,
            buffers: WireBuffers::default(),
            read_timeout: Duration::MAX,
            write_timeout: Duration::MAX,
            idle_since: None,
            send_error: None,
        }
    }

    fn shutdown_handle(&self) -> Weak<dyn ShutdownHandle> {
        let handle: Weak<TcpStream> = Arc::downgrade(&self.stream);
        handle
    }

    fn flush(&mut self) -> Result<(), Error> {
        let mut sent = 0;
        while sent < self.buffers.pending().len() {
            let left = self.left(NextTimeout::default(), Timeout::SendBody)?;
            if needs_change(self.write_timeout, left) {
                self.stream.set_write_timeout(Some(left))?;
                self.write_timeout = left;
            }
            match (&*self.stream).write(&self.buffers.pending()[sent..]) {
                Ok(bytes) => sent += bytes,
                Err(error) if is_timeout(&error) || error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Io(error)),
            }
        }
        if sent > 0 {
            self.ongoing.note_sent();
        }
        self.buffers.clear_pending();
        Ok(())
    }

    fn flush_or_remember(&mut self) -> Result<(), Error> {
        match self.flush() {
            Err(Error::Io(error)) => {
                self.buffers.clear_pending();
                self.send_error = Some(Error::Io(error));
                Ok(())
            }
            other => other,
        }
    }

    fn receive(&mut self, timeout: NextTimeout) -> Result<usize, Error> {
        loop {
            let left = self.left(timeout, Timeout::RecvResponse)?;
            if needs_change(self.read_timeout, left) {
                self.stream.set_read_timeout(Some(left))?;
                self.read_timeout = left;
            }
            match (&*self.stream).read(self.buffers.input_append_buf()) {
                Ok(bytes) => return Ok(bytes),
                Err(error) if is_timeout(&error) || error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Io(error)),
            }
        }
    }

    /// The remaining time of the call, or the shorter wait that ureq asks for.
    fn left(&self, timeout: NextTimeout, phase: Timeout) -> Result<Duration, Error> {
        let left = self.ongoing.remaining().ok_or(Error::Timeout(phase))?;
        match *timeout.after {
            wait if wait < left => Ok(wait.max(Duration::from_millis(1))),
            _ => Ok(left),
        }
    }

    /// Whether nothing can be read: a kept connection with readable data was closed by the
    /// receiver, or holds an answer that no request asked for.
    fn is_quiet(&self) -> io::Result<bool> {
        self.stream.set_nonblocking(true)?;
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false)?;
        Ok(peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock))
    }
}

impl Transport for Socket {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _timeout: NextTimeout) -> Result<(), Error> {
        self.idle_since = None;
        if self.send_error.is_some() {
            return Ok(());
        }
        if self.buffers.add_pending(amount) {
            self.flush_or_remember()?;
        }
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.idle_since = None;
        self.flush_or_remember()?;
        let received = match (self.receive(timeout), self.send_error.take()) {
            (Ok(bytes), send_error) if bytes > 0 => {
                self.send_error = send_error;
                bytes
            }
            (_, Some(send_error)) => return Err(send_error),
            (received, None) => received?,
        };
        if !self.ongoing.note_received(received) {
            let why = "the answer has no end".to_owned();
            let class = FailureClass::Other;
            return Err(Error::Other(Box::new(Refused { why, class })));
        }
        self.buffers.input_appended(received);
        Ok(received > 0)
    }

    /// ureq calls this twice: after a call, and before the next one.
    fn is_open(&mut self) -> bool {
        if self.send_error.is_some() || !self.buffers.pending().is_empty() {
            return false;
        }
        match self.idle_since.take() {
            None => {
                self.idle_since = Some(Instant::now());
                true
            }
            Some(_) if self.ongoing.fresh_only() => false,
            Some(since) if since.elapsed() < PROBE_AFTER_IDLE => true,
            Some(_) => self.is_quiet().unwrap_or(false),
        }
    }
}

/// Whether the socket timeout differs too much from the wanted one.
fn needs_change(current: Duration, wanted: Duration) -> bool {
    current.abs_diff(wanted) > TIMEOUT_SLACK
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialled(code: i32) -> Option<String> {
        let ongoing = Ongoing::new(0);
        ongoing.begin(Instant::now() + Duration::from_secs(60), false);
        let addresses = [([127, 0, 0, 1], 9).into(), ([127, 0, 0, 2], 9).into()];
        let failing = |_: &SocketAddr, _| Err::<(), _>(io::Error::from_raw_os_error(code));
        let error = dial(&addresses, &ongoing, failing).expect_err("nothing connects");
        local::reason(&error)
    }

    #[test]
    fn a_failure_of_this_machine_is_told_from_one_of_the_receiver() {
        for code in [
            libc::EMFILE,
            libc::ENFILE,
            libc::ENOBUFS,
            libc::ENOMEM,
            libc::EADDRNOTAVAIL,
        ] {
            assert!(dialled(code).is_some(), "{code}");
        }
        for code in [libc::ECONNREFUSED, libc::ETIMEDOUT, libc::EHOSTUNREACH] {
            assert_eq!(dialled(code), None, "{code}");
        }
    }
}
