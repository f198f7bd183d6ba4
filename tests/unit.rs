//! The server-free tier: `core/` and `delivery/` compiled without pgrx, with
//! the tests that stand beside their code, the test that keeps the layers
//! apart, the one that compares what each file says of the release, and the one that follows the
//! links between the pages.

#![allow(dead_code)]

#[path = "../src/core/mod.rs"]
mod core;

#[path = "../src/delivery/mod.rs"]
mod delivery;

mod fuzz;
mod layering;
mod links;
mod release_files;
