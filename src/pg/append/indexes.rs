//! The indexes of an outbox table, and which entries they need.
//!
//! The extension's own are over columns of which a flush has the values at hand, so no slot and
//! no executor is needed to fill them. A minmax BRIN index takes from a row no more than the
//! least and the greatest value of its range of blocks: of a page of rows it is given the
//! extremes. Whatever else an administrator has added is filled by PostgreSQL's own routine.

use pgrx::pg_sys;

use super::tuple::{Keys, CAPTURED_AT, KEY_COLUMNS, MESSAGE_ID};

/// BRIN's oid in pg_am.dat.
const BRIN: u32 = 3580;
/// What makes an opclass of BRIN one that keeps the least and the greatest value: the first two of
/// its support functions (pg_proc.dat: brin_minmax_opcinfo, brin_minmax_add_value).
const MINMAX: [u32; 2] = [3383, 3384];
/// Opclass families under which values are ordered as [`crate::core::messages::extremes`] orders
/// them (pg_opfamily.dat).
const UUID_MINMAX: u32 = 4081;
const DATETIME_MINMAX: u32 = 4059;
/// More indexes than this are left to PostgreSQL's own routine.
const AT_MOST: usize = 4;

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
        let is_brin = (*(*relation).rd_rel).relam.to_u32() == BRIN;
        let keeps_extremes = |column: usize| match places[column] {
            MESSAGE_ID => keeps_extremes(relation, column, UUID_MINMAX),
            CAPTURED_AT => keeps_extremes(relation, column, DATETIME_MINMAX),
            _ => false,
        };
        Some(KeyIndex {
            relation,
            info,
            places,
            extremes_only: is_brin && (0..columns).all(keeps_extremes),
            check_unique: if (*(*relation).rd_index).indisunique {
                pg_sys::IndexUniqueCheck::UNIQUE_CHECK_YES
            } else {
                pg_sys::IndexUniqueCheck::UNIQUE_CHECK_NO
            },
        })
    }
}

/// # Safety
/// `relation` is an open BRIN index with more columns than `column`.
unsafe fn keeps_extremes(relation: pg_sys::Relation, column: usize, family: u32) -> bool {
    // SAFETY: as the caller promises; each column has a family and as many support functions as
    // the access method says.
    unsafe {
        let functions = usize::from((*(*relation).rd_indam).amsupport);
        (*(*relation).rd_opfamily.add(column)).to_u32() == family
            && (0..MINMAX.len()).all(|number| {
                let function = *(*relation).rd_support.add(column * functions + number);
                function.to_u32() == MINMAX[number]
            })
    }
}
