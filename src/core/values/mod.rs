//! PostgreSQL's values as JSON and as text: numbers, times, `jsonb`, `hstore`; and how long calls took.

pub mod durations;
pub mod hstore_image;
pub mod hstore_text;
pub mod json_text;
pub mod json_value;
pub mod jsonb_image;
pub mod number_text;
pub mod sql_text;
pub mod time_text;
pub mod varlena_header;
