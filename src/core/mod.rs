//! The pure half: what a webhook, an event, a message and a lane are, and every
//! rule about them that needs neither PostgreSQL nor the network.
//!
//! Nothing here names pgrx, reads a clock or draws randomness: time and random
//! bytes are arguments, so every rule can be tested with a simulated world.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::cast_possible_truncation))]

pub mod definitions;
pub mod error;
pub mod explain;
pub mod health;
pub mod messages;
pub mod payloads;
pub mod policy;
pub mod scheduling;
pub mod status_page;
pub mod values;
pub mod version_mismatch;
