//! A large window in outline: where its flushes lie, without a list of all of them.
//!
//! A window after a long absence of the worker may hold millions of transactions, and a giant
//! transaction millions of rows. Both are to be read by id, but the index is by transaction. So
//! the window is looked through once, in steps; what is kept is small: each large flush, and for
//! each stretch of flush numbers the ranges of transactions in which its small flushes are found.
//! Pure: positions come in as they are read.

use std::collections::{BTreeMap, VecDeque};

use super::position::MessagePosition;

/// Bits of an id that count rows within a flush.
pub const ROW_BITS: u32 = 20;
/// A flush with so many rows is kept by itself: few enough of them fit any window.
pub const LARGE_ROWS: i64 = 64;
/// Flushes of a stretch, as bits: with fewer than [`LARGE_ROWS`] rows each, a stretch is listed
/// in a moment.
const STRETCH_BITS: u32 = 10;
/// Transactions so close to each other are one range …
const NEAR: u64 = 4096;
/// … and a stretch has at most so many ranges: a straggler costs one more, not a scan of
/// everything in between.
const RANGES: usize = 16;

/// What one transaction wrote at once; its rows are contiguous in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flush {
    pub xid: u64,
    pub number: i64,
    /// Rows that are still to be read.
    pub rows: i64,
}

/// Flush numbers from [`Stretch::first`] up to, not including, [`Stretch::end`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stretch {
    number: i64,
    /// Where its small flushes lie: transactions from … to.
    pub ranges: Vec<(u64, u64)>,
    /// How many rows they have together.
    pub small_rows: i64,
    pub large: Vec<Flush>,
}

impl Stretch {
    pub fn first(&self) -> i64 {
        self.number << STRETCH_BITS
    }

    pub fn end(&self) -> i64 {
        (self.number + 1) << STRETCH_BITS
    }

    fn add_small(&mut self, xid: u64, rows: i64) {
        self.small_rows += rows;
        let is_full = self.ranges.len() >= RANGES;
        match self.ranges.last_mut() {
            Some((_, last)) if is_full || xid.saturating_sub(*last) <= NEAR => *last = xid,
            _ => self.ranges.push((xid, xid)),
        }
    }

    /// All of its flushes by number, once the small ones are listed.
    pub fn merged(mut self, small: Vec<Flush>) -> VecDeque<Flush> {
        self.large.extend(small);
        self.large.sort_unstable_by_key(|flush| flush.number);
        self.large.into()
    }
}

/// See the module.
#[derive(Default)]
pub struct FlushMap {
    stretches: BTreeMap<i64, Stretch>,
    /// The flush that is being counted.
    current: Option<Flush>,
}

impl FlushMap {
    /// The next row of the window, by transaction and id.
    pub fn add(&mut self, at: MessagePosition) {
        let number = at.id >> ROW_BITS;
        match &mut self.current {
            Some(flush) if flush.xid == at.xid && flush.number == number => flush.rows += 1,
            _ => {
                self.end_flush();
                self.current = Some(Flush {
                    xid: at.xid,
                    number,
                    rows: 1,
                });
            }
        }
    }

    /// There are no more rows.
    pub fn end_flush(&mut self) {
        let Some(flush) = self.current.take() else {
            return;
        };
        let key = flush.number >> STRETCH_BITS;
        let stretch = self.stretches.entry(key).or_insert_with(|| Stretch {
            number: key,
            ..Stretch::default()
        });
        if flush.rows >= LARGE_ROWS {
            stretch.large.push(flush);
        } else {
            stretch.add_small(flush.xid, flush.rows);
        }
    }

    /// The stretch that comes next in the order.
    pub fn next_stretch(&mut self) -> Option<Stretch> {
        self.stretches.pop_first().map(|(_, stretch)| stretch)
    }

    pub fn is_empty(&self) -> bool {
        self.stretches.is_empty() && self.current.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map_of(flushes: &[(u64, i64, i64)]) -> FlushMap {
        let mut map = FlushMap::default();
        for (xid, number, rows) in flushes {
            for row in 0..*rows {
                map.add(MessagePosition {
                    xid: *xid,
                    id: (number << ROW_BITS) + row,
                });
            }
        }
        map.end_flush();
        map
    }

    #[test]
    fn large_flushes_are_kept_and_small_ones_become_ranges() {
        let mut map = map_of(&[(10, 3, 1), (11, 2, 5), (12, 1, 1000), (13, 1024, 1)]);
        let first = map.next_stretch().unwrap();
        assert_eq!((first.first(), first.end()), (0, 1024));
        assert_eq!(first.ranges, [(10, 11)]);
        assert_eq!(first.small_rows, 6);
        let large = Flush {
            xid: 12,
            number: 1,
            rows: 1000,
        };
        assert_eq!(first.large, [large]);
        let small = |xid, number, rows| Flush { xid, number, rows };
        let merged = first.merged(vec![small(10, 3, 1), small(11, 2, 5)]);
        let numbers: Vec<i64> = merged.iter().map(|flush| flush.number).collect();
        assert_eq!(numbers, [1, 2, 3]);
        assert_eq!(map.next_stretch().unwrap().ranges, [(13, 13)]);
        assert!(map.is_empty());
    }

    #[test]
    fn a_straggler_is_a_range_of_its_own_and_ranges_are_few() {
        let mut map = map_of(&[(10, 5, 1), (100_000, 6, 1), (100_001, 7, 1)]);
        let stretch = map.next_stretch().unwrap();
        assert_eq!(stretch.ranges, [(10, 10), (100_000, 100_001)]);
        let far_apart: Vec<_> = (0..100)
            .map(|i| (i * 10_000, i64::try_from(i).unwrap(), 1))
            .collect();
        let stretch = map_of(&far_apart).next_stretch().unwrap();
        assert_eq!(stretch.ranges.len(), RANGES);
        assert_eq!(stretch.ranges.last(), Some(&(150_000, 990_000)));
    }

    proptest! {
        #[test]
        fn every_flush_is_found_in_its_stretch_and_stretches_come_in_order(
            numbers in proptest::collection::vec((1_i64..5000, 1_i64..90, 0_u64..50_000), 1..200),
        ) {
            // Flush numbers are unique; transactions come in order.
            let mut flushes: Vec<(u64, i64, i64)> = Vec::new();
            let mut xid = 100;
            for (number, rows, gap) in numbers {
                if flushes.iter().all(|(_, known, _)| *known != number) {
                    xid += gap + 1;
                    flushes.push((xid, number, rows));
                }
            }
            let mut map = map_of(&flushes);
            let mut before = i64::MIN;
            while let Some(stretch) = map.next_stretch() {
                prop_assert!(stretch.first() > before);
                before = stretch.first();
                flushes.retain(|(xid, number, rows)| {
                    let is_here = (stretch.first()..stretch.end()).contains(number);
                    let found = if *rows >= LARGE_ROWS {
                        stretch.large.contains(&Flush { xid: *xid, number: *number, rows: *rows })
                    } else {
                        stretch.ranges.iter().any(|(from, to)| (from..=to).contains(&xid))
                    };
                    assert!(!is_here || found, "{xid} {number}");
                    !is_here
                });
            }
            prop_assert!(flushes.is_empty());
        }
    }
}
