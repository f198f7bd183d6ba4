//! A stored row as the JSON object in `data` of a payload, and which
//! of its fields an update changed.
//!
//! Runs inside the user's transaction, once per captured row. What is frequent
//! (integers, booleans, text, numbers, times, uuid) is read straight from the
//! tuple's bytes without a call into PostgreSQL; everything else goes through the
//! output function of its type. Never called: casts, operators, `to_json`, or
//! anything else that the owner of a table or type could have replaced. No
//! setting of the session changes what is written, and none is left changed.
//!
//! When an output function fails, its PostgreSQL error goes on as it is and fails
//! the user's statement.
//!
//! A row that is larger than a message may be is written as far as the limit, and no value is
//! detoasted or printed whose text cannot fit.
//!
//! | file | what |
//! |---|---|
//! | `fields` | the columns of a row or composite type: names, order, writers |
//! | `render` | one value of one type, chosen once per column |
//! | `array`, `composite`, `output` | values that consist of others, values of unknown types |
//! | `documents` | `jsonb` and `hstore` |
//! | `limited` | the text that a row is written to, and its limit |
//! | `tuple`, `varlena` | where a value lies in a tuple; toasted and compressed values |
//! | `memory`, `server_text`, `money` | what a row borrows and gives back; encodings; decimals of a currency |
//! | `changed` | which fields differ between two versions of a row |
//! | `matched` | the values of a row by which events are found |
//! | `order_key` | the key of a row, by which messages are kept in order |

mod array;
pub mod changed;
mod composite;
mod documents;
mod fields;
mod limited;
pub mod matched;
mod memory;
mod money;
pub mod order_key;
mod output;
mod render;
mod server_text;
mod tuple;
mod varlena;

pub use documents::jsonb_text;
pub use limited::{LimitedText, TooLarge};
pub(super) use tuple::{attribute, column_name, column_number};

use pgrx::pg_sys;

use crate::core::definitions::words::{ListStyle, NullStyle};

use fields::Fields;
use memory::RowMemory;
use server_text::ServerText;

/// Serialises the rows of one table. Made once and kept for the life of the
/// backend, or until the table's definition changes; gives back all its memory
/// when dropped.
pub struct RowWriter {
    fields: Fields,
    /// Bytes of a row that a message made of it may do without.
    dispensable_len: usize,
    surroundings: Surroundings,
}

/// A column to write.
#[derive(Clone, Debug)]
pub struct Field {
    pub number: i16,
    /// What it is called in the object; `None`: by its own name.
    pub name: Option<String>,
}

/// Arrays and composites within each other that a row may hold. The writers of a nested value are
/// also dropped one within the other, where no check of the stack is possible; so many fit into
/// the part that PostgreSQL keeps free of its stack.
const MAX_DEPTH: usize = 1000;

/// What every value may need while it is written.
struct Surroundings {
    nulls: NullStyle,
    lists: ListStyle,
    text: ServerText,
    memory: RowMemory,
    /// Arrays and composites around the value that is written.
    depth: usize,
}

impl Surroundings {
    /// Writes a value that holds others. Raises `54001` if it is nested too deep.
    #[inline]
    fn nested(&mut self, write: impl FnOnce(&mut Self) -> limited::Written) -> limited::Written {
        // SAFETY: compares an address with a limit; its error unwinds.
        unsafe { pg_sys::check_stack_depth() };
        if self.depth == MAX_DEPTH {
            too_deep();
        }
        self.depth += 1;
        let written = write(self);
        self.depth -= 1;
        written
    }
}

#[cold]
fn too_deep() -> ! {
    pgrx::ereport!(
        ERROR,
        pgrx::PgSqlErrorCode::ERRCODE_STATEMENT_TOO_COMPLEX,
        format!("a value of a webhook message nests deeper than {MAX_DEPTH} levels"),
        "leave the column out of payload_fields"
    );
}

impl RowWriter {
    /// `fields` in the order of the output; `None` means every column. Dropped columns, virtual generated ones (which no tuple
    /// holds) and numbers the table does not have are left out.
    ///
    /// # Safety
    /// `descriptor` describes the table whose rows will be written; a transaction
    /// is open.
    pub unsafe fn compile(
        descriptor: pg_sys::TupleDesc,
        fields: Option<&[Field]>,
        nulls: NullStyle,
        lists: ListStyle,
    ) -> Self {
        let mut surroundings = Surroundings {
            nulls,
            lists,
            text: ServerText::of_database(),
            memory: RowMemory::new(),
            depth: 0,
        };
        // SAFETY: as this function's.
        let fields = unsafe { Fields::compile(descriptor, fields, &mut surroundings) };
        Self {
            dispensable_len: fields.dispensable_len(),
            fields,
            surroundings,
        }
    }

    /// Writes the row as a JSON object in UTF-8, if a message made of it can have up to
    /// `limit_bytes`. What `out` held is gone.
    ///
    /// # Errors
    /// The row is larger.
    ///
    /// # Safety
    /// `tuple` is a row of the table that `descriptor` describes, and that table's
    /// definition has not changed since `compile`; a transaction with a snapshot
    /// is open.
    pub unsafe fn write(
        &mut self,
        descriptor: pg_sys::TupleDesc,
        tuple: pg_sys::HeapTuple,
        limit_bytes: usize,
        out: &mut LimitedText,
    ) -> Result<(), TooLarge> {
        // An error in the row before may have left something behind.
        self.surroundings.memory.release();
        self.surroundings.depth = 0;
        out.begin(limit_bytes + self.dispensable_len);
        // SAFETY: as this function's; t_data of a row points at its header.
        let written = unsafe {
            self.fields
                .write(descriptor, (*tuple).t_data, out, &mut self.surroundings)
        };
        self.surroundings.memory.release();
        written.and_then(|()| out.end())
    }
}
