//! Ports where nobody speaks HTTP: full, silent, or not to be dialled at all.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::cluster::free_port;

/// How long a connection may take that is to fill a queue.
const FILLING: Duration = Duration::from_secs(1);

/// A port where connections are neither accepted nor refused: its queue is full, and
/// the kernel drops what knocks, as a firewall does.
pub struct FullListener {
    pub port: u16,
    _listener: Socket,
    _waiting: Vec<TcpStream>,
}

impl FullListener {
    pub fn new() -> Self {
        let port = free_port();
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        listener.set_reuse_address(true).unwrap();
        listener.bind(&address.into()).unwrap();
        listener.listen(0).unwrap();
        let mut waiting = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, FILLING) {
            waiting.push(stream);
        }
        Self {
            port,
            _listener: listener,
            _waiting: waiting,
        }
    }
}

/// A port where connections come about and nothing ever happens on them.
pub struct SilentListener {
    pub port: u16,
    listener: TcpListener,
}

impl SilentListener {
    pub fn new() -> Self {
        Self::at(Ipv4Addr::LOCALHOST, free_port())
    }

    pub fn at(address: Ipv4Addr, port: u16) -> Self {
        let listener = TcpListener::bind((address, port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self { port, listener }
    }

    /// How many have connected since the last call; their connections end.
    pub fn take_connections(&self) -> usize {
        let mut connections = 0;
        loop {
            match self.listener.accept() {
                Ok(_) => connections += 1,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return connections,
                Err(error) => panic!("{error}"),
            }
        }
    }
}
