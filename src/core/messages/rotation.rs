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

/// Sizes are looked at again before a ring has grown by this part of what it may have …
const GROWTH_A_LOOK: i64 = 32;
/// … but no sooner than this: a look costs some statements.
const SHORTEST_PAUSE_MICROS: i64 = 100_000;
/// A look may come late: so many times what is expected until then is kept free …
const LATE_LOOKS: i64 = 2;
/// … but no more than this part of the ring: what is kept must not shrink to nothing.
const MOST_HEADROOM: i64 = 4;

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
    /// Of them, kept free for what comes until the next look.
    pub headroom_bytes: i64,
}

/// How fast a ring grows, by the sizes that were seen.
#[derive(Debug, Default)]
pub struct Growth {
    seen: Vec<(i16, i64)>,
    seen_at: Option<i64>,
    bytes_a_second: i64,
}

impl Growth {
    /// Sizes at `now`. The rate is the recent maximum: transactions come in bursts, so that it
    /// falls by half a second.
    pub fn look(&mut self, segments: &[Segment], now: i64) {
        let before = |number| self.seen.iter().find(|(known, _)| *known == number);
        let gained: i64 = segments
            .iter()
            .map(|segment| match before(segment.number) {
                Some((_, bytes)) if *bytes <= segment.total_bytes => segment.total_bytes - bytes,
                // It was emptied meanwhile, or this is the first look.
                Some(_) => segment.total_bytes,
                None => 0,
            })
            .sum();
        let elapsed = self
            .seen_at
            .map_or(0, |seen_at| now - seen_at)
            .clamp(SHORTEST_PAUSE_MICROS, i64::from(u32::MAX));
        let kept = self.bytes_a_second - share(self.bytes_a_second, elapsed, 2_000_000);
        self.bytes_a_second = kept.max(share(gained, 1_000_000, elapsed));
        self.seen = segments
            .iter()
            .map(|segment| (segment.number, segment.total_bytes))
            .collect();
        self.seen_at = Some(now);
    }

    /// When to look again, `longest` at most, if the ring may have `max_bytes`.
    pub fn pause_micros(&self, max_bytes: i64, longest: i64) -> i64 {
        let most = max_bytes / GROWTH_A_LOOK;
        let pause = share(most, 1_000_000, self.bytes_a_second.max(1));
        pause.clamp(SHORTEST_PAUSE_MICROS.min(longest), longest)
    }

    /// What the ring may grow by in such a pause.
    pub fn headroom_bytes(&self, max_bytes: i64, pause_micros: i64) -> i64 {
        let expected = share(self.bytes_a_second, pause_micros, 1_000_000);
        expected
            .saturating_mul(LATE_LOOKS)
            .min(max_bytes / MOST_HEADROOM)
    }
}

