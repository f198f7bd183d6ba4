//! Reading the outbox between two snapshots, page by page, in the order of ids.
//!
//! A small window is read in one statement and sorted here. A large one (a giant
//! transaction, or a long absence of the worker) is first looked through, in steps
//! (`core::flush_map`): the rows of one flush are contiguous in the order, so each
//! page is a few index ranges. Nothing is held open between pages.

use std::collections::VecDeque;
use std::mem;

use uuid::Uuid;

use super::window_reader::{Mapping, Plan, Scan, Step, WindowReader, NOWHERE};
use crate::core::flush_map::{Flush, FlushMap, Stretch, LARGE_ROWS};
use crate::core::position::{Coordinate, Window};
use crate::pg::spi::{Arg, Query, Row};

/// Rows of a page: enough to keep the threads busy during one look, few enough that
/// a look stays short.
pub const PAGE_ROWS: usize = 1000;
/// A larger body is left in the table until it is sent: pages stay small in memory.
const INLINE_BYTES: i32 = 8 * 1024;
/// Rows looked through in one step: some ten milliseconds.
const STEP_ROWS: i64 = 20_000;

/// A message as the outbox holds it.
#[derive(Clone, Debug)]
pub struct StoredMessage {
    pub at: Coordinate,
    pub message_id: Uuid,
    pub event_key: i32,
    pub webhook_key: i32,
    /// Microseconds since 2000-01-01 UTC.
    pub captured_at: i64,
    /// Bytes of record and old record together.
    pub size: i32,
    /// `None`: too large for a page, or not asked for.
    pub record: Option<String>,
    /// Comes with the record, if the event's template needs it.
    pub old_record: Option<String>,
    /// Names of changed fields as a JSON array, likewise.
    pub changed: Option<String>,
    pub source: Option<String>,
    pub actor: Option<String>,
    /// Since when its age counts, if it was redelivered.
    pub accepted_at: Option<i64>,
}

/// Bytes of record and old record together.
macro_rules! size {
    ($alias:literal) => {
        concat!(
            "(pg_catalog.octet_length(",
            $alias,
            ".record) + coalesce(pg_catalog.octet_length(",
            $alias,
            ".old_record), 0))"
        )
    };
}

/// The columns are read by `stored_message`, by place.
macro_rules! columns {
    ($alias:literal, $inline:literal) => {
        concat!(
            $alias,
            ".xid, ",
            $alias,
            ".id, ",
            $alias,
            ".message_id, ",
            $alias,
            ".event_key, ",
            $alias,
            ".webhook_key, ",
            $alias,
            ".captured_at, ",
            size!($alias),
            ", case when ",
            size!($alias),
            " <= ",
            $inline,
            " then ",
            $alias,
            ".record end, case when ",
            size!($alias),
            " <= ",
            $inline,
            " then ",
            $alias,
            ".old_record end, ",
            $alias,
            ".changed, ",
            $alias,
            ".source, ",
            $alias,
            ".actor"
        )
    };
}

/// $1 xmax and $2 running ids of the window's start, $3 xmax and $4 running ids of its end,
/// $5 id after which, $6 webhook or 0, $7 inline bytes, $8 limit.
macro_rules! window_rows {
    ($what:expr, $tail:expr) => {
        concat!(
            "select ",
            $what,
            " from webhook.outbox o ",
            "where o.xid >= $1 and o.xid < $3 and not (o.xid = any ($4)) and o.id > $5 ",
            "and ($6 = 0 or o.webhook_key = $6) ",
            "union all select ",
            $what,
            " from webhook.outbox o ",
            "where o.xid = any ($2) and o.xid < $3 and not (o.xid = any ($4)) and o.id > $5 ",
            "and ($6 = 0 or o.webhook_key = $6) ",
            $tail
        )
    };
}

const WINDOW_PAGE: &str = window_rows!(columns!("o", "$7"), "limit $8");

