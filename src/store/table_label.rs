//! What payloads and views call a table, as SQL.
//!
//! The name, with its schema before it unless that is public. A part that holds a dot or a
//! quote is quoted, so that two tables never have one name; all others are as they are.
//! `sql/events_now.sql` has the same expression.

/// A part of the name.
macro_rules! label_part {
    ($name:literal) => {
        concat!(
            "case when ",
            $name,
            " ~ '[.\"]' then pg_catalog.concat('\"', pg_catalog.replace(",
            $name,
            "::pg_catalog.text, '\"', '\"\"'), '\"') else ",
            $name,
            "::pg_catalog.text end"
        )
    };
}

/// The label of the row `c` of pg_class with the row `n` of pg_namespace.
macro_rules! table_label {
    () => {
        concat!(
            "case when n.nspname = 'public' then ",
            $crate::store::table_label::label_part!("c.relname"),
            " else pg_catalog.concat(",
            $crate::store::table_label::label_part!("n.nspname"),
            ", '.', ",
            $crate::store::table_label::label_part!("c.relname"),
            ") end"
        )
    };
}

pub(in crate::store) use {label_part, table_label};
