//! What the extension says of its messages and calls against what happened.
//!
//! A property of every cluster, so that no test has to think of it: a cluster that goes, and
//! has made more than [`FEW`] messages, is asked for its counters, its messages, its log and
//! what is pending, and these are held against one another and against what the receivers of
//! the same test got. Which changes were committed, and that their messages came, is for the
//! test itself: [`super::compare`].

use std::cell::RefCell;
use std::collections::HashSet;

use postgres::{Client, Error, IsolationLevel, Transaction};
use url::Url;
use uuid::Uuid;

use super::cluster::Cluster;
use super::locks::locks_of_the_dead;
use super::receiver::{calls_at, Calls};
use super::stalls::now_us;

/// Up to so many messages the test's own comparison is enough.
const FEW: i64 = 100;

/// More messages than this take long to be asked for their status, one by one.
const MANY: i64 = 300_000;

/// What a test leaves unsent may keep the worker busy, and a standby may be behind; then calls and requests are not
/// compared.
const IDLE: &str =
    "select case when pg_is_in_recovery() then false else webhook.wait_idle('2 seconds') end";

const MESSAGES: &str = "select coalesce(sum(messages), 0)::bigint from webhook.webhooks";

/// After one of these the log may lack calls that receivers got: what became of them could
/// not be written any more.
const ENDS: &[&str] = &[
    "terminated by signal",
    "terminating background worker",
    // An orderly one has no other line.
    "background worker \"webhook_ext\"",
    "terminating connection",
    "received immediate shutdown",
    "received fast shutdown",
    "database system was interrupted",
    "not properly shut down",
    "received promote request",
];

thread_local! {
    /// The receivers that this test has started and not dropped: their ports, and since when.
    static LIVE: RefCell<Vec<(u16, u64)>> = const { RefCell::new(Vec::new()) };
    /// Those that are gone.
    static GONE: RefCell<Vec<Seen>> = const { RefCell::new(Vec::new()) };
}

/// What came to a receiver from one time to another; microseconds since 1970.
#[derive(Clone)]
struct Seen {
    port: u16,
    from_us: u64,
    until_us: u64,
    calls: Calls,
}

impl Seen {
    fn now(port: u16, from_us: u64) -> Self {
        Self {
            port,
            from_us,
            // Before it is asked: of what comes while it answers nothing is known.
            until_us: now_us(),
            calls: calls_at(port),
        }
    }

    /// Whether it must know of a call that ran in this time.
    fn must_know(&self, url: &Url, began_us: u64, ended_us: u64) -> bool {
        url.port() == Some(self.port)
            && self.from_us <= began_us
            && ended_us <= self.until_us
            && self.calls.keeps(url.path())
    }
}

pub fn receiver_starts(port: u16) {
    LIVE.with_borrow_mut(|live| live.push((port, now_us())));
}

/// To be told while it can still be asked.
pub fn receiver_ends(port: u16) {
    let started = LIVE.with_borrow_mut(|live| {
        let place = live.iter().position(|(other, _)| *other == port)?;
        Some(live.remove(place).1)
    });
    if let Some(from_us) = started {
        GONE.with_borrow_mut(|gone| gone.push(Seen::now(port, from_us)));
    }
}

fn seen_by_all() -> Vec<Seen> {
    let mut all = GONE.with_borrow(Vec::clone);
    let live = LIVE.with_borrow(Vec::clone);
    all.extend(
        live.into_iter()
            .map(|(port, from_us)| Seen::now(port, from_us)),
    );
    all
}

