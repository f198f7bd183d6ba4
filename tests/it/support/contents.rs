//! What the extension's own tables hold.

use super::Cluster;

/// The extension's tables in which `needle` stands in any column, by name.
pub fn tables_with(cluster: &Cluster, needle: &str) -> Vec<String> {
    let mut session = cluster.connect("postgres");
    let tables = session.query(
        "select oid::regclass::text from pg_class
         where relnamespace::regnamespace::text in ('webhook', 'webhook_internal') and relkind = 'r' order by 1",
        &[],
    );
    let tables = tables.expect("the catalog can be read");
    assert!(tables.len() > 10, "the extension has its tables");
    let names = tables.iter().map(|row| row.get::<_, String>(0));
    names
        .filter(|name| {
            let query =
                format!("select exists (select from {name} as t where strpos(t::text, $1) > 0)");
            let row = session.query_one(&query, &[&needle]);
            row.expect("a superuser may read every table").get(0)
        })
        .collect()
}
