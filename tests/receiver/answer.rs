//! The answers, good and bad, byte by byte.
//!
//! Knows nothing of the request. An endless answer ends when the sender leaves:
//! the write fails, and with it the connection.

use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use crate::behaviour::{Behaviour, Plain};

/// What a dripping answer waits between two bytes.
const DRIP: Duration = Duration::from_secs(1);

/// How long a connection that does not read is kept: longer than any timeout a test sets.
const DEAF: Duration = Duration::from_secs(120);

/// What the 1xx flood waits between two answers, so that it floods the sender and not this machine.
const INFORMATIONAL_PAUSE: Duration = Duration::from_millis(1);

/// The body a dripping answer promises; nobody waits for its end.
const DRIP_BODY_BYTES: usize = 1000;

/// One write of an endless answer.
const ENDLESS_STEP_BYTES: usize = 8 * 1024;

/// Compressed size of the gzip bomb; it unpacks to about 160 times as much.
const BOMB_BYTES: usize = 1024 * 1024;

/// Whether the connection serves another request.
pub enum Next {
    Continue,
    End,
}

pub fn give(behaviour: &Behaviour, stream: &mut TcpStream) -> io::Result<Next> {
    match behaviour {
        Behaviour::Answer(plain) => return give_plain(plain, stream),
        Behaviour::Large { bytes } => return give_large(*bytes, stream),
        Behaviour::Binary => return give_binary(stream),
        Behaviour::GzipBomb => return give_gzip_bomb(stream),
        // Reached only while some path is overridden; else the short path answers.
        Behaviour::Count | Behaviour::Tally => return give_plain(&Plain::status(200), stream),
        // `Receiver::exchange` has turned these into an answer.
        Behaviour::Flaky { .. }
        | Behaviour::Unsteady { .. }
        | Behaviour::Refusing { .. }
        | Behaviour::OnceFailing
        | Behaviour::Hold { .. } => unreachable!("settled before"),
        Behaviour::Hang => hold(stream)?,
        // Reading would take the body, and without reading nobody learns that the sender has left.
        Behaviour::Deaf => thread::sleep(DEAF),
        Behaviour::HangHeaders => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/pl")?;
            hold(stream)?;
        }
        Behaviour::Drip => drip(stream, &dripped_answer())?,
        Behaviour::DripBody => give_dripping_body(stream)?,
        Behaviour::Endless => give_endless(stream)?,
        Behaviour::EndlessChunks => give_endless_chunks(stream)?,
        Behaviour::EndlessHeaders => give_endless_headers(stream)?,
        Behaviour::Informational => give_informational(stream)?,
        Behaviour::Reset => reset(stream)?,
        Behaviour::Drop => {}
        Behaviour::Garbage => stream.write_all(b"ERR 42 what is this\r\n\r\n")?,
        Behaviour::Raw { answer } => stream.write_all(answer.as_bytes())?,
        Behaviour::BothLengths => give_both_lengths(stream)?,
    }
    Ok(Next::End)
}

fn give_plain(plain: &Plain, stream: &mut TcpStream) -> io::Result<Next> {
    thread::sleep(plain.delay);
    let mut answer = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n",
        plain.status,
        reason(plain.status),
        plain.body.len()
    );
    if let Some(value) = &plain.retry_after {
        answer += &format!("retry-after: {value}\r\n");
    }
    if let Some(value) = &plain.location {
        answer += &format!("location: {value}\r\n");
    }
    answer += "\r\n";
    answer += &plain.body;
    stream.write_all(answer.as_bytes())?;
    Ok(if plain.closes {
        Next::End
    } else {
        Next::Continue
    })
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        302 => "Found",
        404 => "Not Found",
        410 => "Gone",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Scripted",
    }
}

