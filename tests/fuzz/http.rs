//! Answers of a receiver, byte for byte as the input, over a real socket.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::sync::{mpsc, Arc};
use std::thread;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::fuzz;
use crate::core::policy::address::AddressPolicy;
use crate::core::policy::endpoint::Endpoint;
use crate::core::policy::redaction::Redactions;
use crate::delivery::call::{CallStamp, Job, Outcome, Payload, Target, Verdict};
use crate::delivery::client::ClientConfig;
use crate::delivery::pool::Pool;

const RESPONSE_BYTES: usize = 300;
const TIMEOUT: Duration = Duration::from_secs(20);

struct Empty;

impl Payload for Empty {
    fn render(&self, _: &CallStamp, _: usize, out: &mut Vec<u8>) -> Result<usize, String> {
        out.extend_from_slice(b"{}");
        Ok(2)
    }
}

struct Caller {
    pool: Pool,
    woken: mpsc::Receiver<()>,
    target: Arc<Target>,
    answers: mpsc::Sender<Vec<u8>>,
}

impl Caller {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let (answers, next) = mpsc::channel::<Vec<u8>>();
        thread::spawn(move || {
            for answer in next {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n{}") {
                    let mut byte = [0];
                    match stream.read(&mut byte) {
                        Ok(1) => request.push(byte[0]),
                        _ => break,
                    }
                }
                let _ = stream.write_all(&answer);
                let _ = stream.shutdown(Shutdown::Both);
            }
        });
        let (wake, woken) = mpsc::channel();
        let wake = std::sync::Mutex::new(wake);
        let config = ClientConfig {
            policy: AddressPolicy::parse("127.0.0.1").unwrap(),
            max_response_size: RESPONSE_BYTES,
            ..ClientConfig::default()
        };
        let ring = Arc::new(move || {
            let _ = wake.lock().unwrap().send(());
        });
        Self {
            pool: Pool::new(config, ring),
            woken,
            target: Arc::new(Target {
                url: Endpoint::parse(&url).unwrap(),
                timeout: TIMEOUT,
                headers: vec![],
                signers: vec![],
                confidential: Arc::new(Redactions::of(["confidential"])),
            }),
            answers,
        }
    }

    fn call(&self, answer: &[u8]) -> Outcome {
        // Each connection gets one answer, so none may be kept.
        self.pool.reconfigure(ClientConfig {
            policy: AddressPolicy::parse("127.0.0.1").unwrap(),
            max_response_size: RESPONSE_BYTES,
            ..ClientConfig::default()
        });
        self.answers.send(answer.to_vec()).unwrap();
        let job = Job {
            token: 1,
            target: Arc::clone(&self.target),
            payload: Arc::new(Empty),
            message_id: Uuid::from_u128(1),
            call_id: Uuid::from_u128(2),
            attempt: 1,
            sent: None,
        };
        self.pool.submit(vec![job]).expect("the queue has room");
        if self.pool.needs_thread() {
            self.pool.spawn_thread().unwrap();
        }
        let (mut outcomes, until) = (Vec::new(), Instant::now() + 2 * TIMEOUT);
        while self.pool.drain_outcomes(1, &mut outcomes) == 0 {
            let left = until.saturating_duration_since(Instant::now());
            self.woken.recv_timeout(left).expect("an outcome in time");
        }
        outcomes.remove(0)
    }
}

#[test]
fn any_answer_is_an_outcome() {
    let caller = Caller::start();
    let seeds = [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 503 Later\r\nretry-after: 7\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 410 Gone\r\nconnection: close\r\n\r\nconfidential",
        "HTTP/1.0 302 Found\r\nlocation: http://10.0.0.1/\r\ncontent-length: 0\r\n\r\n",
    ];
    let words = [
        "\r\n",
        "\r\n\r\n",
        "HTTP/1.1 ",
        "content-length: ",
        "transfer-encoding: chunked\r\n",
        "retry-after: ",
        "0\r\n",
        "FFFFFFFFFFFFFFFF\r\n",
        "18446744073709551616",
        "-1",
        ";",
        ":",
        "content-encoding: gzip\r\n",
        "connection: close\r\n",
        "confidential",
        "\0",
        "\u{fffd}",
    ];
    fuzz("http_answers", &seeds, &words, |input| {
        let outcome = caller.call(input);
        assert!(outcome.response.len() <= RESPONSE_BYTES);
        assert!(!outcome.response.contains('\0'));
        assert!(!outcome.response.contains("confidential"));
        let detail = outcome.detail.as_deref().unwrap_or_default();
        assert!(!detail.contains("internal error"), "{detail}");
        assert_eq!(
            outcome.verdict == Verdict::Delivered,
            outcome.detail.is_none(),
            "{outcome:?}"
        );
        if outcome.verdict == Verdict::Delivered {
            assert!(matches!(outcome.http_code, Some(200..=299)), "{outcome:?}");
        }
        let hour = Duration::from_secs(3600);
        assert!(outcome.retry_after.is_none_or(|wait| wait <= hour));
    });
}
