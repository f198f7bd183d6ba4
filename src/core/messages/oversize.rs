//! A message that is larger than `webhook.max_message_size`, as capture leaves it in the outbox.
//!
//! It has no record. The list of changed fields, a JSON array, is replaced by an
//! object with its size as far as it is known and the limit of that moment.

use serde::{Deserialize, Serialize};

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Oversize {
    pub at_least_bytes: u64,
    pub limit_bytes: u64,
}

impl Oversize {
    /// As the outbox holds it.
    pub fn to_stored(self) -> String {
        serde_json::to_string(&self).expect("two numbers have a JSON form")
    }

    /// The text stored in place of the list of changed fields when there is no record.
    pub fn from_stored(stored: &str) -> Option<Self> {
        serde_json::from_str(stored).ok()
    }

    /// Why the message is not sent.
    pub fn detail(self) -> String {
        format!(
            "the message has at least {} bytes, webhook.max_message_size allows {}",
            self.at_least_bytes, self.limit_bytes
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_read_again_and_nothing_else_is() {
        let oversize = Oversize {
            at_least_bytes: 1_140_000_000,
            limit_bytes: 10_485_760,
        };
        let stored = oversize.to_stored();
        assert_eq!(
            stored,
            r#"{"at_least_bytes":1140000000,"limit_bytes":10485760}"#
        );
        assert_eq!(Oversize::from_stored(&stored), Some(oversize));
        for other in [
            "",
            "[]",
            r#"["at_least_bytes"]"#,
            "{}",
            r#"{"at_least_bytes":1}"#,
        ] {
            assert_eq!(Oversize::from_stored(other), None, "{other}");
        }
    }
}
