//! The indexes of an outbox table, and which entries they need.
//!
//! The extension's own are over columns of which a flush has the values at hand, so no slot and
//! no executor is needed to fill them. A minmax BRIN index takes from a row no more than the
//! least and the greatest value of its range of blocks: of a page of rows it is given the
//! extremes. Whatever else an administrator has added is filled by PostgreSQL's own routine.

use pgrx::pg_sys;

use super::tuple::{Keys, KEY_COLUMNS};

/// Opclass families of minmax BRIN indexes (pg_opfamily.dat).
const DATETIME_MINMAX: u32 = 4059;
const UUID_MINMAX: u32 = 4081;
/// BRIN's oid in pg_am.dat.
const BRIN: u32 = 3580;
/// More indexes than this are left to PostgreSQL's own routine.
const AT_MOST: usize = 4;
/// Places in [`Keys`].
const MESSAGE_ID: usize = 2;
const CAPTURED_AT: usize = 5;

/// An index that is filled from [`Keys`].
#[derive(Clone, Copy)]
pub(super) struct KeyIndex {
    pub relation: pg_sys::Relation,
    pub info: *mut pg_sys::IndexInfo,
    /// The place in [`Keys`] of each of its columns.
    places: [usize; KEY_COLUMNS],
    /// Whether the extremes of a block are enough.
    pub extremes_only: bool,
    pub check_unique: pg_sys::IndexUniqueCheck::Type,
}

impl KeyIndex {
    /// The values of one entry.
    pub fn values(&self, keys: &Keys) -> Keys {
        self.places.map(|place| keys[place])
    }
}

/// How the indexes of an open table are filled.
pub(super) struct IndexPlan {
    indexes: [Option<KeyIndex>; AT_MOST],
}

impl IndexPlan {
    /// `None`: there is one that needs more than [`Keys`].
    ///
    /// # Safety
    /// `open` are the open indexes of the open table, and can be filled from its columns alone.
    pub unsafe fn of(open: pg_sys::CatalogIndexState) -> Option<Self> {
        let mut plan = Self {
            indexes: [None; AT_MOST],
        };
        // SAFETY: as the caller promises; both arrays have as many elements as there are indexes.
        unsafe {
            for place in 0..(*open).ri_NumIndices as usize {
                let relation = *(*open).ri_IndexRelationDescs.add(place);
                let info = *(*open).ri_IndexRelationInfo.add(place);
                // One that is not ready is not filled.
                if (*info).ii_ReadyForInserts {
                    *plan.indexes.get_mut(place)? = Some(key_index(relation, info)?);
                }
            }
        }
        Some(plan)
    }

    pub fn iter(&self) -> impl Iterator<Item = &KeyIndex> {
        self.indexes.iter().flatten()
    }
}

/// # Safety
/// `info` describes the open index `relation`.
unsafe fn key_index(relation: pg_sys::Relation, info: *mut pg_sys::IndexInfo) -> Option<KeyIndex> {
    let mut places = [0; KEY_COLUMNS];
    // SAFETY: as the caller promises; each column of an index has an opclass family.
    unsafe {
        let columns = usize::try_from((*info).ii_NumIndexAttrs).ok()?;
        for column in 0..columns {
            let number = (*info).ii_IndexAttrNumbers[column];
            let place = usize::try_from(number).ok()?.checked_sub(1)?;
            *places.get_mut(column)? = (place < KEY_COLUMNS).then_some(place)?;
        }
        let keys = usize::try_from((*info).ii_NumIndexKeyAttrs).ok()?;
        let mut families = (0..keys).map(|column| (*(*relation).rd_opfamily.add(column)).to_u32());
        let is_brin = (*(*relation).rd_rel).relam.to_u32() == BRIN;
        Some(KeyIndex {
            relation,
            info,
            places,
            extremes_only: is_brin
                && families.all(|family| matches!(family, DATETIME_MINMAX | UUID_MINMAX)),
            check_unique: if (*(*relation).rd_index).indisunique {
                pg_sys::IndexUniqueCheck::UNIQUE_CHECK_YES
            } else {
                pg_sys::IndexUniqueCheck::UNIQUE_CHECK_NO
            },
        })
    }
}

/// Of rows of one block, those with the least and the greatest id and time.
#[derive(Clone, Copy)]
pub(super) struct Extremes {
    first_id: usize,
    last_id: usize,
    first_time: usize,
    last_time: usize,
}

impl Extremes {
    pub fn of(place: usize) -> Self {
        Self {
            first_id: place,
            last_id: place,
            first_time: place,
            last_time: place,
        }
    }

    /// # Safety
    /// The message ids of all keys are there.
    pub unsafe fn add(&mut self, all: &[Keys], place: usize) {
        // SAFETY: as the caller promises.
        unsafe {
            let id = message_id(&all[place]);
            if id < message_id(&all[self.first_id]) {
                self.first_id = place;
            }
            if id > message_id(&all[self.last_id]) {
                self.last_id = place;
            }
        }
        let time = captured_at(&all[place]);
        if time < captured_at(&all[self.first_time]) {
            self.first_time = place;
        }
        if time > captured_at(&all[self.last_time]) {
            self.last_time = place;
        }
    }

    /// Each place once.
    pub fn places(&self) -> impl Iterator<Item = usize> {
        let all = [self.first_id, self.last_id, self.first_time, self.last_time];
        (0..all.len())
            .filter(move |i| !all[..*i].contains(&all[*i]))
            .map(move |i| all[i])
    }
}

/// # Safety
/// The row with this key is there.
unsafe fn message_id(keys: &Keys) -> [u8; 16] {
    // SAFETY: as the caller promises; the value is a pointer to 16 bytes.
    unsafe { *keys[MESSAGE_ID].cast_mut_ptr::<[u8; 16]>() }
}

fn captured_at(keys: &Keys) -> i64 {
    keys[CAPTURED_AT].value() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &[u8; 16], time: i64) -> Keys {
        let mut keys = [pg_sys::Datum::from(0usize); KEY_COLUMNS];
        keys[MESSAGE_ID] = pg_sys::Datum::from(id.as_ptr());
        keys[CAPTURED_AT] = time.into();
        keys
    }

    fn places(all: &[Keys]) -> Vec<usize> {
        let mut extremes = Extremes::of(0);
        for place in 1..all.len() {
            // SAFETY: the ids live in the caller.
            unsafe { extremes.add(all, place) };
        }
        let mut places: Vec<usize> = extremes.places().collect();
        places.sort_unstable();
        places
    }

    #[test]
    fn rows_in_order_need_their_first_and_last() {
        let ids = [[1; 16], [2; 16], [3; 16]];
        let all: Vec<Keys> = ids.iter().zip(-1..).map(|(id, t)| key(id, t)).collect();
        assert_eq!(places(&all), [0, 2]);
        assert_eq!(places(&all[..1]), [0]);
    }

    #[test]
    fn a_clock_that_jumps_gives_other_extremes_for_times() {
        let ids = [[5; 16], [1; 16], [9; 16], [7; 16], [6; 16]];
        let times = [50, 60, -3, 90, 55];
        let all: Vec<Keys> = ids
            .iter()
            .zip(times)
            .map(|(id, time)| key(id, time))
            .collect();
        assert_eq!(places(&all), [1, 2, 3]);
    }
}