/// The next rows in the order of the index. $1 and $2 first and last transaction, $3 ids that run
/// at the window's end, $4 id after which, $5 and $6 where the last step ended, $7 limit.
const STEP: &str = "
select o.xid, o.id, o.webhook_key
from webhook.outbox o
where o.xid >= $1
  and o.xid <= $2
  and not (o.xid = any ($3))
  and o.id > $4
  and (o.xid, o.id) > ($5, $6)
order by o.xid, o.id
limit $7";

/// The small flushes of a stretch. $1 and $2 first and last transactions, $3 ids that run at the
/// window's end, $4 id after which, $5 webhook or 0, $6 and $7 first and end of the flush
/// numbers, $8 rows of a large flush, $9 xmax and $10 running ids of the window's start: a range may
/// span what was read before.
const SMALL_FLUSHES: &str = "
select o.xid, o.id >> 20, pg_catalog.count(*)
from rows from (pg_catalog.unnest($1), pg_catalog.unnest($2)) as r (first, last)
join webhook.outbox o on o.xid >= r.first and o.xid <= r.last
where (o.xid >= $9 or o.xid = any ($10))
  and not (o.xid = any ($3))
  and o.id > $4
  and ($5 = 0 or o.webhook_key = $5)
  and o.id >= $6 << 20
  and o.id < $7 << 20
group by o.xid, o.id >> 20
having pg_catalog.count(*) < $8";

/// $1 ids of transactions and $2 flush numbers side by side, $3 id after which, $4 webhook
/// or 0, $5 inline bytes, $6 limit.
const FLUSH_ROWS: &str = concat!(
    "select ",
    columns!("r", "$5"),
    " from rows from (pg_catalog.unnest($1), pg_catalog.unnest($2)) as f (xid, flush) ",
    "cross join lateral (select * from webhook.outbox o ",
    "where o.xid = f.xid and o.id >= f.flush << 20 and o.id < (f.flush + 1) << 20 and o.id > $3 ",
    "and ($4 = 0 or o.webhook_key = $4) order by o.id limit $6) r"
);

const BY_COORDINATE: &str = concat!(
    "select ",
    columns!("o", "$3"),
    " from rows from (pg_catalog.unnest($1), pg_catalog.unnest($2)) as c (xid, id) ",
    "join webhook.outbox o on o.xid = c.xid and o.id = c.id"
);

fn stored_message(row: &Row<'_>) -> Option<StoredMessage> {
    Some(StoredMessage {
        at: Coordinate {
            xid: row.xid(0)?,
            id: row.i64(1)?,
        },
        message_id: row.uuid(2)?,
        event_key: row.i32(3)?,
        webhook_key: row.i32(4)?,
        captured_at: row.i64(5)?,
        size: row.i32(6).unwrap_or(0),
        record: row.text(7),
        old_record: row.text(8),
        changed: row.text(9),
        source: row.text(10),
        actor: row.text(11),
        accepted_at: None,
    })
}

/// Kept plans of this file's statements.
pub struct OutboxReader {
    window_page: Query,
    step: Query,
    small_flushes: Query,
    flush_rows: Query,
    by_coordinate: Query,
}

impl OutboxReader {
    pub fn new() -> Self {
        Self {
            window_page: Query::new(WINDOW_PAGE),
            step: Query::new(STEP),
            small_flushes: Query::new(SMALL_FLUSHES),
            flush_rows: Query::new(FLUSH_ROWS),
            by_coordinate: Query::new(BY_COORDINATE),
        }
    }

