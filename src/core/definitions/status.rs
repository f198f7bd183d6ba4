//! What has become of a message, where that is an argument. Pure.

use super::webhook::shown;
use crate::core::error::{Error, Result};

pub const FAILED: &str = "failed";
/// Of messages for which nothing is due.
pub const ENDED: [&str; 3] = [FAILED, "delivered", "canceled"];

/// # Errors
/// `22023` if the list is empty or has another word.
pub fn ended(words: &[Option<String>]) -> Result<Vec<&'static str>> {
    let hint = "list some of failed, delivered and canceled; what is pending is sent anyway";
    if words.is_empty() {
        return Err(Error::invalid("status is empty").with_hint(hint));
    }
    let mut statuses = Vec::new();
    for word in words {
        let word = word.as_deref().unwrap_or("null");
        let Some(known) = ENDED.iter().find(|known| **known == word) else {
            return Err(Error::invalid(format!(
                "status \"{}\" is not one of failed, delivered, canceled",
                shown(word)
            ))
            .with_hint(hint));
        };
        if !statuses.contains(known) {
            statuses.push(*known);
        }
    }
    Ok(statuses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_statuses_of_messages_that_have_ended_are_taken_and_each_once() {
        let given = |words: &[&str]| -> Vec<Option<String>> {
            words.iter().map(|word| Some((*word).to_owned())).collect()
        };
        assert_eq!(
            ended(&given(&["delivered", "failed", "delivered"])).unwrap(),
            ["delivered", "failed"]
        );
        for wrong in [
            given(&[]),
            given(&["pending"]),
            given(&["Failed"]),
            vec![None],
        ] {
            assert!(ended(&wrong).is_err(), "{wrong:?}");
        }
    }
}
