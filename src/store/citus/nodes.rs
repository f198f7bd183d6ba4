//! The nodes of a cluster, and what is asked of them.

use super::is_here;
use crate::core::error::{Error, Kind};
use crate::core::policy::throttle::Part;
use crate::pg::local_settings::with_settings;
use crate::pg::spi::{connected, Query};
use crate::store::rows::{execute, first, query};

/// Where this node stands in a cluster whose definitions are made on the coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// There is no cluster, or `webhook.enable_cluster()` was not called.
    Alone,
    Coordinator,
    OtherNode,
}

const POSITION: &str = "
select case when l.groupid = 0 then 0 else 1 end
from pg_catalog.pg_dist_local_group l
where webhook_internal.is_cluster()";

/// Group 0 is the coordinator's.
const IS_COORDINATOR: &str = "
select l.groupid = 0
from pg_catalog.pg_dist_local_group l";

const COORDINATOR: &str = "
select pg_catalog.concat(n.nodename, ':', n.nodeport)
from pg_catalog.pg_dist_node n
where n.groupid = 0";

const DISTRIBUTE: &str = "
select pg_catalog.create_reference_table('webhook_internal.cluster_document')
where not webhook_internal.is_cluster()";

/// The nodes but the coordinator, and what they answer to $1.
const ASK_OTHERS: &str = "
select pg_catalog.concat(r.nodename, ':', r.nodeport), r.success, r.result
from pg_catalog.run_command_on_workers($1, true) r
order by r.nodename, r.nodeport";

thread_local! {
    static WHERE_WE_ARE: Query = const { Query::new(POSITION) };
}

/// What a node said.
pub struct NodeAnswer {
    /// Name and port.
    pub node: String,
    /// The text that it gave, or why there is none.
    pub answer: Result<String, String>,
}

impl Position {
    /// As the owner.
    pub fn here() -> Self {
        connected(|| {
            let mut position = Self::Alone;
            if is_here() {
                WHERE_WE_ARE.with(|query| {
                    query.read(&[], |row| {
                        position = match row.i32(0) {
                            Some(0) => Self::Coordinator,
                            _ => Self::OtherNode,
                        };
                    });
                });
            }
            position
        })
    }

    /// Whether the node, in a cluster or not, is one whose definitions may become a cluster's; `None` where
    /// Citus is missing. As the owner.
    pub fn may_coordinate() -> Option<bool> {
        connected(is_here).then(|| first(IS_COORDINATOR, &[], |row| row.value(1)).unwrap_or(true))
    }
}

/// The coordinator's name and port, if the cluster knows it. As the owner.
pub fn coordinator() -> Option<String> {
    first(COORDINATOR, &[], |row| row.value(1))
}

/// Makes the table of documents one that all nodes have.
pub fn distribute_documents() {
    with_settings(&[(c"citus.enable_unsafe_triggers", "on")], || {
        execute(DISTRIBUTE, &[]);
    });
}

/// What the other nodes answer to a statement of the coordinator, which runs there with the rights of the role that
/// acts here. Each has a transaction of its own, and the `search_path` of that role: names and operators of the
/// statement have their schema, or a role that may create functions there has them run by this one.
pub fn on_other_nodes(statement: &str) -> Vec<NodeAnswer> {
    query(ASK_OTHERS, &[statement.into()], |row| {
        let text = row.get(3).unwrap_or_default();
        NodeAnswer {
            node: row.value(1),
            answer: if row.value(2) { Ok(text) } else { Err(text) },
        }
    })
}

/// The version of the extension that a node has, and how many webhooks it has of its own.
const WHAT_A_NODE_HAS: &str = "
select coalesce((
    select pg_catalog.concat(
        e.extversion, ' ',
        (
            select pg_catalog.count(*)
            from webhook.webhook_def w
            where not exists (
                select from webhook_internal.cluster_applied a
                where a.kind operator(pg_catalog.=) 'webhook_def'
                  and a.key operator(pg_catalog.=) w.webhook_key
            )
        )
    )
    from pg_catalog.pg_extension e
    where e.extname operator(pg_catalog.=) 'webhook_ext'
), '')";

