//! The short ids that users see of webhooks and events.
//!
//! Pure: random bytes are an argument. An id is only likely to be new; the caller that
//! stores it checks that it is.

/// Characters of an id.
pub const ID_CHARS: usize = 6;

const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
/// The largest multiple of 36 that a byte can count to. Bytes from here on are thrown
/// away: with them the first characters of the alphabet would come more often.
const UNBIASED_BELOW: u8 = 252;

/// Six characters of `[a-z0-9]`, each equally likely. Takes as many bytes as it needs.
pub fn from_random(random: impl Iterator<Item = u8>) -> Option<String> {
    let id: String = random
        .filter(|byte| *byte < UNBIASED_BELOW)
        .take(ID_CHARS)
        .map(|byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()]))
        .collect();
    (id.len() == ID_CHARS).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_six_characters_of_the_alphabet() {
        assert_eq!(
            from_random([0, 25, 26, 35, 36, 251].into_iter()).as_deref(),
            Some("az09a9")
        );
    }

    #[test]
    fn biased_bytes_are_skipped_and_too_few_give_nothing() {
        assert_eq!(
            from_random([252, 255, 1, 2, 3, 4, 5, 6, 7].into_iter()).as_deref(),
            Some("bcdefg")
        );
        assert_eq!(from_random([1, 2, 3, 4, 5, 255].into_iter()), None);
    }

    #[test]
    fn every_character_comes_from_equally_many_bytes() {
        let mut seen = [0; 36];
        for byte in 0..UNBIASED_BELOW {
            seen[usize::from(byte) % 36] += 1;
        }
        assert!(seen.iter().all(|count| *count == 7));
    }
}
