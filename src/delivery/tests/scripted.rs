//! A receiver for tests: each connection plays a script, every request is
//! kept.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// A request as it came in.
#[derive(Clone, Debug)]
pub struct Received {
    pub head: String,
    pub body: Vec<u8>,
}

impl Received {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// One accepted connection.
pub struct Connection {
    pub number: usize,
    pub stream: Box<dyn ReadWrite>,
    log: Arc<Mutex<Vec<Received>>>,
}

pub trait ReadWrite: Read + Write + Send {}
impl<T: Read + Write + Send> ReadWrite for T {}

impl Connection {
    /// Reads one request; `None` when the client is gone.
    pub fn request(&mut self) -> Option<Received> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            match self.stream.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                _ => return None,
            }
        }
        let mut received = Received {
            head: String::from_utf8(head).unwrap(),
            body: Vec::new(),
        };
        let length = received.header("content-length").unwrap().parse().unwrap();
        received.body.resize(length, 0);
        self.stream.read_exact(&mut received.body).ok()?;
        self.log.lock().unwrap().push(received.clone());
        Some(received)
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())?;
        self.stream.flush()
    }

    /// Answers every request the same.
    pub fn answer_all(&mut self, answer: &str) {
        while self.request().is_some() && self.send(answer).is_ok() {}
    }

    /// Waits, silent, until the client is gone.
    pub fn hang(&mut self) {
        let _ = io::copy(&mut self.stream, &mut io::sink());
    }
}

/// The receiver. Its threads end with their connections.
pub struct Receiver {
    pub address: SocketAddr,
    log: Arc<Mutex<Vec<Received>>>,
    connections: Arc<Mutex<usize>>,
}

impl Receiver {
    pub fn start(script: impl Fn(&mut Connection) + Send + Sync + 'static) -> Self {
        Self::start_wrapped(|stream| Some(Box::new(stream)), script)
    }

    /// `wrap` may add TLS to a connection, or give it up.
    pub fn start_wrapped(
        wrap: impl Fn(TcpStream) -> Option<Box<dyn ReadWrite>> + Send + Sync + 'static,
        script: impl Fn(&mut Connection) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let receiver = Self {
            address: listener.local_addr().unwrap(),
            log: Arc::default(),
            connections: Arc::default(),
        };
        let (log, connections) = (Arc::clone(&receiver.log), Arc::clone(&receiver.connections));
        let (wrap, script) = (Arc::new(wrap), Arc::new(script));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let number = {
                    let mut connections = connections.lock().unwrap();
                    *connections += 1;
                    *connections
                };
                let (wrap, script, log) = (wrap.clone(), script.clone(), log.clone());
                thread::spawn(move || {
                    if let Some(stream) = wrap(stream) {
                        script(&mut Connection {
                            number,
                            stream,
                            log,
                        });
                    }
                });
            }
        });
        receiver
    }

    /// A receiver that answers 200 to everything.
    pub fn friendly() -> Self {
        Self::start(|connection| connection.answer_all(OK))
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    pub fn received(&self) -> Vec<Received> {
        self.log.lock().unwrap().clone()
    }

    pub fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }
}

pub const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Waits until it holds, and fails the test if it does not within `limit`.
pub fn wait_until(what: &str, limit: Duration, holds: impl Fn() -> bool) {
    let until = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < until, "{what}: not within {limit:?}");
        thread::sleep(Duration::from_millis(1));
    }
}
