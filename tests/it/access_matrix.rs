//! Who may do what: docs/access.md is what this test finds, function by function.

use std::collections::BTreeSet;
use std::fmt::Write;

use postgres::Client;

use super::support::definitions::{create_webhook, wait_idle};
use super::support::{ready_cluster, Cluster, Receiver};

const EXPECTED: &str = include_str!("../../docs/access.md");

/// The role of the worker, which cannot log in.
const WORKER: &str = "webhook_worker";

/// The columns of the matrix: what they are called and which role is tried.
const ROLES: [(&str, &str); 9] = [
    ("public", "anybody"),
    ("monitor", "a_monitor"),
    ("reader", "a_reader"),
    ("admin", "an_admin"),
    ("event's owner", "event_owner"),
    ("table's owner", "table_owner"),
    ("database's owner", "db_owner"),
    ("worker", WORKER),
    ("superuser", "postgres"),
];

const SCENE: &str = "
create role anybody login;
create role a_monitor login in role pg_monitor;
create role a_reader login in role webhook_reader;
create role an_admin login in role webhook_admin;
create role event_owner login in role webhook_admin;
create role table_owner login;
create role db_owner login;
alter database postgres owner to db_owner;
create table items (id integer, name text);
alter table items owner to table_owner;
grant select, trigger on items to event_owner;";

/// What each role tries; {event}, {message} and {moved} are those of the scene, {moved} a message
/// whose webhook has got a URL since.
const CALLS: &[(&str, &str)] = &[
    (
        "create_webhook",
        "select webhook.create_webhook('new', array['https://example.com/'])",
    ),
    (
        "update_webhook",
        "select webhook.update_webhook('hook', description => 'another')",
    ),
    (
        "update_webhook: outgoing_urls",
        "select webhook.update_webhook('hook', outgoing_urls => array['https://example.com/'])",
    ),
    (
        "update_webhook: headers",
        "select webhook.update_webhook('hook', headers => '{\"x-key\": \"another\"}')",
    ),
    ("drop_webhook", "select webhook.drop_webhook('hook')"),
    ("pause_webhook", "select webhook.pause_webhook('hook')"),
    ("resume_webhook", "select webhook.resume_webhook('hook')"),
    (
        "regenerate_secret",
        "select webhook.regenerate_secret('hook')",
    ),
    ("reveal_secret", "select webhook.reveal_secret('hook')"),
    (
        "create_event",
        "select webhook.create_event('hook', 'items', 'table.recordDelete')",
    ),
    (
        "update_event: enabled => false",
        "select webhook.update_event('{event}', enabled => false)",
    ),
    (
        "update_event: enabled => true",
        "select webhook.update_event('{off}', enabled => true)",
    ),
    (
        "update_event: what it sends",
        "select webhook.update_event('{event}', payload_fields => array['name'])",
    ),
    ("drop_event", "select webhook.drop_event('{event}')"),
    (
        "preview_payload",
        "select webhook.preview_payload('{event}')",
    ),
    (
        "template_parameters",
        "select webhook.template_parameters('items')",
    ),
    ("explain_event", "select webhook.explain_event('{event}')"),
    ("message", "select webhook.message('{message}')"),
    (
        "duration_quantile",
        "select webhook.duration_quantile('80:1', 0.5, 1)",
    ),
    ("prometheus", "select webhook.prometheus()"),
    ("status_page", "select webhook.status_page()"),
    ("version", "select webhook.version()"),
    ("test_webhook", "select webhook.test_webhook('hook')"),
    ("redeliver", "select webhook.redeliver('{message}')"),
    (
        "redeliver: to a URL that is newer than the message",
        "select webhook.redeliver('{moved}')",
    ),
    (
        "redeliver_failed",
        "select webhook.redeliver_failed('hook')",
    ),
    (
        "redeliver: a window of time",
        "select webhook.redeliver('hook', '-infinity')",
    ),
    ("retry_now", "select webhook.retry_now('hook')"),
    ("cancel", "select webhook.cancel('{message}')"),
    ("cancel_pending", "select webhook.cancel_pending('hook')"),
    ("wait_idle", "select webhook.wait_idle('0 s')"),
    ("stop_worker", "select webhook.stop_worker()"),
    ("start_worker", "select webhook.start_worker()"),
    ("adopt", "select webhook.adopt()"),
    ("enable_cluster", "select webhook.enable_cluster()"),
    ("drain_node", "select webhook.drain_node('here')"),
    ("rest", "select webhook.rest('GET', '/v3/outgoingWebhooks')"),
    ("grant_to", "select webhook.grant_to('anybody', 'reader')"),
    ("revoke_from", "select webhook.revoke_from('anybody')"),
    ("create_worker_role", "select webhook.create_worker_role()"),
];

