//! The webhooks of the soak test: what each is, and which changes it must get in what form.

use std::collections::HashMap;
use std::time::SystemTime;

use serde_json::{json, Map, Value};

use super::truth::Change;

/// A webhook as it is made; each of its tables has an event for each of its kinds.
pub struct Plan {
    pub name: &'static str,
    /// Paths of the receiver; the path says how it answers.
    pub paths: &'static [&'static str],
    /// Whether its receiver is the one that goes down.
    pub falls: bool,
    /// Further arguments of `create_webhook` and `create_event`.
    pub options: &'static str,
    pub event_options: &'static str,
    pub tables: &'static [&'static str],
    pub kinds: &'static [&'static str],
    pub picks: Picks,
    pub shape: Shape,
    /// The writers stop while more than this waits at one of its URLs.
    pub most_waiting: i64,
}

/// Which changes of its tables an event takes.
#[derive(Clone, Copy)]
pub enum Picks {
    All,
    /// `condition => 'new.id % 16 = 0'`.
    EverySixteenth,
    /// `object_fields => array['amount']`.
    AmountChanged,
    /// `event_sources => array['batch']`.
    Batch,
}

/// What a body looks like.
#[derive(Clone, Copy)]
pub enum Shape {
    /// The default payload with the row as it is.
    Row,
    /// The default payload with these fields.
    Fields(&'static [&'static str]),
    /// [`TEMPLATE`].
    Template,
}

const ALL_KINDS: &[&str] = &["Insert", "Update", "Delete"];

/// More than a lane keeps in memory, so that lanes also read by themselves.
const MANY: i64 = 5000;

pub const TEMPLATE: &str = r#"{"type": "[@out-hook:eventType]", "table": "[@out-hook:objectName]",
 "id": "[@field:id]", "line": "no. [@field:id] at [@field:version]: [@field:note]",
 "was": "[@old:version]", "spare": "[@field:spare]", "stamp": "[@field:stamp]"}"#;

/// The default payload's row is compared byte for byte with PostgreSQL's own.
const ROW: &str = "null_style => 'null'";

/// The webhooks whose rows must come in order.
pub const IN_ORDER: [&str; 2] = ["fifo", "keyed"];
/// The webhook whose calls must not be too many in any second.
pub const THROTTLED: &str = "throttled";

pub const PLANS: &[Plan] = &[
    Plan {
        name: "plain",
        paths: &["/ok/plain"],
        falls: false,
        options: "",
        event_options: ROW,
        tables: &["accounts", "orders", "readings"],
        kinds: ALL_KINDS,
        picks: Picks::All,
        shape: Shape::Row,
        most_waiting: MANY,
    },
    Plan {
        name: "multicast",
        paths: &["/ok/multicast/a", "/ok/multicast/b", "/slow/5/multicast"],
        falls: false,
        options: "log_level => 'errors'",
        event_options: ROW,
        tables: &["accounts"],
        kinds: ALL_KINDS,
        picks: Picks::All,
        shape: Shape::Row,
        most_waiting: MANY,
    },
    Plan {
        name: "fifo",
        paths: &["/unsteady/3/fifo"],
        falls: false,
        options: "delivery_order => 'fifo'",
        event_options: ROW,
        tables: &["accounts"],
        kinds: ALL_KINDS,
        picks: Picks::All,
        shape: Shape::Row,
        most_waiting: 3000,
    },
    Plan {
        name: "keyed",
        paths: &["/unsteady/3/keyed"],
        falls: false,
        options: "delivery_order => 'key'",
        event_options: ROW,
        tables: &["accounts"],
        kinds: ALL_KINDS,
        picks: Picks::All,
        shape: Shape::Row,
        most_waiting: 3000,
    },
    Plan {
        name: THROTTLED,
        paths: &["/ok/throttled/a", "/ok/throttled/b"],
        falls: false,
        options: "call_throttling => 40",
        event_options: "condition => 'new.id % 16 = 0',
                        payload_fields => array['id', 'version', 'stamp']",
        tables: &["readings"],
        kinds: &["Insert", "Update"],
        picks: Picks::EverySixteenth,
        shape: Shape::Fields(&["id", "version", "stamp"]),
        most_waiting: 500,
    },
    Plan {
        name: "flaky",
        paths: &["/unsteady/20/flaky"],
        falls: false,
        options: "",
        event_options: ROW,
        tables: &["orders"],
        kinds: ALL_KINDS,
        picks: Picks::All,
        shape: Shape::Row,
        most_waiting: 3000,
    },
    Plan {
        name: "slow",
        paths: &["/slow/200/slow"],
        falls: false,
        options: "",
        event_options: "object_fields => array['amount'], null_style => 'null'",
        tables: &["orders"],
        kinds: &["Update"],
        picks: Picks::AmountChanged,
        shape: Shape::Row,
        most_waiting: 1000,
    },
    Plan {
        name: "template",
        paths: &["/ok/template"],
        falls: false,
        options: "",
        // The text of the template follows.
        event_options: "payload_template => ",
        tables: &["orders"],
        kinds: ALL_KINDS,
        picks: Picks::All,
        shape: Shape::Template,
        most_waiting: MANY,
    },
    Plan {
        name: "falling",
        paths: &["/ok/falling"],
        falls: true,
        options: "timeout_ms => 2000",
        event_options: ROW,
        tables: &["readings"],
        kinds: ALL_KINDS,
        picks: Picks::All,
        shape: Shape::Row,
        most_waiting: MANY,
    },
    Plan {
        name: "sourced",
        paths: &["/ok/sourced"],
        falls: false,
        options: "log_level => 'none'",
        event_options: "event_sources => array['batch'], null_style => 'null'",
        tables: &["orders"],
        kinds: &["Insert", "Update"],
        picks: Picks::Batch,
        shape: Shape::Row,
        most_waiting: MANY,
    },
];

