//! `webhook.explain_event`.

use pgrx::prelude::*;

use super::everywhere::{self, argument};
use crate::core::error::Result;
use crate::core::explain::{explain, Check, NodeChecks, ServerFacts};
use crate::pg::arguments::{required_word, TextArgument};
use crate::pg::report::ok_or_raise;
use crate::pg::text::Text;
use crate::pg::{liveness, session, settings, wake};
use crate::store::{caller, event_definitions, explanation, identity, worker_switch};

#[pg_extern(sql = false)]
fn explain_event(
    event: Option<TextArgument>,
) -> TableIterator<
    'static,
    (
        name!(check_name, Text),
        name!(ok, bool),
        name!(detail, Text),
    ),
> {
    let checks = || -> Result<Vec<Check>> {
        let key = event_definitions::look_up(&required_word(event, "event")?)?;
        let (event, urls) = (explanation::event(key), explanation::urls(key));
        let mut server = server();
        if event.shards.is_some() {
            server.nodes = nodes(&event.id);
        }
        Ok(explain(&event, &urls, &server))
    };
    let mut checks = ok_or_raise(checks());
    if !caller::is_admin() {
        for check in &mut checks {
            check.detail = caller::masked(&check.detail);
        }
    }
    let rows = checks.into_iter();
    TableIterator::new(rows.map(|check| (check.name.into(), check.ok, check.detail.into())))
}

/// The other nodes of a cluster, if this one coordinates it. The source is that of the caller's session, which they
/// do not know.
fn nodes(event_id: &str) -> Vec<NodeChecks> {
    let failed_there = format!(
        "(select coalesce(pg_catalog.string_agg(pg_catalog.concat(c.check_name, ': ', c.detail), '; '), '') \
          from webhook.explain_event({}) c \
          where not c.ok and c.check_name operator(pg_catalog.<>) all (array['overall', 'source']))",
        argument(Some(event_id))
    );
    let asked = everywhere::ask(&failed_there).into_iter();
    asked.map(|asked| (asked.node, asked.answer)).collect()
}

fn server() -> ServerFacts {
    let (replication_role, in_recovery) = explanation::session();
    let delivery = settings::delivery();
    ServerFacts {
        copy: identity::copy_notice(),
        capture: settings::capture(),
        recheck_privileges: settings::recheck_privileges(),
        replication_role,
        source: session::source().to_string(),
        delivery: delivery.on,
        worker_pid: wake::running_worker().filter(|pid| liveness::is_alive(*pid)),
        worker_stopped: worker_switch::is_stopped(),
        in_recovery,
        policy: delivery.allowed_networks,
        require_https: delivery.require_https,
        max_message_bytes: delivery.max_message_bytes,
        propagates_set_local: explanation::propagates_set_local(),
        nodes: Vec::new(),
    }
}
