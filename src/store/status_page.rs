//! What `webhook.status_page()` shows: read from the views that users read, with their rights.

use super::caller;
use super::rows::{first, query, Row};
use crate::core::status_page::facts::{
    Call, Cause, Change, Event, Facts, Hour, Minute, Server, Totals, Url,
};
use crate::core::values::durations::Durations;
use crate::pg::owner::as_owner;

/// URLs that are shown, and hours of each.
const URLS_AT_MOST: i64 = 30;
const HOURS: usize = 24;
/// Lists end here.
const ROWS_AT_MOST: i64 = 50;
/// The failed calls whose causes are counted.
const FAILURES: i64 = 1000;

/// As the page shows times: in UTC.
macro_rules! utc {
    ($time:literal) => {
        concat!(
            "pg_catalog.to_char(",
            $time,
            " at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS\"Z\"')"
        )
    };
}

const SERVER: &str = concat!(
    "
select ",
    utc!("pg_catalog.clock_timestamp()"),
    ", w.database, w.version, w.pid, w.state, w.last_error, w.detail,
       pg_catalog.pg_is_in_recovery(),
       pg_catalog.current_setting('webhook.delivery', true)::pg_catalog.bool,
       -- As webhook.metrics has it, which counts much else.
       (
           select sum(pg_catalog.pg_total_relation_size(c.oid))::pg_catalog.int8
           from pg_catalog.pg_class c
           join pg_catalog.pg_namespace n on n.oid = c.relnamespace
           where n.nspname in ('webhook', 'webhook_internal')
             and c.relkind = 'r'
             and c.relname ~ '^(outbox|call_log)_[0-9]$'
       ),
       (
           select case when s.setting::pg_catalog.int8 > 0 then s.setting::pg_catalog.int8 * 1048576 end
           from pg_catalog.pg_settings s
           where s.name = 'webhook.log_max_size'
       )
from webhook.worker w"
);

/// All URLs are looked at once: the totals come with the rows that are shown. $1: how many.
const URLS: &str = concat!(
    "
select q.webhook_id, q.webhook_name, q.outgoing_url, q.state, q.pending, q.retrying, q.failed, ",
    utc!("q.next_attempt_at"),
    ", q.last_error,
       count(*) over (),
       (sum(q.pending) over ())::pg_catalog.int8,
       (sum(q.retrying) over ())::pg_catalog.int8,
       (sum(q.failed) over ())::pg_catalog.int8,
       extract(epoch from pg_catalog.clock_timestamp() - min(q.oldest_pending) over ())::pg_catalog.float8,
       count(*) filter (where q.is_failing) over (),
       count(*) filter (where q.state = 'disabled') over (),
       count(*) filter (where q.state = 'blocked') over (),
       count(*) filter (where q.state = 'paused') over (), ",
    utc!("q.failing_since"),
    ", ",
    utc!("q.last_success_at"),
    ", ",
    utc!("min(q.failing_since) over ()"),
    "
from (
    select u.*, u.state in ('failing', 'backing_off') as is_failing
    from webhook.queue u
) q
order by array_position(
             array['disabled', 'blocked', 'failing', 'backing_off', 'no_worker', 'delivery_off', 'paused', 'throttled'],
             q.state
         ),
         q.failed > 0 desc, q.retrying desc, q.pending desc, q.webhook_name, q.outgoing_url
limit $1"
);

const MINUTES: &str = "
select pg_catalog.to_char(m.minute at time zone 'UTC', 'HH24:MI'),
       coalesce(a.calls - a.failures, 0)::pg_catalog.int8,
       coalesce(a.failures, 0)::pg_catalog.int8,
       webhook.duration_quantile(a.durations, 0.5, a.max_ms),
       webhook.duration_quantile(a.durations, 0.95, a.max_ms)
from pg_catalog.generate_series(
    pg_catalog.date_trunc('minute', pg_catalog.now()) - interval '59 minutes',
    pg_catalog.date_trunc('minute', pg_catalog.now()),
    interval '1 minute'
) as m (minute)
left join (
    select n.minute, sum(n.calls) as calls, sum(n.failures) as failures,
           pg_catalog.string_agg(n.durations, ' ') as durations, max(n.max_ms) as max_ms
    from webhook.activity n
    where n.minute >= pg_catalog.date_trunc('minute', pg_catalog.now()) - interval '59 minutes'
    group by n.minute
) a on a.minute = m.minute
order by m.minute";

/// As the extension's owner, an hour of a URL a row: webhook.activity would make a row of each minute first.
/// $1 ids of webhooks, $2 whether the caller sees URLs as they are. Hours are counted back from the present
/// one, 0.
const HOURS_OF_URLS: &str = "
select w.id,
       case when $2 then u.url else webhook_internal.masked_url(u.url) end,
       a.back,
       a.calls,
       a.failures,
       a.durations,
       a.max_ms
