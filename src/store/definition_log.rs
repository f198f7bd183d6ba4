//! Which webhooks' definitions, retries and cancellations have changed (`webhook_internal.definition_change`).
//!
//! Sessions add a row for each webhook that a transaction changes; the worker reads what committed
//! since its last look, by snapshot. Rows that it has read are deleted now and then.

use std::cell::Cell;

use super::rows::query_any_version;
use crate::core::messages::snapshot::Snapshot;
use crate::pg::owner::as_owner;
use crate::pg::spi::{connected, Arg, Query};
use crate::pg::xact;

/// With more changes since the last look, everything counts as changed.
const CHANGES_AT_MOST: i64 = 1_000;

/// What has changed since a look.
pub enum Changed {
    /// It cannot be told what has not.
    Everything,
    Webhooks(Vec<i32>),
}

/// $1 xmax and $2 running ids of the last look's snapshot, $3 limit.
const CHANGED: &str = "
select distinct c.webhook_key
from (
    select n.webhook_key
    from webhook_internal.definition_change n
    where n.xid >= $1
    union all
    select n.webhook_key
    from webhook_internal.definition_change n
    where n.xid = any ($2)
) c
limit $3";

const FORGET: &str = "
delete from webhook_internal.definition_change
where xid < $1";

const ADD: &str = "
insert into webhook_internal.definition_change (webhook_key)
values ($1)";

const ADD_EVERYTHING: &str = "
insert into webhook_internal.definition_change (webhook_key)
values (null)";

/// Asks for a table in schema `webhook` that is as old: beside 0.1.0 a schema `webhook_internal` is another role's.
const HAS_LOG: &str = "
select pg_catalog.to_regclass('webhook.def_origin') is not null";

/// Kept plans of the worker's statements.
pub struct DefinitionLog {
    changed: Query,
    forget: Query,
}

impl DefinitionLog {
    pub fn new() -> Self {
        Self {
            changed: Query::new(CHANGED),
            forget: Query::new(FORGET),
        }
    }

    /// What has committed since `before` was taken. In a transaction.
    pub fn since(&self, before: &Snapshot) -> Changed {
        let (mut keys, mut is_everything) = (Vec::new(), false);
        self.changed.read(
            &[
                Arg::Xid(before.xmax),
                Arg::XidArray(&before.running),
                Arg::I64(CHANGES_AT_MOST),
            ],
            |row| match row.i32(0) {
                Some(key) => keys.push(key),
                None => is_everything = true,
            },
        );
        if is_everything || keys.len() as i64 >= CHANGES_AT_MOST {
            Changed::Everything
        } else {
            Changed::Webhooks(keys)
        }
    }

    /// Nobody asks again for what was committed before `read_up_to`. In a transaction.
    pub fn forget(&self, read_up_to: &Snapshot) {
        self.forget.write(&[Arg::Xid(read_up_to.xmin)]);
    }
}

thread_local! {
    static ADD_ONE: Query = const { Query::new(ADD) };
    /// The last webhook that this session has added, and in which subtransaction.
    static ADDED: Cell<Option<((u64, u32), i32)>> = const { Cell::new(None) };
}

/// Says in the running transaction that something of a webhook changes.
pub fn add(webhook_key: i32) {
    let here = xact::current_ids();
    if ADDED.get() == Some((here, webhook_key)) {
        return;
    }
    as_owner(|| connected(|| ADD_ONE.with(|query| query.write(&[Arg::I32(webhook_key)]))));
    ADDED.set(Some((here, webhook_key)));
}

/// Says in the running transaction that anything may have changed. A schema of 0.1.0 has no log.
pub fn add_everything() {
    as_owner(|| {
        if query_any_version(HAS_LOG, &[], |row| row.value::<bool>(1)) == [true] {
            query_any_version(ADD_EVERYTHING, &[], |_| ());
        }
    });
}
