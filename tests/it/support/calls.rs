//! What the call log says of calls that failed.

use std::time::Duration;

use super::Cluster;

/// How much later than its deadline a call may be logged as over on a busy machine.
const LATE: Duration = Duration::from_secs(3);

/// Waits until at least two calls of a webhook have failed for this reason (a regular
/// expression), so that one was repeated.
pub fn wait_until_repeated(cluster: &Cluster, limit: Duration, webhook: &str, reason: &str) {
    let mut session = cluster.connect("postgres");
    let query = "select count(*) filter (where status = 'Failure' and detail ~ $2),
                        string_agg(distinct concat_ws(' ', status, http_code, detail), '; ')
                 from webhook.calls where webhook_name = $1";
    cluster.wait_until(
        limit,
        &format!("two calls of {webhook} to fail: {reason}"),
        || {
            let row = session.query_one(query, &[&webhook, &reason]).unwrap();
            if row.get::<_, i64>(0) >= 2 {
                Ok(())
            } else {
                Err(row
                    .get::<_, Option<String>>(1)
                    .unwrap_or_else(|| "no call".into()))
            }
        },
    );
}

/// No call took longer than its webhook's deadline, and those that timed out took no less.
pub fn assert_within_deadline(cluster: &Cluster, deadline: Duration) {
    let (least, most) = (deadline.as_millis(), (deadline + LATE).as_millis());
    let strangers = cluster.psql(&format!(
        "select webhook_name, duration_ms, detail from webhook.calls
         where duration_ms > {most} or detail ~ 'timed out' and duration_ms < {least}"
    ));
    assert_eq!(strangers, "", "the deadline was {deadline:?}");
}