/// What is wrong in the databases of a server; nothing is if none runs.
pub fn findings(cluster: &Cluster) -> Vec<String> {
    let databases = "select datname from pg_database where datallowconn and not datistemplate";
    let connected = |database: &str| cluster.try_connect_as("postgres", database);
    // A server that a test has taken down, filled up or locked has nothing to say.
    let Ok(mut session) = connected("postgres") else {
        return Vec::new();
    };
    let Ok(names) = session.query(databases, &[]) else {
        return Vec::new();
    };
    let log = cluster.log();
    let mut all = locks_of_the_dead(&mut session);
    for name in names.iter().map(|row| row.get::<_, String>(0)) {
        let Ok(mut session) = connected(&name) else {
            continue;
        };
        match findings_in(&mut session, &log) {
            Ok(found) => all.extend(found.iter().map(|finding| format!("{name}: {finding}"))),
            Err(error) => all.push(format!("{name}: {error:?}")),
        }
    }
    all
}

fn findings_in(session: &mut Client, log: &str) -> Result<Vec<String>, Error> {
    session.batch_execute("set search_path = pg_catalog")?;
    let is_there = "select exists (select from pg_extension where extname = 'webhook_ext')";
    if !session.query_one(is_there, &[])?.get::<_, bool>(0) {
        return Ok(Vec::new());
    }
    session.batch_execute("set statement_timeout = '1min'; set lock_timeout = '10s'")?;
    let messages: i64 = session.query_one(MESSAGES, &[])?.get(0);
    if messages <= FEW {
        return Ok(Vec::new());
    }
    let is_idle: bool = session.query_one(IDLE, &[])?.get(0);
    let mut books = session
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()?;
    let mut findings = listed(&mut books, COUNTERS)?;
    if messages <= MANY {
        findings.extend(listed(&mut books, PENDING)?);
    }
    let was_ended = ENDS.iter().any(|end| log.contains(end));
    let seen = seen_by_all();
    findings.extend(compare_calls(&mut books, &seen, is_idle && !was_ended)?);
    println!(
        "bookkeeping: {messages} messages compared, {} requests{}{}",
        seen.iter()
            .map(|seen| seen.calls.messages.len())
            .sum::<usize>(),
        if is_idle { "" } else { ", not idle" },
        if was_ended { ", after an end" } else { "" },
    );
    Ok(findings)
}

