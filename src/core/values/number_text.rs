//! `numeric` and `money` as JSON numbers, from PostgreSQL's binary values.
//!
//! Pure: no locale and no setting takes part, every digit is kept, trailing zeros
//! included. It never fails; what is no number (NaN, the infinities) is `None`.

use super::json_text::{push_padded, push_u64};

/// A `numeric` holds its digits in base 10,000, four decimal digits each.
const DECIMALS_PER_DIGIT: usize = 4;

/// The sign bits of the header word; two of their four values stand for a form.
const SIGN_MASK: u16 = 0xC000;
const SIGN_NEGATIVE: u16 = 0x4000;
const FORM_SHORT: u16 = 0x8000;
const FORM_SPECIAL: u16 = 0xC000;

/// Long form: the scale beside the sign, the weight in a word of its own.
const LONG_SCALE_MASK: u16 = 0x3FFF;
/// Short form: everything in the one header word.
const SHORT_SIGN_MASK: u16 = 0x2000;
const SHORT_SCALE_MASK: u16 = 0x1F80;
const SHORT_SCALE_SHIFT: u16 = 7;
const SHORT_WEIGHT_SIGN: u16 = 0x0040;
const SHORT_WEIGHT_MASK: u16 = 0x003F;

const LARGEST_DIGIT: u16 = 9_999;

/// A `numeric` taken apart. `weight` is the power of 10,000 of the first digit;
/// `scale` counts the decimals to show.
struct Numeric<'a> {
    negative: bool,
    weight: i32,
    scale: usize,
    digits: &'a [u8],
}

impl<'a> Numeric<'a> {
    /// `None` for NaN and the infinities (and for less than a header, which
    /// PostgreSQL does not store).
    fn parse(image: &'a [u8]) -> Option<Self> {
        let header = word(image, 0)?;
        match header & SIGN_MASK {
            FORM_SPECIAL => None,
            FORM_SHORT => {
                let magnitude = i32::from(header & SHORT_WEIGHT_MASK);
                let below_zero = header & SHORT_WEIGHT_SIGN != 0;
                Some(Self {
                    negative: header & SHORT_SIGN_MASK != 0,
                    weight: if below_zero {
                        magnitude - 64
                    } else {
                        magnitude
                    },
                    scale: usize::from((header & SHORT_SCALE_MASK) >> SHORT_SCALE_SHIFT),
                    digits: &image[2..],
                })
            }
            sign => Some(Self {
                negative: sign == SIGN_NEGATIVE,
                weight: i32::from(word(image, 1)? as i16),
                scale: usize::from(header & LONG_SCALE_MASK),
                digits: &image[4..],
            }),
        }
    }

    /// The base-10,000 digit at a place; places without a stored digit are zero. One of a damaged
    /// value may be larger, but must not need more room.
    fn digit(&self, place: i32) -> u64 {
        let stored = usize::try_from(place)
            .ok()
            .and_then(|place| word(self.digits, place));
        u64::from(stored.unwrap_or(0).min(LARGEST_DIGIT))
    }
}

fn word(image: &[u8], index: usize) -> Option<u16> {
    let bytes = image.get(index * 2..index * 2 + 2)?;
    Some(u16::from_ne_bytes([bytes[0], bytes[1]]))
}

/// At least as many bytes as [`push_numeric`] needs on its way for this value.
pub fn numeric_room(image: &[u8]) -> usize {
    const SIGN_AND_POINT: usize = 2;
    Numeric::parse(image).map_or(0, |numeric| {
        let digits = numeric.weight.max(0) as usize + 1;
        SIGN_AND_POINT + (digits + 1) * DECIMALS_PER_DIGIT + numeric.scale
    })
}

/// Appends the `numeric` whose binary value, without its length header, is
/// `image`. Answers false, and appends nothing, where it is NaN or infinite.
#[must_use]
pub fn push_numeric(out: &mut Vec<u8>, image: &[u8]) -> bool {
    let Some(numeric) = Numeric::parse(image) else {
        return false;
    };
    if numeric.negative {
        out.push(b'-');
    }
    push_integer_part(out, &numeric);
    if numeric.scale > 0 {
        out.push(b'.');
        push_decimals(out, &numeric);
    }
    true
}

fn push_integer_part(out: &mut Vec<u8>, numeric: &Numeric<'_>) {
    if numeric.weight < 0 {
        out.push(b'0');
        return;
    }
    push_u64(out, numeric.digit(0));
    for place in 1..=numeric.weight {
        push_padded(out, numeric.digit(place), DECIMALS_PER_DIGIT);
    }
}

