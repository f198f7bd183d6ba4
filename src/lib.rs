//! Signed, throttled, at-least-once webhooks straight from PostgreSQL.
//!
//! Data moves one way: `capture` (in the user's transaction) → outbox → `worker`
//! → `delivery` (threads) → `worker` → log. Imports go only downward: `core` is
//! below `delivery` and `pg`, those below `store`, that below the rest.

#![deny(clippy::undocumented_unsafe_blocks)]
#![cfg_attr(not(test), deny(clippy::unwrap_used))]

use pgrx::prelude::*;

mod api;
mod capture;
mod core;
mod delivery;
mod pg;
mod store;
mod worker;

pgrx::pg_module_magic!();

/// Called by PostgreSQL when a process loads the library.
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    pg::backtraces::switch_off();
    #[cfg(feature = "fault_injection")]
    {
        pg::fault::define();
        pg::fault::write_at_commit();
    }
    pg::settings::define();
    capture::register();
    worker::launcher::register_at_start();
}

extension_sql_file!("../sql/schema.sql", name = "schema");
extension_sql_file!("../sql/tables.sql", name = "tables", requires = ["schema"]);
extension_sql_file!(
    "../sql/capture.sql",
    name = "capture",
    requires = ["tables"]
);
extension_sql_file!(
    "../sql/functions.sql",
    name = "functions",
    requires = ["capture"]
);
extension_sql_file!("../sql/state.sql", name = "state", requires = ["functions"]);
extension_sql_file!(
    "../sql/events_now.sql",
    name = "events_now",
    requires = ["state"]
);
extension_sql_file!(
    "../sql/views.sql",
    name = "views",
    requires = ["events_now"]
);
extension_sql_file!(
    "../sql/activity.sql",
    name = "activity",
    requires = ["views"]
);
extension_sql_file!(
    "../sql/metrics.sql",
    name = "metrics",
    requires = ["activity"]
);
extension_sql_file!(
    "../sql/prometheus.sql",
    name = "prometheus",
    requires = ["metrics"]
);
extension_sql_file!(
    "../sql/status_page.sql",
    name = "status_page",
    requires = ["prometheus"]
);
extension_sql_file!(
    "../sql/cluster.sql",
    name = "cluster",
    requires = ["status_page"]
);
extension_sql_file!(
    "../sql/changes.sql",
    name = "changes",
    requires = ["cluster"]
);
extension_sql_file!("../sql/grants.sql", name = "grants", requires = ["changes"]);
extension_sql_file!(
    "../sql/comments.sql",
    name = "comments",
    requires = ["grants"]
);
extension_sql_file!("../sql/start.sql", name = "start", requires = ["comments"]);
