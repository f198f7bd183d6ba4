//! The keys of messages, as capture has written them.

use postgres::Client;
use serde_json::Value;

use super::definitions::create_webhook;
use super::{ready_cluster, Cluster, Receiver};

pub const BY_KEY: &str = "delivery_order => 'key'";

/// A message as the outbox has it.
pub struct Stored {
    pub kind: String,
    pub record: String,
    pub keys: Vec<String>,
    /// What follows the keys.
    pub changed: String,
}

impl Stored {
    pub fn id(&self) -> i64 {
        let record: Value = serde_json::from_str(&self.record).expect("a record is JSON");
        record["id"].as_i64().expect("a row has an id")
    }

    pub fn key(&self) -> &str {
        match &self.keys[..] {
            [key] => key,
            keys => panic!("{} of {} has keys {keys:?}", self.kind, self.record),
        }
    }
}

/// The messages of a webhook, in their order.
pub fn stored(cluster: &Cluster, webhook: &str) -> Vec<Stored> {
    stored_in(cluster, "postgres", webhook)
}

pub fn stored_in(cluster: &Cluster, database: &str, webhook: &str) -> Vec<Stored> {
    let query = "select e.event_type, coalesce(o.record, ''), coalesce(o.changed, '')
                 from webhook_internal.outbox o
                 join webhook.event_def e using (event_key)
                 join webhook.webhook_def w on w.webhook_key = e.webhook_key
                 where w.name = $1
                 order by o.id";
    let rows = cluster.connect(database).query(query, &[&webhook]);
    let rows = rows.unwrap().into_iter();
    rows.map(|row| {
        let kind: String = row.get(0);
        let text: String = row.get(2);
        let (keys, changed) = split(&text);
        Stored {
            kind: kind.trim_start_matches("table.record").to_owned(),
            record: row.get(1),
            keys,
            changed,
        }
    })
    .collect()
}

fn split(text: &str) -> (Vec<String>, String) {
    match text.strip_prefix('k').and_then(|rest| rest.split_once(':')) {
        None => (Vec::new(), text.to_owned()),
        Some((keys, rest)) => {
            assert!(keys.len() == 16 || keys.len() == 32, "{text}");
            let keys = keys.as_bytes().chunks(16);
            let keys = keys.map(|key| String::from_utf8(key.to_vec()).unwrap());
            (keys.collect(), rest.to_owned())
        }
    }
}

/// The last message's only key.
pub fn last_key(cluster: &Cluster) -> String {
    let messages = stored(cluster, "crm");
    messages
        .last()
        .expect("there is a message")
        .key()
        .to_owned()
}

pub fn with_webhook_by_key(name: &str, tables: &str) -> (Cluster, Receiver) {
    let (cluster, receiver) = ready_cluster(name);
    create_webhook(&cluster, "crm", &[receiver.url("/ok")], BY_KEY);
    cluster.sql(tables);
    (cluster, receiver)
}

/// Fails with the statements.
pub fn run(session: &mut Client, statements: &str) {
    session
        .batch_execute(statements)
        .unwrap_or_else(|error| panic!("{statements}: {error:?}"));
}
