//! What most people build first: a queue table that several connections empty with
//! DELETE … FOR UPDATE SKIP LOCKED, beside our drain. It signs nothing, resolves nothing
//! and writes its log in the same statement: as little as such a sender can do.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::delivery::THREADS;
use super::old_snapshot::hold;
use super::report::{Line, Report};
use super::support::{ready_cluster, Cluster, Receiver};
use super::waiting::Waiting;

const MESSAGES: u64 = 200_000;
/// Messages that one transaction takes, posts and deletes.
const BATCH: u64 = 100;
/// A queue that has not emptied by then is measured by what it sent.
const TIME_AT_MOST: Duration = Duration::from_secs(60);
const PATH: &str = "/count/queue";

const CREATE: &str = "
create table queue (id bigint generated always as identity primary key, body text not null);
create table queue_log (id bigint not null, called_at timestamptz not null default clock_timestamp(),
                        http_code integer not null)";

fn fill() -> String {
    format!(
        "insert into queue (body)
         select json_build_object(
             'eventId', '16l7t4', 'messageId', gen_random_uuid(), 'webhookId', '3728sh',
             'accountId', 'pw9ga619v9lcrf51', 'secret', '05iyqnkist3cdabzlib2a8x6uv4yhg4vd9r8w39m',
             'eventDate', now(), 'eventType', 'table.recordInsert', 'objectName', 'item',
             'data', json_build_array(json_build_object('id', i, 'name', 'name ' || i, 'note', 'a note')))
         from generate_series(1, {MESSAGES}) i"
    )
}

const TAKE: &str = "
delete from queue
where id in (select id from queue order by id limit $1 for update skip locked)
returning id, body";

const LOG: &str =
    "insert into queue_log (id, http_code) select id, 200 from unnest($1::bigint[]) id";

/// A kept connection that posts and waits for the answer.
struct Poster {
    stream: TcpStream,
    port: u16,
}

impl Poster {
    fn connect(port: u16) -> Self {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the receiver listens");
        stream.set_nodelay(true).expect("a socket has this option");
        Self { stream, port }
    }

    fn post(&mut self, body: &str) {
        let (port, length) = (self.port, body.len());
        let request = format!(
            "POST {PATH} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n{body}"
        );
        self.stream
            .write_all(request.as_bytes())
            .expect("the receiver reads");
        let (mut answer, mut length) = ([0; 512], 0);
        // The counting receiver answers with a head alone.
        while !answer[..length].ends_with(b"\r\n\r\n") {
            let read = self.stream.read(&mut answer[length..]);
            let read = read.expect("the receiver answers");
            assert!(read > 0, "the receiver left");
            length += read;
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "the receiver accepts");
    }
}

/// Takes batches until the queue is empty or time is up.
fn empty(cluster: &Cluster, receiver: &Receiver, until: Instant, sent: &AtomicU64) {
    let mut session = cluster.connect("postgres");
    let take = session.prepare(TAKE).expect("the statement is valid");
    let log = session.prepare(LOG).expect("the statement is valid");
    let mut poster = Poster::connect(receiver.port());
    while Instant::now() < until {
        let mut batch = session.transaction().expect("a transaction begins");
        let rows = batch
            .query(&take, &[&(BATCH as i64)])
            .expect("rows are taken");
        if rows.is_empty() {
            return;
        }
        for row in &rows {
            poster.post(row.get(1));
        }
        let ids: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
        batch.execute(&log, &[&ids]).expect("calls are logged");
        batch.commit().expect("the batch is committed");
        sent.fetch_add(rows.len() as u64, Ordering::Relaxed);
    }
}

/// Calls a second of the queue, in sessions of the same settings as our worker's.
fn queue_per_second(cluster: &Cluster, receiver: &Receiver) -> (f64, u64) {
    cluster.sql(&fill());
    receiver.reset();
    let (sent, started) = (AtomicU64::new(0), Instant::now());
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| empty(cluster, receiver, started + TIME_AT_MOST, &sent));
        }
    });
    let seconds = started.elapsed().as_secs_f64();
    let sent = sent.into_inner();
    assert_eq!(receiver.count(PATH).requests, sent, "requests received");
    (sent as f64 / seconds, sent)
}

pub fn queues(cluster: &Cluster, receiver: &Receiver, report: &mut Report) {
    measure(cluster, receiver, "", report);
    let (held_cluster, held_receiver) = ready_cluster("bench-Q-held");
    let _snapshot = hold(&held_cluster);
    measure(&held_cluster, &held_receiver, ", old snapshot", report);
}

fn measure(cluster: &Cluster, receiver: &Receiver, condition: &str, report: &mut Report) {
    cluster.sql("alter system set synchronous_commit = off");
    cluster.reload();
    cluster.sql(CREATE);
    let (queue, sent) = queue_per_second(cluster, receiver);
    let mut waiting = Waiting::new(cluster, receiver, "item", "");
    waiting.load(MESSAGES);
    let ours = waiting.drain().per_second;
    report.add(Line {
        name: "Q",
        what: format!("drain / SKIP LOCKED queue ({sent} of {MESSAGES}){condition}"),
        ours,
        compared_with: queue,
        unit: "calls/s",
        ratio: ours / queue,
        target: None,
    });
}
