//! The stream of messages: where a reader stands in it, which transactions and
//! tables hold it, and whose database it is.

pub mod chunks;
pub mod extremes;
pub mod flush_map;
pub mod identity;
#[allow(dead_code, reason = "capture writes none yet")]
pub mod order_keys;
pub mod oversize;
pub mod position;
pub mod rotation;
pub mod snapshot;
pub mod standby;
