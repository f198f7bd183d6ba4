//! Why a message of an event comes, or does not: every reason, one check each.
//!
//! Pure: facts in, checks out. A check that fails says what to do. Whether a message
//! comes *now* is the question, so what only delays one (a pause, a URL that backs
//! off) fails, too; what only slows it (a throttle) does not.

use super::address::AddressPolicy;
use super::endpoint::{Endpoint, Scheme};

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
}

/// One URL and how its lane fares.
#[derive(Clone, Debug, Default)]
pub struct UrlFacts {
    pub url: String,
    pub state: String,
    pub pending: i64,
    pub retrying: i64,
    pub next_attempt_at: Option<String>,
    pub last_error: Option<String>,
}

/// This session and this server.
#[derive(Clone, Debug, Default)]
pub struct ServerFacts {
    pub capture: bool,
    pub replication_role: String,
    pub source: String,
    pub delivery: bool,
    pub worker_pid: Option<i32>,
    pub worker_stopped: bool,
    pub in_recovery: bool,
    pub policy: AddressPolicy,
    pub require_https: bool,
    pub max_message_bytes: usize,
}

/// All checks, and one at the end that sums them up.
pub fn explain(event: &EventFacts, urls: &[UrlFacts], server: &ServerFacts) -> Vec<Check> {
    let mut checks = vec![
        event_enabled(event),
        webhook_enabled(event),
        webhook_usable(event),
        table(event),
    ];
    // Without the table there is nothing to say of what belongs to it.
    if event.table_is_there {
        checks.extend([columns(event), trigger(event), partitions(event)]);
    }
    checks.extend([
        capture(server),
        replication_role(event, server),
        source(event, server),
        object_fields(event),
        condition(event),
        privileges(),
        webhook_not_paused(event),
        delivery(server),
        worker(server),
    ]);
    for url in urls {
        checks.push(url_state(url));
        checks.push(url_address(url, server));
    }
    checks.push(message_size(event, server));
    checks.push(overall(&checks));
    checks
}

fn check(name: &'static str, ok: bool, good: &str, bad: impl Into<String>) -> Check {
    Check {
        name,
        ok,
        detail: if ok { good.to_owned() } else { bad.into() },
    }
}

fn note(name: &'static str, detail: impl Into<String>) -> Check {
    Check {
        name,
        ok: true,
        detail: detail.into(),
    }
}

fn event_enabled(event: &EventFacts) -> Check {
    let id = &event.id;
    check(
        "event_enabled",
        event.enabled,
        "the event is enabled",
        format!("the event is switched off: call webhook.update_event('{id}', enabled => true)"),
    )
}

fn webhook_enabled(event: &EventFacts) -> Check {
    let webhook = quoted(&event.webhook);
    check(
        "webhook_enabled",
        event.webhook_enabled,
        "its webhook is enabled",
        format!(
            "its webhook is switched off, so nothing is captured: \
             call webhook.update_webhook({webhook}, enabled => true)"
        ),
    )
}

fn webhook_usable(event: &EventFacts) -> Check {
    match &event.webhook_detail {
        None => note("webhook_usable", "its webhook's definition can be used"),
        Some(reason) => check(
            "webhook_usable",
            false,
            "",
            format!("its webhook's definition cannot be used: {reason}; mend it with webhook.update_webhook()"),
        ),
    }
}

fn webhook_not_paused(event: &EventFacts) -> Check {
    let webhook = quoted(&event.webhook);
    check(
        "webhook_not_paused",
        !event.webhook_paused,
        "its webhook is not paused",
        format!(
            "its webhook is paused: changes are captured and wait; \
             call webhook.resume_webhook({webhook})"
        ),
    )
}

fn table(event: &EventFacts) -> Check {
    let (id, table) = (&event.id, &event.table);
    check(
        "table",
        event.table_is_there,
        &format!("the table {table} is there"),
        format!(
            "the table {table} was dropped: call webhook.drop_event('{id}'), \
             and create an event for the table that has taken its place"
        ),
    )
}

fn columns(event: &EventFacts) -> Check {
    let missing = event.missing_columns.as_deref().unwrap_or_default();
    check(
        "columns",
        missing.is_empty(),
        "all columns it names are there",
        format!(
            "a column was dropped, which switches the event off: {missing}; give it other \
             columns with webhook.update_event('{}', object_fields => …, payload_fields => …)",
            event.id
        ),
    )
}

