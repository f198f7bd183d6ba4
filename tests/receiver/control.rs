//! The control API under `/_control/`: what a test asks and orders.
//!
//! ```text
//! GET  /_control/count?path=/ok      {"count": n, "in_flight": n, "most_in_flight": n}; with the paths below it
//! GET  /_control/tally?path=/tally   which rows came to a path, and as how many messages (see `tally`)
//! GET  /_control/calls           `<call id> <message id>` a line of all requests that have them; before
//!                                them how many requests are kept, and how many came
//! GET  /_control/log?since=n         requests after number n, one JSON object a line
//! POST /_control/behaviour           {"path": "/ok", "as": "/status/503?retry-after=7", "times": 2}
//!                                    or {"path": "/ok", "status": 503}; with "path" alone: as written again
//! POST /_control/reset               forget requests, counts and overrides
//! ```
//!
//! Each answer ends its connection. A mistake gets 400 and a text that says which.

use std::io::{self, BufWriter, Write};
use std::net::TcpStream;

use serde_json::Value;

use crate::behaviour::{path_of, Override};
use crate::exchange::Receiver;
use crate::http::{Head, Wire};

pub fn answer(receiver: &Receiver, mut wire: Wire, head: &Head) -> io::Result<()> {
    let bytes = wire.take_head(head);
    let method = String::from_utf8_lossy(&bytes[head.method.clone()]).into_owned();
    let target = String::from_utf8_lossy(&bytes[head.target.clone()]).into_owned();
    let body = wire.take_body(head.length)?;
    let mut stream = wire.into_stream();
    let parameter = |wanted: &str| {
        let query = target.split_once('?').map_or("", |(_, query)| query);
        url::form_urlencoded::parse(query.as_bytes())
            .find(|(name, _)| name == wanted)
            .map(|(_, value)| value.into_owned())
    };
    match (method.as_str(), path_of(&target)) {
        ("GET", "/_control/count") => {
            let count = receiver.journal.count(parameter("path").as_deref());
            reply(&mut stream, 200, &format!("{count}\n"))
        }
        ("GET", "/_control/tally") => {
            let tally = receiver
                .tally
                .report(&parameter("path").unwrap_or_default());
            reply(&mut stream, 200, &format!("{tally}\n"))
        }
        ("GET", "/_control/calls") => send_calls(receiver, stream),
        ("GET", "/_control/log") => {
            let since = parameter("since").and_then(|number| number.parse().ok());
            send_log(receiver, since.unwrap_or(0), stream)
        }
        ("POST", "/_control/behaviour") => match set_behaviour(receiver, &body) {
            Ok(()) => reply(&mut stream, 200, "{}\n"),
            Err(message) => reply(&mut stream, 400, &message),
        },
        ("POST", "/_control/reset") => {
            receiver.journal.reset();
            receiver.script.reset();
            receiver.tally.reset();
            reply(&mut stream, 200, "{}\n")
        }
        _ => reply(&mut stream, 404, "no such control"),
    }
}

fn set_behaviour(receiver: &Receiver, body: &[u8]) -> Result<(), String> {
    let order: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let path = order["path"].as_str().ok_or("path is missing")?;
    let target = match (order["as"].as_str(), order["status"].as_u64()) {
        (Some(target), None) => Some(target.to_owned()),
        (None, Some(status)) => Some(format!("/status/{status}")),
        (None, None) => None,
        (Some(_), Some(_)) => return Err("as and status exclude each other".into()),
    };
    let times = order["times"].as_u64();
    receiver
        .script
        .set(path, target.map(|target| Override { target, times }));
    Ok(())
}

fn send_calls(receiver: &Receiver, stream: TcpStream) -> io::Result<()> {
    let mut out = BufWriter::new(stream);
    out.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")?;
    let kept = receiver.journal.since(0);
    let came = kept.last().map_or(0, |received| received.seq);
    writeln!(out, "{} {came}", kept.len())?;
    for received in kept {
        let ids = (
            received.header("webhook-call-id"),
            received.header("webhook-id"),
        );
        if let (Some(call), Some(message)) = ids {
            writeln!(out, "{call} {message}")?;
        }
    }
    out.flush()
}

fn send_log(receiver: &Receiver, since: u64, stream: TcpStream) -> io::Result<()> {
    let mut out = BufWriter::new(stream);
    out.write_all(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/jsonl\r\nconnection: close\r\n\r\n",
    )?;
    for received in receiver.journal.since(since) {
        writeln!(out, "{}", received.to_json())?;
    }
    out.flush()
}

fn reply(stream: &mut TcpStream, status: u16, body: &str) -> io::Result<()> {
    let answer = format!(
        "HTTP/1.1 {status} Control\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes())
}
