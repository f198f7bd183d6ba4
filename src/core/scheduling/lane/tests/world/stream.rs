//! Sessions that change rows at the same time, as PostgreSQL lets them.
//!
//! A change locks its row until its transaction has ended. Ids are drawn per flush
//! while the locks are held, in another order than transactions begin and commit. A
//! snapshot sees what had committed.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::core::messages::order_keys::OrderKeys;
use crate::core::messages::position::{Cursor, MessagePosition, END_OF_WINDOW};
use crate::core::messages::snapshot::Snapshot;

pub const SESSIONS: usize = 4;
pub const ROWS: usize = 6;
/// Rows from here on belong to another webhook: the tail reads them, the lane does not.
const FOREIGN: usize = 4;
/// As the outbox counts places within a flush.
const FLUSH_BITS: u32 = 20;
/// Rows share keys, and a row gets another one now and then.
const KEYS: u64 = 3;
const VERSIONS_WITH_A_KEY: u32 = 3;

/// A committed change.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    pub at: MessagePosition,
    row: usize,
    version: u32,
    /// When its transaction began and committed, in steps of the stream.
    began: u64,
    committed: u64,
}

impl Change {
    pub fn is_ours(&self) -> bool {
        self.row < FOREIGN
    }

    /// The key of its row before the change, and after it.
    pub fn keys(&self) -> OrderKeys {
        let key = |version| (self.row as u64 + u64::from(version / VERSIONS_WITH_A_KEY)) % KEYS;
        OrderKeys::new(key(self.version - 1), Some(key(self.version)))
    }

    pub fn shares_a_key_with(&self, other: &Self) -> bool {
        let mut keys = self.keys().iter();
        keys.any(|key| other.keys().iter().any(|other| other == key))
    }

    /// Whether `later` must not arrive before this one: it is of the same row or the same
    /// transaction, or its transaction began when this one had committed.
    pub fn precedes(&self, later: &Self) -> bool {
        let same_row = self.row == later.row && self.version < later.version;
        let same_transaction = self.at.xid == later.at.xid && self.at.id < later.at.id;
        same_row || same_transaction || self.committed < later.began
    }
}

struct Transaction {
    xid: u64,
    began: u64,
    /// Not flushed yet: row and version.
    buffered: Vec<(usize, u32)>,
    flushed: Vec<(i64, usize, u32)>,
}

/// See the module.
#[derive(Default)]
pub struct Stream {
    steps: u64,
    xids: u64,
    flushes: i64,
    sessions: [Option<Transaction>; SESSIONS],
    /// The session that has locked a row.
    locks: [Option<usize>; ROWS],
    /// The newest committed version of each row.
    versions: [u32; ROWS],
    pub committed: Vec<Change>,
    places: BTreeMap<MessagePosition, usize>,
}

impl Stream {
    pub fn change(&mut self, session: usize, row: usize) {
        self.steps += 1;
        if self.locks[row].is_some_and(|holder| holder != session) {
            return;
        }
        self.locks[row] = Some(session);
        let newest = self.versions[row];
        let (xids, steps) = (&mut self.xids, self.steps);
        let transaction = self.sessions[session].get_or_insert_with(|| {
            *xids += 1;
            Transaction {
                xid: *xids,
                began: steps,
                buffered: Vec::new(),
                flushed: Vec::new(),
            }
        });
        let own = transaction.own_version(row);
        let version = own.unwrap_or(newest) + 1;
        transaction.buffered.push((row, version));
    }

    /// What is buffered gets its ids; a large transaction does so more than once.
    pub fn flush(&mut self, session: usize) {
        let Some(transaction) = &mut self.sessions[session] else {
            return;
        };
        if transaction.buffered.is_empty() {
            return;
        }
        self.flushes += 1;
        let first = self.flushes << FLUSH_BITS;
        let ids = first..;
        let buffered = transaction.buffered.drain(..);
        let flushed = ids
            .zip(buffered)
            .map(|(id, (row, version))| (id, row, version));
        transaction.flushed.extend(flushed);
    }

    /// Flushes, too, unless everything has been.
    pub fn commit(&mut self, session: usize) {
        self.flush(session);
        self.steps += 1;
        let Some(transaction) = self.sessions[session].take() else {
            return;
        };
        for (id, row, version) in transaction.flushed {
            let at = MessagePosition {
                xid: transaction.xid,
                id,
            };
            self.versions[row] = self.versions[row].max(version);
            self.places.insert(at, self.committed.len());
            self.committed.push(Change {
                at,
                row,
                version,
                began: transaction.began,
                committed: self.steps,
            });
        }
        self.unlock(session);
    }

    pub fn abort(&mut self, session: usize) {
        self.sessions[session] = None;
        self.unlock(session);
    }

    fn unlock(&mut self, session: usize) {
        for lock in &mut self.locks {
            if *lock == Some(session) {
                *lock = None;
            }
        }
    }

    pub fn place(&self, at: MessagePosition) -> usize {
        self.places[&at]
    }

    pub fn is_ours(&self, at: MessagePosition) -> bool {
        self.committed[self.place(at)].is_ours()
    }

    pub fn keys(&self, at: MessagePosition) -> OrderKeys {
        self.committed[self.place(at)].keys()
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        let mut running: Vec<u64> = self.sessions.iter().flatten().map(|t| t.xid).collect();
        running.sort_unstable();
        let xmax = self.xids + 1;
        Arc::new(Snapshot {
            xmin: running.first().copied().unwrap_or(xmax),
            xmax,
            running,
        })
    }

    /// The next `size` messages of a window, sorted by id, and where they end.
    pub fn page(
        &self,
        position: &Cursor,
        size: usize,
        ours_alone: bool,
    ) -> (Vec<MessagePosition>, Cursor) {
        let window = &position.window;
        let is_new = |at: &MessagePosition| sees(&window.to, at.xid) && !sees(&window.from, at.xid);
        let mut page: Vec<MessagePosition> = self
            .committed
            .iter()
            .filter(|change| !ours_alone || change.is_ours())
            .map(|change| change.at)
            .filter(|at| is_new(at) && at.id > position.id)
            .collect();
        page.sort_unstable_by_key(|at| at.id);
        let is_cut = page.len() > size;
        page.truncate(size);
        let id = match page.last() {
            Some(last) if is_cut => last.id,
            _ => END_OF_WINDOW,
        };
        let end = Cursor {
            window: Arc::clone(window),
            id,
        };
        (page, end)
    }
}

impl Transaction {
    fn own_version(&self, wanted: usize) -> Option<u32> {
        let flushed = self.flushed.iter().map(|(_, row, version)| (row, version));
        let buffered = self.buffered.iter().map(|(row, version)| (row, version));
        flushed
            .chain(buffered)
            .filter(|(row, _)| **row == wanted)
            .map(|(_, version)| *version)
            .max()
    }
}

fn sees(snapshot: &Snapshot, xid: u64) -> bool {
    xid < snapshot.xmax && !snapshot.running.contains(&xid)
}
