//! Sends messages: a pool of threads, an HTTP client, and a resolver that returns only addresses
//! that the policy allows.
//!
//! Nothing here may call PostgreSQL: the threads run beside the worker's main thread. Any failure
//! of a call is an [`Outcome`](call::Outcome), never an error of the pool.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::cast_possible_truncation))]

pub mod call;
pub mod client;
pub mod failure_class;
pub mod pool;
pub mod tls;
mod tls_failures;

mod answer;
mod buffers;
mod executor;
mod local;
mod names;
mod ongoing;
mod resolver;
mod socket;

#[cfg(test)]
mod tests;
