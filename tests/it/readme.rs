//! What the README tells people to type is typed.

use super::support::Cluster;

/// The SQL blocks that are marked to be run, in their order.
fn marked_blocks(readme: &str) -> Vec<&str> {
    readme
        .split("<!-- run -->\n```sql\n")
        .skip(1)
        .map(|rest| rest.split("```").next().expect("split gives at least one"))
        .collect()
}

#[test]
fn the_sql_of_the_readme_works_as_it_stands() {
    let blocks = marked_blocks(include_str!("../../README.md"));
    assert!(blocks.len() >= 5, "only {} blocks are marked", blocks.len());
    let cluster = Cluster::start("readme");
    cluster.sql("create extension webhook_ext");
    for block in blocks {
        cluster.psql(block);
    }
    let webhooks: i64 = cluster.value("select count(*) from webhook.webhooks");
    assert_eq!(webhooks, 2, "crm and shop");
}
