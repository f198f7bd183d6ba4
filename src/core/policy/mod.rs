//! The rules of delivery: which addresses may be called, with which headers and
//! signatures, how often, and when again.

pub mod address;
pub mod budget;
pub mod descriptors;
pub mod endpoint;
pub mod headers;
pub mod masked_headers;
pub mod redaction;
pub mod refused_url;
pub mod retry;
pub mod secret;
pub mod signing;
pub mod throttle;
