//! "Did you mean": the known name that is nearest to a mistyped one.
//!
//! Pure, and only for hints: it may find nothing.

/// Known names are shorter; the comparison takes time with the length of both.
const LONGEST_NAME_BYTES: usize = 200;

/// The candidate with the fewest edits, if they are few for the length of the name.
pub fn nearest<'a>(wanted: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if wanted.len() > LONGEST_NAME_BYTES {
        return None;
    }
    let wanted: Vec<char> = wanted.to_lowercase().chars().collect();
    // Up to a third of the name may be mistyped; of a short one a single character.
    let limit = (wanted.len() / 3).max(1);
    candidates
        .into_iter()
        .map(|name| (distance(&wanted, &name.to_lowercase()), name))
        .filter(|(edits, _)| *edits <= limit)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, name)| name)
}

/// Damerau–Levenshtein distance (optimal string alignment): characters added, left
/// out, replaced, or swapped with their neighbour.
fn distance(a: &[char], b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(above[j] + 1).min(row[j - 1] + 1);
            let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if swapped {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [&str; 4] = ["id", "first_name", "last_name", "balance"];

    #[test]
    fn a_typo_finds_its_column() {
        assert_eq!(nearest("frist_name", COLUMNS), Some("first_name"));
        assert_eq!(nearest("Balance", COLUMNS), Some("balance"));
        assert_eq!(nearest("lastname", COLUMNS), Some("last_name"));
    }

    #[test]
    fn a_different_word_finds_nothing() {
        assert_eq!(nearest("telephone", COLUMNS), None);
        assert_eq!(nearest("xy", COLUMNS), None);
        assert_eq!(nearest("id", []), None);
    }

    #[test]
    fn distances() {
        let chars = |s: &str| s.chars().collect::<Vec<_>>();
        assert_eq!(distance(&chars("kitten"), "sitting"), 3);
        assert_eq!(distance(&chars("ab"), "ba"), 1);
        assert_eq!(distance(&chars(""), "abc"), 3);
    }
}
