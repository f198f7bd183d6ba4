//! Why a message of an event comes, or does not: every reason, one check each.
//!
//! Pure: facts in, checks out. A check that fails says what to do. Whether a message
//! comes *now* is the question, so what only delays one (a pause, a URL that backs
//! off) fails, too; what only slows it (a throttle) does not.

use crate::core::definitions::operational::OperationalEvent;
use crate::core::policy::address::AddressPolicy;
use crate::core::values::sql_text::identifier;
use cluster::{node, shards};
use event::{
    columns, condition, event_enabled, matched, message_size, object_fields, order_key, owner,
    partitions, privileges, table, trigger, webhook_enabled, webhook_not_paused, webhook_usable,
};
use server::{capture, delivery, identity, replication_role, source, worker};
use url::{url_address, url_state};

mod cluster;
mod event;
mod server;
mod url;

/// One line of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub name: &'static str,
    pub ok: bool,
    pub detail: String,
}

/// The event and its table.
#[derive(Clone, Debug, Default)]
pub struct EventFacts {
    pub id: String,
    pub event_type: String,
    pub enabled: bool,
    pub webhook: String,
    pub webhook_enabled: bool,
    pub webhook_paused: bool,
    /// Why the webhook's row cannot be used.
    pub webhook_detail: Option<String>,
    pub table: String,
    /// As a statement needs it.
    pub table_in_sql: String,
    pub table_is_there: bool,
    pub missing_columns: Option<String>,
    /// `pg_trigger.tgenabled`; `None` if there is no trigger of that name.
    pub trigger: Option<String>,
    /// The trigger calls our function.
    pub trigger_is_ours: bool,
    pub object_fields: Option<String>,
    pub event_sources: Option<Vec<String>>,
    pub condition: Option<String>,
    pub is_partitioned: bool,
    pub partitions: i64,
    /// Partitions on which the trigger is missing or disabled.
    pub deaf_partitions: Option<String>,
    pub partition_of: Option<String>,
    /// Of the last calls of the webhook, those of this event that were too large to send.
    pub too_large: i64,
    /// The role whose rights on the table the event needs.
    pub owner: Option<String>,
    /// The one that it has lost.
    pub lost_rights: Option<String>,
    /// Of the trigger that captures the event.
    pub trigger_name: Option<String>,
    pub matched: Option<String>,
    /// Columns of `match` that have another type now.
    pub retyped_columns: Option<String>,
    /// Values in `match` that its enums do not have.
    pub unknown_values: Option<String>,
    /// Of its webhook.
    pub delivery_order: String,
    /// The columns of the key, or why there is none, as a clause that follows the table's name.
    /// `None`: the event is off, because a column of `order_key` was dropped.
    pub order_key: Option<Result<String, String>>,
    /// `None`: the table is not in shards.
    pub shards: Option<Shards>,
}

/// The shards of a distributed or reference table, its partitions' included.
#[derive(Clone, Debug, Default)]
pub struct Shards {
    /// On this node.
    pub here: i64,
    /// Those whose changes another node captures.
    pub elsewhere: i64,
    /// Those of this node on which the trigger is missing or disabled.
    pub deaf: Option<String>,
}

/// One URL and how its lane fares.
#[derive(Clone, Debug, Default)]
pub struct UrlFacts {
    pub url: String,
    pub state: String,
    pub pending: i64,
    pub retrying: i64,
    /// When something may be sent next: "now", or "at" a moment.
    pub next_attempt: Option<String>,
    /// Of the present failure, or why it is held.
    pub last_error: Option<String>,
    pub failing_since: Option<String>,
    /// From when on one more failure switches it off.
    pub disabled_from: Option<String>,
}

