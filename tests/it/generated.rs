//! Generated columns: a stored one is a column like any other. A virtual one, from
//! PostgreSQL 18 on, has no value in the rows that triggers are shown.

use super::support::definitions::{create_event, create_webhook, records_at, wait_idle};
use super::support::{ready_cluster, Cluster};

const IN_ORDER: &str = "max_in_flight => 1";

#[test]
fn a_stored_generated_column_is_watched_and_sent() {
    let (cluster, receiver) = ready_cluster("generated");
    create_webhook(&cluster, "stored", &[receiver.url("/ok")], IN_ORDER);
    cluster.sql(
        "create table orders (id int, price int, digits int generated always as (length(price::text)) stored);
         insert into orders values (1, 10)",
    );
    let watched = "object_fields => array['digits']";
    create_event(&cluster, "stored", "orders", "Update", watched);
    cluster.sql("update orders set price = 11; update orders set price = 100");
    wait_idle(&cluster);
    assert_eq!(
        records_at(&receiver, "/ok"),
        [r#"Update {"id":1,"price":100,"digits":3}"#]
    );
}

#[test]
fn a_virtual_generated_column_is_left_out_and_cannot_be_named_but_a_condition_can() {
    let (cluster, receiver) = ready_cluster("virtual");
    if !has_virtual_columns(&cluster) {
        let refused = cluster.connect("postgres").batch_execute(TABLE);
        assert!(refused.is_err(), "has virtual columns, and must be tested");
        return;
    }
    cluster.sql(TABLE);
    create_webhook(&cluster, "virtual", &[receiver.url("/ok")], IN_ORDER);
    let naming = [
        "object_fields => array['twice']",
        "payload_fields => array['twice']",
        "payload_template => '\"[@field:twice]\"'",
        "payload_template => '\"[@old:twice]\"'",
    ];
    for options in naming {
        let created = cluster.connect("postgres").batch_execute(&format!(
            "select webhook.create_event('virtual', 'orders', 'table.recordUpdate', {options})"
        ));
        let error = created.expect_err(options);
        let code = error.code().map(|code| code.code().to_owned());
        assert_eq!(code.as_deref(), Some("42809"), "{options}: {error}");
    }
    let parameters =
        "select count(*) from webhook.template_parameters('orders') where parameter like '%twice%'";
    assert_eq!(cluster.psql(parameters), "0\n");

    let condition = "condition => 'new.twice > 20'";
    let event = create_event(&cluster, "virtual", "orders", "Insert", condition);
    cluster.sql("insert into orders values (1, 10), (2, 11)");
    wait_idle(&cluster);
    assert_eq!(
        records_at(&receiver, "/ok"),
        [r#"Insert {"id":2,"price":11}"#]
    );
    let previewed = cluster.psql(&format!(
        "select webhook.preview_payload('{event}', '{{\"id\": 3}}')::jsonb #> '{{data,0}}'"
    ));
    assert!(
        previewed.contains("\"price\"") && !previewed.contains("twice"),
        "{previewed}"
    );
}

const TABLE: &str =
    "create table orders (id int, price int, twice int generated always as (price * 2) virtual)";

fn has_virtual_columns(cluster: &Cluster) -> bool {
    cluster.value::<i32>("select current_setting('server_version_num')::int") >= 180_000
}
