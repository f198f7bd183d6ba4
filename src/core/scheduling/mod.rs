//! Which message of a URL is next.

pub mod lane;
pub mod next_window;