/// This session and this server.
#[derive(Clone, Debug, Default)]
pub struct ServerFacts {
    /// Why this database is held as a copy of another one.
    pub copy: Option<String>,
    pub capture: bool,
    pub recheck_privileges: bool,
    pub replication_role: String,
    pub source: String,
    pub delivery: bool,
    pub worker_pid: Option<i32>,
    pub worker_stopped: bool,
    pub in_recovery: bool,
    pub policy: AddressPolicy,
    pub require_https: bool,
    pub max_message_bytes: usize,
    /// `SET LOCAL` reaches the other nodes of a cluster.
    pub propagates_set_local: bool,
    /// The other nodes of a cluster.
    pub nodes: Vec<NodeChecks>,
}

/// A node, and the checks that fail there or why it does not answer.
pub type NodeChecks = (String, Result<String, String>);

/// All checks, and one at the end that sums them up.
pub fn explain(event: &EventFacts, urls: &[UrlFacts], server: &ServerFacts) -> Vec<Check> {
    if OperationalEvent::parse(&event.event_type).is_some() {
        return explain_operational(event, urls, server);
    }
    let mut checks = vec![
        event_enabled(event),
        webhook_enabled(event),
        webhook_usable(event),
        table(event),
    ];
    // Without the table there is nothing to say of what belongs to it.
    if event.table_is_there {
        checks.extend([
            columns(event),
            owner(event, server),
            trigger(event),
            partitions(event),
            order_key(event),
        ]);
        checks.extend(event.shards.as_ref().map(|found| shards(event, found)));
    }
    checks.extend([
        identity(server),
        capture(server),
        replication_role(event, server),
        source(event, server),
        object_fields(event),
        condition(event),
        matched(event),
        privileges(),
        webhook_not_paused(event),
        delivery(server),
        worker(server),
    ]);
    for url in urls {
        checks.push(url_state(url, &event.webhook));
        checks.push(url_address(url, server));
    }
    checks.push(message_size(event, server));
    checks.extend(server.nodes.iter().map(node));
    let good = "a change made in this session makes a message, and it is sent";
    checks.push(overall(&checks, good));
    checks
}

/// One without a table, whose messages the worker makes.
fn explain_operational(event: &EventFacts, urls: &[UrlFacts], server: &ServerFacts) -> Vec<Check> {
    let mut checks = vec![
        event_enabled(event),
        webhook_enabled(event),
        webhook_usable(event),
        note(
            "subject",
            format!(
                "it is about every webhook but its own, \"{}\"",
                event.webhook
            ),
        ),
        identity(server),
        webhook_not_paused(event),
        delivery(server),
        worker(server),
    ];
    for url in urls {
        checks.push(url_state(url, &event.webhook));
        checks.push(url_address(url, server));
    }
    let good = "when it happens to another webhook, a message is made and sent";
    checks.push(overall(&checks, good));
    checks
}

/// As a statement needs it.
fn trigger_name(event: &EventFacts) -> String {
    let own = || format!("webhook_{}", event.id);
    identifier(&event.trigger_name.clone().unwrap_or_else(own))
}

/// Good or bad news, as it turns out.
fn check(name: &'static str, ok: bool, good: &str, bad: impl Into<String>) -> Check {
    Check {
        name,
        ok,
        detail: if ok { good.to_owned() } else { bad.into() },
    }
}

/// A reason why no message comes.
fn fault(name: &'static str, detail: impl Into<String>) -> Check {
    check(name, false, "", detail)
}

/// An explanation without obstacles.
fn note(name: &'static str, detail: impl Into<String>) -> Check {
    Check {
        name,
        ok: true,
        detail: detail.into(),
    }
}

fn overall(checks: &[Check], good: &str) -> Check {
    let mut failed: Vec<&str> = Vec::new();
    for check in checks.iter().filter(|check| !check.ok) {
        if !failed.contains(&check.name) {
            failed.push(check.name);
        }
    }
    check(
        "overall",
        failed.is_empty(),
        good,
        format!("see {}", failed.join(", ")),
    )
}

#[cfg(test)]
mod tests;
