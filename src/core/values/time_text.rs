//! Points in time, times of day and intervals as they are written in a payload.
//!
//! Pure: it computes from PostgreSQL's binary values (microseconds and days since
//! 2000-01-01), so no setting of a session (DateStyle, IntervalStyle, TimeZone)
//! can change what is written. It never fails: every value of the arguments has a
//! text, those outside PostgreSQL's range an unimportant one.
//!
//! Years outside 0001 to 9999 are written as ISO 8601 expanded years with a sign
//! and six or more digits, year 0 being 1 BC (`-000043-03-15T00:00:00` is the
//! ides of March, 44 BC): the one form that JavaScript and Java both read.

use super::json_text::{push_i64, push_padded, push_two, push_u64};

const MICROS_PER_SECOND: u64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400_000_000;
/// Days from 0000-03-01, where the calendar arithmetic starts, to 2000-01-01.
const DAYS_FROM_ERA_TO_2000: i64 = 730_425;
/// The Gregorian calendar repeats after 400 years.
const DAYS_PER_ERA: i64 = 146_097;
const YEARS_PER_ERA: i64 = 400;
/// What ISO 8601 asks for beyond four digits is agreed between the parties; ECMAScript says six.
const EXPANDED_YEAR_WIDTH: usize = 6;

/// Whether a timestamp without a fraction of a second shows `.000000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fraction {
    Always,
    IfNotZero,
}

/// Appends `2023-09-13T00:00:00` for days since 2000-01-01.
pub fn push_date(out: &mut Vec<u8>, days: i32) {
    push_day(out, i64::from(days));
    out.extend_from_slice(b"T00:00:00");
}

/// Microseconds since 2000-01-01 UTC as text that PostgreSQL reads as timestamptz.
pub fn utc_text(pg_micros: i64) -> String {
    let mut out = Vec::new();
    push_timestamp(&mut out, pg_micros, Fraction::Always);
    out.push(b'Z');
    String::from_utf8_lossy(&out).into_owned()
}

/// Appends `2023-09-13T10:20:30[.500000]` for microseconds since 2000-01-01; a
/// zone letter is up to the caller.
pub fn push_timestamp(out: &mut Vec<u8>, micros: i64, fraction: Fraction) {
    push_day(out, micros.div_euclid(MICROS_PER_DAY));
    out.push(b'T');
    let in_day = micros.rem_euclid(MICROS_PER_DAY) as u64;
    push_clock(out, in_day / MICROS_PER_SECOND);
    let rest = in_day % MICROS_PER_SECOND;
    if rest != 0 || fraction == Fraction::Always {
        out.push(b'.');
        push_padded(out, rest, 6);
    }
}

fn push_day(out: &mut Vec<u8>, days: i64) {
    let (year, month, day) = civil_from_days(days);
    if (1..=9999).contains(&year) {
        push_two(out, year as u64 / 100);
        push_two(out, year as u64 % 100);
    } else {
        out.push(if year > 0 { b'+' } else { b'-' });
        push_padded(out, year.unsigned_abs(), EXPANDED_YEAR_WIDTH);
    }
    out.push(b'-');
    push_two(out, month);
    out.push(b'-');
    push_two(out, day);
}

/// Year (0 is 1 BC), month and day of the proleptic Gregorian calendar. Years are
/// counted from March, so that the leap day is the last of its year.
fn civil_from_days(days_since_2000: i64) -> (i64, u64, u64) {
    let days = days_since_2000 + DAYS_FROM_ERA_TO_2000;
    let era = days.div_euclid(DAYS_PER_ERA);
    let day_of_era = days.rem_euclid(DAYS_PER_ERA);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * YEARS_PER_ERA + year_of_era + i64::from(month <= 2);
    (year, month as u64, day as u64)
}

/// Appends `10:20:30[.5]` for microseconds since midnight, as PostgreSQL prints a
/// `time`: trailing zeros of the fraction left out, midnight at the end is `24:00:00`.
pub fn push_time(out: &mut Vec<u8>, micros: i64) {
    let micros = micros.unsigned_abs();
    push_clock(out, micros / MICROS_PER_SECOND);
    push_trimmed_fraction(out, micros % MICROS_PER_SECOND);
}

/// As [`push_time`] with the offset behind it: `10:20:30+02`, minutes and seconds
/// only where the zone has some. `seconds_west` is PostgreSQL's sign: west is positive.
pub fn push_timetz(out: &mut Vec<u8>, micros: i64, seconds_west: i32) {
    push_time(out, micros);
    out.push(if seconds_west <= 0 { b'+' } else { b'-' });
    let offset = u64::from(seconds_west.unsigned_abs());
    let (minutes, seconds) = (offset / 60 % 60, offset % 60);
    push_padded(out, offset / 3600, 2);
    if minutes != 0 || seconds != 0 {
        out.push(b':');
        push_two(out, minutes);
    }
    if seconds != 0 {
        out.push(b':');
        push_two(out, seconds);
    }
}

fn push_clock(out: &mut Vec<u8>, seconds: u64) {
    push_padded(out, seconds / 3600, 2);
    out.push(b':');
    push_two(out, seconds / 60 % 60);
    out.push(b':');
    push_two(out, seconds % 60);
}

fn push_trimmed_fraction(out: &mut Vec<u8>, micros: u64) {
    if micros == 0 {
        return;
    }
    out.push(b'.');
    push_padded(out, micros, 6);
    while out.last() == Some(&b'0') {
        out.pop();
    }
}

