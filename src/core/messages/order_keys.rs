//! The keys of a message whose webhook keeps the order of each key.
//!
//! Capture hashes the values of the event's key columns and writes the hashes in front of the list
//! of changed fields: the outbox tables keep the columns of the first release, because sessions
//! that have an older library loaded go on writing them. `k`, one or two hashes of 16 hexadecimal
//! digits, a colon, and then what the column holds otherwise. An update that changes the key has
//! two: it comes after earlier changes of both. Two keys with the same hash are kept in order
//! although they need not be, which costs time and nothing else.

/// See the module. None: the message is not ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct OrderKeys {
    first: Option<u64>,
    second: Option<u64>,
}

const MARK: char = 'k';
const END: char = ':';
const DIGITS: usize = 16;
/// Bytes of the longest prefix.
pub const PREFIX_AT_MOST: usize = 2 * DIGITS + 2;

impl OrderKeys {
    /// The key before and after a change; equal ones are one.
    pub fn new(key: u64, other: Option<u64>) -> Self {
        Self {
            first: Some(key),
            second: other.filter(|other| *other != key),
        }
    }

    pub fn iter(self) -> impl Iterator<Item = u64> {
        self.first.into_iter().chain(self.second)
    }

    pub fn is_empty(self) -> bool {
        self.first.is_none()
    }

    /// Appends what stands before the list of changed fields.
    pub fn push_prefix(self, out: &mut Vec<u8>) {
        if self.is_empty() {
            return;
        }
        out.push(MARK as u8);
        for key in self.iter() {
            out.extend_from_slice(format!("{key:016x}").as_bytes());
        }
        out.push(END as u8);
    }

    /// The keys of a stored text, and what follows them. A text without keys is all rest, and so
    /// is one that was damaged.
    pub fn split(stored: &str) -> (Self, &str) {
        Self::read(stored).unwrap_or((Self::default(), stored))
    }

    fn read(stored: &str) -> Option<(Self, &str)> {
        let (digits, rest) = stored.strip_prefix(MARK)?.split_once(END)?;
        let key = |digits: &str| {
            let are_digits = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            u64::from_str_radix(digits, 16).ok().filter(|_| are_digits)
        };
        let keys = match digits.len() {
            DIGITS => Self::new(key(digits)?, None),
            length if length == 2 * DIGITS => {
                let (first, second) = digits.split_at_checked(DIGITS)?;
                Self::new(key(first)?, Some(key(second)?))
            }
            _ => return None,
        };
        Some((keys, rest))
    }
}

/// What stands for NULL among the hashes of values.
const NULL: u64 = 0x9e37_79b9_7f4a_7c15;

/// Combines the hashes of a key's values, in the order of the columns. Keys of two tables differ,
/// so that a URL that gets both does not make one wait for the other.
#[derive(Clone, Copy, Debug)]
pub struct KeyHash(u64);

impl KeyHash {
    /// The key of every row, as long as no value is added.
    pub fn of_table(table: u32) -> Self {
        Self(mix(u64::from(table)))
    }

    /// The next value's hash; `None` is NULL.
    pub fn add(&mut self, value: Option<u64>) {
        self.0 = mix(self.0 ^ value.unwrap_or(NULL)).wrapping_add(1);
    }

    pub fn finish(self) -> u64 {
        self.0
    }
}

/// Each bit of the result depends on each bit of `value` (the finalizer of MurmurHash3).
fn mix(mut value: u64) -> u64 {
    value ^= value >> 33;
    value = value.wrapping_mul(0xff51_afd7_ed55_8ccd);
    value ^= value >> 33;
    value = value.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    value ^ (value >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(table: u32, values: &[Option<u64>]) -> u64 {
        let mut hash = KeyHash::of_table(table);
        values.iter().for_each(|value| hash.add(*value));
        hash.finish()
    }

    #[test]
    fn table_values_and_their_order_make_the_hash() {
        let keys = [
            hash(1, &[]),
            hash(2, &[]),
            hash(1, &[None]),
            hash(1, &[Some(0)]),
            hash(2, &[Some(0)]),
            hash(1, &[Some(1)]),
            hash(1, &[Some(0), Some(1)]),
            hash(1, &[Some(1), Some(0)]),
            hash(1, &[Some(1), None]),
            hash(1, &[None, None]),
        ];
        let different: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(different.len(), keys.len());
        assert_eq!(hash(7, &[Some(5), None]), hash(7, &[Some(5), None]));
    }

    #[test]
    fn what_is_stored_is_read_again() {
        for (keys, prefix) in [
            (OrderKeys::default(), ""),
            (OrderKeys::new(1, None), "k0000000000000001:"),
            (OrderKeys::new(1, Some(1)), "k0000000000000001:"),
            (
                OrderKeys::new(u64::MAX, Some(0)),
                "kffffffffffffffff0000000000000000:",
            ),
        ] {
            for rest in ["", r#"["a","k:b"]"#, r#"{"at_least_bytes":1}"#] {
                let mut stored = Vec::new();
                keys.push_prefix(&mut stored);
                assert!(stored.len() <= PREFIX_AT_MOST);
                stored.extend_from_slice(rest.as_bytes());
                let stored = String::from_utf8(stored).unwrap();
                assert_eq!(stored, format!("{prefix}{rest}"));
                assert_eq!(OrderKeys::split(&stored), (keys, rest));
            }
        }
    }

    #[test]
    fn a_damaged_prefix_is_no_prefix() {
        for stored in [
            "k",
            "k:",
            "k123:",
            "k+000000000000001:[]",
            "k000000000000000ä:",
            "kffffffffffffffff000000000000000ä:",
            "k0000000000000001[]",
        ] {
            assert_eq!(OrderKeys::split(stored), (OrderKeys::default(), stored));
        }
    }
}
