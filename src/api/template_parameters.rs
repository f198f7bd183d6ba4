//! `webhook.template_parameters`.

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::core::definitions::webhook::required;
use crate::core::error::Result;
use crate::core::payloads::template::parameter::{column_parameters, fixed_parameters};
use crate::pg::report::ok_or_raise;
use crate::pg::text::Text;
use crate::store::user_table;

/// What a template of this table's events may hold.
#[pg_extern(sql = false)]
fn template_parameters(
    object_name: Option<pg_sys::Oid>,
) -> TableIterator<'static, (name!(parameter, Text), name!(meaning, Text))> {
    let parameters = ok_or_raise(parameters(object_name)).into_iter();
    TableIterator::new(parameters.map(|(name, meaning)| (name.into(), meaning.into())))
}

fn parameters(object_name: Option<pg_sys::Oid>) -> Result<Vec<(String, String)>> {
    let table = user_table::watchable(required("object_name", object_name)?)?;
    let columns = user_table::columns(&table);
    let fixed = fixed_parameters().map(|(name, meaning)| (name, meaning.to_owned()));
    Ok(column_parameters(&columns).chain(fixed).collect())
}
