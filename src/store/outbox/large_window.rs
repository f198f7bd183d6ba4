//! Looking through a large window, and reading it by what was found.
//!
//! It is to be read by id, but the index is by transaction: `core::messages::flush_map` keeps which
//! flushes there are, and the rows of one flush are contiguous in both.

use std::collections::VecDeque;

use super::message_rows::stored_message;
use super::{OutboxReader, StoredMessage, PAGE_ROWS};
use crate::core::messages::chunks::Chunk;
use crate::core::messages::flush_map::{Flush, FlushMap, Stretch, LARGE_ROWS};
use crate::core::messages::position::{MessagePosition, Window};
use crate::pg::spi::Arg;
use crate::store::window_reader::{Mapping, Plan, Scan, Step, WindowReader, NOWHERE};

/// Rows looked through in one step: some ten milliseconds.
const STEP_ROWS: i64 = 20_000;
/// A stretch of small flushes with so few rows is read at once: to list its flushes and look each
/// up takes ten times as long as to read the ranges they lie in.
const AT_ONCE_ROWS: i64 = 2 * PAGE_ROWS as i64;

/// The next rows in the order of the index. $1 last transaction, $2 ids that run at the window's
/// end, $3 id after which, $4 and $5 where the last step ended, $6 limit. Where to begin is said once:
/// of two such conditions PostgreSQL may begin at the lower one.
pub(super) const STEP: &str = "
select o.xid, o.id, o.webhook_key
from webhook_internal.outbox o
where (o.xid, o.id) > ($4, $5)
  and o.xid <= $1
  and not (o.xid = any ($2))
  and o.id > $3
order by o.xid, o.id
limit $6";

/// The small flushes of a stretch. $1 and $2 first and last transactions, $3 ids that run at the
/// window's end, $4 id after which, $5 webhook or 0, $6 and $7 first and end of the flush
/// numbers, $8 rows of a large flush, $9 xmax and $10 running ids of the window's start: a range may
/// span what was read before. Range by range: joined in another order, each call would read the
/// whole index.
pub(super) const SMALL_FLUSHES: &str = "
select s.xid, s.id >> 20, pg_catalog.count(*)
from rows from (pg_catalog.unnest($1), pg_catalog.unnest($2)) as r (first, last)
cross join lateral (
    select o.xid, o.id
    from webhook_internal.outbox o
    where o.xid >= r.first
      and o.xid <= r.last
      and (o.xid >= $9 or o.xid = any ($10))
      and not (o.xid = any ($3))
      and o.id > $4
      and ($5 = 0 or o.webhook_key = $5)
      and o.id >= $6 << 20
      and o.id < $7 << 20
    offset 0
) s
group by s.xid, s.id >> 20
having pg_catalog.count(*) < $8";

/// Where the rows of a chunk lie. $1 and $2 first and last transactions of small flushes, $3, $4 and
/// $5 transaction, first id and end of parts of large ones, $6 and $7 first id and end of the chunk,
/// $8 xmax and $9 running ids of the window's start, $10 ids that run at its end. A row of a large
/// flush may come twice.
pub(super) const CHUNK_PLACES: &str = "
select s.xid, s.id, s.webhook_key
from rows from (pg_catalog.unnest($1), pg_catalog.unnest($2)) as r (first, last)
cross join lateral (
    select o.xid, o.id, o.webhook_key
    from webhook_internal.outbox o
    where o.xid >= r.first
      and o.xid <= r.last
      and (o.xid >= $8 or o.xid = any ($9))
      and not (o.xid = any ($10))
      and o.id >= $6
      and o.id < $7
    offset 0
) s
union all
select s.xid, s.id, s.webhook_key
from rows from (pg_catalog.unnest($3), pg_catalog.unnest($4), pg_catalog.unnest($5)) as p (xid, first, last)
cross join lateral (
    select o.xid, o.id, o.webhook_key
    from webhook_internal.outbox o
    where o.xid = p.xid
      and o.id >= p.first
      and o.id < p.last
    offset 0
) s";

