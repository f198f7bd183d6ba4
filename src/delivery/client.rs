//! One HTTP POST, behind a small trait so that another client can replace ureq.
//!
//! Redirects, proxies from the environment, cookies and decompression are off. One deadline
//! covers everything from the name look-up to the last byte read. A misbehaving receiver gives
//! an [`Answer`] with a fault, never an error or a panic.

use std::io::{self, ErrorKind, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::http::header::{HeaderName, HeaderValue, CONTENT_TYPE, RETRY_AFTER};
use ureq::http::{self, Response, Uri};
use ureq::{Agent, Body, Error, Timeout};
use uuid::Uuid;

use crate::core::error::system_text;
use crate::core::policy::address::AddressPolicy;
use crate::core::policy::endpoint::Endpoint;
use crate::core::policy::headers;

use super::call::SentAt;
use super::failure_class::{self, FailureClass};
use super::local;
use super::names::Names;
use super::ongoing::Ongoing;
use super::resolver::PolicyResolver;
use super::socket::Dialer;
use super::tls::tls_error;
use super::tls_failures;

/// Status line and headers of an answer; common servers limit them to 8 to 32 kB.
pub const MAX_HEAD_BYTES: usize = 32 * 1024;

/// What one call may receive beside the kept body: heads, TLS records, and interim (1xx)
/// answers, which a receiver could send without end.
const OVERHEAD_BYTES: u64 = 1024 * 1024;

/// A body in chunks of one byte takes six times its size on the wire.
const CHUNK_OVERHEAD: u64 = 6;

/// Kept connections are closed after this; most servers close them sooner.
const MAX_IDLE_AGE: Duration = Duration::from_secs(30);

/// Bytes of a body per read.
const READ_BYTES: usize = 4 * 1024;

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const WEBHOOK_CALL_ID: HeaderName = HeaderName::from_static("webhook-call-id");
const WEBHOOK_ATTEMPT: HeaderName = HeaderName::from_static("webhook-attempt");

/// The settings that apply to all calls.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    pub policy: AddressPolicy,
    pub require_https: bool,
    pub max_message_size: usize,
    pub max_response_size: usize,
    /// Additional trusted roots, as PEM text.
    pub ca_pem: Option<Vec<u8>>,
    pub user_agent: String,
    /// PostgreSQL's own port, which is never called on this host. 0: none.
    pub refused_socket: u16,
}

impl Default for ClientConfig {
    /// The defaults of the `webhook.*` settings.
    fn default() -> Self {
        Self {
            policy: AddressPolicy::default(),
            require_https: true,
            max_message_size: 10 * 1024 * 1024,
            max_response_size: 16 * 1024,
            ca_pem: None,
            user_agent: headers::USER_AGENT.to_owned(),
            refused_socket: 0,
        }
    }
}

/// One request.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    pub url: &'a Endpoint,
    pub timeout: Duration,
    pub message_id: Uuid,
    pub call_id: Uuid,
    pub attempt: u32,
    pub timestamp_s: u64,
    pub signature: &'a str,
    pub headers: &'a [(String, String)],
    pub body: &'a [u8],
    pub sent: Option<SentAt>,
}

/// The answer of the receiver, or why there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub http_code: Option<u16>,
    /// At most `max_response_size` bytes.
    pub body: Vec<u8>,
    /// The body was longer than what is kept.
    pub was_cut: bool,
    pub retry_after: Option<String>,
    /// Why the answer is missing or incomplete.
    pub fault: Option<String>,
    pub fault_class: FailureClass,
    /// The fault is local (see [`super::local`]): the call was not made.
    pub is_local: bool,
    /// A kept connection turned out to be closed, and a throttle counts each request: the call has to
    /// be admitted again.
    pub is_stale: bool,
}

