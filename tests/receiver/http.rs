//! Requests off the wire: heads, bodies, and nothing about their meaning.
//!
//! Strict enough to notice a sender's mistakes, quick enough for 60,000 small
//! requests a second. An error ends the connection.

use std::io::{self, Read};
use std::net::TcpStream;
use std::ops::Range;

/// One read takes a usual request whole.
const BUFFER_BYTES: usize = 16 * 1024;

/// A head larger than this is a sender's mistake.
const HEAD_LIMIT_BYTES: usize = 256 * 1024;

/// The read half of a connection, with what has arrived and is not used yet.
pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

/// A parsed head; its bytes stand at the start of the wire's unused input.
pub struct Head {
    pub bytes: usize,
    pub method: Range<usize>,
    /// Path and query as sent.
    pub target: Range<usize>,
    pub length: Length,
    /// The sender waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
}

/// How the end of a body is found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Length {
    Known(usize),
    Chunked,
}

impl Wire {
    pub fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            buffer: vec![0; BUFFER_BYTES],
            start: 0,
            end: 0,
        }
    }

    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Input that has arrived and is not used yet.
    pub fn unused(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// The next head, or `None` when the sender closed between two requests.
    pub fn read_head(&mut self) -> io::Result<Option<Head>> {
        let mut searched = 0;
        loop {
            if let Some(end) = find(&self.unused()[searched..], b"\r\n\r\n") {
                return parse_head(&self.unused()[..searched + end + 4]).map(Some);
            }
            // The terminator may be split between two reads.
            searched = self.unused().len().saturating_sub(3);
            if self.unused().len() > HEAD_LIMIT_BYTES {
                return Err(malformed("head too large"));
            }
            if self.fill()? == 0 {
                return if self.unused().is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }

    /// Takes the head's bytes off the wire.
    pub fn take_head(&mut self, head: &Head) -> Box<[u8]> {
        let bytes = self.unused()[..head.bytes].into();
        self.start += head.bytes;
        bytes
    }

    /// Takes head and body off the wire without looking at them.
    pub fn skip(&mut self, head: &Head) -> io::Result<()> {
        self.start += head.bytes;
        let Length::Known(mut left) = head.length else {
            return self.take_chunks().map(drop);
        };
        loop {
            let step = left.min(self.unused().len());
            self.start += step;
            left -= step;
            if left == 0 {
                return Ok(());
            }
            self.fill_or_fail()?;
        }
    }

    /// Takes the body off the wire; the head must have been taken.
    pub fn take_body(&mut self, length: Length) -> io::Result<Vec<u8>> {
        match length {
            Length::Known(bytes) => self.take_bytes(bytes),
            Length::Chunked => self.take_chunks(),
        }
    }

    fn take_bytes(&mut self, bytes: usize) -> io::Result<Vec<u8>> {
        let mut body = Vec::with_capacity(bytes);
        loop {
            let step = (bytes - body.len()).min(self.unused().len());
            body.extend_from_slice(&self.unused()[..step]);
            self.start += step;
            if body.len() == bytes {
                return Ok(body);
            }
            self.fill_or_fail()?;
        }
    }

    fn take_chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.take_line()?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            let bytes = usize::from_str_radix(digits, 16).map_err(|_| malformed("chunk size"))?;
            if bytes == 0 {
                // Trailers, if any, end with an empty line.
                while !self.take_line()?.is_empty() {}
                return Ok(body);
            }
            body.extend(self.take_bytes(bytes)?);
            if !self.take_line()?.is_empty() {
                return Err(malformed("chunk end"));
            }
        }
    }

    fn take_line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = find(self.unused(), b"\r\n") {
                let line = String::from_utf8_lossy(&self.unused()[..end]).into_owned();
                self.start += end + 2;
                return Ok(line);
            }
            self.fill_or_fail()?;
        }
    }

    fn fill_or_fail(&mut self) -> io::Result<()> {
        match self.fill()? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Reads once; makes room first.
    fn fill(&mut self) -> io::Result<usize> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.end == self.buffer.len() {
                self.buffer.resize(self.buffer.len() * 2, 0);
            }
        }
        let bytes = self.stream.read(&mut self.buffer[self.end..])?;
        self.end += bytes;
        Ok(bytes)
    }
}

fn parse_head(head: &[u8]) -> io::Result<Head> {
    let line_end = find(head, b"\r\n").ok_or(malformed("request line"))?;
    let mut spaces = (0..line_end).filter(|&at| head[at] == b' ');
    let (Some(first), Some(second), None) = (spaces.next(), spaces.next(), spaces.next()) else {
        return Err(malformed("request line"));
    };
    let mut parsed = Head {
        bytes: head.len(),
        method: 0..first,
        target: first + 1..second,
        length: Length::Known(0),
        expects_continue: false,
    };
    for (name, value) in fields(head) {
        if name.eq_ignore_ascii_case(b"content-length") {
            let digits = std::str::from_utf8(value).ok();
            let bytes = digits.and_then(|digits| digits.parse().ok());
            parsed.length = Length::Known(bytes.ok_or(malformed("content-length"))?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            parsed.length = Length::Chunked;
        } else if name.eq_ignore_ascii_case(b"expect") {
            parsed.expects_continue = true;
        }
    }
    Ok(parsed)
}

/// Names and values of a head's fields, as sent.
pub fn fields(head: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let fields = head
        .split(|&byte| byte == b'\n')
        .skip(1)
        .filter_map(|line| {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let colon = line.iter().position(|&byte| byte == b':')?;
            Some((&line[..colon], line[colon + 1..].trim_ascii()))
        });
    fields
}

/// The value of a header; of several, the first.
pub fn header(head: &[u8], wanted: &str) -> Option<String> {
    fields(head)
        .find(|(name, _)| name.eq_ignore_ascii_case(wanted.as_bytes()))
        .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("malformed request: {what}"),
    )
}
