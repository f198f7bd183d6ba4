//! When to close a table of outbox or call log, and when to empty one.
//!
//! Each is a ring of tables. One is written; it is closed when it is old or large enough, so
//! that what is past retention can be given back a table at a time. Pure: sizes and times are
//! arguments.

/// A table is closed after this part of the retention: with one that is written and three
/// that are closed nothing stays longer than four thirds of the retention.
const CLOSED_TABLES: i64 = 3;
/// A table is written for this long at least, however short the retention.
const SHORTEST_TURN_MICROS: i64 = 1_000_000;

/// One table of a ring; times in microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    pub number: i16,
    /// `None`: empty.
    pub opened_at: Option<i64>,
    /// `None`: empty, or being written.
    pub closed_at: Option<i64>,
    /// Rows alone; 0 if there is none.
    pub row_bytes: i64,
    /// With indexes and large values.
    pub total_bytes: i64,
}

impl Segment {
    fn is_empty(&self) -> bool {
        self.opened_at.is_none()
    }

    fn is_written(&self) -> bool {
        self.opened_at.is_some() && self.closed_at.is_none()
    }
}

/// How long and how much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub retention_micros: i64,
    /// Of this ring; `None`: no limit.
    pub max_bytes: Option<i64>,
}

/// What to do now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The tables that may be emptied, the oldest first; one that is still needed stays.
    pub empty: Vec<i16>,
    /// The written table is to be closed.
    pub close: bool,
}

impl Plan {
    pub fn of(segments: &[Segment], now: i64, limits: Limits) -> Self {
        let mut closed: Vec<(i64, i16)> = segments
            .iter()
            .filter_map(|segment| Some((segment.closed_at?, segment.number)))
            .collect();
        closed.sort_unstable();
        let total: i64 = segments.iter().map(|segment| segment.total_bytes).sum();
        let too_large = limits.max_bytes.is_some_and(|most| total >= most);
        let expired = |closed_at: i64| now.saturating_sub(closed_at) >= limits.retention_micros;
        let empty = closed
            .iter()
            .enumerate()
            .filter(|(place, (closed_at, _))| expired(*closed_at) || (*place == 0 && too_large))
            .map(|(_, (_, number))| *number)
            .collect();
        let close = segments
            .iter()
            .any(|segment| segment.is_written() && is_due(segment, now, limits));
        Self { empty, close }
    }
}

fn is_due(written: &Segment, now: i64, limits: Limits) -> bool {
    let turn = (limits.retention_micros / CLOSED_TABLES).max(SHORTEST_TURN_MICROS);
    let is_old = written
        .opened_at
        .is_some_and(|opened_at| now.saturating_sub(opened_at) >= turn);
    let is_large = limits
        .max_bytes
        .is_some_and(|most| written.total_bytes >= most / (CLOSED_TABLES + 1));
    written.row_bytes > 0 && (is_old || is_large)
}

/// The number of the table that is written.
pub fn written(segments: &[Segment]) -> Option<i16> {
    let mut written = segments.iter().filter(|segment| segment.is_written());
    written.next().map(|segment| segment.number)
}

/// A table that can be written next.
pub fn next_free(segments: &[Segment]) -> Option<i16> {
    let after = written(segments)?;
    let count = i16::try_from(segments.len()).ok()?;
    (1..count)
        .map(|step| (after + step) % count)
        .find(|number| {
            segments
                .iter()
                .any(|segment| segment.number == *number && segment.is_empty())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000;
    const LIMITS: Limits = Limits {
        retention_micros: 30 * HOUR,
        max_bytes: Some(4000),
    };

    fn segment(number: i16, opened_at: Option<i64>, closed_at: Option<i64>, bytes: i64) -> Segment {
        Segment {
            number,
            opened_at,
            closed_at,
            row_bytes: bytes,
            total_bytes: bytes,
        }
    }

    fn ring() -> Vec<Segment> {
        vec![
            segment(0, Some(0), Some(10 * HOUR), 500),
            segment(1, Some(10 * HOUR), Some(20 * HOUR), 500),
            segment(2, Some(20 * HOUR), None, 500),
            segment(3, None, None, 0),
        ]
    }

    #[test]
    fn a_table_is_closed_after_a_third_of_the_retention_unless_it_is_empty() {
        let mut ring = ring();
        assert!(!Plan::of(&ring, 29 * HOUR, LIMITS).close);
        assert!(Plan::of(&ring, 30 * HOUR, LIMITS).close);
        ring[2].row_bytes = 0;
        assert!(!Plan::of(&ring, 30 * HOUR, LIMITS).close);
    }

    #[test]
    fn a_large_table_is_closed_at_once_and_never_without_a_limit() {
        let mut ring = ring();
        ring[2].total_bytes = 1000;
        assert!(Plan::of(&ring, 21 * HOUR, LIMITS).close);
        let unlimited = Limits {
            max_bytes: None,
            ..LIMITS
        };
        assert!(!Plan::of(&ring, 21 * HOUR, unlimited).close);
    }

    #[test]
    fn a_closed_table_is_emptied_when_its_last_row_is_past_retention() {
        let ring = ring();
        assert_eq!(Plan::of(&ring, 39 * HOUR, LIMITS).empty, Vec::<i16>::new());
        assert_eq!(Plan::of(&ring, 40 * HOUR, LIMITS).empty, [0]);
        assert_eq!(Plan::of(&ring, 50 * HOUR, LIMITS).empty, [0, 1]);
    }

    #[test]
    fn the_oldest_table_goes_before_its_time_when_the_ring_is_too_large() {
        let mut ring = ring();
        ring[2].total_bytes = 3000;
        assert_eq!(Plan::of(&ring, 21 * HOUR, LIMITS).empty, [0]);
    }

    #[test]
    fn the_next_table_is_the_next_empty_one() {
        let mut ring = ring();
        assert_eq!((written(&ring), next_free(&ring)), (Some(2), Some(3)));
        ring[3].opened_at = Some(1);
        ring[3].closed_at = Some(2);
        assert_eq!(next_free(&ring), None);
        ring[1] = segment(1, None, None, 0);
        assert_eq!(next_free(&ring), Some(1));
    }
}
