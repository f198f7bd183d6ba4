//! Locks that outlive their process: nobody can end them, and autovacuum waits for ever.

use std::time::Duration;

use postgres::Client;

use super::wait::try_until;

/// A process leaves pg_stat_activity before it gives its locks back, or after.
const LEAVING: Duration = Duration::from_secs(10);

/// Those of prepared transactions have no process.
const OF_THE_DEAD: &str = "
    select concat_ws(' ', 'the dead process', l.pid, 'holds', l.mode, 'on', l.locktype,
                     l.relation::regclass, l.classid::regclass, l.objid)
    from pg_locks l
    where l.pid is not null
      and not exists (select from pg_stat_activity a where a.pid = l.pid)";

/// Locks that no living process holds.
pub fn locks_of_the_dead(session: &mut Client) -> Vec<String> {
    let mut found = Vec::new();
    let _ = try_until(LEAVING, || {
        let rows = session.query(OF_THE_DEAD, &[]);
        let rows = rows.map_err(|error| error.to_string())?;
        found = rows.iter().map(|row| row.get(0)).collect();
        if found.is_empty() {
            Ok(())
        } else {
            Err(String::new())
        }
    });
    found
}