from webhook.webhook_def w
join webhook.url_def u on u.webhook_key = w.webhook_key
cross join lateral (
    select (extract(epoch from pg_catalog.date_trunc('hour', pg_catalog.now())
                               - pg_catalog.date_trunc('hour', m.minute)) / 3600)::pg_catalog.int4 as back,
           sum(m.calls)::pg_catalog.int8 as calls,
           sum(
               m.connect_failures + m.tls_failures + m.timeouts + m.http_4xx + m.http_5xx + m.other_failures
           )::pg_catalog.int8 as failures,
           pg_catalog.string_agg(m.durations, ' ') as durations,
           max(m.max_ms) as max_ms
    from webhook_internal.activity_row m
    where m.url_key = u.url_key
      and m.minute >= pg_catalog.date_trunc('hour', pg_catalog.now()) - interval '23 hours'
    group by 1
) a
where w.id = any ($1)";

const CAUSES: &str = concat!(
    "
select f.cause, count(*), count(distinct f.outgoing_url), ",
    utc!("max(f.called_at)"),
    "
from (
    select coalesce(c.detail, 'HTTP ' || c.http_code, 'unknown') as cause, c.outgoing_url, c.called_at
    from webhook.calls c
    where c.status = 'Failure'
    order by c.called_at desc
    limit $1
) f
group by f.cause
order by 2 desc, 1
limit $2"
);

const CALLS: &str = concat!(
    "
select ",
    utc!("c.called_at"),
    ", coalesce(c.webhook_name, c.webhook_id, ''), coalesce(c.outgoing_url, ''),
       concat_ws(' of ', c.event_type, c.object_name), c.attempt, c.status = 'Success', c.http_code, c.duration_ms,
       c.message_id::pg_catalog.text, c.detail,
       case
           when pg_catalog.has_function_privilege('webhook.drop_webhook(text)', 'execute') then c.http_response
       end
from webhook.calls c
order by c.called_at desc
limit $1"
);

const EVENTS: &str = "
select e.id, e.webhook_name, e.event_type, coalesce(e.object_name, ''), e.detail,
       count(*) filter (where e.detail is not null) over ()
from webhook.events e
where e.status = 'Inactive'
order by e.detail is null, e.webhook_name, e.id
limit $1";

/// The owner reads the log for the caller, who must have this right.
const MAY_READ_CHANGES: &str = "
select from webhook.changes where false";

/// As the extension's owner: a long value is left out before it is masked, which takes half a second a megabyte.
/// Whole ones are in webhook.changes. $1 how many, $2 whether the caller sees values as they are.
const CHANGES: &str = concat!(
    "
select ",
    utc!("c.changed_at"),
    ", coalesce(c.changed_by, ''), coalesce(c.action, ''),
       concat_ws(' ', c.kind, coalesce(c.name, c.id), s.shown)
from (
    select n.*
    from webhook_internal.change_log n
    order by n.changed_at desc
    limit $1
) c
cross join lateral (
    select pg_catalog.string_agg(
               concat(k.side, ' ', case when $2 then k.cut else webhook_internal.masked_values(k.cut) end),
               ' ' order by k.place
           ) as shown
    from (
        select x.place,
               x.side,
               (
                   select coalesce(
                              pg_catalog.jsonb_object_agg(
                                  v.key,
                                  case when pg_catalog.length(v.value::pg_catalog.text) > 1000 then '\"...\"' else v.value end
                              ),
                              '{}'
                          )
                   from pg_catalog.jsonb_each(case pg_catalog.jsonb_typeof(x.value) when 'object' then x.value end) v
               ) as cut
        from (values (1, 'old', c.old), (2, 'new', c.new)) as x (place, side, value)
        where x.value is not null
    ) k
) s
order by c.changed_at desc"
);
/// Of a change that is shown.
const CHANGE_CHARS: usize = 300;

/// Everything that the page shows.
pub fn facts(refresh_seconds: u32) -> Facts {
    let (now, server) = server();
    let (mut urls, mut totals) = urls();
    let (events, events_off) = events();
    totals.events_off = events_off;
    read_hours(&mut urls);
    Facts {
        now,
        refresh_seconds,
        server,
        totals,
        minutes: query(MINUTES, &[], |row| Minute {
            label: row.value(1),
            delivered: row.value(2),
            failed: row.value(3),
            p50_ms: row.get(4),
            p95_ms: row.get(5),
        }),
        urls,
        causes: query(CAUSES, &[FAILURES.into(), ROWS_AT_MOST.into()], |row| {
            Cause {
                cause: row.value(1),
                calls: row.value(2),
                urls: row.value(3),
                last_at: row.value(4),
            }
        }),
        calls: query(CALLS, &[ROWS_AT_MOST.into()], call),
        events,
        changes: changes(),
    }
}