/// Functions behind views and triggers; what they do alone matters to nobody.
const INTERNAL: &[&str] = &[
    "webhook.capture",
    "webhook.columns_present",
    "webhook.present_columns",
    "webhook_internal.apply_cluster_document",
    "webhook_internal.busy_messages",
    "webhook_internal.check_grantee",
    "webhook_internal.cluster_document_changed",
    "webhook_internal.column_numbers",
    "webhook_internal.definition_row_changed",
    "webhook_internal.definitions_changed",
    "webhook_internal.delivery_hold",
    "webhook_internal.extension_installed",
    "webhook_internal.find_tables_again",
    "webhook_internal.is_cluster",
    "webhook_internal.masked_headers",
    "webhook_internal.masked_url",
    "webhook_internal.masked_values",
    "webhook_internal.match_kind",
    "webhook_internal.names_now",
    "webhook_internal.on_each_node",
    "webhook_internal.publish_cluster_document",
    "webhook_internal.refuse_replicated",
    "webhook_internal.shared_trigger",
    "webhook_internal.stored_json",
    "webhook_internal.unknown_labels",
    "webhook_internal.unseen_messages",
    "webhook_internal.worker_absence",
    "webhook_internal.worker_detail",
    "webhook_internal.worker_process",
];

const VIEWS: &[&str] = &[
    "webhooks",
    "events",
    "messages",
    "calls",
    "queue",
    "worker",
    "metrics",
    "activity",
    "changes",
    "cluster_queue",
    "cluster_worker",
    "cluster_metrics",
];

/// Runs `statement` as `role` and undoes it: yes, or no for want of a privilege.
fn attempt(cluster: &Cluster, role: &str, statement: &str) -> String {
    let mut session: Client = if role == WORKER {
        let mut session = cluster.connect("postgres");
        session.batch_execute("set role webhook_worker").unwrap();
        session
    } else {
        cluster.connect_as(role, "postgres")
    };
    let mut transaction = session.transaction().unwrap();
    match transaction.batch_execute(statement) {
        Ok(()) => "yes".to_owned(),
        Err(error) => match error.as_db_error().expect("the server answered") {
            refusal if refusal.code().code() == "42501" => "no".to_owned(),
            // There is no cluster here, which is said to those who may ask for one.
            refusal if refusal.message().contains("citus") => "yes".to_owned(),
            other => panic!("{role}: {statement}: {other:?}"),
        },
    }
}

/// A name without the schema that is for users.
fn shown(name: &str) -> &str {
    name.strip_prefix("webhook.").unwrap_or(name)
}

fn row(out: &mut String, what: &str, cells: &[String]) {
    writeln!(out, "| {what} | {} |", cells.join(" | ")).unwrap();
}

fn heading(out: &mut String, title: &str, text: &str, first: &str) {
    let names = ROLES.map(|(name, _)| name.to_owned());
    write!(out, "\n## {title}\n\n{text}\n\n").unwrap();
    row(out, first, &names);
    row(out, "---", &ROLES.map(|_| "---".to_owned()));
}

