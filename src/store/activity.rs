//! What happened in each minute: rows of `webhook.activity`. For the worker, in a transaction.

use crate::pg::spi::{Arg, Query};

/// One URL in one minute, as one run of counting has seen it so far.
pub struct ActivityRow {
    /// Its begin, in microseconds since 2000-01-01 UTC.
    pub minute: i64,
    pub url_key: i32,
    pub run: i64,
    pub messages: i64,
    pub calls: i64,
    /// Connect, TLS, timeout, 4xx, 5xx, other.
    pub failures: [i64; 6],
    pub durations: String,
    pub max_ms: f64,
}

/// What to add to the histogram of a URL.
pub struct DurationRow {
    pub url_key: i32,
    /// One count a bound of `core::values::durations::BOUNDS_S`, and one for what is above all.
    pub counts: Vec<i64>,
    pub seconds: f64,
}

/// What is pending is what compacted rows and the settlement log say together.
macro_rules! write_minutes {
    ($number:literal) => {
        concat!(
            "
insert into webhook_internal.activity_", $number, " as a
       (minute, url_key, run, messages, calls, connect_failures, tls_failures, timeouts, http_4xx, http_5xx,
        other_failures, durations, max_ms, pending)
select r.*, greatest(coalesce(n.pending, 0) + coalesce(l.pending, 0), 0)
from rows from (
    pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4),
    pg_catalog.unnest($5), pg_catalog.unnest($6), pg_catalog.unnest($7), pg_catalog.unnest($8),
    pg_catalog.unnest($9), pg_catalog.unnest($10), pg_catalog.unnest($11), pg_catalog.unnest($12),
    pg_catalog.unnest($13)
) as r (minute, url_key, run, messages, calls, connect_failures, tls_failures, timeouts, http_4xx, http_5xx,
        other_failures, durations, max_ms)
left join webhook_internal.lane n on n.url_key = r.url_key
left join (
    select (e.item ->> 0)::pg_catalog.int4 as url_key, sum((e.item ->> 1)::pg_catalog.int8)::pg_catalog.int8 as pending
    from webhook_internal.compaction f
    join webhook_internal.settlement g on g.seq > f.compacted_seq
    cross join lateral pg_catalog.jsonb_array_elements(g.backlog) as e (item)
    group by 1
) l on l.url_key = r.url_key
on conflict (url_key, minute, run) do update
set messages = excluded.messages,
    calls = excluded.calls,
    connect_failures = excluded.connect_failures,
    tls_failures = excluded.tls_failures,
    timeouts = excluded.timeouts,
    http_4xx = excluded.http_4xx,
    http_5xx = excluded.http_5xx,
    other_failures = excluded.other_failures,
    durations = excluded.durations,
    max_ms = excluded.max_ms,
    pending = excluded.pending"
        )
    };
}

/// A count at a time, because arrays of different URLs cannot be one parameter.
const ADD_DURATIONS: &str = "
insert into webhook_internal.call_duration as d (url_key, bound, calls, seconds)
select r.*
from rows from (
    pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4)
) as r (url_key, bound, calls, seconds)
on conflict (url_key, bound) do update
set calls = d.calls + excluded.calls,
    seconds = d.seconds + excluded.seconds";

const ADD_TOTALS: &str = "
update webhook_internal.worker_total t
set starts = t.starts + $1,
    blocked_seconds = t.blocked_seconds + ($2)[1]";

/// Kept plans of this file's statements, one for each table of the ring.
pub struct ActivityStore {
    write: [Query; 4],
    add_durations: Query,
    add_totals: Query,
}

impl ActivityStore {
    pub fn new() -> Self {
        Self {
            write: [
                Query::new(write_minutes!("0")),
                Query::new(write_minutes!("1")),
                Query::new(write_minutes!("2")),
                Query::new(write_minutes!("3")),
            ],
            add_durations: Query::new(ADD_DURATIONS),
            add_totals: Query::new(ADD_TOTALS),
        }
    }

    /// Into the table with this number; a row of the same URL, minute and run is replaced.
    pub fn write(&self, number: usize, rows: &[ActivityRow]) {
        if rows.is_empty() {
            return;
        }
        macro_rules! column {
            ($read:expr) => {
                rows.iter().map($read).collect::<Vec<_>>()
            };
        }
        let failures = |class: usize| column!(|row| row.failures[class]);
        self.write[number % self.write.len()].write(&[
            Arg::TimestampArray(&column!(|row| Some(row.minute))),
            Arg::I32Array(&column!(|row| row.url_key)),
            Arg::I64Array(&column!(|row| row.run)),
            Arg::I64Array(&column!(|row| row.messages)),
            Arg::I64Array(&column!(|row| row.calls)),
            Arg::I64Array(&failures(0)),
            Arg::I64Array(&failures(1)),
            Arg::I64Array(&failures(2)),
            Arg::I64Array(&failures(3)),
            Arg::I64Array(&failures(4)),
            Arg::I64Array(&failures(5)),
            Arg::TextArray(&column!(|row| Some(row.durations.as_str()))),
            Arg::F64Array(&column!(|row| row.max_ms)),
        ]);
    }

    pub fn add_durations(&self, rows: &[DurationRow]) {
        let (mut urls, mut bounds, mut calls, mut seconds) = (vec![], vec![], vec![], vec![]);
        for row in rows {
            // The sum of seconds stands with the first bound that has a call.
            let mut rest = row.seconds;
            let counted = (0_i32..).zip(&row.counts).filter(|(_, count)| **count > 0);
            for (bound, count) in counted {
                urls.push(row.url_key);
                bounds.push(bound);
                calls.push(*count);
                seconds.push(std::mem::take(&mut rest));
            }
        }
        if !urls.is_empty() {
            self.add_durations.write(&[
                Arg::I32Array(&urls),
                Arg::I32Array(&bounds),
                Arg::I64Array(&calls),
                Arg::F64Array(&seconds),
            ]);
        }
    }

    /// Starts of the worker, and seconds in which locks held it up.
    pub fn add_totals(&self, starts: i64, blocked_seconds: f64) {
        self.add_totals
            .write(&[Arg::I64(starts), Arg::F64Array(&[blocked_seconds])]);
    }
}