/// Appends an ISO 8601 duration, `P1Y2M3DT4H5M6.5S`, as PostgreSQL prints it with
/// `IntervalStyle = iso_8601`: each part has its own sign, zero is `PT0S`.
pub fn push_interval(out: &mut Vec<u8>, months: i32, days: i32, micros: i64) {
    if months == 0 && days == 0 && micros == 0 {
        out.extend_from_slice(b"PT0S");
        return;
    }
    out.push(b'P');
    push_part(out, i64::from(months / 12), b'Y');
    push_part(out, i64::from(months % 12), b'M');
    push_part(out, i64::from(days), b'D');
    if micros == 0 {
        return;
    }
    out.push(b'T');
    let seconds = micros / MICROS_PER_SECOND as i64;
    push_part(out, seconds / 3600, b'H');
    push_part(out, seconds / 60 % 60, b'M');
    let in_minute = (micros % (60 * MICROS_PER_SECOND as i64)).unsigned_abs();
    if in_minute != 0 {
        if micros < 0 {
            out.push(b'-');
        }
        push_u64(out, in_minute / MICROS_PER_SECOND);
        push_trimmed_fraction(out, in_minute % MICROS_PER_SECOND);
        out.push(b'S');
    }
}

fn push_part(out: &mut Vec<u8>, value: i64, letter: u8) {
    if value != 0 {
        push_i64(out, value);
        out.push(letter);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("ASCII")
    }

    fn timestamp(micros: i64) -> String {
        text(|out| push_timestamp(out, micros, Fraction::IfNotZero))
    }

    #[test]
    fn dates_over_leap_years_and_centuries() {
        let cases = [
            (0, "2000-01-01T00:00:00"),
            (-1, "1999-12-31T00:00:00"),
            (59, "2000-02-29T00:00:00"),
            (8_656, "2023-09-13T00:00:00"),
            (-36_465, "1900-03-01T00:00:00"),
            (-36_466, "1900-02-28T00:00:00"),
            (-730_119, "0001-01-01T00:00:00"),
            (-730_120, "-000000-12-31T00:00:00"),
            (2_921_939, "9999-12-31T00:00:00"),
            (2_921_940, "+010000-01-01T00:00:00"),
            (2_145_031_948, "+5874897-12-31T00:00:00"),
            (-2_451_545, "-004713-11-24T00:00:00"),
        ];
        for (days, expected) in cases {
            assert_eq!(text(|out| push_date(out, days)), expected);
        }
    }

    #[test]
    fn a_fraction_shows_all_six_digits_or_none() {
        assert_eq!(timestamp(0), "2000-01-01T00:00:00");
        assert_eq!(timestamp(500_000), "2000-01-01T00:00:00.500000");
        assert_eq!(timestamp(-1), "1999-12-31T23:59:59.999999");
        assert_eq!(
            text(|out| push_timestamp(out, 0, Fraction::Always)),
            "2000-01-01T00:00:00.000000"
        );
    }

    #[test]
    fn times_of_day_end_where_postgresql_ends_them() {
        assert_eq!(text(|out| push_time(out, 0)), "00:00:00");
        assert_eq!(text(|out| push_time(out, 37_230_500_000)), "10:20:30.5");
        assert_eq!(text(|out| push_time(out, MICROS_PER_DAY)), "24:00:00");
        assert_eq!(text(|out| push_time(out, 1)), "00:00:00.000001");
        assert_eq!(text(|out| push_timetz(out, 0, -7_200)), "00:00:00+02");
        assert_eq!(text(|out| push_timetz(out, 0, 0)), "00:00:00+00");
        assert_eq!(text(|out| push_timetz(out, 0, 12_600)), "00:00:00-03:30");
        assert_eq!(text(|out| push_timetz(out, 0, -3_601)), "00:00:00+01:00:01");
    }

    #[test]
    fn intervals_keep_the_sign_of_each_part() {
        let cases = [
            (0, 0, 0, "PT0S"),
            (0, 1, 7_384_000_000, "P1DT2H3M4S"),
            (14, 3, 14_706_500_000, "P1Y2M3DT4H5M6.5S"),
            (-14, 3, -14_706_500_000, "P-1Y-2M3DT-4H-5M-6.5S"),
            (0, 0, -500_000, "PT-0.5S"),
            (0, 0, 60_000_000, "PT1M"),
            (12, 0, 0, "P1Y"),
            (0, 0, i64::MIN, "PT-2562047788H-54.775808S"),
        ];
        for (months, days, micros, expected) in cases {
            assert_eq!(
                text(|out| push_interval(out, months, days, micros)),
                expected
            );
        }
    }

    proptest! {
        #[test]
        fn one_day_later_is_the_next_calendar_day(days in -2_451_545i64..100_000_000) {
            let (year, month, day) = civil_from_days(days);
            let next = civil_from_days(days + 1);
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                2 => 28 + u64::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            let expected = if day < length {
                (year, month, day + 1)
            } else if month < 12 {
                (year, month + 1, 1)
            } else {
                (year + 1, 1, 1)
            };
            prop_assert_eq!(next, expected);
        }

        #[test]
        fn no_value_is_refused(micros in any::<i64>(), other in any::<i32>()) {
            let mut out = Vec::new();
            push_timestamp(&mut out, micros, Fraction::IfNotZero);
            push_date(&mut out, other);
            push_timetz(&mut out, micros, other);
            push_interval(&mut out, other, other, micros);
            prop_assert!(out.is_ascii());
        }
    }
}