    /// The next messages of the window, by id; none while a large one is looked through.
    /// `with_bodies: false` for a reader that only counts.
    pub fn next_page(&self, reader: &mut WindowReader, with_bodies: bool) -> Vec<StoredMessage> {
        if reader.done {
            return Vec::new();
        }
        let inline = if with_bodies { INLINE_BYTES } else { -1 };
        let mut page = match mem::replace(&mut reader.plan, Plan::Unknown) {
            Plan::Unknown if reader.is_wide() => {
                reader.begin_mapping();
                Vec::new()
            }
            Plan::Unknown => self.small_window(reader, inline),
            Plan::Mapping(mapping) => {
                reader.plan = self.look_through(reader, mapping);
                Vec::new()
            }
            Plan::Mapped { map, flushes } => self.planned_page(reader, map, flushes, inline),
            Plan::Places(places) => self.page_of_places(reader, places, inline),
        };
        page.sort_unstable_by_key(|message| message.at.id);
        if let Some(last) = page.last() {
            reader.after_id = last.at.id;
        }
        page
    }

    /// The whole window if it fits a page; else it is looked through first.
    fn small_window(&self, reader: &mut WindowReader, inline: i32) -> Vec<StoredMessage> {
        let mut page = Vec::new();
        self.in_window(
            &self.window_page,
            reader,
            inline,
            PAGE_ROWS as i64 + 1,
            |row| {
                page.extend(stored_message(row));
            },
        );
        if page.len() <= PAGE_ROWS {
            reader.done = true;
            return page;
        }
        reader.begin_mapping();
        Vec::new()
    }

    /// One step through a large window.
    fn look_through(&self, reader: &WindowReader, mut mapping: Mapping) -> Plan {
        let (map, wanted) = (&mut mapping.map, reader.webhook_key);
        let step = Step {
            window: &reader.window,
            after_id: reader.after_id,
        };
        let is_through =
            self.step_through(&step, &mut mapping.scan, STEP_ROWS, |webhook_key, at| {
                if wanted == 0 || wanted == webhook_key {
                    map.add(at);
                }
            });
        if !is_through {
            return Plan::Mapping(mapping);
        }
        mapping.map.end_flush();
        Plan::Mapped {
            map: mapping.map,
            flushes: VecDeque::new(),
        }
    }

    /// Shows the next `room` rows of a window in the order of the index; `true` once there are
    /// no more.
    fn step_through(
        &self,
        step: &Step<'_>,
        scan: &mut Scan,
        mut room: i64,
        mut show: impl FnMut(i32, Coordinate),
    ) -> bool {
        while let Some((first, last)) = scan.ranges.front().copied() {
            let mut rows = 0;
            let from = scan.after;
            self.step.read(
                &[
                    Arg::Xid(first),
                    Arg::Xid(last),
                    Arg::XidArray(&step.window.to.running),
                    Arg::I64(step.after_id),
                    Arg::Xid(from.xid),
                    Arg::I64(from.id),
                    Arg::I64(room),
                ],
                |row| {
                    rows += 1;
                    let at = Coordinate {
                        xid: row.xid(0)?,
                        id: row.i64(1)?,
                    };
                    scan.after = at;
                    show(row.i32(2)?, at);
                    Some(())
                },
            );
            if rows == room {
                return false;
            }
            room -= rows;
            scan.after = NOWHERE;
            scan.ranges.pop_front();
        }
        true
    }

    /// Shows where the next rows of a window are; `true` once there are no more.
    pub fn next_places(
        &self,
        window: &Window,
        scan: &mut Scan,
        show: impl FnMut(i32, Coordinate),
    ) -> bool {
        let step = Step {
            window,
            after_id: 0,
        };
        self.step_through(&step, scan, STEP_ROWS, show)
    }

    fn page_of_places(
        &self,
        reader: &mut WindowReader,
        mut places: VecDeque<Coordinate>,
        inline: i32,
    ) -> Vec<StoredMessage> {
        let page: Vec<Coordinate> = places.drain(..places.len().min(PAGE_ROWS)).collect();
        reader.done = places.is_empty();
        reader.plan = Plan::Places(places);
        self.at_places(&page, inline)
    }

