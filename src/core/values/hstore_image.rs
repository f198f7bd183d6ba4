//! `hstore` as its extension stores it since version 9.0 of PostgreSQL.
//!
//! Pure. An older or damaged value is `None`; its output function may still print it.

const WORD: usize = 4;
const IS_PRESENT_FORM: u32 = 0x8000_0000;
const COUNT_MASK: u32 = 0x0FFF_FFFF;
/// An entry holds where its text ends; that of the first one starts at 0.
const END_MASK: u32 = 0x3FFF_FFFF;
const IS_NULL: u32 = 0x4000_0000;

/// A key and its value.
pub type Pair<'a> = (&'a [u8], Option<&'a [u8]>);

/// The pairs of a value (its bytes behind the length header), in stored order.
pub fn pairs(image: &[u8]) -> Option<impl Iterator<Item = Option<Pair<'_>>>> {
    let header = word(image, 0)?;
    if header & IS_PRESENT_FORM == 0 {
        return None;
    }
    let count = (header & COUNT_MASK) as usize;
    let texts_at = WORD + count * 2 * WORD;
    let entries = image.get(WORD..texts_at)?;
    let texts = &image[texts_at..];
    let mut start = 0;
    let mut next = move |index: usize| {
        let entry = word(entries, index * WORD)?;
        let end = (entry & END_MASK) as usize;
        let text = texts.get(start..end)?;
        start = end;
        Some((text, entry & IS_NULL != 0))
    };
    Some((0..count).map(move |pair| {
        let (key, _) = next(pair * 2)?;
        let (value, is_null) = next(pair * 2 + 1)?;
        Some((key, (!is_null).then_some(value)))
    }))
}

fn word(image: &[u8], at: usize) -> Option<u32> {
    let bytes = image.get(at..at + WORD)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_come_in_their_order() {
        let words = [IS_PRESENT_FORM | 2, 0x8000_0000 | 1, 3, 5, IS_NULL | 5];
        let mut image: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        image.extend(b"axybc");
        let found: Option<Vec<Pair<'_>>> = pairs(&image).unwrap().collect();
        let wanted: Vec<Pair<'_>> = vec![(b"a", Some(b"xy")), (b"bc", None)];
        assert_eq!(found, Some(wanted));
        image.truncate(image.len() - 1);
        assert!(pairs(&image).unwrap().any(|pair| pair.is_none()));
    }

    #[test]
    fn other_forms_are_told() {
        assert!(pairs(&0u32.to_ne_bytes()).is_none());
        assert!(pairs(b"").is_none());
        let empty = IS_PRESENT_FORM.to_ne_bytes();
        assert_eq!(pairs(&empty).unwrap().count(), 0);
    }
}