fn push_decimals(out: &mut Vec<u8>, numeric: &Numeric<'_>) {
    let end = out.len() + numeric.scale;
    let mut place = numeric.weight + 1;
    while out.len() < end {
        push_padded(out, numeric.digit(place), DECIMALS_PER_DIGIT);
        place += 1;
    }
    out.truncate(end);
}

/// Appends an amount of `money` in its smallest unit as a number with `decimals`
/// decimals: `1234` is `12.34`.
pub fn push_money(out: &mut Vec<u8>, amount: i64, decimals: u8) {
    if amount < 0 {
        out.push(b'-');
    }
    let unit = 10u64.pow(u32::from(decimals));
    push_u64(out, amount.unsigned_abs() / unit);
    if decimals > 0 {
        out.push(b'.');
        push_padded(out, amount.unsigned_abs() % unit, usize::from(decimals));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn image(header: &[u16], digits: &[u16]) -> Vec<u8> {
        header
            .iter()
            .chain(digits)
            .flat_map(|word| word.to_ne_bytes())
            .collect()
    }

    fn short(negative: bool, weight: i16, scale: u16, digits: &[u16]) -> Vec<u8> {
        let sign = if negative { SHORT_SIGN_MASK } else { 0 };
        let weight = (weight as u16) & (SHORT_WEIGHT_MASK | SHORT_WEIGHT_SIGN);
        image(
            &[FORM_SHORT | sign | (scale << SHORT_SCALE_SHIFT) | weight],
            digits,
        )
    }

    fn long(negative: bool, weight: i16, scale: u16, digits: &[u16]) -> Vec<u8> {
        let sign = if negative { SIGN_NEGATIVE } else { 0 };
        image(&[sign | scale, weight as u16], digits)
    }

    fn text(image: &[u8]) -> Option<String> {
        let mut out = Vec::new();
        push_numeric(&mut out, image).then(|| String::from_utf8(out).expect("digits"))
    }

    #[test]
    fn both_stored_forms_give_every_digit() {
        type Form = fn(bool, i16, u16, &[u16]) -> Vec<u8>;
        for form in [short as Form, long as Form] {
            let cases = [
                (form(false, 0, 2, &[123, 5000]), "123.50"),
                (form(true, 0, 2, &[123, 5000]), "-123.50"),
                (form(false, 0, 0, &[]), "0"),
                (form(false, 0, 3, &[]), "0.000"),
                (form(false, 1, 0, &[1]), "10000"),
                (form(false, 2, 0, &[1, 2, 3]), "100020003"),
                (form(false, -1, 4, &[5]), "0.0005"),
                (form(false, -2, 7, &[1230]), "0.0000123"),
                (form(true, -1, 1, &[5000]), "-0.5"),
                (form(false, -1, 5, &[9999, 9000]), "0.99999"),
            ];
            for (stored, expected) in cases {
                assert_eq!(text(&stored).as_deref(), Some(expected));
            }
        }
    }

    #[test]
    fn what_is_no_number_writes_nothing() {
        for header in [0xC000u16, 0xD000, 0xF000] {
            assert_eq!(text(&header.to_ne_bytes()), None);
        }
        assert_eq!(text(&[]), None);
    }

    #[test]
    fn money_has_the_decimals_of_its_currency() {
        let cases = [
            (1234, 2, "12.34"),
            (-5, 2, "-0.05"),
            (1234, 0, "1234"),
            (i64::MIN, 2, "-92233720368547758.08"),
            (1005, 3, "1.005"),
        ];
        for (amount, decimals, expected) in cases {
            let mut out = Vec::new();
            push_money(&mut out, amount, decimals);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    proptest! {
        #[test]
        fn any_stored_number_is_a_json_number(
            negative in any::<bool>(), weight in -40i16..40, scale in 0u16..50,
            first in 1u16..10_000, rest in proptest::collection::vec(0u16..10_000, 0..8),
        ) {
            let mut digits = vec![first];
            digits.extend(rest);
            let stored = short(negative, weight, scale, &digits);
            let written = text(&stored).expect("a finite number");
            prop_assert!(crate::core::values::json_text::is_json_number(written.as_bytes()), "{}", written);
            prop_assert!(written.len() <= numeric_room(&stored));
            prop_assert_eq!(text(&long(negative, weight, scale, &digits)), Some(written));
        }

        #[test]
        fn no_bytes_make_it_panic(stored in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut out = Vec::new();
            let _ = push_numeric(&mut out, &stored);
        }
    }
}
