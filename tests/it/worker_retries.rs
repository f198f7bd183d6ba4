//! A worker that cannot work takes one process, says why, and tries again after growing pauses.

use super::support::items::{cluster_with, insert, stop_worker, watch};
use super::support::worker::worker_of;
use super::support::PATIENCE;

const WARNING: &str = "webhook worker cannot restore its state";

#[test]
fn a_worker_without_its_state_stays_the_same_process_and_goes_on_once_it_has_one() {
    let (cluster, receiver) = cluster_with("no_state", "1h");
    cluster.exempt_from_bookkeeping("what the worker counted is emptied by hand");
    watch(&cluster, &receiver, "w", &["/ok"], "");
    stop_worker(&cluster);
    cluster.sql("truncate webhook_internal.compaction, webhook_internal.settlement; select webhook.start_worker()");
    cluster.wait_until(PATIENCE, "the worker to say why it cannot begin", || {
        let detail: Option<String> = cluster.value("select detail from webhook.worker");
        match detail {
            Some(text) if text.contains(WARNING) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    // The end of a stop may start two, of which one leaves.
    let worker = worker_of(&cluster, "postgres");
    let attempts = || cluster.log().matches(WARNING).count();
    let before = attempts();
    cluster.wait_until(PATIENCE, "two further attempts", || {
        match attempts() - before {
            count @ ..2 => Err(format!("{count} further attempts")),
            _ => Ok(()),
        }
    });
    assert_eq!(
        worker_of(&cluster, "postgres"),
        worker,
        "one process makes all attempts"
    );
    // As the hint says.
    cluster.sql(
        "truncate webhook_internal.compaction, webhook_internal.settlement, webhook_internal.lane, webhook_internal.tick;
         insert into webhook_internal.compaction values (true, 0, '3:3:', '3:3:', 0, 0)",
    );
    insert(&cluster, 1..=1);
    receiver.wait_for(PATIENCE, "/ok", 1);
    assert_eq!(worker_of(&cluster, "postgres"), worker);
    cluster.wait_until(PATIENCE, "nothing to hold the worker up", || match cluster
        .value::<Option<String>>("select detail from webhook.worker")
    {
        None => Ok(()),
        Some(text) => Err(text),
    });
}

/// How many workers there are, and how many of them wait for the one that runs.
const WORKERS: &str = "
select format('%s workers, %s waiting', count(distinct a.pid), count(distinct l.pid))
from pg_stat_activity a
left join pg_locks l on l.pid = a.pid and l.locktype = 'advisory' and l.objsubid = 4
where a.backend_type = 'webhook_ext'";

#[test]
fn of_many_workers_that_are_started_at_once_one_waits_and_the_others_leave() {
    let (cluster, receiver) = cluster_with("many_starts", "1h");
    watch(&cluster, &receiver, "w", &["/ok"], "");
    let active = worker_of(&cluster, "postgres");
    // It does not hear that it is to stop.
    cluster.signal(active, "STOP");
    let mut session = cluster.connect("postgres");
    // The end of a stop starts one without a look at whether one runs.
    let start = "update webhook.control set worker_stopped = true; select webhook.start_worker()";
    let mut start_some = || (0..5).for_each(|_| drop(session.batch_execute(start)));
    start_some();
    cluster.wait_until(PATIENCE, "one to wait and no other", || {
        let found: String = cluster.value(WORKERS);
        if found == "2 workers, 1 waiting" {
            return Ok(());
        }
        // The one that waited has given up.
        if found.starts_with("1 ") {
            start_some();
        }
        Err(found)
    });
    cluster.signal(active, "CONT");
    insert(&cluster, 1..=1);
    receiver.wait_for(PATIENCE, "/ok", 1);
    worker_of(&cluster, "postgres");
}
