//! What the columns that an event has recorded are called now.

use std::cell::OnceCell;

use pgrx::pg_sys;

use super::order_key::TABLE_KEY;
use crate::pg::spi::{Arg, Query};

/// The live columns of a table.
const COLUMNS: &str = "
select a.attnum, a.attname::pg_catalog.text
from pg_catalog.pg_attribute a
where a.attrelid = $1
  and a.attnum > 0
  and not a.attisdropped";

thread_local! {
    static OF_TABLE: Query = const { Query::new(COLUMNS) };
    static OF_KEY: Query = const { Query::new(TABLE_KEY) };
}

/// The live columns of the table that events were created on.
#[derive(Default)]
pub struct TableColumns {
    table: Option<pg_sys::Oid>,
    columns: Vec<(i16, String)>,
    key: OnceCell<Vec<String>>,
}

impl TableColumns {
    fn of(table: Option<pg_sys::Oid>) -> Self {
        let mut columns = Vec::new();
        if let Some(table) = table {
            OF_TABLE.with(|query| {
                query.read(&[Arg::Oid(table)], |row| {
                    let number = row.i32(0).and_then(|number| i16::try_from(number).ok());
                    columns.extend(number.zip(row.text(1)));
                });
            });
        }
        Self {
            table,
            columns,
            key: OnceCell::new(),
        }
    }

    /// Makes them those of this table.
    pub fn fit(&mut self, table: Option<pg_sys::Oid>) {
        if self.table != table || table.is_none() {
            *self = Self::of(table);
        }
    }

    /// The columns of the table's primary key, else of its replica identity index.
    pub fn key(&self) -> Option<&[String]> {
        let key = self.key.get_or_init(|| {
            let mut names = Vec::new();
            if let Some(table) = self.table {
                OF_KEY
                    .with(|query| query.read(&[Arg::Oid(table)], |row| names.extend(row.text(0))));
            }
            names
        });
        (!key.is_empty()).then_some(key.as_slice())
    }

    /// What recorded columns are called now, each with its recorded name. Numbers count as long as
    /// the table is the one they were recorded for (they survive a rename); after a dump and
    /// restore the names count. A column that is gone is left out.
    pub fn present(&self, recorded: &Recorded, by_number: bool) -> Vec<(String, String)> {
        let numbers = recorded
            .numbers
            .iter()
            .map(Some)
            .chain(std::iter::repeat(None));
        let present = |(name, number): (&String, Option<&i16>)| {
            let mut columns = self.columns.iter();
            let found = columns.find(|(at, now)| match by_number {
                true => Some(at) == number,
                false => now == name,
            });
            found.map(|(_, now)| (name.clone(), now.clone()))
        };
        recorded
            .names
            .iter()
            .zip(numbers)
            .filter_map(present)
            .collect()
    }
}

/// Columns as an event has recorded them.
pub struct Recorded {
    pub names: Vec<String>,
    pub numbers: Vec<i16>,
}
