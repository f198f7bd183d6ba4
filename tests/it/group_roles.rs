//! Group roles of one database, and what readers see of URLs.

use super::support::definitions::{create_webhook, wait_idle};
use super::support::{ready_cluster, Cluster};

const URLS: &str = "array['https://example.com/hook?token=abc&page=2', 'https://example.com/plain?page=2',
                         'https://example.com/?ToKen=x1&zz=0123456789abcdefghij', 'https://example.com/services/T000']";

fn scene(name: &str) -> Cluster {
    let (cluster, receiver) = ready_cluster(name);
    create_webhook(&cluster, "called", &[receiver.url("/ok?token=abc")], "");
    cluster.sql("select webhook.test_webhook('called')");
    wait_idle(&cluster);
    cluster.sql(&format!(
        "create role admins; create role readers;
         create role an_admin login in role admins; create role a_reader login in role readers;
         create role old_reader login in role webhook_reader;
         select webhook.create_webhook('hook', {URLS});
         select webhook.stop_worker()"
    ));
    cluster
}

fn ask(cluster: &Cluster, role: &str, query: &str) -> Result<String, String> {
    match cluster.connect_as(role, "postgres").query_one(query, &[]) {
        Ok(row) => Ok(row.get(0)),
        Err(error) => Err(error
            .as_db_error()
            .expect("the server answered")
            .code()
            .code()
            .to_owned()),
    }
}

const SEEN: &str =
    "select array_to_string(outgoing_urls, ' ') from webhook.webhooks where name = 'hook'";

#[test]
fn readers_see_urls_without_credentials_and_administrators_see_them() {
    let cluster = scene("masked_urls");
    let masked = "https://example.com/hook?token=***&page=2 https://example.com/plain?page=2 \
                  https://example.com/?ToKen=***&zz=*** https://example.com/services/T000";
    assert_eq!(ask(&cluster, "old_reader", SEEN).unwrap(), masked);
    for view in ["calls", "queue", "metrics", "webhooks"] {
        let all = format!("select string_agg(v::text, ' ') from webhook.{view} v");
        let seen = ask(&cluster, "old_reader", &all).unwrap();
        assert!(
            seen.contains("token=***") && !seen.contains("abc"),
            "{view}: {seen}"
        );
        let seen = ask(&cluster, "postgres", &all).unwrap();
        assert!(seen.contains("token=abc"), "{view}: {seen}");
    }
    cluster
        .sql("select webhook.grant_to('admins', 'admin'), webhook.grant_to('readers', 'reader')");
    assert_eq!(ask(&cluster, "a_reader", SEEN).unwrap(), masked);
    assert!(ask(&cluster, "an_admin", SEEN)
        .unwrap()
        .contains("token=abc"));
    for (url, shown) in [
        ("https://me:pw@example.com/", "https://***@example.com/"),
        ("https://example.com/?a=1#x", "https://example.com/?a=1#x"),
        (
            "https://example.com/?0123456789abcdefghij",
            "https://example.com/?***",
        ),
        (
            "https://example.com/?X-Amz-Signature=a%2Fb&q=1",
            "https://example.com/?X-Amz-Signature=***&q=1",
        ),
        (
            "https://example.com/a@b?c=d@e",
            "https://example.com/a@b?c=d@e",
        ),
    ] {
        let query = format!("select webhook_internal.masked_url('{url}')");
        assert_eq!(cluster.value::<String>(&query), shown);
    }
}

/// Every privilege on objects of the extension, for the role that stands for `model`.
fn privileges(cluster: &Cluster, database: &str, role: &str) -> Vec<String> {
    let rows = cluster.connect(database).query(
        "select g.privilege || ' on ' || g.object from webhook_internal.granted g
         join pg_roles r on r.oid = g.grantee where r.rolname = $1 order by 1",
        &[&role],
    );
    rows.unwrap().iter().map(|row| row.get(0)).collect()
}

#[test]
fn a_group_role_has_the_privileges_of_one_database_and_a_dump_keeps_them() {
    let cluster = scene("grant_to");
    cluster.sql("create database other");
    cluster.sql_in("other", "create extension webhook_ext");
    let reveal = "select secret from webhook.reveal_secret('hook')";
    assert_eq!(ask(&cluster, "an_admin", reveal).unwrap_err(), "42501");
    cluster
        .sql("select webhook.grant_to('admins', 'admin'), webhook.grant_to('readers', 'reader')");
    for (role, model) in [("admins", "webhook_admin"), ("readers", "webhook_reader")] {
        let given = privileges(&cluster, "postgres", role);
        assert!(!given.is_empty());
        assert_eq!(given, privileges(&cluster, "postgres", model), "{role}");
        assert!(privileges(&cluster, "other", role).is_empty(), "{role}");
    }
    assert!(ask(&cluster, "an_admin", reveal)
        .unwrap()
        .starts_with("whsec_"));
    assert_eq!(ask(&cluster, "a_reader", reveal).unwrap_err(), "42501");

    // A dump has the grants, beside the extension's own.
    let output = cluster
        .client_program("pg_dump", "postgres")
        .output()
        .unwrap();
    let script = String::from_utf8(output.stdout).unwrap();
    cluster.sql("create database restored");
    cluster.psql(&format!(
        "\\connect restored\n\\set ON_ERROR_STOP 0\n{script}"
    ));
    for role in ["admins", "readers"] {
        assert_eq!(
            privileges(&cluster, "restored", role),
            privileges(&cluster, "postgres", role),
            "{role} in the restored dump"
        );
    }

    cluster.sql("select webhook.revoke_from('admins'), webhook.revoke_from('readers')");
    for role in ["admins", "readers"] {
        assert!(privileges(&cluster, "postgres", role).is_empty(), "{role}");
    }
    assert!(!privileges(&cluster, "postgres", "webhook_admin").is_empty());
    // Nothing is left that would keep the roles.
    cluster.sql("drop database restored with (force)");
    cluster.sql("drop role an_admin, a_reader, admins, readers");
}

#[test]
fn only_the_owner_of_the_extension_grants_and_only_to_roles_that_exist() {
    let cluster = scene("grant_refused");
    cluster.sql("grant webhook_admin to an_admin");
    for (role, call, code) in [
        ("postgres", "webhook.grant_to('nobody', 'admin')", "42704"),
        ("postgres", "webhook.grant_to(null, 'admin')", "22023"),
        ("postgres", "webhook.grant_to('admins', 'owner')", "22023"),
        ("postgres", "webhook.grant_to('admins', null)", "22023"),
        ("postgres", "webhook.grant_to('public', 'admin')", "42704"),
        ("postgres", "webhook.revoke_from('webhook_admin')", "22023"),
        ("postgres", "webhook.revoke_from('postgres')", "22023"),
        (
            "postgres",
            "webhook.revoke_from('x\"; drop table webhook.control; --')",
            "42704",
        ),
        ("an_admin", "webhook.grant_to('an_admin', 'admin')", "42501"),
        ("an_admin", "webhook.revoke_from('webhook_reader')", "42501"),
    ] {
        let query = format!("select {call}::text");
        assert_eq!(
            ask(&cluster, role, &query).unwrap_err(),
            code,
            "{role}: {call}"
        );
    }
}
