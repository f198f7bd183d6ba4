//! Sends messages: a pool of threads, an HTTP client and a resolver that only
//! returns addresses the policy allows.
//!
//! Nothing here may call PostgreSQL: these threads run beside the worker's main
//! thread. Whatever goes wrong in a call is an [`Outcome`](call::Outcome), never
//! an error of the pool.

pub mod call;
pub mod client;
pub mod pool;
pub mod tls;

mod answer;
mod buffers;
mod desk;
mod local;
mod names;
mod ongoing;
mod resolver;
mod socket;

#[cfg(test)]
mod tests;
