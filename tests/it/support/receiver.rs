//! The scripted receiver as a child process, and its control API in types.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{json, Value};
use uuid::Uuid;

use super::bookkeeping;
use super::wait::wait_until;

/// One request as the receiver got it.
#[derive(Clone, Debug, Deserialize)]
pub struct Received {
    /// Order of arrival, over all paths.
    pub seq: u64,
    /// Microseconds since 1970, when the request was complete.
    pub received_at_us: u64,
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    #[serde(rename = "body")]
    pub raw: String,
}

impl Received {
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.unwrap_or_else(|| panic!("no header {name} in {self:?}"))
    }

    pub fn message_id(&self) -> &str {
        self.header("webhook-id")
    }

    pub fn attempt(&self) -> u32 {
        self.header("webhook-attempt").parse().unwrap()
    }

    /// The body, which must be JSON.
    pub fn body(&self) -> Value {
        serde_json::from_str(&self.raw).unwrap_or_else(|error| panic!("{error} in {}", self.raw))
    }
}

pub struct Count {
    pub requests: u64,
    pub in_flight: u64,
    /// The highest `in_flight` since the start or the last reset.
    pub most_in_flight: u64,
}

/// What came to a path `/tally…`: rows by their `id`, under which message ids.
#[derive(Debug, Deserialize, PartialEq, Eq)]
pub struct Tally {
    pub rows: u64,
    pub least: Option<u64>,
    pub greatest: Option<u64>,
    pub messages: u64,
    /// Requests with a row that had come under another message id.
    pub renamed: u64,
    /// Requests that were not about one row and one message.
    pub unreadable: u64,
}

pub struct Receiver {
    process: Child,
    port: u16,
}

impl Receiver {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// On a port that is known before: nobody listens there until now.
    pub fn start_at(port: u16) -> Self {
        Self::start_with(&["--port", &port.to_string()])
    }

    /// One that keeps only the last `requests`; counts stay complete.
    pub fn start_keeping(requests: usize) -> Self {
        Self::start_with(&["--keep", &requests.to_string()])
    }

    /// One that appends every request to a file before it answers, so that nothing is lost
    /// when it is killed, and keeps few itself. Port 0 takes a free one.
    pub fn start_logging(port: u16, file: &Path) -> Self {
        let file = file.to_str().expect("the path is text");
        Self::start_with(&["--port", &port.to_string(), "--keep", "1000", "--log", file])
    }

    fn start_with(options: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_webhook-receiver"))
            // Its stdin closes with this process, however that ends.
            .arg("--until-stdin-closes")
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the receiver was built with the tests");
        let mut port = String::new();
        let stdout = process.stdout.take().expect("stdout is piped");
        BufReader::new(stdout).read_line(&mut port).unwrap();
        let port = port.trim().parse();
        let port = port.expect("the receiver announces its port");
        bookkeeping::receiver_starts(port);
        Self { process, port }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of a path; the path says how it behaves (tests/receiver/behaviour.rs).
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Requests to a path and all paths below it.
    pub fn count(&self, path: &str) -> Count {
        let answer = self.control("GET", &format!("/_control/count?path={path}"), "");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let number = |name: &str| answer[name].as_u64().expect("a count is a number");
        Count {
            requests: number("count"),
            in_flight: number("in_flight"),
            most_in_flight: number("most_in_flight"),
        }
    }

    /// Which rows have come to a path `/tally…`.
    pub fn tally(&self, path: &str) -> Tally {
        let answer = self.control("GET", &format!("/_control/tally?path={path}"), "");
        serde_json::from_str(&answer).unwrap()
    }

    /// Every request so far, in order of arrival.
    pub fn received(&self) -> Vec<Received> {
        self.received_since(0)
    }

    /// Requests with a number above `seq`.
    pub fn received_since(&self, seq: u64) -> Vec<Received> {
        let log = self.control("GET", &format!("/_control/log?since={seq}"), "");
        log.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Requests to exactly this path (and query).
    pub fn received_at(&self, path: &str) -> Vec<Received> {
        let mut received = self.received();
        received.retain(|request| request.path == path);
        received
    }

    /// Makes `path` behave as `target` from now on.
    pub fn behave(&self, path: &str, target: &str) {
        self.order(json!({"path": path, "as": target}));
    }

    /// The same for the next `times` requests only.
    pub fn behave_for(&self, path: &str, target: &str, times: u64) {
        self.order(json!({"path": path, "as": target, "times": times}));
    }

    /// Makes `path` behave as it is written again.
    pub fn behave_normally(&self, path: &str) {
        self.order(json!({"path": path}));
    }

    fn order(&self, order: Value) {
        self.control("POST", "/_control/behaviour", &order.to_string());
    }

    pub fn reset(&self) {
        self.control("POST", "/_control/reset", "");
    }

    /// Waits until at least `wanted` requests have come to a path or below it.
    pub fn wait_for(&self, limit: Duration, path: &str, wanted: u64) {
        wait_until(
            limit,
            &format!("{wanted} requests to {path}"),
            || match self.count(path).requests {
                seen if seen >= wanted => Ok(()),
                seen => Err(format!("{seen} requests")),
            },
        );
    }

    /// One exchange with the control API; returns the answer's body.
    fn control(&self, method: &str, target: &str, body: &str) -> String {
        let answer = ask(self.port, method, target, body).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
        assert!(head.starts_with("HTTP/1.1 200 "), "{target}: {answer}");
        body.to_owned()
    }
}

fn ask(port: u16, method: &str, target: &str, body: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    let request = format!(
        "{method} {target} HTTP/1.1\r\nhost: receiver\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Which calls came to a receiver, with the message of each.
#[derive(Clone, Default)]
pub struct Calls {
    pub messages: HashMap<Uuid, Uuid>,
    /// Whether it still knows each request that came.
    are_complete: bool,
}

/// Paths whose requests are only counted (tests/receiver/behaviour.rs).
const COUNTED: &[&str] = &["/count", "/tally"];

impl Calls {
    /// Whether each call to this path is here that was made.
    pub fn keeps(&self, path: &str) -> bool {
        self.are_complete && !COUNTED.iter().any(|counted| path.starts_with(counted))
    }
}

/// Of a receiver that cannot be asked any more, nothing is known.
pub fn calls_at(port: u16) -> Calls {
    let answer = ask(port, "GET", "/_control/calls", "");
    answer.map_or_else(|_| Calls::default(), |answer| calls_in(&answer))
}

fn calls_in(answer: &str) -> Calls {
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let mut lines = body.lines().filter_map(|line| line.split_once(' '));
    let are_complete = lines.next().is_some_and(|(kept, came)| kept == came);
    let ids = lines.filter_map(|(call, message)| Some((call.parse().ok()?, message.parse().ok()?)));
    Calls {
        messages: ids.collect(),
        are_complete,
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        bookkeeping::receiver_ends(self.port);
        // Best effort: it would end with this process anyway.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
