//! What the order of keys costs where calls take their time, and what a key that fails does to
//! the others.

use std::time::{Duration, Instant};

use super::report::{Line, Report, Target};
use super::support::wait::wait_until;
use super::support::{Cluster, Receiver};

const KEYS: u64 = 1_000;
const CONNECTIONS: usize = 64;
const CALL_MS: u64 = 20;
/// Transactions, each of which changes so many rows, chosen at random.
const TRANSACTIONS: u64 = 100;
const ROWS_A_TRANSACTION: u64 = 200;
/// The row whose messages are refused.
const REFUSED: u64 = 1;
const PATIENCE: Duration = Duration::from_secs(120);

/// One table and webhook for each kind of drain.
struct Drain<'a> {
    cluster: &'a Cluster,
    receiver: &'a Receiver,
    name: &'a str,
    path: String,
}

impl Drain<'_> {
    fn prepare(&self, order: &str) {
        let (name, url) = (self.name, self.receiver.url(&self.path));
        self.cluster.sql(&format!(
            "create table {name} (id bigint primary key, version integer not null);
             insert into {name} select i, 0 from generate_series(1, {KEYS}) i;
             select from webhook.create_webhook('{name}', array['{url}'], delivery_order => '{order}',
                 max_in_flight => {CONNECTIONS});
             select from webhook.create_event('{name}', '{name}', 'table.recordUpdate');
             select webhook.pause_webhook('{name}')"
        ));
        self.cluster.sql(&format!(
            "do $$
             begin
                 for t in 1..{TRANSACTIONS} loop
                     update {name} set version = version + 1
                     where id in (select i from generate_series(1, {KEYS}) i
                                  order by random() limit {ROWS_A_TRANSACTION});
                     commit;
                 end loop;
             end $$"
        ));
        let unseen = "select (not exists (select from webhook_internal.unseen))::text";
        self.cluster.wait_for_text(PATIENCE, unseen, "true");
    }

    /// Calls a second until `wanted` messages have come.
    fn per_second(&self, wanted: u64) -> f64 {
        let started = Instant::now();
        self.cluster
            .sql(&format!("select webhook.resume_webhook('{}')", self.name));
        wait_until(PATIENCE, &format!("{wanted} calls"), || {
            let path = self.path.split('?').next().unwrap_or_default();
            match self.receiver.count(path).requests {
                seen if seen >= wanted => Ok(()),
                seen => Err(format!("{seen} calls")),
            }
        });
        wanted as f64 / started.elapsed().as_secs_f64()
    }

    /// The versions of each row came one after the other, repeated calls left out.
    fn check_order(&self, rows: u64) {
        let mut last = vec![0; KEYS as usize + 1];
        for call in self.receiver.received_at(&self.path) {
            let record = call.body()["data"][0].clone();
            let id = record["id"].as_u64().expect("a row has an id") as usize;
            let version = record["version"].as_u64().expect("it has a version");
            assert!(
                version == last[id] + 1 || version == last[id],
                "row {id}: version {version} came after {}",
                last[id]
            );
            last[id] = version;
        }
        let seen = last.iter().filter(|version| **version > 0).count() as u64;
        assert!(seen >= rows, "{seen} rows came");
    }
}

pub fn key_order(cluster: &Cluster, receiver: &Receiver, report: &mut Report) {
    let messages = TRANSACTIONS * ROWS_A_TRANSACTION;
    let drain = |name| Drain {
        cluster,
        receiver,
        name,
        path: format!("/slow/{CALL_MS}/{name}"),
    };
    let (without, keyed) = (drain("unordered"), drain("keyed"));
    without.prepare("none");
    keyed.prepare("key");
    let unordered = without.per_second(messages);
    let ordered = keyed.per_second(messages);
    keyed.check_order(KEYS * 9 / 10);
    report.add(Line {
        name: "P19",
        what: format!("{messages} changes of {KEYS} keys, {CALL_MS} ms each / without order"),
        ours: ordered,
        compared_with: unordered,
        unit: "calls/s",
        ratio: ordered / unordered,
        target: Some(Target::AtLeast(0.8)),
    });

    let refusing = Drain {
        path: format!("/refuses/{REFUSED}?ms={CALL_MS}"),
        ..drain("refusing")
    };
    refusing.prepare("key");
    let refused: i64 = cluster.value(&format!(
        "select version::bigint from refusing where id = {REFUSED}"
    ));
    assert!(refused > 1, "the row has changed more than once");
    // One call of the key that fails, and all of the others.
    let others = refusing.per_second(messages - refused as u64 + 1);
    let waiting = "select (pending + retrying)::text from webhook.queue
                   where webhook_name = 'refusing'";
    cluster.wait_for_text(PATIENCE, waiting, &refused.to_string());
    report.add(Line {
        name: "P19",
        what: "the same while one key fails / no key fails".to_owned(),
        ours: others,
        compared_with: ordered,
        unit: "calls/s",
        ratio: others / ordered,
        target: Some(Target::AtLeast(0.9)),
    });
}