fn trigger(event: &EventFacts) -> Check {
    let (id, table) = (&event.id, &event.table);
    let bad = match event.trigger.as_deref() {
        None => format!(
            "the trigger webhook_{id} is missing on {table}: \
             call webhook.update_event('{id}', enabled => true), which creates it anew"
        ),
        Some(_) if !event.trigger_is_ours => format!(
            "the trigger webhook_{id} on {table} is somebody else's: drop it, \
             then call webhook.update_event('{id}', enabled => true)"
        ),
        Some("D") => {
            format!("the trigger is disabled: alter table {table} enable trigger webhook_{id}")
        }
        Some(_) => {
            return note(
                "trigger",
                format!("the trigger webhook_{id} is on {table} and enabled"),
            )
        }
    };
    check("trigger", false, "", bad)
}

fn partitions(event: &EventFacts) -> Check {
    if let Some(deaf) = &event.deaf_partitions {
        let bad = format!(
            "on some partitions the trigger is missing or disabled: {deaf}; \
             alter table … enable trigger webhook_{}",
            event.id
        );
        return check("partitions", false, "", bad);
    }
    let said = match (&event.partition_of, event.is_partitioned) {
        (Some(parent), _) => format!(
            "the table is a partition of {parent}: changes made through {parent} count when they reach it"
        ),
        (None, true) => format!(
            "changes of its partitions count ({} now), also of those attached later, \
             and no longer of those that are detached",
            event.partitions
        ),
        (None, false) => "the table is not partitioned".to_owned(),
    };
    note("partitions", said)
}

fn capture(server: &ServerFacts) -> Check {
    check(
        "capture",
        server.capture,
        "webhook.capture is on in this session",
        "webhook.capture is off in this session: set webhook.capture = on, \
         or find out with \\drds and pg_settings.source where it was switched off",
    )
}

/// `O` fires in a session of origin or local, `R` in one of replica, `A` in all.
fn replication_role(event: &EventFacts, server: &ServerFacts) -> Check {
    let role = &server.replication_role;
    let is_replica = role == "replica";
    let fires = match event.trigger.as_deref() {
        Some("A") | None => true,
        Some("R") => is_replica,
        Some(_) => !is_replica,
    };
    check(
        "session_replication_role",
        fires,
        &format!("session_replication_role is {role}: the trigger fires"),
        format!(
            "session_replication_role is {role} in this session, where the trigger does not \
             fire: set it to {}, or alter table {} enable always trigger webhook_{}",
            if is_replica { "origin" } else { "replica" },
            event.table,
            event.id
        ),
    )
}

fn source(event: &EventFacts, server: &ServerFacts) -> Check {
    let source = &server.source;
    let Some(sources) = &event.event_sources else {
        return note(
            "source",
            format!("every source counts; that of this session is \"{source}\""),
        );
    };
    let wanted = source.to_lowercase();
    let list = sources.join(", ");
    check(
        "source",
        sources.iter().any(|s| s.to_lowercase() == wanted),
        &format!("the source of this session, \"{source}\", is one of: {list}"),
        format!(
            "the source of this session, \"{source}\", is none of: {list}; set webhook.source \
             to one of them, or call webhook.update_event('{}', event_sources => …)",
            event.id
        ),
    )
}

fn object_fields(event: &EventFacts) -> Check {
    let said = match (event.event_type.as_str(), &event.object_fields) {
        ("table.recordUpdate", Some(fields)) => {
            format!("an UPDATE makes a message only if the stored value of one of these changes: {fields}")
        }
        ("table.recordUpdate", None) => {
            "an UPDATE makes a message if the stored value of any column changes".to_owned()
        }
        ("table.recordDelete", _) => {
            "each DELETE of a row makes a message; TRUNCATE makes none".to_owned()
        }
        _ => "each INSERT of a row makes a message".to_owned(),
    };
    note("object_fields", said)
}

fn condition(event: &EventFacts) -> Check {
    match &event.condition {
        None => note("condition", "there is no condition"),
        Some(condition) => note(
            "condition",
            format!("only a change for which this is true makes a message: {condition}"),
        ),
    }
}

