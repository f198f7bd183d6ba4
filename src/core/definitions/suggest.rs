//! "Did you mean": suggests the known name that is closest to a mistyped one.
//!
//! Pure, and for hints only: it may suggest nothing.

/// Known names are shorter; the comparison takes time proportional to the product of both lengths.
const LONGEST_NAME_BYTES: usize = 200;

/// The candidate with the smallest edit distance, if that is small for the length of the name.
/// Adding, removing or replacing a character, or swapping two neighbours, is one edit.
pub fn suggest<'a>(wanted: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if wanted.len() > LONGEST_NAME_BYTES {
        return None;
    }
    let wanted = wanted.to_lowercase();
    // A third of the characters may differ; in a short name, one.
    let limit = (wanted.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|name| (strsim::osa_distance(&wanted, &name.to_lowercase()), name))
        .filter(|(edits, _)| *edits <= limit)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [&str; 4] = ["id", "first_name", "last_name", "balance"];

    #[test]
    fn a_typo_finds_its_column() {
        assert_eq!(suggest("frist_name", COLUMNS), Some("first_name"));
        assert_eq!(suggest("Balance", COLUMNS), Some("balance"));
        assert_eq!(suggest("lastname", COLUMNS), Some("last_name"));
    }

    #[test]
    fn a_different_word_finds_nothing() {
        assert_eq!(suggest("telephone", COLUMNS), None);
        assert_eq!(suggest("xy", COLUMNS), None);
        assert_eq!(suggest("id", []), None);
    }
}
