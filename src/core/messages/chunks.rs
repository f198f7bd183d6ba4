//! A large window cut into chunks, in the order of ids, each of which can be read at once.
//!
//! Lanes that read the same window read its chunks together: what one has had read is there for
//! the others. Pure.

use super::flush_map::{FlushMap, Stretch, ROW_BITS};

/// Part of a large flush: rows of one transaction with ids from … up to, not including, ….
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub xid: u64,
    pub first: i64,
    pub end: i64,
}

/// The rows of a window with ids from `first` up to, not including, `end`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    pub first: i64,
    pub end: i64,
    /// Transactions from … to in which the rows of small flushes lie, among others.
    pub ranges: Vec<(u64, u64)>,
    pub pieces: Vec<Piece>,
    rows: i64,
}

/// Cuts a window into chunks of about `most` rows.
pub fn cut(mut map: FlushMap, most: i64) -> Vec<Chunk> {
    let mut chunks: Vec<Chunk> = Vec::new();
    while let Some(stretch) = map.next_stretch() {
        for part in of_stretch(stretch, most) {
            match chunks.last_mut() {
                Some(last) if last.rows + part.rows <= most => last.append(part),
                _ => chunks.push(part),
            }
        }
    }
    for chunk in &mut chunks {
        chunk.ranges = without_overlaps(std::mem::take(&mut chunk.ranges));
    }
    chunks
}

/// The chunks of one stretch, which follow one another without a gap.
fn of_stretch(mut stretch: Stretch, most: i64) -> Vec<Chunk> {
    stretch.large.sort_unstable_by_key(|flush| flush.number);
    let (first, end) = (stretch.first() << ROW_BITS, stretch.end() << ROW_BITS);
    let chunk = |first, rows| Chunk {
        first,
        end,
        ranges: stretch.ranges.clone(),
        pieces: Vec::new(),
        rows,
    };
    let mut chunks = Vec::new();
    let mut open = chunk(first, stretch.small_rows);
    for flush in &stretch.large {
        let start = flush.number << ROW_BITS;
        for from in (0..flush.rows).step_by(usize::try_from(most).unwrap_or(usize::MAX)) {
            let rows = most.min(flush.rows - from);
            if open.rows + rows > most && !open.pieces.is_empty() {
                open.end = start + from;
                let next = chunk(open.end, 0);
                chunks.push(std::mem::replace(&mut open, next));
            }
            open.rows += rows;
            open.pieces.push(Piece {
                xid: flush.xid,
                first: start + from,
                end: start + from + rows,
            });
        }
    }
    chunks.push(open);
    chunks
}

fn without_overlaps(mut ranges: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    ranges.sort_unstable();
    let mut apart: Vec<(u64, u64)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match apart.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => apart.push((first, last)),
        }
    }
    apart
}

impl Chunk {
    fn append(&mut self, next: Self) {
        self.end = next.end;
        self.rows += next.rows;
        self.ranges.extend(next.ranges);
        self.pieces.extend(next.pieces);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::messages::position::MessagePosition;
    use proptest::prelude::*;

    /// Transactions by their number, each with one flush: its number and its rows.
    fn map_of(flushes: &[(i64, i64)]) -> FlushMap {
        let mut map = FlushMap::default();
        for (xid, (number, rows)) in (1..).zip(flushes) {
            for row in 0..*rows {
                map.add(MessagePosition {
                    xid,
                    id: (number << ROW_BITS) + row,
                });
            }
        }
        map.end_flush();
        map
    }

    #[test]
    fn neighbours_share_a_chunk_and_a_giant_is_cut() {
        let chunks = cut(map_of(&[(1, 1), (2000, 2), (4000, 500)]), 100);
        let rows: Vec<i64> = chunks.iter().map(|chunk| chunk.rows).collect();
        assert_eq!(rows, [3, 100, 100, 100, 100, 100]);
        assert_eq!(chunks[0].ranges, [(1, 2)]);
        assert!(chunks[1..].iter().all(|chunk| chunk.pieces.len() == 1));
    }

    proptest! {
        #[test]
        fn every_row_is_in_the_chunk_of_its_id(
            rows in proptest::collection::vec(1_i64..300, 1..60),
            spread in 1_i64..900,
            most in 10_i64..400,
        ) {
            // Numbers are neither in the order of transactions nor next to one another.
            let count = i64::try_from(rows.len()).unwrap();
            let flushes: Vec<(i64, i64)> = (0..).zip(&rows)
                .map(|(at, rows)| ((at * 7 % count) * spread + at / count + 1, *rows))
                .collect();
            let mut numbers: Vec<i64> = flushes.iter().map(|(number, _)| *number).collect();
            numbers.sort_unstable();
            numbers.dedup();
            prop_assume!(numbers.len() == flushes.len());
            let chunks = cut(map_of(&flushes), most);
            for pair in chunks.windows(2) {
                prop_assert!(pair[0].first < pair[0].end && pair[0].end <= pair[1].first);
            }
            for chunk in &chunks {
                prop_assert!(chunk.ranges.windows(2).all(|pair| pair[0].1 < pair[1].0));
            }
            for (xid, (number, rows)) in (1_u64..).zip(&flushes) {
                for row in 0..*rows {
                    let id = (number << ROW_BITS) + row;
                    let own = chunks.iter().find(|chunk| (chunk.first..chunk.end).contains(&id));
                    let own = own.expect("each id lies in a chunk");
                    let in_range = own.ranges.iter().any(|(from, to)| (*from..=*to).contains(&xid));
                    let in_piece = own.pieces.iter()
                        .any(|piece| piece.xid == xid && (piece.first..piece.end).contains(&id));
                    prop_assert!(in_range || in_piece, "{xid} {id}");
                }
            }
        }
    }
}