    fn in_window(
        &self,
        query: &Query,
        reader: &WindowReader,
        inline: i32,
        limit: i64,
        visit: impl FnMut(&Row<'_>),
    ) {
        let (from, to) = (&reader.window.from, &reader.window.to);
        query.read(
            &[
                Arg::Xid(from.xmax),
                Arg::XidArray(&from.running),
                Arg::Xid(to.xmax),
                Arg::XidArray(&to.running),
                Arg::I64(reader.after_id),
                Arg::I32(reader.webhook_key),
                Arg::I32(inline),
                Arg::I64(limit),
            ],
            visit,
        );
    }

    fn small_flushes(&self, reader: &WindowReader, stretch: &Stretch) -> Vec<Flush> {
        let mut found = Vec::new();
        let (first, last): (Vec<u64>, Vec<u64>) = stretch.ranges.iter().copied().unzip();
        if first.is_empty() {
            return found;
        }
        self.small_flushes.read(
            &[
                Arg::XidArray(&first),
                Arg::XidArray(&last),
                Arg::XidArray(&reader.window.to.running),
                Arg::I64(reader.after_id),
                Arg::I32(reader.webhook_key),
                Arg::I64(stretch.first()),
                Arg::I64(stretch.end()),
                Arg::I64(LARGE_ROWS),
                Arg::Xid(reader.window.from.xmax),
                Arg::XidArray(&reader.window.from.running),
            ],
            |row| {
                found.push(Flush {
                    xid: row.xid(0)?,
                    number: row.i64(1)?,
                    rows: row.i64(2)?,
                });
                Some(())
            },
        );
        found
    }

    fn planned_page(
        &self,
        reader: &mut WindowReader,
        mut map: FlushMap,
        mut flushes: VecDeque<Flush>,
        inline: i32,
    ) -> Vec<StoredMessage> {
        if flushes.is_empty() {
            if let Some(stretch) = map.next_stretch() {
                let small = self.small_flushes(reader, &stretch);
                flushes = stretch.merged(small);
            }
        }
        let (xids, numbers) = choose(&mut flushes);
        let mut page = Vec::new();
        if !xids.is_empty() {
            self.flush_rows.read(
                &[
                    Arg::XidArray(&xids),
                    Arg::I64Array(&numbers),
                    Arg::I64(reader.after_id),
                    Arg::I32(reader.webhook_key),
                    Arg::I32(inline),
                    Arg::I64(PAGE_ROWS as i64),
                ],
                |row| page.extend(stored_message(row)),
            );
        }
        reader.done = flushes.is_empty() && map.is_empty();
        reader.plan = Plan::Mapped { map, flushes };
        page
    }

    /// The messages at these coordinates; what is gone is left out. `whole` also reads
    /// bodies that are too large for a page.
    pub fn at(&self, coordinates: &[Coordinate], whole: bool) -> Vec<StoredMessage> {
        self.at_places(coordinates, if whole { i32::MAX } else { INLINE_BYTES })
    }

    fn at_places(&self, coordinates: &[Coordinate], inline: i32) -> Vec<StoredMessage> {
        let xids: Vec<u64> = coordinates.iter().map(|at| at.xid).collect();
        let ids: Vec<i64> = coordinates.iter().map(|at| at.id).collect();
        let mut found = Vec::new();
        if coordinates.is_empty() {
            return found;
        }
        self.by_coordinate.read(
            &[Arg::XidArray(&xids), Arg::I64Array(&ids), Arg::I32(inline)],
            |row| found.extend(stored_message(row)),
        );
        found
    }
}

/// The next flushes that together fill a page; of a larger one, a page of it.
fn choose(plan: &mut VecDeque<Flush>) -> (Vec<u64>, Vec<i64>) {
    let (mut xids, mut numbers, mut room) = (Vec::new(), Vec::new(), PAGE_ROWS as i64);
    while let Some(flush) = plan.front_mut() {
        if flush.rows > room && !xids.is_empty() {
            break;
        }
        xids.push(flush.xid);
        numbers.push(flush.number);
        if flush.rows > room {
            flush.rows -= room;
            break;
        }
        room -= flush.rows;
        plan.pop_front();
    }
    (xids, numbers)
}
