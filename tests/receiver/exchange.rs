//! One connection from its first request to its end.
//!
//! The counting path is the short one: no lock, no allocation, one read and
//! one write a request, so that a benchmark measures the sender.

use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::sync::Arc;

use crate::answer::{self, Next};
use crate::behaviour::{Behaviour, Plain, Script, COUNT_PREFIX};
use crate::control;
use crate::http::{self, Head, Wire};
use crate::journal::{Counter, Journal, Received};
use crate::options::Options;
use crate::show::Show;
use crate::tally::Tally;

const CONTROL_PREFIX: &[u8] = b"/_control/";

const COUNTED: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What all connections share.
pub struct Receiver {
    pub journal: Journal,
    pub script: Script,
    pub tally: Tally,
    show: Option<Show>,
}

impl Receiver {
    pub fn new(options: &Options) -> io::Result<Self> {
        Ok(Self {
            journal: Journal::new(options.keep, options.log.as_deref())?,
            script: Script::default(),
            tally: Tally::default(),
            show: options.show.then(|| Show::new(options)),
        })
    }

    /// Serves until either side ends the connection. How a connection ends is
    /// the sender's business and often the point of a test, so it is no error here.
    pub fn serve(&self, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let _ = self.converse(Wire::new(stream));
    }

    fn converse(&self, mut wire: Wire) -> io::Result<()> {
        let mut counted: Option<(Box<[u8]>, Arc<Counter>)> = None;
        while let Some(head) = wire.read_head()? {
            let target = &wire.unused()[head.target.clone()];
            if target.starts_with(COUNT_PREFIX) && !self.script.is_overridden() {
                let known = counted.take().filter(|(known, _)| **known == *target);
                let (known, counter) = known.unwrap_or_else(|| {
                    let text = String::from_utf8_lossy(target);
                    (target.into(), self.journal.counter(&text))
                });
                answer_expectation(&mut wire, &head)?;
                wire.skip(&head)?;
                counter.requests.fetch_add(1, Ordering::Relaxed);
                wire.stream().write_all(COUNTED)?;
                counted = Some((known, counter));
            } else if target.starts_with(CONTROL_PREFIX) {
                return control::answer(self, wire, &head);
            } else if let Next::End = self.exchange(&mut wire, &head)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// One request that is kept, and its scripted answer.
    fn exchange(&self, wire: &mut Wire, head: &Head) -> io::Result<Next> {
        let bytes = wire.take_head(head);
        let text = |range: &std::ops::Range<usize>| {
            String::from_utf8_lossy(&bytes[range.clone()]).into_owned()
        };
        let (method, target) = (text(&head.method), text(&head.target));
        let behaviour = self.script.behaviour(&target);
        let in_flight = self.journal.enter(&target);
        let body = if behaviour == Behaviour::Deaf {
            Vec::new()
        } else {
            answer_expectation(wire, head)?;
            wire.take_body(head.length)?
        };
        if behaviour == Behaviour::Tally {
            let message_id = http::header(&bytes, "webhook-id");
            self.tally.note(&target, message_id, &body);
            in_flight.arrived();
            return answer::give(&behaviour, wire.stream());
        }
        let received = self.journal.keep(method, target, bytes, body)?;
        in_flight.arrived();
        if let Some(show) = &self.show {
            show.print(&received);
        }
        let mut behaviour = self.settle(behaviour, &received);
        while let Behaviour::Hold { order } = behaviour {
            let told = self.script.behaviour_after(&received.target, order);
            behaviour = self.settle(told, &received);
        }
        answer::give(&behaviour, wire.stream())
    }

    /// Turns a behaviour that depends on earlier calls into the one for this call.
    fn settle(&self, behaviour: Behaviour, received: &Received) -> Behaviour {
        let (key, failures) = match behaviour {
            Behaviour::OnceFailing => (received.target.clone(), 1),
            Behaviour::Unsteady { percent } => {
                let calls = self.script.calls_before(received.target.clone());
                let failed = scattered(calls) % 100 < percent;
                return Behaviour::of(if failed { "/status/500" } else { "/ok" });
            }
            Behaviour::Refusing { id, delay } => {
                let named = format!("\"id\":{id},");
                let is_refused = contains(&received.body, named.as_bytes());
                return Behaviour::Answer(Plain {
                    delay,
                    ..Plain::status(if is_refused { 422 } else { 200 })
                });
            }
            Behaviour::Flaky { failures } => {
                let id = received.header("webhook-id").unwrap_or_default();
                (format!("{} {id}", received.target), failures)
            }
            other => return other,
        };
        let failed = self.script.calls_before(key) < failures;
        Behaviour::of(if failed { "/status/500" } else { "/ok" })
    }
}

fn contains(body: &[u8], part: &[u8]) -> bool {
    body.windows(part.len()).any(|window| window == part)
}

/// A number that has nothing to do with its neighbours (Knuth's multiplicative hash).
fn scattered(n: u32) -> u32 {
    n.wrapping_mul(2_654_435_769).rotate_left(16) >> 8
}

fn answer_expectation(wire: &mut Wire, head: &Head) -> io::Result<()> {
    if head.expects_continue {
        wire.stream().write_all(CONTINUE)?;
    }
    Ok(())
}
