//! Snapshots: which transactions had ended at one moment.
//!
//! The messages between two snapshots are the rows of transactions that the
//! later one sees and the earlier one does not. Each committed row lies between
//! exactly one pair of a chain of snapshots, whatever order commits come in.

use std::fmt;
use std::str::FromStr;

/// A 32-bit transaction id with its epoch: the nearest one to `next`, which ids in use are
/// within 2^31 of. One that was assigned after `next` was read is above it.
pub fn full_xid(xid: u32, next: u64) -> u64 {
    let low = u32::try_from(next & u64::from(u32::MAX)).unwrap_or(0);
    let ahead = xid.wrapping_sub(low).cast_signed();
    next.saturating_add_signed(i64::from(ahead))
}

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

impl Snapshot {
    /// PostgreSQL may list an id twice: while PREPARE TRANSACTION waits for a standby, the
    /// session and the prepared transaction both stand for it.
    pub fn new(xmin: u64, xmax: u64, mut running: Vec<u64>) -> Self {
        running.sort_unstable();
        running.dedup();
        Self {
            xmin,
            xmax,
            running,
        }
    }

    /// Whether what this transaction did is visible, provided that it committed.
    pub fn sees(&self, xid: u64) -> bool {
        xid < self.xmin || (xid < self.xmax && !self.running.contains(&xid))
    }

    /// Whether `later` sees all that this one does.
    pub fn is_within(&self, later: &Self) -> bool {
        let gone = |xid: &u64| *xid >= self.xmax || self.running.contains(xid);
        self.xmax <= later.xmax && later.running.iter().all(gone)
    }
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
        Ok(Self::new(xmin, xmax, running))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_the_epoch_of_the_nearest_one() {
        let epoch = 1_u64 << 32;
        for (xid, next, expected) in [
            (700, 701, 700),
            (701, 701, 701),
            // Assigned after the next id was read, in the first epoch and at its end.
            (705, 701, 705),
            (3, epoch - 1, epoch + 3),
            (u32::MAX - 1, epoch + 5, epoch - 2),
            (9, epoch + 5, epoch + 9),
        ] {
            assert_eq!(full_xid(xid, next), expected, "{xid} next to {next}");
        }
    }

    #[test]
    fn text_form_round_trips() {
        for text in ["3:3:", "10:20:10,14,19"] {
            assert_eq!(text.parse::<Snapshot>().unwrap().to_string(), text);
        }
        assert!("10".parse::<Snapshot>().is_err());
        assert!("10:20:x".parse::<Snapshot>().is_err());
    }

    #[test]
    fn an_id_that_is_listed_twice_counts_once() {
        let text: Snapshot = "10:20:10,14,14,19".parse().unwrap();
        assert_eq!(text.running, [10, 14, 19]);
        assert_eq!(Snapshot::new(10, 20, vec![19, 14, 10, 14, 19]), text);
    }

    #[test]
    fn a_snapshot_sees_what_had_ended() {
        let snapshot: Snapshot = "10:20:10,14".parse().unwrap();
        let seen: Vec<u64> = (8..22).filter(|xid| snapshot.sees(*xid)).collect();
        assert_eq!(seen, [8, 9, 11, 12, 13, 15, 16, 17, 18, 19]);
    }

    #[test]
    fn an_earlier_snapshot_lies_within_a_later_one() {
        let earlier: Snapshot = "10:20:10,14".parse().unwrap();
        for later in ["10:20:10,14", "14:20:14", "14:25:14,22", "25:25:"] {
            let later = later.parse().unwrap();
            assert!(earlier.is_within(&later), "{later}");
        }
        for other in ["10:19:10,14", "10:20:10,12,14", "8:30:8"] {
            let other = other.parse().unwrap();
            assert!(!earlier.is_within(&other), "{other}");
        }
    }
}
