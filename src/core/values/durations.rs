//! How long calls took: counts in buckets, from which quantiles are read.
//!
//! A bucket is an eighth of a power of two microseconds wide, so a quantile is within 6 % of the
//! true value. Stored as text, `bucket:count bucket:count ...`: texts that are joined by a blank add up.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// Buckets of a power of two, as a power of two.
const STEP_BITS: u32 = 3;

/// Of what 64 bits of microseconds can hold.
const LAST_BUCKET: u16 = (63 << STEP_BITS) | ((1 << STEP_BITS) - 1);

/// Upper bounds of the histogram that Prometheus gets, in seconds.
pub const BOUNDS_S: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 600.0,
];

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Durations(BTreeMap<u16, u64>);

impl Durations {
    pub fn add(&mut self, duration: Duration) {
        *self.0.entry(bucket_of(duration)).or_default() += 1;
    }

    /// What [`Durations::text`] has written; anything else is passed over.
    pub fn add_text(&mut self, text: &str) {
        for part in text.split_ascii_whitespace() {
            let Some((bucket, count)) = part.split_once(':') else {
                continue;
            };
            if let (Ok(bucket @ 0..=LAST_BUCKET), Ok(count)) =
                (bucket.parse(), count.parse::<u64>())
            {
                let sum = self.0.entry(bucket).or_default();
                *sum = sum.saturating_add(count);
            }
        }
    }

    pub fn text(&self) -> String {
        let mut text = String::with_capacity(self.0.len() * 6);
        for (bucket, count) in &self.0 {
            let blank = if text.is_empty() { "" } else { " " };
            // Writing to a String does not fail.
            let _ = write!(text, "{blank}{bucket}:{count}");
        }
        text
    }

    pub fn count(&self) -> u64 {
        self.0.values().fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// In milliseconds: the middle of the bucket in which this part of the calls is reached. `None`
    /// without any.
    pub fn quantile_ms(&self, part: f64) -> Option<f64> {
        let count = self.count();
        let wanted = (count as f64 * part.clamp(0.0, 1.0)).ceil().max(1.0);
        let mut seen = 0_u64;
        for (bucket, n) in &self.0 {
            seen = seen.saturating_add(*n);
            if seen as f64 >= wanted {
                return Some((lower_bound_us(*bucket) + lower_bound_us(bucket + 1)) / 2000.0);
            }
        }
        None
    }
}

/// The place in [`BOUNDS_S`] of the first bound that is not below; the number of bounds if there is none.
pub fn bound_of(duration: Duration) -> usize {
    let seconds = duration.as_secs_f64();
    BOUNDS_S.partition_point(|bound| *bound < seconds)
}

fn bucket_of(duration: Duration) -> u16 {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX / 16);
    let micros = micros.clamp(1, u64::MAX / 16);
    let power = micros.ilog2();
    let step = ((micros << STEP_BITS) >> power) & ((1 << STEP_BITS) - 1);
    // At most 60 powers of eight steps.
    u16::try_from((u64::from(power) << STEP_BITS) | step).unwrap_or(u16::MAX)
}

fn lower_bound_us(bucket: u16) -> f64 {
    let steps = f64::from(1_u16 << STEP_BITS);
    let power = f64::from(bucket >> STEP_BITS);
    let step = f64::from(bucket & ((1 << STEP_BITS) - 1));
    power.exp2() * (1.0 + step / steps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_that_are_joined_add_up() {
        let (mut one, mut other) = (Durations::default(), Durations::default());
        one.add(Duration::from_millis(5));
        other.add(Duration::from_millis(5));
        other.add(Duration::from_secs(15));
        let mut both = Durations::default();
        both.add_text(&format!("{} {}", one.text(), other.text()));
        assert_eq!(both.count(), 3);
        let mut read = Durations::default();
        read.add_text(&both.text());
        assert_eq!(read, both);
    }

    #[test]
    fn text_of_another_form_counts_nothing() {
        let mut durations = Durations::default();
        durations.add_text("1: :2 x 3:y -1:5 512:1 65535:1 70000:1 3:99999999999999999999");
        assert_eq!(durations.count(), 0);
        assert_eq!(durations.quantile_ms(0.5), None);
    }

    #[test]
    fn a_bound_holds_what_is_not_above_it() {
        assert_eq!(bound_of(Duration::from_millis(5)), 0);
        assert_eq!(bound_of(Duration::from_micros(5001)), 1);
        assert_eq!(bound_of(Duration::from_secs(601)), BOUNDS_S.len());
    }

    proptest! {
        #[test]
        fn a_quantile_is_within_six_percent(mut micros in prop::collection::vec(8_u64..900_000_000, 1..200), part in 0.0_f64..1.0) {
            let mut durations = Durations::default();
            for micros in &micros {
                durations.add(Duration::from_micros(*micros));
            }
            micros.sort_unstable();
            let place = ((micros.len() as f64 * part).ceil() as usize).max(1);
            let exact = micros[place - 1] as f64 / 1000.0;
            let found = durations.quantile_ms(part).unwrap();
            prop_assert!((found - exact).abs() <= exact * 0.0626, "{found} for {exact}");
        }
    }
}