fn listed(books: &mut Transaction, query: &str) -> Result<Vec<String>, Error> {
    let rows = books.query(query, &[])?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Counters of a webhook and the rows they count. Of a ring that was emptied once, rows are
/// gone; a log that does not hold every call has no more than were made.
const COUNTERS: &str = "
    with ring as (
        select bool_or(c.relname like 'outbox%' and pg_relation_filenode(c.oid) <> c.oid) as outbox_emptied,
               bool_or(c.relname like 'call_log%' and pg_relation_filenode(c.oid) <> c.oid) as log_emptied
        from pg_class c
        where c.relnamespace::regnamespace::text in ('webhook', 'webhook_internal') and c.relkind = 'r'
          and (c.relname like 'outbox%' or c.relname like 'call_log%')
    ), message as (
        select webhook_id, count(*) as n from webhook.messages group by 1
    ), call as (
        select webhook_id, count(*) as n, count(*) filter (where status = 'Failure') as failed
        from webhook.calls group by 1
    ), said as (
        select w.name, d.log_level, w.messages, w.calls, w.errors,
               coalesce(m.n, 0) as messages_found, coalesce(c.n, 0) as calls_found,
               coalesce(c.failed, 0) as errors_found, r.outbox_emptied, r.log_emptied
        from webhook.webhooks w
        join webhook.webhook_def d on d.id = w.id
        cross join ring r
        left join message m on m.webhook_id = w.id
        left join call c on c.webhook_id = w.id
    )
    select format('%s: %s messages counted, %s there', name, messages, messages_found)
    from said
    where case when outbox_emptied then messages < messages_found else messages <> messages_found end
    union all
    select format('%s: %s calls counted, %s in the log', name, calls, calls_found)
    from said
    where case when log_emptied or log_level <> 'all' then calls < calls_found else calls <> calls_found end
    union all
    select format('%s: %s errors counted, %s in the log', name, errors, errors_found)
    from said
    where case when log_emptied or log_level = 'none' then errors < errors_found else errors <> errors_found end";

/// Where a webhook has one URL, each message that is pending waits there.
const PENDING: &str = "
    with waiting as (
        select webhook_id, sum(pending + retrying) as n from webhook.queue group by 1
    ), message as (
        select webhook_id, count(*) filter (where status = 'pending') as n from webhook.messages group by 1
    )
    select format('%s: %s wait in webhook.queue, %s in webhook.messages', w.name,
                  coalesce(q.n, 0), coalesce(m.n, 0))
    from webhook.webhooks w
    left join waiting q on q.webhook_id = w.id
    left join message m on m.webhook_id = w.id
    where case
              when cardinality(w.outgoing_urls) = 1 then coalesce(q.n, 0) <> coalesce(m.n, 0)
              else (coalesce(q.n, 0) = 0) <> (coalesce(m.n, 0) = 0)
          end";

const LOGGED: &str = "
    select call_id, outgoing_url, http_code is not null,
           (extract(epoch from called_at) * 1e6)::bigint,
           (extract(epoch from called_at) * 1e6 + duration_ms * 1000)::bigint
    from webhook.calls";

/// Messages each of whose calls is in the log, if it was not emptied.
const LOGGED_IN_FULL: &str = "
    select m.message_id
    from webhook.messages m
    join webhook.webhook_def d on d.id = m.webhook_id
    where d.log_level = 'all'
      and not exists (
          select from pg_class c
          where c.relnamespace::regnamespace::text in ('webhook', 'webhook_internal') and c.relkind = 'r'
            and c.relname like 'call_log%' and pg_relation_filenode(c.oid) <> c.oid)";

/// Calls that the log says were answered and that no receiver got; where nothing was cut off,
/// also calls that a receiver got and the log does not have.
fn compare_calls(
    books: &mut Transaction,
    seen: &[Seen],
    log_is_complete: bool,
) -> Result<Vec<String>, Error> {
    let mut logged: HashSet<Uuid> = HashSet::new();
    let mut invented: Vec<String> = Vec::new();
    for row in books.query(LOGGED, &[])? {
        let (call, url): (Uuid, String) = (row.get(0), row.get(1));
        logged.insert(call);
        let (began, ended): (i64, i64) = (row.get(3), row.get(4));
        let was_answered: bool = row.get(2);
        // Receivers of other kinds do not say what came.
        if was_answered && lacks(seen, call, &url, began as u64, ended as u64) {
            invented.push(format!("{call} to {url}"));
        }
    }
    let mut unlogged: Vec<String> = Vec::new();
    if log_is_complete {
        let in_full = books.query(LOGGED_IN_FULL, &[])?;
        let in_full: HashSet<Uuid> = in_full.iter().map(|row| row.get(0)).collect();
        let all = seen.iter().flat_map(|seen| &seen.calls.messages);
        unlogged.extend(
            all.filter(|(call, message)| in_full.contains(message) && !logged.contains(call))
                .map(|(call, message)| format!("{call} of message {message}")),
        );
    }
    let kinds = [
        ("calls in the log that no receiver got", invented),
        ("calls that a receiver got and the log lacks", unlogged),
    ];
    Ok(kinds
        .into_iter()
        .filter_map(|(what, found)| Some(format!("{} {what}: {}", found.len(), found.first()?)))
        .collect())
}

/// Whether a receiver was there for this call, and none had it.
fn lacks(seen: &[Seen], call: Uuid, url: &str, began_us: u64, ended_us: u64) -> bool {
    let Ok(url) = Url::parse(url) else {
        return false;
    };
    let has_it = |seen: &Seen| seen.calls.messages.contains_key(&call);
    let must_know = |seen: &Seen| seen.must_know(&url, began_us, ended_us);
    seen.iter().any(must_know) && !seen.iter().any(has_it)
}
