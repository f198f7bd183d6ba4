//! The pure half: what a webhook, an event, a message and a lane are, and every
//! rule about them that needs neither PostgreSQL nor the network.
//!
//! Nothing here names pgrx, reads a clock or draws randomness: time and random
//! bytes are arguments, so every rule can be tested with a simulated world.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::cast_possible_truncation))]

pub mod address;
pub mod body;
pub mod budget;
pub mod definition;
pub mod descriptors;
pub mod endpoint;
pub mod error;
pub mod event;
pub mod explain;
pub mod flush_map;
pub mod headers;
pub mod hstore_image;
pub mod hstore_text;
pub mod identity;
pub mod ids;
pub mod json_text;
pub mod json_value;
pub mod jsonb_image;
pub mod lane;
pub mod limits;
pub mod matching;
pub mod next_window;
pub mod number_text;
pub mod oversize;
pub mod payload;
pub mod position;
pub mod redaction;
pub mod rest;
pub mod retry;
pub mod rotation;
pub mod secret;
pub mod signing;
pub mod snapshot;
pub mod sql_text;
pub mod standby;
pub mod suggest;
pub mod template;
pub mod throttle;
pub mod time_text;
pub mod varlena_header;
pub mod webhook;
