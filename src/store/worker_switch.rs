//! Whether the worker of this database was stopped by hand, and what runs of it.

use pgrx::datum::TimestampWithTimeZone;

use super::rows::{query_any_version, Row};
use crate::pg::owner::as_owner;
use crate::pg::process::DETAIL_MARK;
use crate::pg::text::Param;

const IS_STOPPED: &str = "
select true from webhook.control where worker_stopped";

const SET_STOPPED: &str = "
update webhook.control
set worker_stopped = $1
where worker_stopped <> $1
returning true";

const PROCESS: &str = "
select a.pid, a.backend_start
from pg_catalog.pg_stat_activity a
where a.backend_type = 'webhook_ext'
  and a.datname = pg_catalog.current_database()
order by a.backend_start
limit 1";

/// What the worker says behind the mark $1.
const DETAIL: &str = "
select nullif(pg_catalog.split_part(a.query, $1, 2), '')
from pg_catalog.pg_stat_activity a
where a.backend_type = 'webhook_ext'
  and a.datname = pg_catalog.current_database()
order by a.backend_start
limit 1";

const TERMINATE: &str = "
select pg_catalog.pg_terminate_backend($1)";

/// Whether the worker was stopped by hand.
pub fn is_stopped() -> bool {
    as_owner(|| first(IS_STOPPED, &[], |_| ()).is_some())
}

/// Says whether the worker has to stay away; `true` if that is news.
pub fn set_stopped(stopped: bool) -> bool {
    as_owner(|| first(SET_STOPPED, &[stopped.into()], |_| ()).is_some())
}

/// The worker's process id and start.
pub fn process() -> Option<(i32, TimestampWithTimeZone)> {
    as_owner(|| first(PROCESS, &[], |row| (row.value(1), row.value(2))))
}

/// What holds the worker up, in its own words.
pub fn detail() -> Option<String> {
    as_owner(|| first(DETAIL, &[DETAIL_MARK.into()], |row| row.get(1)).flatten())
}

/// Asks a process to end.
pub fn terminate(pid: i32) {
    as_owner(|| execute(TERMINATE, &[pid.into()]));
}

/// These statements fit every version.
fn first<T>(sql: &str, args: &[Param], read: impl Fn(&Row<'_>) -> T) -> Option<T> {
    query_any_version(sql, args, read).into_iter().next()
}

fn execute(sql: &str, args: &[Param]) {
    query_any_version(sql, args, |_| ());
}
