//! When a failed call is repeated.
//!
//! Two voices decide: our own schedule, and the receiver's `Retry-After`.
//! Pure: clock and randomness are arguments. What a receiver says is never an
//! error, only unusable.

use std::time::{Duration, SystemTime};

use crate::core::error::{Error, Result};

/// `webhook.retry_schedule` as shipped; the last delay repeats.
pub const DEFAULT_SCHEDULE: &str = "5s,5min,30min,2h,5h,10h,14h,20h,24h";

/// A receiver may not hold a URL for longer than this.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// Up to a fifth is added, so that what failed together does not come back
/// together. Only added: a delay is never shorter than written.
const JITTER_DIVISOR: u128 = 5;

/// A delay of nothing would turn a failing receiver into a busy loop.
const MIN_DELAY: Duration = Duration::from_millis(1);
const MAX_DELAY: Duration = Duration::from_secs(365 * 86_400);

/// More would only be a list of the last one.
const MAX_DELAYS: usize = 100;

/// PostgreSQL's units of time, in seconds.
const UNITS: &[(&str, f64)] = &[
    ("us", 1e-6),
    ("ms", 1e-3),
    ("s", 1.0),
    ("min", 60.0),
    ("h", 3600.0),
    ("d", 86_400.0),
];

/// The delays before the second, third, … attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    delays: Vec<Duration>,
}

impl Schedule {
    /// Reads `5s,5min,30min,…`: numbers with PostgreSQL's units (us, ms, s,
    /// min, h, d), separated by commas.
    ///
    /// # Errors
    /// No item, an item that is no number with a unit, or a delay under 1 ms
    /// or over 365 d.
    pub fn parse(text: &str) -> Result<Self> {
        let delays = text
            .split(',')
            .map(|item| parse_delay(item.trim()))
            .collect::<Result<Vec<_>>>()?;
        if delays.len() > MAX_DELAYS {
            return Err(Error::invalid(format!(
                "webhook.retry_schedule: {} delays are more than {MAX_DELAYS}",
                delays.len()
            ))
            .with_hint("shorten the list: its last delay repeats"));
        }
        Ok(Self { delays })
    }

    /// The pause after so many failed attempts (1 = the first failed), with
    /// the share of jitter that `random` draws.
    pub fn delay(&self, failed_attempts: u32, random: u64) -> Duration {
        let index = usize::try_from(failed_attempts.saturating_sub(1)).unwrap_or(usize::MAX);
        let base = self.delays[index.min(self.delays.len() - 1)];
        let most_ns = base.as_nanos() / JITTER_DIVISOR;
        let jitter_ns = (most_ns * u128::from(random)) >> u64::BITS;
        base + Duration::from_nanos(u64::try_from(jitter_ns).unwrap_or(u64::MAX))
    }
}

impl Default for Schedule {
    fn default() -> Self {
        Self::parse(DEFAULT_SCHEDULE).expect("the shipped schedule is valid")
    }
}

fn parse_delay(item: &str) -> Result<Duration> {
    let bad = |what: &str| {
        Error::invalid(format!("webhook.retry_schedule: \"{item}\" {what}"))
            .with_hint("write delays like 5s,5min,2h, with the units us, ms, s, min, h or d")
    };
    let unit_at = item
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .ok_or_else(|| bad("has no unit"))?;
    let (number, unit) = (&item[..unit_at], item[unit_at..].trim_start());
    let (_, unit_s) = UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(|| bad("has no unit that is known"))?;
    let number: f64 = number
        .parse()
        .map_err(|_| bad("is not a number with a unit"))?;
    let delay = Duration::try_from_secs_f64(number * unit_s).unwrap_or(Duration::MAX);
    if !(MIN_DELAY..=MAX_DELAY).contains(&delay) {
        return Err(bad("is not between 1ms and 365d"));
    }
    Ok(delay)
}