fn give_body(stream: &mut TcpStream, fields: &str, body: &[u8]) -> io::Result<Next> {
    let head = format!(
        "HTTP/1.1 200 OK\r\n{fields}content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    Ok(Next::Continue)
}

fn give_large(bytes: usize, stream: &mut TcpStream) -> io::Result<Next> {
    // Copied, not counted out: a debug build would take longer than some deadlines.
    let alphabet: Vec<u8> = (b'a'..=b'z').collect();
    let mut body = alphabet.repeat(bytes / alphabet.len() + 1);
    body.truncate(bytes);
    give_body(stream, "content-type: text/plain\r\n", &body)
}

fn give_binary(stream: &mut TcpStream) -> io::Result<Next> {
    give_body(stream, "", b"before\0after \xff\xfe \xc3( end")
}

fn give_gzip_bomb(stream: &mut TcpStream) -> io::Result<Next> {
    static BOMB: OnceLock<Vec<u8>> = OnceLock::new();
    let bomb = BOMB.get_or_init(gzip_bomb);
    give_body(stream, "content-encoding: gzip\r\n", bomb)
}

/// Keeps the connection and says nothing until the sender leaves.
fn hold(stream: &mut TcpStream) -> io::Result<()> {
    io::copy(stream, &mut io::sink()).map(drop)
}

fn dripped_answer() -> Vec<u8> {
    let mut answer =
        format!("HTTP/1.1 200 OK\r\ncontent-length: {DRIP_BODY_BYTES}\r\n\r\n").into_bytes();
    answer.resize(answer.len() + DRIP_BODY_BYTES, b'.');
    answer
}

fn drip(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    for byte in bytes {
        stream.write_all(&[*byte])?;
        thread::sleep(DRIP);
    }
    Ok(())
}

fn give_dripping_body(stream: &mut TcpStream) -> io::Result<()> {
    let answer = dripped_answer();
    let (head, body) = answer.split_at(answer.len() - DRIP_BODY_BYTES);
    stream.write_all(head)?;
    drip(stream, body)
}

fn give_endless(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    let step = [b'.'; ENDLESS_STEP_BYTES];
    loop {
        stream.write_all(&step)?;
    }
}

fn give_endless_chunks(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
    let mut chunk = format!("{ENDLESS_STEP_BYTES:x}\r\n").into_bytes();
    chunk.resize(chunk.len() + ENDLESS_STEP_BYTES, b'.');
    chunk.extend_from_slice(b"\r\n");
    loop {
        stream.write_all(&chunk)?;
    }
}

fn give_endless_headers(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
    let mut number = 0_u64;
    loop {
        stream.write_all(format!("x-filler-{number}: {}\r\n", ".".repeat(100)).as_bytes())?;
        number += 1;
    }
}

fn give_informational(stream: &mut TcpStream) -> io::Result<()> {
    loop {
        stream.write_all(b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\n")?;
        thread::sleep(INFORMATIONAL_PAUSE);
    }
}

fn give_both_lengths(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n\
          a\r\n0123456789\r\n0\r\n\r\n",
    )
}

/// Closing with a zero linger time sends RST instead of FIN.
fn reset(stream: &mut TcpStream) -> io::Result<()> {
    socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO))
}

/// A gzip member whose deflate stream repeats one zero byte: in the fixed code,
/// 13 bits (length 258, distance 1) stand for 258 bytes.
fn gzip_bomb() -> Vec<u8> {
    let mut bits = Bits {
        bytes: vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255],
        filled: 0,
    };
    // Last block, fixed Huffman code (01, low bit first); then the literal 0.
    bits.push(&[1, 1, 0]);
    bits.push(&[0, 0, 1, 1, 0, 0, 0, 0]);
    while bits.bytes.len() < BOMB_BYTES {
        // Code 285 is 8 bits, 11000101; distance code 0 is 5 bits.
        bits.push(&[1, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0]);
    }
    // End of block. The checksum is left out: nobody should get that far.
    bits.push(&[0; 7]);
    bits.bytes
}

struct Bits {
    bytes: Vec<u8>,
    filled: u8,
}

impl Bits {
    fn push(&mut self, bits: &[u8]) {
        for bit in bits {
            if self.filled == 0 {
                self.bytes.push(0);
            }
            let last = self.bytes.len() - 1;
            self.bytes[last] |= bit << self.filled;
            self.filled = (self.filled + 1) % 8;
        }
    }
}