/// What `query` gives for each role, whose name is $1 in it.
fn asked(cluster: &Cluster, query: &str) -> Vec<String> {
    let mut session = cluster.connect("postgres");
    let answers = ROLES.map(|(_, role)| {
        let allowed: bool = session.query_one(query, &[&role]).unwrap().get(0);
        if allowed { "yes" } else { "no" }.to_owned()
    });
    answers.to_vec()
}

fn names(cluster: &Cluster, query: &str) -> BTreeSet<String> {
    let rows = cluster.connect("postgres").query(query, &[]).unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

struct Scene {
    event: String,
    off: String,
    message: String,
    moved: String,
}

fn scene(cluster: &Cluster, receiver: &Receiver) -> Scene {
    cluster.sql(SCENE);
    for webhook in ["hook", "moved"] {
        create_webhook(cluster, webhook, &[receiver.url("/ok")], "");
    }
    let mut owner = cluster.connect_as("event_owner", "postgres");
    let mut create = |webhook: &str, options: &str| -> String {
        let create = format!(
            "select id from webhook.create_event('{webhook}', 'items', 'table.recordInsert'{options})"
        );
        owner.query_one(&create, &[]).unwrap().get(0)
    };
    let event = create("hook", "");
    let off = create("hook", ", enabled => false, payload_fields => array['id']");
    create("moved", "");
    cluster.sql("insert into items values (1, 'a')");
    wait_idle(cluster);
    cluster.sql("select webhook.stop_worker()");
    cluster.sql("select webhook.update_webhook('moved', outgoing_urls => array['https://example.com/moved'])");
    let message = |webhook: &str| {
        cluster.value(&format!(
            "select m.message_id::text from webhook.messages m
             join webhook.webhooks w on w.id = m.webhook_id where w.name = '{webhook}'"
        ))
    };
    Scene {
        event,
        off,
        message: message("hook"),
        moved: message("moved"),
    }
}

fn functions(cluster: &Cluster, scene: &Scene, out: &mut String) {
    heading(
        out,
        "Functions",
        "The administrator has no right on the table. The event's owner is an administrator, too, with\n\
         SELECT and TRIGGER on the table. yes: the call does what it is for; no: SQLSTATE 42501.",
        "function",
    );
    for (what, statement) in CALLS {
        let statement = statement
            .replace("{event}", &scene.event)
            .replace("{off}", &scene.off)
            .replace("{message}", &scene.message)
            .replace("{moved}", &scene.moved);
        let cells = ROLES.map(|(_, role)| attempt(cluster, role, &statement));
        row(out, &format!("`{what}`"), &cells);
    }
    heading(
        out,
        "Internal functions",
        "What views and triggers call. A trigger calls its function whatever role writes to the table.",
        "function",
    );
    for function in INTERNAL {
        let query = format!(
            "select has_schema_privilege($1, pronamespace, 'usage') and has_function_privilege($1, oid, 'execute')
             from pg_proc where oid = '{function}'::regproc"
        );
        row(
            out,
            &format!("`{}`", shown(function)),
            &asked(cluster, &query),
        );
    }
}

fn relations(cluster: &Cluster, out: &mut String) {
    heading(
        out,
        "Views",
        "Reading them. Nobody but a superuser can write to one.",
        "view",
    );
    for view in VIEWS {
        let statement = format!("select * from webhook.{view}");
        let cells = ROLES.map(|(_, role)| attempt(cluster, role, &statement));
        row(out, &format!("`{view}`"), &cells);
    }
    heading(
        out,
        "Tables, internal views and sequences",
        "Any privilege on any of them. Definitions, secrets, messages and the log are here.",
        "relation",
    );
    let others = format!(
        "select oid::regclass::text from pg_class
         where relnamespace::regnamespace::text in ('webhook', 'webhook_internal')
           and relkind in ('r', 'v', 'S', 'p', 'm', 'f') and relname not in ('{}')",
        VIEWS.join("', '")
    );
    for relation in names(cluster, &others) {
        let query = format!(
            "select case when relkind = 'S' then has_sequence_privilege($1, oid, 'usage, select, update')
                         else has_table_privilege($1, oid, 'select, insert, update, delete, truncate, references, trigger')
                    end
             from pg_class where oid = '{relation}'::regclass"
        );
        row(
            out,
            &format!("`{}`", shown(&relation)),
            &asked(cluster, &query),
        );
    }
}

/// What the worker's statements need, by name.
const OF_THE_WORKER: &str = "
select format('| `%s%s` | %s |', nullif(g.schema::regnamespace::text, 'webhook') || '.', g.object, string_agg(g.privilege, ', ' order by g.privilege))
from (
    select c.relnamespace, c.relname::text, lower(a.privilege_type)
    from pg_class c
    cross join aclexplode(c.relacl) a
    where c.relnamespace::regnamespace::text in ('webhook', 'webhook_internal') and a.grantee = 'webhook_worker'::regrole
    union all
    select c.relnamespace, c.relname, lower(a.privilege_type) || ' of ' || string_agg(t.attname, ' and ' order by t.attnum)
    from pg_class c
    join pg_attribute t on t.attrelid = c.oid
    cross join aclexplode(t.attacl) a
    where c.relnamespace::regnamespace::text in ('webhook', 'webhook_internal') and a.grantee = 'webhook_worker'::regrole
    group by c.relnamespace, c.relname, a.privilege_type
    union all
    select p.pronamespace, p.proname, lower(a.privilege_type)
    from pg_proc p
    cross join aclexplode(p.proacl) a
    where p.pronamespace::regnamespace::text in ('webhook', 'webhook_internal') and a.grantee = 'webhook_worker'::regrole
) g (schema, object, privilege)
group by g.schema, g.object
order by g.schema::regnamespace::text collate \"C\", g.object collate \"C\"";

fn privileges_of_the_worker(cluster: &Cluster, out: &mut String) {
    out.push_str(
        "\n## The worker\n\n\
         Its statements run as `webhook_worker`, which cannot log in, has no members, may use the schemas and is\n\
         a member of `pg_read_all_stats`. It has nothing else.\n\n\
         | object | privileges |\n| --- | --- |\n",
    );
    let rows = cluster.connect("postgres").query(OF_THE_WORKER, &[]);
    for line in rows.unwrap() {
        writeln!(out, "{}", line.get::<_, String>(0)).unwrap();
    }
}

#[test]
fn the_document_says_what_each_role_may_do() {
    let (cluster, receiver) = ready_cluster("access_matrix");
    let scene = scene(&cluster, &receiver);
    let mut found = String::from(
        "# Who may do what\n\n\
         tests/it/access_matrix.rs tries each function and view as each role, and fails if this file says\n\
         anything else. SECURITY.md explains the roles. Names without a schema are in schema `webhook`.\n",
    );
    functions(&cluster, &scene, &mut found);
    relations(&cluster, &mut found);
    privileges_of_the_worker(&cluster, &mut found);
    let known = CALLS.iter().map(|(_, statement)| {
        let call = statement.strip_prefix("select webhook.").expect("a call");
        let name = call.split('(').next().expect("a name");
        format!("webhook.{name}")
    });
    let known: BTreeSet<String> = known
        .chain(INTERNAL.iter().map(|name| (*name).to_owned()))
        .collect();
    let all = "select pronamespace::regnamespace || '.' || proname from pg_proc
               where pronamespace::regnamespace::text in ('webhook', 'webhook_internal')";
    assert_eq!(
        names(&cluster, all),
        known,
        "functions that nobody tried, or that are gone"
    );
    if found != EXPECTED {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/target/access.md");
        std::fs::write(path, &found).unwrap();
        panic!("docs/access.md is not what roles may do now, which is in {path}");
    }
}