impl OutboxReader {
    /// Shows where the rows of a chunk lie; one may be shown twice.
    pub fn chunk_places(
        &self,
        window: &Window,
        chunk: &Chunk,
        mut show: impl FnMut(i32, MessagePosition),
    ) {
        let (first, last): (Vec<u64>, Vec<u64>) = chunk.ranges.iter().copied().unzip();
        let xids: Vec<u64> = chunk.pieces.iter().map(|piece| piece.xid).collect();
        let firsts: Vec<i64> = chunk.pieces.iter().map(|piece| piece.first).collect();
        let ends: Vec<i64> = chunk.pieces.iter().map(|piece| piece.end).collect();
        self.chunk_places.read(
            &[
                Arg::XidArray(&first),
                Arg::XidArray(&last),
                Arg::XidArray(&xids),
                Arg::I64Array(&firsts),
                Arg::I64Array(&ends),
                Arg::I64(chunk.first),
                Arg::I64(chunk.end),
                Arg::Xid(window.from.xmax),
                Arg::XidArray(&window.from.running),
                Arg::XidArray(&window.to.running),
            ],
            |row| {
                let at = MessagePosition {
                    xid: row.xid(0)?,
                    id: row.i64(1)?,
                };
                show(row.i32(2)?, at);
                Some(())
            },
        );
    }

    /// One step through a large window.
    pub(super) fn look_through(&self, reader: &WindowReader, mut mapping: Mapping) -> Plan {
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
        mut show: impl FnMut(i32, MessagePosition),
    ) -> bool {
        while let Some((first, last)) = scan.ranges.front().copied() {
            let mut rows = 0;
            let from = match scan.after {
                NOWHERE => MessagePosition { xid: first, id: 0 },
                after => after,
            };
            self.step.read(
                &[
                    Arg::Xid(last),
                    Arg::XidArray(&step.window.to.running),
                    Arg::I64(step.after_id),
                    Arg::Xid(from.xid),
                    Arg::I64(from.id),
                    Arg::I64(room),
                ],
                |row| {
                    rows += 1;
                    let at = MessagePosition {
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
        show: impl FnMut(i32, MessagePosition),
    ) -> bool {
        let step = Step {
            window,
            after_id: 0,
        };
        self.step_through(&step, scan, STEP_ROWS, show)
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

    /// Every row of a stretch without large flushes.
    fn stretch_rows(
        &self,
        reader: &WindowReader,
        stretch: &Stretch,
        inline: i32,
    ) -> Vec<StoredMessage> {
        let (first, last): (Vec<u64>, Vec<u64>) = stretch.ranges.iter().copied().unzip();
        let mut page = Vec::new();
        self.stretch_rows.read(
            &[
                Arg::XidArray(&first),
                Arg::XidArray(&last),
                Arg::XidArray(&reader.window.to.running),
                Arg::I64(reader.after_id),
                Arg::I32(reader.webhook_key),
                Arg::I64(stretch.first()),
                Arg::I64(stretch.end()),
                Arg::Xid(reader.window.from.xmax),
                Arg::XidArray(&reader.window.from.running),
                Arg::I32(inline),
            ],
            |row| page.extend(stored_message(row)),
        );
        page
    }

    pub(super) fn planned_page(
        &self,
        reader: &mut WindowReader,
        mut map: FlushMap,
        mut flushes: VecDeque<Flush>,
        inline: i32,
    ) -> Vec<StoredMessage> {
        if flushes.is_empty() {
            if let Some(stretch) = map.next_stretch() {
                if stretch.large.is_empty() && stretch.small_rows <= AT_ONCE_ROWS {
                    let page = self.stretch_rows(reader, &stretch, inline);
                    reader.done = map.is_empty();
                    reader.plan = Plan::Mapped { map, flushes };
                    return page;
                }
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