/// `amount * part / whole`, not less than nothing nor more than there is.
fn share(amount: i64, part: i64, whole: i64) -> i64 {
    let share = i128::from(amount) * i128::from(part) / i128::from(whole.max(1));
    i64::try_from(share.max(0)).unwrap_or(i64::MAX)
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
        let too_large = limits
            .max_bytes
            .is_some_and(|most| total >= most - limits.headroom_bytes);
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
        headroom_bytes: 0,
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
    fn the_oldest_table_goes_before_the_ring_is_too_large_at_the_next_look() {
        let mut ring = ring();
        ring[2].total_bytes = 2500;
        let growing = Limits {
            headroom_bytes: 500,
            ..LIMITS
        };
        assert_eq!(Plan::of(&ring, 21 * HOUR, LIMITS).empty, Vec::<i16>::new());
        assert_eq!(Plan::of(&ring, 21 * HOUR, growing).empty, [0]);
    }

    const SECOND: i64 = 1_000_000;
    const MEGABYTE: i64 = 1 << 20;

    #[test]
    fn a_ring_that_grows_fast_for_its_size_is_looked_at_more_often() {
        let mut growth = Growth::default();
        let mut ring = ring();
        let (small, large) = (32 * MEGABYTE, 5000 * MEGABYTE);
        growth.look(&ring, 0);
        assert_eq!(growth.pause_micros(small, SECOND), SECOND);
        assert_eq!(growth.headroom_bytes(small, SECOND), 0);
        ring[2].total_bytes += 4 * MEGABYTE;
        growth.look(&ring, SECOND);
        // 4 MB a second: a 32nd of the ring in a quarter of it.
        assert_eq!(growth.pause_micros(small, SECOND), SECOND / 4);
        assert_eq!(growth.headroom_bytes(small, SECOND / 4), 2 * MEGABYTE);
        assert_eq!(growth.pause_micros(large, SECOND), SECOND);
        assert_eq!(growth.headroom_bytes(MEGABYTE, SECOND), MEGABYTE / 4);
        // At rest the rate falls: nothing is kept free for what does not come.
        for look in 2..12 {
            growth.look(&ring, look * SECOND);
        }
        assert!(growth.headroom_bytes(small, SECOND) < 16 << 10);
    }

    #[test]
    fn what_comes_into_a_table_that_was_emptied_counts_as_growth() {
        let mut growth = Growth::default();
        let mut ring = ring();
        ring[2].total_bytes = 9 * MEGABYTE;
        growth.look(&ring, 0);
        ring[2].total_bytes = MEGABYTE;
        growth.look(&ring, SECOND);
        assert_eq!(growth.headroom_bytes(32 * MEGABYTE, SECOND), 2 * MEGABYTE);
    }

    /// What P14 does, in numbers: a steady load, and looks that come when they are due or later.
    #[test]
    fn under_steady_load_a_ring_stays_within_its_limit_and_keeps_half_of_it() {
        let limit = 32 * MEGABYTE;
        for kilobytes_a_second in [100, 1000, 8000, 20_000] {
            let mut growth = Growth::default();
            let mut ring: Vec<Segment> = (0..4).map(|n| segment(n, None, None, 0)).collect();
            ring[0].opened_at = Some(0);
            let (mut now, mut largest, mut least) = (0, 0, limit);
            let mut has_turned = false;
            while now < limit / kilobytes_a_second * 10_000 {
                growth.look(&ring, now);
                let pause = growth.pause_micros(limit, SECOND);
                let limits = Limits {
                    retention_micros: 1000 * HOUR,
                    max_bytes: Some(limit),
                    headroom_bytes: growth.headroom_bytes(limit, pause),
                };
                let plan = Plan::of(&ring, now, limits);
                for number in &plan.empty {
                    ring[*number as usize] = segment(*number, None, None, 0);
                    has_turned = true;
                }
                if let Some(next) = next_free(&ring).filter(|_| plan.close) {
                    let number = written(&ring).expect("one is written");
                    ring[number as usize].closed_at = Some(now);
                    ring[next as usize].opened_at = Some(now);
                }
                let total: i64 = ring.iter().map(|one| one.total_bytes).sum();
                least = least.min(if has_turned { total } else { limit });
                let number = written(&ring).expect("one is written");
                // The load sets in a moment before the second look, which tells how fast it is.
                let late = match now {
                    0 => SECOND / 10,
                    _ => pause + pause / 2,
                };
                let gained = share(kilobytes_a_second << 10, late, SECOND);
                ring[number as usize].row_bytes += gained;
                ring[number as usize].total_bytes += gained;
                now += late;
                largest = largest.max(ring.iter().map(|one| one.total_bytes).sum());
            }
            assert!(
                has_turned,
                "at {kilobytes_a_second} kB/s nothing was emptied"
            );
            assert!(largest <= limit, "{largest} at {kilobytes_a_second} kB/s");
            assert!(least >= limit / 2, "{least} at {kilobytes_a_second} kB/s");
        }
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