/// How long a receiver asks to be left alone: seconds or an HTTP date, at most
/// [`MAX_RETRY_AFTER`]. A date that has passed is zero; what is neither is
/// `None`.
pub fn parse_retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    let wait = if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        // Too many digits for a u64 is still a number, and over the limit.
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        let date = httpdate::parse_http_date(value).ok()?;
        date.duration_since(now).unwrap_or(Duration::ZERO)
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_default_is_the_documented_one_and_its_end_repeats() {
        let schedule = Schedule::default();
        let hours = |n: u64| n * 3600;
        let expected_s = [
            5,
            300,
            1800,
            hours(2),
            hours(5),
            hours(10),
            hours(14),
            hours(20),
            hours(24),
            hours(24),
        ];
        for (failed, seconds) in (1..).zip(expected_s) {
            assert_eq!(
                schedule.delay(failed, 0),
                Duration::from_secs(seconds),
                "{failed}"
            );
        }
        assert_eq!(schedule.delay(u32::MAX, 0), Duration::from_secs(hours(24)));
        assert_eq!(schedule.delay(0, 0), Duration::from_secs(5));
    }

    #[test]
    fn every_unit_of_postgres_is_read() {
        let schedule = Schedule::parse(" 1500us, 20ms ,1.5s,2 min,1h,1d").unwrap();
        let expected_us = [
            1_500,
            20_000,
            1_500_000,
            120_000_000,
            3_600_000_000,
            86_400_000_000,
        ];
        for (failed, us) in (1..).zip(expected_us) {
            assert_eq!(
                schedule.delay(failed, 0),
                Duration::from_micros(us),
                "{failed}"
            );
        }
    }

    #[test]
    fn the_bad_item_is_named() {
        for (text, item) in [
            ("", "\"\""),
            ("5s,,1h", "\"\""),
            ("5s,10", "\"10\""),
            ("5s,5 minutes", "\"5 minutes\""),
            ("5S", "\"5S\""),
            ("-5s", "\"-5s\""),
            ("s", "\"s\""),
            ("1..5s", "\"1..5s\""),
            ("0s", "\"0s\""),
            ("999us", "\"999us\""),
            ("366d", "\"366d\""),
            (
                "99999999999999999999999999d",
                "\"99999999999999999999999999d\"",
            ),
        ] {
            let error = Schedule::parse(text).unwrap_err();
            assert!(error.message.contains(item), "{text}: {}", error.message);
            assert!(error.hint.is_some());
        }
        assert!(Schedule::parse(&vec!["1s"; 101].join(",")).is_err());
    }

    #[test]
    fn retry_after_is_read_and_clamped() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let date = |offset_s: i64| {
            let at = u64::try_from(1_700_000_000 + offset_s).unwrap();
            httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(at))
        };
        let seconds = |s: u64| Some(Duration::from_secs(s));
        for (value, expected) in [
            ("120".to_owned(), seconds(120)),
            (" 7 ".to_owned(), seconds(7)),
            ("0".to_owned(), seconds(0)),
            ("86400".to_owned(), seconds(3600)),
            ("9".repeat(40), seconds(3600)),
            (date(90), seconds(90)),
            (date(-90), seconds(0)),
            (date(864_000), seconds(3600)),
            ("-5".to_owned(), None),
            ("1.5".to_owned(), None),
            ("soon".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(parse_retry_after(&value, now), expected, "{value}");
        }
    }

    proptest! {
        #[test]
        fn jitter_adds_at_most_a_fifth_and_never_takes_away(
            ms in 1_u64..1_000_000_000, random: u64, failed: u32
        ) {
            let schedule = Schedule::parse(&format!("{ms}ms")).unwrap();
            let base = Duration::from_millis(ms);
            let found = schedule.delay(failed, random);
            prop_assert!(found >= base && found <= base + base / 5, "{:?}", found);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,30}") {
            let _ = Schedule::parse(&text);
            let wait = parse_retry_after(&text, SystemTime::UNIX_EPOCH);
            prop_assert!(wait.is_none_or(|wait| wait <= MAX_RETRY_AFTER));
        }
    }
}