fn privileges() -> Check {
    note(
        "privileges",
        "whoever may change the table has the change captured: no right on the extension is needed",
    )
}

fn delivery(server: &ServerFacts) -> Check {
    check(
        "delivery",
        server.delivery,
        "webhook.delivery is on",
        "webhook.delivery is off: alter system set webhook.delivery = on, then pg_reload_conf()",
    )
}

fn worker(server: &ServerFacts) -> Check {
    if let Some(pid) = server.worker_pid {
        return note("worker", format!("the worker runs, as process {pid}"));
    }
    let bad = if server.in_recovery {
        "this server is in recovery: its primary delivers, and it does itself after a promotion"
    } else if server.worker_stopped {
        "the worker was stopped: call webhook.start_worker()"
    } else {
        "no worker runs; the next captured change starts one if max_worker_processes leaves room: \
         call webhook.start_worker() to see"
    };
    check("worker", false, "", bad)
}

fn url_state(url: &UrlFacts) -> Check {
    let address = &url.url;
    let error = url.last_error.as_deref().unwrap_or("unknown");
    let waiting = url.pending + url.retrying;
    match url.state.as_str() {
        "disabled" => check(
            "url_state",
            false,
            "",
            format!("{address} is switched off: {error}; webhook.resume_webhook() opens it again"),
        ),
        "backing_off" => check(
            "url_state",
            false,
            "",
            format!(
                "{address} fails, {waiting} wait for it, the next call is a probe at {}: {error}",
                url.next_attempt_at.as_deref().unwrap_or("any moment")
            ),
        ),
        "throttled" => note(
            "url_state",
            format!("{address} is slowed down by call_throttling: {waiting} wait for it"),
        ),
        "paused" => note(
            "url_state",
            format!("{address} is paused: {waiting} wait for it"),
        ),
        _ if url.retrying > 0 => note(
            "url_state",
            format!(
                "{address} is called; {} wait for a retry, the last error: {error}",
                url.retrying
            ),
        ),
        _ => note(
            "url_state",
            format!("{address} is called; {waiting} wait for it"),
        ),
    }
}

fn url_address(url: &UrlFacts, server: &ServerFacts) -> Check {
    const NAME: &str = "url_address";
    let text = &url.url;
    let Ok(endpoint) = Endpoint::parse(text) else {
        return check(
            NAME,
            false,
            "",
            format!("{text} cannot be read: replace it"),
        );
    };
    let literal = endpoint.literal_address();
    let may_be_plain = match literal {
        Some(address) => server.policy.is_explicitly_allowed(address),
        None => server.policy != AddressPolicy::default(),
    };
    if endpoint.scheme() == Scheme::Http && server.require_https && !may_be_plain {
        let bad = format!(
            "{text} is plain http, which goes only into webhook.allowed_networks: \
             use https, or name the receiver's network there"
        );
        return check(NAME, false, "", bad);
    }
    match literal.map(|address| server.policy.judge(address)) {
        Some(Err(refusal)) => check(NAME, false, "", format!("{text}: {refusal}")),
        Some(Ok(())) => note(NAME, format!("{text}: the address may be called")),
        None => note(
            NAME,
            format!("{text}: its addresses are judged when it is called"),
        ),
    }
}

fn message_size(event: &EventFacts, server: &ServerFacts) -> Check {
    let limit = server.max_message_bytes;
    check(
        "message_size",
        event.too_large == 0,
        &format!("none of the last calls was refused for its size (webhook.max_message_size is {limit} bytes)"),
        format!(
            "{} of the last calls were refused for their size (webhook.max_message_size is {limit} \
             bytes): send fewer columns with payload_fields, or raise the setting",
            event.too_large
        ),
    )
}

fn overall(checks: &[Check]) -> Check {
    let mut failed: Vec<&str> = Vec::new();
    for check in checks.iter().filter(|check| !check.ok) {
        if !failed.contains(&check.name) {
            failed.push(check.name);
        }
    }
    check(
        "overall",
        failed.is_empty(),
        "a change made in this session makes a message, and it is sent",
        format!("see {}", failed.join(", ")),
    )
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
#[cfg(test)]
mod tests;
