//! A webhook with messages that wait, and how fast they leave once it may send.
//!
//! What most measures of delivery begin with. Each drain checks what arrived: every
//! message was called exactly once and no call failed, or the measure panics.

use std::time::{Duration, Instant};

use super::delivery::THREADS;
use super::support::wait::wait_until;
use super::support::{Cluster, Receiver};

/// Rows of one transaction while a backlog is built: many small commits, as users make them.
const ROWS_A_TRANSACTION: u64 = 1000;
/// The slowest rate that is waited for; a slower run is stuck.
const SLOWEST_A_SECOND: u64 = 500;
/// What the worker may need to see what was loaded, or to settle what was sent.
const PATIENCE: Duration = Duration::from_secs(120);

/// One table, whose inserts go to one webhook with one URL that only counts.
pub struct Waiting<'a> {
    cluster: &'a Cluster,
    receiver: &'a Receiver,
    /// Of the webhook and of its table; the URL's path is `/count/<name>`.
    name: String,
    loaded: u64,
    drained: u64,
}

/// What was seen of a drain.
pub struct Drained {
    /// Calls a second, from first to last.
    pub per_second: f64,
    /// The same of the last part alone.
    pub last_per_second: f64,
}

impl<'a> Waiting<'a> {
    /// The webhook starts out paused. `options` are further arguments of `create_webhook`
    /// (`, log_level => 'none'`).
    pub fn new(cluster: &'a Cluster, receiver: &'a Receiver, name: &str, options: &str) -> Self {
        let url = receiver.url(&format!("/count/{name}"));
        cluster.sql(&format!(
            "create table {name} (id bigint primary key, name text, note text);
             select from webhook.create_webhook('{name}', array['{url}'], max_in_flight => {THREADS}{options});
             select from webhook.create_event('{name}', '{name}', 'table.recordInsert');
             select webhook.pause_webhook('{name}')"
        ));
        Self {
            cluster,
            receiver,
            name: name.to_owned(),
            loaded: 0,
            drained: 0,
        }
    }

    fn path(&self) -> String {
        format!("/count/{}", self.name)
    }

    fn requests(&self) -> u64 {
        self.receiver.count(&self.path()).requests
    }

    /// Adds messages while the worker runs, and waits until it has counted them all.
    pub fn load(&mut self, messages: u64) {
        let (first, last) = (self.loaded, self.loaded + messages);
        self.cluster.sql(&format!(
            "do $$
             begin
                 for at in {first}..{last} - 1 by {ROWS_A_TRANSACTION} loop
                     insert into {table}
                     select i, 'name ' || i, 'a note'
                     from generate_series(at, least(at + {ROWS_A_TRANSACTION}, {last}) - 1) i;
                     commit;
                 end loop;
             end $$",
            table = self.name
        ));
        self.loaded = last;
        let unseen = "select (not exists (select from webhook_internal.unseen))::text";
        self.cluster.wait_for_text(PATIENCE, unseen, "true");
    }

    /// Lets everything that waits go, and checks what arrived.
    pub fn drain(&mut self) -> Drained {
        self.drain_and_time_last(0)
    }

    /// The same, timing also the last `last` messages on their own.
    pub fn drain_and_time_last(&mut self, last: u64) -> Drained {
        let waiting = self.loaded - self.drained;
        let limit = PATIENCE + Duration::from_secs(waiting / SLOWEST_A_SECOND);
        let (before, started) = (self.drained, Instant::now());
        let mut mark = (before, started);
        self.cluster
            .sql(&format!("select webhook.resume_webhook('{}')", self.name));
        wait_until(limit, &format!("{} requests", self.loaded), || {
            let seen = self.requests();
            if seen + last < self.loaded || mark.0 == before {
                mark = (seen, Instant::now());
            }
            if seen >= self.loaded {
                Ok(())
            } else {
                Err(format!("{seen} requests"))
            }
        });
        let ended = Instant::now();
        let rate = |calls: u64, since: Instant| calls as f64 / (ended - since).as_secs_f64();
        self.drained = self.loaded;
        self.check();
        self.cluster
            .sql(&format!("select webhook.pause_webhook('{}')", self.name));
        Drained {
            per_second: rate(waiting, started),
            last_per_second: rate(self.loaded - mark.0, mark.1),
        }
    }

    fn check(&self) {
        let idle: bool = self.cluster.value(&format!(
            "select webhook.wait_idle('{} seconds')",
            PATIENCE.as_secs()
        ));
        assert!(idle, "not idle after {PATIENCE:?}");
        let row = self.cluster.connect("postgres").query_one(
            "select messages, calls, errors from webhook.webhooks where name = $1",
            &[&self.name],
        );
        let row = row.expect("the webhook is there");
        let counted: [i64; 3] = [row.get(0), row.get(1), row.get(2)];
        let wanted = self.loaded as i64;
        assert_eq!(
            (self.requests() as i64, counted),
            (wanted, [wanted, wanted, 0]),
            "received; messages, calls and errors counted: found (left) and expected"
        );
    }
}
