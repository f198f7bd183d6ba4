//! What this session and this server have to say.

use super::{check, fault, note, trigger_name, Check, EventFacts, ServerFacts};
use crate::core::values::sql_text::literal;

pub(super) fn identity(server: &ServerFacts) -> Check {
    check(
        "identity",
        server.copy.is_none(),
        "the definitions were made in this database",
        server.copy.clone().unwrap_or_default(),
    )
}

pub(super) fn capture(server: &ServerFacts) -> Check {
    check(
        "capture",
        server.capture,
        "webhook.capture is on in this session",
        "webhook.capture is off in this session: set webhook.capture = on, \
         or find out with \\drds and pg_settings.source where it was switched off",
    )
}

/// `O` fires in a session of origin or local, `R` in one of replica, `A` in all.
pub(super) fn replication_role(event: &EventFacts, server: &ServerFacts) -> Check {
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
             fire: set it to {}, or alter table {} enable always trigger {}",
            if is_replica { "origin" } else { "replica" },
            event.table_in_sql,
            trigger_name(event)
        ),
    )
}

pub(super) fn source(event: &EventFacts, server: &ServerFacts) -> Check {
    let source = &server.source;
    let Some(sources) = &event.event_sources else {
        return note(
            "source",
            format!("every source counts; that of this session is \"{source}\""),
        );
    };
    let is_elsewhere = event.shards.as_ref().is_some_and(|s| s.elsewhere > 0);
    if is_elsewhere && !server.propagates_set_local {
        return fault(
            "source",
            "other nodes, which capture this table's changes, do not know the source of this session: \
             set citus.propagate_set_commands = 'local', then set local webhook.source in each transaction",
        );
    }
    let wanted = source.to_lowercase();
    let list = sources.join(", ");
    check(
        "source",
        sources.iter().any(|s| s.to_lowercase() == wanted),
        &format!("the source of this session, \"{source}\", is one of: {list}"),
        format!(
            "the source of this session, \"{source}\", is none of: {list}; set webhook.source \
             to one of them, or call webhook.update_event({}, event_sources => …)",
            literal(&event.id)
        ),
    )
}

pub(super) fn delivery(server: &ServerFacts) -> Check {
    check(
        "delivery",
        server.delivery,
        "webhook.delivery is on",
        "webhook.delivery is off: alter system set webhook.delivery = on, then pg_reload_conf()",
    )
}

pub(super) fn worker(server: &ServerFacts) -> Check {
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
    fault("worker", bad)
}
