//! Which of the rows of a block an index needs that keeps the least and the greatest values alone.

/// A message's id and when it was captured, in microseconds since 2000-01-01 UTC.
pub type Stamp = ([u8; 16], i64);

/// Of the rows seen so far, those with the least and the greatest id and time.
#[derive(Clone, Copy, Debug)]
pub struct Extremes {
    first: usize,
    least_id: (usize, [u8; 16]),
    greatest_id: (usize, [u8; 16]),
    least_time: (usize, i64),
    greatest_time: (usize, i64),
}

impl Extremes {
    /// The row at `place` is the first of its block.
    pub fn of(place: usize, (id, time): Stamp) -> Self {
        Self {
            first: place,
            least_id: (place, id),
            greatest_id: (place, id),
            least_time: (place, time),
            greatest_time: (place, time),
        }
    }

    /// One more row of the same block.
    pub fn add(&mut self, place: usize, (id, time): Stamp) {
        if id < self.least_id.1 {
            self.least_id = (place, id);
        }
        if id > self.greatest_id.1 {
            self.greatest_id = (place, id);
        }
        if time < self.least_time.1 {
            self.least_time = (place, time);
        }
        if time > self.greatest_time.1 {
            self.greatest_time = (place, time);
        }
    }

    /// Each place once, and always that of the first row: PostgreSQL asks for a summary of the range
    /// before when the first row of a range is entered.
    pub fn places(&self) -> impl Iterator<Item = usize> {
        let all = [
            self.first,
            self.least_id.0,
            self.greatest_id.0,
            self.least_time.0,
            self.greatest_time.0,
        ];
        (0..all.len())
            .filter(move |i| !all[..*i].contains(&all[*i]))
            .map(move |i| all[i])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn places(rows: &[Stamp]) -> Vec<usize> {
        let mut extremes = Extremes::of(0, rows[0]);
        for (place, row) in rows.iter().enumerate().skip(1) {
            extremes.add(place, *row);
        }
        extremes.places().collect()
    }

    #[test]
    fn rows_in_order_need_their_first_and_last() {
        let rows: Vec<Stamp> = (1..=3).map(|n| ([n; 16], i64::from(n) - 2)).collect();
        assert_eq!(places(&rows), [0, 2]);
        assert_eq!(places(&rows[..1]), [0]);
    }

    #[test]
    fn a_clock_that_jumps_gives_other_extremes_for_times() {
        let rows = [([5; 16], 50), ([1; 16], 60), ([9; 16], -3), ([7; 16], 90)];
        assert_eq!(places(&rows), [0, 1, 2, 3]);
    }

    proptest! {
        #[test]
        fn the_places_have_the_extremes_of_all(
            rows in prop::collection::vec((prop::array::uniform16(0u8..4), -9i64..9), 1..40)
        ) {
            let places = places(&rows);
            let ids = || places.iter().map(|place| rows[*place].0);
            let times = || places.iter().map(|place| rows[*place].1);
            prop_assert_eq!(ids().min(), rows.iter().map(|row| row.0).min());
            prop_assert_eq!(ids().max(), rows.iter().map(|row| row.0).max());
            prop_assert_eq!(times().min(), rows.iter().map(|row| row.1).min());
            prop_assert_eq!(times().max(), rows.iter().map(|row| row.1).max());
            prop_assert_eq!(places[0], 0);
            prop_assert!(places.len() <= 5);
        }
    }
}
