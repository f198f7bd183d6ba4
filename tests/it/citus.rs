//! A cluster of Citus: `make test-citus`, which fails where the server has no Citus.

mod conversions;
mod definitions;
mod operations;
mod outages;
mod statements;