/// A webhook that comes and goes: what is inserted into `readings` from then on.
pub const PASSING: Plan = Plan {
    name: "passing",
    paths: &[],
    falls: false,
    options: "log_level => 'none'",
    event_options: ROW,
    tables: &["readings"],
    kinds: &["Insert"],
    picks: Picks::All,
    shape: Shape::Row,
    most_waiting: MANY,
};

/// A secret and how long it may sign.
pub struct Issued {
    pub secret: String,
    pub token: String,
    /// Seconds since 1970.
    pub from: u64,
    pub until: u64,
}

/// A webhook that was made.
pub struct Hook {
    pub plan: &'static Plan,
    pub name: String,
    pub id: String,
    pub paths: Vec<String>,
    /// Table and kind by the id of the event.
    pub events: HashMap<String, (String, String)>,
    /// Changes after this place of the witness may be its own …
    pub after_place: i64,
    /// … and those of statements that began later are: creating an event waits for no writer.
    pub made_at: SystemTime,
    pub is_dropped: bool,
    /// Newest first.
    pub issued: Vec<Issued>,
    /// Calls that `redeliver` promised.
    pub redelivered: i64,
}

impl Hook {
    /// Whether this change need not make a message: its statement began before the event was there.
    pub fn may_miss(&self, change: &Change) -> bool {
        change.began <= self.made_at
    }

    /// Whether this change makes a message.
    pub fn wants(&self, change: &Change) -> bool {
        let plan = self.plan;
        change.place > self.after_place
            && plan.tables.contains(&&*change.table)
            && plan.kinds.contains(&&*change.kind)
            && match plan.picks {
                Picks::All => true,
                Picks::EverySixteenth => change.row() % 16 == 0,
                Picks::AmountChanged => change.differs("amount"),
                Picks::Batch => change.source.eq_ignore_ascii_case("batch"),
            }
    }

    /// The text that tells this change from all others and holds its whole content.
    pub fn content(&self, change: &Change) -> String {
        match self.plan.shape {
            Shape::Row => row_content(&change.table, &change.kind, &change.record_text),
            Shape::Fields(names) => {
                let fields = names
                    .iter()
                    .map(|n| ((*n).to_owned(), change.record[*n].clone()));
                let record = Value::Object(fields.collect::<Map<_, _>>());
                row_content(&change.table, &change.kind, &record.to_string())
            }
            Shape::Template => template_content(change),
        }
    }
}

pub fn row_content(table: &str, kind: &str, record: &str) -> String {
    format!("{table} {kind} {record}")
}

fn template_content(change: &Change) -> String {
    let record = &change.record;
    let note = record["note"].as_str().unwrap_or_default();
    json!({
        "type": format!("table.record{}", change.kind),
        "table": change.table,
        "id": record["id"],
        "line": format!("no. {} at {}: {note}", record["id"], record["version"]),
        "was": change.old.as_ref().map(|old| &old["version"]),
        // The column is renamed now and then.
        "spare": record.get("spare").or_else(|| record.get("reserve")),
        "stamp": record["stamp"],
    })
    .to_string()
}
