//! Snapshots: which transactions had ended at one moment.
//!
//! The messages between two snapshots are the rows of transactions that the
//! later one sees and the earlier one does not. Each committed row lies between
//! exactly one pair of a chain of snapshots, whatever order commits come in.

use std::fmt;
use std::str::FromStr;

/// A PostgreSQL snapshot with full (64-bit) transaction ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Every id below has ended.
    pub xmin: u64,
    /// No id from here on had ended.
    pub xmax: u64,
    /// The ids between that had not ended, ascending.
    pub running: Vec<u64>,
}

/// PostgreSQL's text form `xmin:xmax:xid,xid,…`.
impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:", self.xmin, self.xmax)?;
        for (i, xid) in self.running.iter().enumerate() {
            write!(f, "{}{xid}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl FromStr for Snapshot {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("not a snapshot: {text}");
        let mut parts = text.splitn(3, ':');
        let mut number = || parts.next()?.parse().ok();
        let (xmin, xmax) = (number().ok_or_else(bad)?, number().ok_or_else(bad)?);
        let running = parts
            .next()
            .ok_or_else(bad)?
            .split(',')
            .filter(|item| !item.is_empty())
            .map(str::parse)
            .collect::<Result<Vec<u64>, _>>()
            .map_err(|_| bad())?;
        Ok(Self {
            xmin,
            xmax,
            running,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips() {
        for text in ["3:3:", "10:20:10,14,19"] {
            assert_eq!(text.parse::<Snapshot>().unwrap().to_string(), text);
        }
        assert!("10".parse::<Snapshot>().is_err());
        assert!("10:20:x".parse::<Snapshot>().is_err());
    }
}