/// Makes calls, one at a time.
pub trait Client: Send + Sync {
    /// Sends one message and reads the answer, within `call.timeout`.
    fn post(&self, call: &Request<'_>) -> Answer;

    /// Ends the call in progress and every later one; called from another thread.
    fn interrupt(&self);
}

/// What all clients with one configuration share.
#[derive(Clone, Debug)]
pub struct Rules {
    pub config: Arc<ClientConfig>,
    pub tls: Arc<rustls::ClientConfig>,
    pub names: Arc<Names>,
    /// Idle connections that one client keeps.
    pub kept_connections: usize,
}

/// [`Client`] with ureq: one agent per client, one client per thread. A shared agent would take
/// its one mutex twice per call and hold it while it probes a connection. The pool wakes the
/// thread that became idle last, so a quiet receiver still has a kept connection.
pub struct UreqClient {
    agent: Agent,
    ongoing: Arc<Ongoing>,
    names: Arc<Names>,
    max_response_size: usize,
}

impl UreqClient {
    pub fn new(rules: &Rules) -> Self {
        let config = &rules.config;
        let kept_bytes = u64::try_from(config.max_response_size).unwrap_or(u64::MAX);
        let most_bytes = kept_bytes
            .saturating_mul(CHUNK_OVERHEAD)
            .saturating_add(OVERHEAD_BYTES);
        let ongoing = Arc::new(Ongoing::new(most_bytes));
        let dialer = Dialer {
            ongoing: Arc::clone(&ongoing),
            tls: Arc::clone(&rules.tls),
        };
        let resolver = PolicyResolver {
            config: Arc::clone(config),
            names: Arc::clone(&rules.names),
            ongoing: Arc::clone(&ongoing),
        };
        Self {
            agent: Agent::with_parts(agent_config(rules), dialer, resolver),
            ongoing,
            names: Arc::clone(&rules.names),
            max_response_size: config.max_response_size,
        }
    }

    fn send(&self, call: &Request<'_>) -> Result<Response<Body>, Error> {
        let request = build(call)?;
        self.agent.run(request)
    }

    /// Repeats the call once on a new connection if the kept one turns out to be closed. The receiver may
    /// have read the request all the same, so a call that a throttle counts is not repeated here.
    fn send_afresh_if_stale(&self, call: &Request<'_>) -> Result<Response<Body>, Error> {
        let deadline = Instant::now() + call.timeout;
        self.ongoing.record_sending_in(call.sent.clone());
        self.ongoing.begin(deadline, false);
        match self.send(call) {
            Err(Error::Io(_)) if self.is_stale() && call.sent.is_none() => {
                self.ongoing.begin(deadline, true);
                self.send(call)
            }
            sent => sent,
        }
    }

    fn is_stale(&self) -> bool {
        self.ongoing.met_silence_on_kept_connection()
    }

    fn read(&self, response: Response<Body>) -> Answer {
        let retry_after = response.headers().get(RETRY_AFTER);
        let mut answer = Answer {
            http_code: Some(response.status().as_u16()),
            retry_after: retry_after.and_then(|value| value.to_str().ok().map(str::to_owned)),
            ..Answer::default()
        };
        if let Err(error) = read_body(response.into_body(), self.max_response_size, &mut answer) {
            answer.fault_class = failure_class::of_error(&error);
            answer.fault = Some(match error {
                Error::Timeout(_) => "timed out while reading the answer".to_owned(),
                Error::Io(error) if error.kind() == ErrorKind::UnexpectedEof => {
                    "the answer ended early".to_owned()
                }
                other => format!("the answer broke off: {}", describe(&other)),
            });
        }
        answer
    }
}

impl Client for UreqClient {
    fn post(&self, call: &Request<'_>) -> Answer {
        match self.send_afresh_if_stale(call) {
            Ok(response) => self.read(response),
            Err(error) => {
                let local = local::reason(&error);
                Answer {
                    is_local: local.is_some(),
                    is_stale: matches!(error, Error::Io(_))
                        && self.is_stale()
                        && call.sent.is_some(),
                    fault: local.or_else(|| Some(describe(&error))),
                    fault_class: failure_class::of_error(&error),
                    ..Answer::default()
                }
            }
        }
    }