/// Why the other nodes are not fit for the definitions of this one: they lack the extension in this version, or
/// have webhooks of their own. As the owner.
pub fn other_nodes_without(version: &str) -> Option<Error> {
    let unfit = |answer: NodeAnswer| {
        let node = answer.node;
        let found = match answer.answer {
            Ok(found) => found,
            Err(why) => {
                return Some(
                    refusal(format!("node {node} does not answer: {why}"))
                        .with_hint("when the node is back, call webhook.enable_cluster() again"),
                )
            }
        };
        match found.split_once(' ') {
            Some((there, "0")) if there == version => None,
            Some((there, _)) if there != version => Some(
                refusal(format!(
                    "node {node} has version {there} of the extension, and not {version}"
                ))
                .with_hint(
                    "install the same files on all nodes, then: alter extension webhook_ext update",
                ),
            ),
            Some((_, count)) => Some(
                refusal(format!("node {node} has {count} webhooks of its own"))
                    .with_hint("drop them there, and create them on the coordinator afterwards"),
            ),
            None => Some(
                refusal(format!("node {node} lacks the extension webhook_ext"))
                    .with_hint("install its files there, then: create extension webhook_ext"),
            ),
        }
    };
    on_other_nodes(WHAT_A_NODE_HAS).into_iter().find_map(unfit)
}

fn refusal(message: String) -> Error {
    Error::new(
        Kind::NotInPrerequisiteState,
        format!("cannot enable a cluster: {message}"),
    )
}

const PENDING: &str = "
select pg_catalog.sum(q.pending + q.retrying)::pg_catalog.int8
from webhook.cluster_queue q
where q.node = $1
   or pg_catalog.split_part(q.node, ':', 1) = $1
having pg_catalog.count(*) filter (where q.state = 'unreachable') = 0
   and exists (
       select from webhook.cluster_worker w
       where (w.node = $1 or pg_catalog.split_part(w.node, ':', 1) = $1) and w.state <> 'unreachable'
   )";

/// What is still to be sent from a node, `None` if there is no such node or it does not answer. With the rights of
/// the caller.
pub fn pending_of(node: &str) -> Option<i64> {
    first(PENDING, &[node.into()], |row| row.get(1).unwrap_or(0))
}

/// How many nodes send, and how many of them come before this one. The coordinator is one of them where it has a
/// part of a table with events, or a table of its own, which other nodes do not know by number; also where Citus
/// does not list it as a node.
const PART: &str = "
select pg_catalog.count(*)::pg_catalog.int4,
       pg_catalog.count(*) filter (where n.groupid < l.groupid)::pg_catalog.int4
from (
    select d.groupid
    from pg_catalog.pg_dist_node d
    where d.noderole::pg_catalog.text = 'primary'
      and d.isactive
    union
    select 0
) n
cross join pg_catalog.pg_dist_local_group l
where n.groupid <> 0
   or exists (
       select
       from webhook.event_def e
       left join pg_catalog.pg_dist_partition p on p.logicalrelid = e.object_name
       where e.dropped_at is null
         and not pg_catalog.starts_with(e.event_type, 'webhook.')
         and (
             p.logicalrelid is null
             or exists (
                 select
                 from pg_catalog.pg_dist_shard s
                 join pg_catalog.pg_dist_placement a on a.shardid = s.shardid
                 where s.logicalrelid = p.logicalrelid
                   and a.groupid = 0
             )
         )
   )";

/// Which part of each webhook's rate is this node's. As the owner.
pub fn part_of_rates() -> Part {
    let number = |value: i32| value.unsigned_abs();
    let found = first(PART, &[], |row| Part {
        nodes: number(row.value(1)),
        place: number(row.value(2)),
    });
    found.filter(|part| part.nodes > 0).unwrap_or(Part::WHOLE)
}
