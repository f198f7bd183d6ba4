//! What users define, and what their arguments may be.

pub mod event;
pub mod ids;
pub mod interval;
pub mod limits;
pub mod matching;
pub mod operational;
pub mod rest;
pub mod shard_names;
pub mod status;
pub mod suggest;
pub mod webhook;
pub mod words;