/// Those that produce nothing, and how many were switched off.
fn events() -> (Vec<Event>, i64) {
    let rows = query(EVENTS, &[ROWS_AT_MOST.into()], |row| {
        let event = Event {
            id: row.value(1),
            webhook: row.value(2),
            event_type: row.value(3),
            object_name: row.value(4),
            reason: row.get(5),
        };
        (event, row.value::<i64>(6))
    });
    let switched_off = rows.first().map_or(0, |(_, count)| *count);
    (
        rows.into_iter().map(|(event, _)| event).collect(),
        switched_off,
    )
}

fn changes() -> Vec<Change> {
    query(MAY_READ_CHANGES, &[], |_| ());
    let arguments = [ROWS_AT_MOST.into(), caller::is_admin().into()];
    as_owner(|| {
        query(CHANGES, &arguments, |row| Change {
            changed_at: row.value(1),
            changed_by: row.value(2),
            action: row.value(3),
            what: row.value::<String>(4).chars().take(CHANGE_CHARS).collect(),
        })
    })
}

fn server() -> (String, Server) {
    let read = first(SERVER, &[], |row| {
        let server = Server {
            database: row.value(2),
            version: row.get(3).unwrap_or_default(),
            worker_pid: row.get(4),
            worker_state: row.value(5),
            worker_error: row.get(6),
            worker_detail: row.get(7),
            in_recovery: row.value(8),
            delivery_is_on: row.get(9).unwrap_or(true),
            disk_bytes: row.get(10).unwrap_or(0),
            disk_limit_bytes: row.get(11),
        };
        (row.value(1), server)
    });
    read.expect("webhook.worker has one row")
}

fn urls() -> (Vec<Url>, Totals) {
    let rows = query(URLS, &[URLS_AT_MOST.into()], |row| {
        let totals = Totals {
            urls: row.value(10),
            pending: row.value(11),
            retrying: row.value(12),
            failed: row.value(13),
            oldest_seconds: row.get(14),
            failing: row.value(15),
            disabled: row.value(16),
            blocked: row.value(17),
            paused: row.value(18),
            failing_since: row.get(21),
            ..Totals::default()
        };
        let url = Url {
            webhook_id: row.value(1),
            webhook: row.value(2),
            url: row.value(3),
            state: row.value(4),
            pending: row.value(5),
            retrying: row.value(6),
            failed: row.value(7),
            next_attempt_at: row.get(8),
            last_error: row.get(9),
            failing_since: row.get(19),
            last_success_at: row.get(20),
            hours: vec![Hour::default(); HOURS],
            p95_ms: None,
        };
        (url, totals)
    });
    let totals = rows.first().map(|(_, totals)| totals.clone());
    let urls = rows.into_iter().map(|(url, _)| url).collect();
    (urls, totals.unwrap_or_default())
}

fn read_hours(urls: &mut [Url]) {
    let webhooks: Vec<String> = urls.iter().map(|url| url.webhook_id.clone()).collect();
    let sees_urls = caller::is_admin();
    let rows = as_owner(|| {
        query(HOURS_OF_URLS, &[webhooks.into(), sees_urls.into()], |row| {
            let key: (String, String) = (row.value(1), row.value(2));
            let hour = Hour {
                calls: row.value(4),
                failures: row.value(5),
            };
            let durations: (Option<String>, Option<f64>) = (row.get(6), row.get(7));
            (key, row.value::<i32>(3), hour, durations)
        })
    });
    for url in urls {
        let mut all = Durations::default();
        let mut max_ms = 0.0_f64;
        let own = rows
            .iter()
            .filter(|((webhook, address), ..)| (webhook, address) == (&url.webhook_id, &url.url));
        for (_, back, hour, (durations, longest)) in own {
            let place = usize::try_from(*back)
                .ok()
                .and_then(|back| (HOURS - 1).checked_sub(back));
            if let Some(cell) = place.and_then(|place| url.hours.get_mut(place)) {
                cell.clone_from(hour);
            }
            all.add_text(durations.as_deref().unwrap_or_default());
            max_ms = max_ms.max(longest.unwrap_or(0.0));
        }
        url.p95_ms = all.quantile_ms(0.95).map(|p95| p95.min(max_ms));
    }
}

fn call(row: &Row<'_>) -> Call {
    Call {
        called_at: row.value(1),
        webhook: row.value(2),
        url: row.value(3),
        event: row.value(4),
        attempt: row.value(5),
        success: row.value(6),
        http_code: row.get(7),
        duration_ms: row.value(8),
        message_id: row.value(9),
        detail: row.get(10),
        response: row.get(11),
    }
}
