//! A cluster of Citus: `make test-citus`, which fails where the server has no Citus.

mod conversions;
mod definitions;
mod deliveries;
mod hostile;
mod membership;
mod new_relations;
mod operations;
mod outages;
mod payloads;
mod placements;
mod scale;
mod schemas;
mod statements;
mod two_phases;
