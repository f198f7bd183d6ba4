//! The body of a message: the default payload and templates.

pub mod body;
pub mod default_payload;
pub mod template;
