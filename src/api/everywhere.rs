//! Operations on messages, called on the coordinator of a cluster: they act on the other nodes, too.
//!
//! Each node has a transaction of its own. One that does not answer is told of, and the others go on.
//! Called on another node, an operation acts on that node alone.

use crate::core::error::{Error, Kind};
use crate::core::values::sql_text::literal;
use crate::pg::owner::as_owner;
use crate::pg::report;
use crate::store::citus::{self, NodeAnswer, Position};

/// A definition that the caller's transaction has changed is locked on the nodes, and nobody sees that the caller waits
/// for itself.
const LOCK_TIMEOUT: &str = "5s";

/// What the other nodes of a cluster answer to a call of one of our functions; nothing outside a cluster, and on
/// another node than the coordinator.
pub fn ask(call: &str) -> Vec<NodeAnswer> {
    if as_owner(Position::here) == Position::Coordinator {
        citus::on_other_nodes(&format!(
            "select case when pg_catalog.set_config('lock_timeout', '{LOCK_TIMEOUT}', true) is not null then {call} end"
        ))
    } else {
        Vec::new()
    }
}

/// The answers of nodes that gave one. Of others it is said why not, if `is_news` says that it is worth it.
fn given(call: &str, is_news: impl Fn(&str) -> bool) -> Vec<String> {
    let given = |NodeAnswer { node, answer }| match answer {
        Ok(answer) => Some(answer),
        Err(why) => {
            if is_news(&why) {
                report::warn(
                    Error::new(
                        Kind::NotInPrerequisiteState,
                        format!("node {node} has not done it: {why}"),
                    )
                    .with_hint("call the function again when the node is back"),
                );
            }
            None
        }
    };
    ask(call).into_iter().filter_map(given).collect()
}

/// The sum of what the other nodes counted.
pub fn sum(call: &str) -> i64 {
    let counts = given(call, |_| true);
    counts
        .iter()
        .filter_map(|count| count.parse::<i64>().ok())
        .sum()
}

/// The sum for a message, which one node has; `None` if none of them has it. Booleans count as 1.
pub fn sum_of_message(call: &str) -> Option<i64> {
    let counts = given(call, |why| !why.contains("does not exist"));
    let number = |text: &String| match text.as_str() {
        "t" => 1,
        other => other.parse().unwrap_or(0),
    };
    (!counts.is_empty()).then(|| counts.iter().map(number).sum())
}

/// Whether all other nodes say yes.
pub fn all(call: &str) -> bool {
    let asked = ask(call);
    let said_yes = |answer: &NodeAnswer| matches!(answer.answer.as_deref(), Ok("t"));
    for NodeAnswer { node, answer } in &asked {
        if let Err(why) = answer {
            pgrx::notice!("node {node} does not say whether it is idle: {why}");
        }
    }
    asked.iter().all(said_yes)
}

/// An argument of a call.
pub fn argument(text: Option<&str>) -> String {
    text.map_or("null".to_owned(), literal)
}
