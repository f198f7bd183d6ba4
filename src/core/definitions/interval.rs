//! An interval in the body of a request, where a wrong one is an answer and no error of PostgreSQL.
//!
//! Pure. Reads what PostgreSQL prints by default (`1 mon 3 days 04:05:06.5`) and units written out.

/// As PostgreSQL keeps it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    pub months: i32,
    pub days: i32,
    pub micros: i64,
}

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const MONTHS_A_YEAR: i64 = 12;
const DAYS_A_WEEK: i64 = 7;

/// `None` if it is no interval that is read here, or is too long.
pub fn read(text: &str) -> Option<Parts> {
    let (mut months, mut days, mut micros) = (0_i64, 0_i64, 0_i64);
    let mut words = text.split_ascii_whitespace().peekable();
    words.peek()?;
    while let Some(word) = words.next() {
        if word.contains(':') {
            micros = micros.checked_add(clock(word)?)?;
            continue;
        }
        let digits = word
            .trim_start_matches(['+', '-'])
            .bytes()
            .take_while(u8::is_ascii_digit)
            .count();
        let sign = usize::from(word.starts_with(['+', '-']));
        let (number, unit) = word.split_at(digits + sign);
        let number: i64 = number.parse().ok()?;
        let unit = if unit.is_empty() { words.next()? } else { unit };
        let (sum, factor) = match unit {
            "year" | "years" => (&mut months, MONTHS_A_YEAR),
            "mon" | "mons" | "month" | "months" => (&mut months, 1),
            "week" | "weeks" => (&mut days, DAYS_A_WEEK),
            "d" | "day" | "days" => (&mut days, 1),
            "h" | "hour" | "hours" => (&mut micros, HOUR),
            "min" | "mins" | "minute" | "minutes" => (&mut micros, MINUTE),
            "s" | "sec" | "secs" | "second" | "seconds" => (&mut micros, SECOND),
            _ => return None,
        };
        *sum = sum.checked_add(number.checked_mul(factor)?)?;
    }
    Some(Parts {
        months: months.try_into().ok()?,
        days: days.try_into().ok()?,
        micros,
    })
}

/// `04:05:06.5`, or without seconds.
fn clock(word: &str) -> Option<i64> {
    let (is_negative, word) = match word.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, word),
    };
    let (time, fraction) = word.split_once('.').unwrap_or((word, ""));
    let mut total = 0_i64;
    let mut parts = time.split(':');
    for unit in [HOUR, MINUTE, SECOND] {
        let Some(part) = parts.next() else {
            break;
        };
        if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        total = total.checked_add(part.parse::<i64>().ok()?.checked_mul(unit)?)?;
    }
    let is_fraction = fraction.len() <= 6 && fraction.bytes().all(|byte| byte.is_ascii_digit());
    if parts.next().is_some() || !is_fraction {
        return None;
    }
    total = total.checked_add(format!("{fraction:0<6}").parse().ok()?)?;
    Some(if is_negative { -total } else { total })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_postgresql_prints_is_read() {
        for (text, months, days, micros) in [
            ("3 days", 0, 3, 0),
            ("1 year 2 mons -3 days", 14, -3, 0),
            (
                "1 mon 3 days 04:05:06.5",
                1,
                3,
                4 * HOUR + 5 * MINUTE + 6_500_000,
            ),
            ("-00:00:01.000001", 0, 0, -1_000_001),
            ("00:30:00", 0, 0, 30 * MINUTE),
            ("2 weeks", 0, 14, 0),
            (
                "36 hours 5 minutes 1s",
                0,
                0,
                36 * HOUR + 5 * MINUTE + SECOND,
            ),
            ("1d 12h", 0, 1, 12 * HOUR),
        ] {
            let parts = Parts {
                months,
                days,
                micros,
            };
            assert_eq!(read(text), Some(parts), "{text}");
        }
    }

    #[test]
    fn what_is_no_interval_is_refused() {
        for text in [
            "",
            " ",
            "3",
            "days",
            "3 dayz",
            "1:2:3:4",
            "12:xx",
            ":",
            "1.5 days",
            "9999999999 days",
            "99999999999999999999 h",
            "00:00:00.1234567",
            "+-3 days",
            "é days",
            "--1:00",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
