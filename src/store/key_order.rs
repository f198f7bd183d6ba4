//! What waits for a URL that keeps the order of each key (`webhook_internal.retry` with keys).
//!
//! The first message of a key that waits has a date, all behind it have none (`infinity`). Rows
//! that another session has locked are passed over and tried again. For the worker, in a
//! transaction.

use super::retries::DueRetry;
use crate::core::messages::order_keys::OrderKeys;
use crate::core::messages::position::MessagePosition;
use crate::core::scheduling::lane::keys::as_stored;
use crate::pg::spi::{Arg, Query, Row};
use statements::{ASK, BLOCKED_KEYS, DUE, FOLLOWING, HOLDING_BACK, RELEASE};

mod statements;

/// What the table says of keys that were asked for.
#[derive(Default)]
pub struct Answer {
    /// Keys that messages wait for.
    pub waited_for: Vec<u64>,
    /// Keys whose first row could not be changed: they are to be asked for again.
    pub locked: Vec<u64>,
    /// Messages are due now.
    pub any_due: bool,
}

/// A row that is due by its date.
pub struct DueByKey {
    pub retry: DueRetry,
    /// It is behind another one, and has no date from now on.
    pub is_behind: bool,
}

/// Kept plans of this file's statements.
pub struct KeyOrderStore {
    blocked_keys: Query,
    ask: Query,
    due: Query,
    following: Query,
    holding_back: Query,
    release: Query,
}

impl KeyOrderStore {
    pub fn new() -> Self {
        Self {
            blocked_keys: Query::new(BLOCKED_KEYS),
            ask: Query::new(ASK),
            due: Query::new(DUE),
            following: Query::new(FOLLOWING),
            holding_back: Query::new(HOLDING_BACK),
            release: Query::new(RELEASE),
        }
    }

    /// Keys that messages wait for, in the table's order, `from` this one on.
    pub fn blocked_keys(&self, url_key: i32, from: i64, most: usize) -> Vec<u64> {
        let mut keys = Vec::new();
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        self.blocked_keys.read(
            &[Arg::I32(url_key), Arg::I64(from), Arg::I64(most)],
            |row| keys.extend(row.i64(0).map(as_read)),
        );
        keys
    }

    /// Has the first message that waits for each of these keys be due.
    pub fn ask(&self, url_key: i32, keys: &[u64]) -> Answer {
        let mut answer = Answer::default();
        if keys.is_empty() {
            return answer;
        }
        let keys: Vec<i64> = keys.iter().copied().map(as_stored).collect();
        self.ask
            .write_returning(&[Arg::I32(url_key), Arg::I64Array(&keys)], |row| {
                let key = row.i64(0).map(as_read);
                let is_locked = row.bool(1) == Some(true);
                answer.waited_for.extend(key);
                answer.locked.extend(key.filter(|_| is_locked));
                answer.any_due |= row.bool(2) == Some(true);
            });
        answer
    }

    /// Retries of these URLs that are due at `now`, at most `of_each` of a URL.
    pub fn due(&self, now: i64, url_keys: &[i32], of_each: usize) -> Vec<DueByKey> {
        let of_each = i64::try_from(of_each).unwrap_or(i64::MAX);
        let mut due = Vec::new();
        let arguments = [
            Arg::Timestamp(Some(now)),
            Arg::I32Array(url_keys),
            Arg::I64(of_each),
        ];
        self.due.write_returning(&arguments, |row| {
            due.push(DueByKey {
                retry: due_retry(row)?,
                is_behind: row.bool(7)?,
            });
            Some(())
        });
        due
    }

    /// What may be sent one after the other once these were, at most `of_each` a key.
    pub fn following(&self, now: i64, heads: &[DueRetry], of_each: usize) -> Vec<DueRetry> {
        let of_each = i64::try_from(of_each).unwrap_or(i64::MAX);
        let by_key = || {
            let of_head = |head| std::iter::repeat(head).zip(keys_of(head));
            heads.iter().flat_map(of_head)
        };
        let urls: Vec<i32> = by_key().map(|(head, _)| head.url_key).collect();
        if urls.is_empty() {
            return Vec::new();
        }
        let keys: Vec<i64> = by_key().map(|(_, key)| as_stored(key)).collect();
        let ids: Vec<i64> = by_key().map(|(head, _)| head.at.id).collect();
        let xids: Vec<u64> = by_key().map(|(head, _)| head.at.xid).collect();
        let mut following = Vec::new();
        self.following.read(
            &[
                Arg::I32Array(&urls),
                Arg::I64Array(&keys),
                Arg::I64Array(&ids),
                Arg::XidArray(&xids),
                Arg::Timestamp(Some(now)),
                Arg::I64(of_each),
            ],
            |row| following.extend(due_retry(row)),
        );
        following
    }

    /// Which of these URLs have messages that wait for others.
    pub fn holding_back(&self, url_keys: &[i32]) -> Vec<i32> {
        let mut found = Vec::new();
        self.holding_back
            .read(&[Arg::I32Array(url_keys)], |row| found.extend(row.i32(0)));
        found
    }

    /// Messages of these URLs do not wait for others any more; gives how many there were, at most
    /// `limit`.
    pub fn release(&self, url_keys: &[i32], limit: i64) -> u64 {
        self.release
            .write(&[Arg::I32Array(url_keys), Arg::I64(limit)])
    }
}

fn keys_of(retry: &DueRetry) -> impl Iterator<Item = u64> {
    retry.keys.iter()
}

/// The first seven columns.
fn due_retry(row: &Row<'_>) -> Option<DueRetry> {
    let key = row.i64(5).map(as_read);
    let keys = key.map(|key| OrderKeys::new(key, row.i64(6).map(as_read)));
    Some(DueRetry {
        url_key: row.i32(0)?,
        at: MessagePosition {
            xid: row.xid(1)?,
            id: row.i64(2)?,
        },
        attempts: row.i32(3)?,
        accepted_at: row.i64(4),
        keys: keys.unwrap_or_default(),
    })
}

fn as_read(stored: i64) -> u64 {
    u64::from_ne_bytes(stored.to_ne_bytes())
}
