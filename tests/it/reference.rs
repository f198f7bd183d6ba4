//! docs/reference.md says what the comments in the database say.

use super::support::Cluster;

const PAGE: &str = include_str!("../../docs/reference.md");
const QUERIES: &str = include_str!("../../scripts/reference.sql");

#[test]
fn the_reference_is_what_the_database_says() {
    // Without it, webhook.database_workers is shown as a setting for a reload.
    let cluster = Cluster::builder("reference")
        .set("shared_preload_libraries", "webhook_ext")
        .start();
    cluster.sql("create extension webhook_ext");
    let found = cluster.psql(QUERIES);
    let mut lines = PAGE.lines().zip(found.lines()).enumerate();
    if let Some((number, (written, said))) = lines.find(|(_, (written, said))| written != said) {
        panic!(
            "docs/reference.md differs in line {}, run scripts/reference:\n{written}\nis in the database\n{said}",
            number + 1
        );
    }
    assert_eq!(PAGE.len(), found.len(), "run scripts/reference");
}
