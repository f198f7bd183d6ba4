//! Which session holds a lock that keeps the worker from its tables.
//!
//! Reads catalogs and pg_locks only: nothing here waits for the tables themselves.

use crate::pg::spi::{Arg, Query};

/// A session that is in the way.
pub struct Blocker {
    /// `None`: a prepared transaction.
    pub pid: Option<i32>,
    /// The process that it waits for itself.
    pub behind: Option<i32>,
    /// With its schema.
    pub table: String,
    /// When its transaction began.
    pub since: String,
}

/// Of tables like $1 the lock that most likely is the one: of a whole table before those of
/// rows (by who has an id and has written or locked rows), and the oldest transaction first.
const OLDEST: &str = "
select k.pid, k.behind, k.table_name, k.since
from (
    select l.pid,
           case when not l.granted then (pg_catalog.pg_blocking_pids(l.pid))[1] end as behind,
           pg_catalog.concat(n.nspname, '.', t.relname) as table_name,
           pg_catalog.to_char(a.xact_start, 'HH24:MI:SS') as since,
           case when l.mode in ('RowShareLock', 'RowExclusiveLock') then 2 else 1 end as place,
           a.xact_start
    from pg_catalog.pg_locks l
    join pg_catalog.pg_class c on c.oid = l.relation
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    left join pg_catalog.pg_index i on i.indexrelid = c.oid
    join pg_catalog.pg_class t on t.oid = coalesce(i.indrelid, c.oid)
    left join pg_catalog.pg_stat_activity a on a.pid = l.pid
    where l.locktype = 'relation'
      and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database())
      and l.pid is distinct from pg_catalog.pg_backend_pid()
      and n.nspname in ('webhook', 'webhook_internal')
      and c.relkind in ('r', 'i')
      and t.relname like any ($1)
      and (l.mode in ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
           or (l.mode in ('RowShareLock', 'RowExclusiveLock')
               and t.relname not like 'outbox\\_%'
               and exists (
                   select
                   from pg_catalog.pg_locks x
                   where x.locktype = 'transactionid'
                     and x.virtualtransaction = l.virtualtransaction
                     and x.granted)))
) k
order by k.place, k.xact_start, k.table_name desc
limit 1";

/// The kept plan of this file's statement.
pub struct BlockerStore {
    oldest: Query,
}

impl BlockerStore {
    pub fn new() -> Self {
        Self {
            oldest: Query::new(OLDEST),
        }
    }

    /// In a transaction. `tables`: patterns of their names without schema.
    pub fn oldest(&self, tables: &[&str]) -> Option<Blocker> {
        let patterns: Vec<Option<&str>> = tables.iter().map(|table| Some(*table)).collect();
        let mut found = None;
        self.oldest.read(&[Arg::TextArray(&patterns)], |row| {
            found = Some(Blocker {
                pid: row.i32(0),
                behind: row.i32(1),
                table: row.text(2)?,
                since: row.text(3).unwrap_or_default(),
            });
            Some(())
        });
        found
    }
}