    fn interrupt(&self) {
        self.ongoing.end();
        self.names.wake_all();
        self.agent.clone().shutdown();
    }
}

fn agent_config(rules: &Rules) -> Config {
    Agent::config_builder()
        .proxy(None)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .user_agent(&rules.config.user_agent)
        .accept("")
        .accept_encoding("")
        .max_response_header_size(MAX_HEAD_BYTES)
        .max_idle_connections(rules.kept_connections)
        .max_idle_connections_per_host(1)
        .max_idle_age(MAX_IDLE_AGE)
        .build()
}

fn build<'a>(call: &Request<'a>) -> Result<http::Request<&'a [u8]>, Error> {
    let url = Uri::try_from(call.url.as_str()).map_err(http::Error::from)?;
    let mut id = [0; uuid::fmt::Hyphenated::LENGTH];
    let mut request = http::Request::post(url)
        .header(
            CONTENT_TYPE,
            HeaderValue::from_static(headers::CONTENT_TYPE),
        )
        .header(
            WEBHOOK_ID,
            &*call.message_id.hyphenated().encode_lower(&mut id),
        )
        .header(WEBHOOK_TIMESTAMP, HeaderValue::from(call.timestamp_s))
        .header(WEBHOOK_SIGNATURE, call.signature)
        .header(
            WEBHOOK_CALL_ID,
            &*call.call_id.hyphenated().encode_lower(&mut id),
        )
        .header(WEBHOOK_ATTEMPT, HeaderValue::from(call.attempt));
    for (name, value) in call.headers {
        request = request.header(name, value);
    }
    Ok(request.body(call.body)?)
}

/// Reads the part of the body that is kept. A longer body is dropped with its connection; a
/// connection whose body was read to the end returns to the agent.
fn read_body(body: Body, most_bytes: usize, answer: &mut Answer) -> Result<(), Error> {
    let ends_at_limit = body.content_length() == u64::try_from(most_bytes).ok();
    let mut reader = body.into_reader();
    let mut chunk = [0; READ_BYTES];
    loop {
        let room = most_bytes - answer.body.len();
        if room == 0 && !ends_at_limit {
            answer.was_cut = true;
            return Ok(());
        }
        let wanted = room.clamp(1, READ_BYTES);
        match reader.read(&mut chunk[..wanted])? {
            0 => return Ok(()),
            bytes => answer.body.extend_from_slice(&chunk[..bytes.min(room)]),
        }
    }
}

/// An error as text for the call's detail. Never contains the URL, which may hold a credential.
fn describe(error: &Error) -> String {
    match error {
        Error::Timeout(Timeout::Resolve) => "timed out while resolving the host name".to_owned(),
        Error::Timeout(Timeout::Connect) => "timed out while connecting".to_owned(),
        Error::Timeout(Timeout::SendRequest | Timeout::SendBody) => {
            "timed out while sending".to_owned()
        }
        Error::Timeout(_) => "timed out while waiting for the answer".to_owned(),
        Error::Io(error) => describe_io(error),
        Error::HostNotFound => "the host name has no address".to_owned(),
        Error::Protocol(error) => {
            let why = error.to_string();
            let why = why.strip_prefix("http parse fail: ").unwrap_or(&why);
            format!("the answer is not valid HTTP: {why}")
        }
        Error::LargeResponseHeader(..) => {
            format!("the answer's headers are larger than {MAX_HEAD_BYTES} bytes")
        }
        Error::Http(_) | Error::BadUri(_) => "the request cannot be built".to_owned(),
        Error::Other(why) => why.to_string(),
        other => other.to_string(),
    }
}

fn describe_io(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
            "the receiver reset the connection".to_owned()
        }
        ErrorKind::UnexpectedEof => {
            "the receiver closed the connection without an answer".to_owned()
        }
        _ => match tls_error(error) {
            Some(why) => format!("tls: {}", tls_failures::describe(why)),
            None => system_text(error),
        },
    }
}
