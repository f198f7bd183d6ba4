//! What capture costs the user's transaction.

use std::time::Instant;

use super::report::{median, Line, Report, Target};
use super::support::{Cluster, Receiver};

pub const BULK_ROWS: i64 = 100_000;
/// Each measurement is taken so often, in turn with what it is compared with.
const ROUNDS: usize = 5;
const PGBENCH_SECONDS: u32 = 4;
const PGBENCH_ROUNDS: usize = 5;

pub const COLUMNS: &str = "(id bigint primary key, name text, note text, amount numeric(12, 2),
    active boolean, changed_at timestamptz, reference uuid, place integer)";

/// What Hasura installs in principle: a plpgsql function that turns the row into jsonb
/// and inserts it, with names and session variables, into its own event log.
const PLPGSQL_OUTBOX: &str = "
create table plain_log (
    id uuid primary key default gen_random_uuid(), schema_name text, table_name text,
    trigger_name text, payload jsonb, delivered boolean not null default false,
    error boolean not null default false, tries integer not null default 0,
    created_at timestamp default now(), locked timestamptz, next_retry_at timestamp);
create index on plain_log (trigger_name);
create index on plain_log (locked) where not delivered;
create function plain_capture() returns trigger language plpgsql as $$
declare
    row_data jsonb;
    session json;
begin
    row_data := jsonb_build_object('old', null, 'new', row_to_json(new)::jsonb);
    session := nullif(current_setting('plain.user', true), '')::json;
    insert into plain_log (schema_name, table_name, trigger_name, payload)
    values (tg_table_schema, tg_table_name, tg_name,
            jsonb_build_object('op', tg_op, 'data', row_data, 'session_variables', session,
                               'trace_context', null));
    return null;
exception when others then
    raise;
end $$;
create trigger plain after insert on peer for each row execute function plain_capture()";

pub fn fill(table: &str) -> String {
    format!(
        "insert into {table} select i, 'name ' || i, 'a note of some length ' || i, i * 0.5, i % 2 = 0,
            now(), gen_random_uuid(), i % 100 from generate_series(1, {BULK_ROWS}) i"
    )
}

fn create_webhook(cluster: &Cluster, receiver: &Receiver) {
    let url = receiver.url("/count");
    cluster.sql(&format!(
        "select from webhook.create_webhook('bench', array['{url}'])"
    ));
}

/// Seconds a statement takes, on a session of its own that has seen the table.
pub fn seconds(cluster: &Cluster, before: &[&str], statement: &str) -> f64 {
    let mut session = cluster.connect("postgres");
    for statement in before {
        session
            .batch_execute(statement)
            .expect("the preparation works");
    }
    let start = Instant::now();
    session
        .batch_execute(statement)
        .expect("the statement works");
    start.elapsed().as_secs_f64()
}

pub fn bulk(cluster: &Cluster, receiver: &Receiver, report: &mut Report) {
    cluster.configure("webhook.delivery", "off");
    cluster.reload();
    create_webhook(cluster, receiver);
    for table in ["bare", "captured", "peer"] {
        cluster.sql(&format!("create table {table} {COLUMNS}"));
    }
    cluster.sql("select from webhook.create_event('bench', 'captured', 'table.recordInsert')");
    cluster.sql(PLPGSQL_OUTBOX);
    let (mut ours, mut peers) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let time = |table: &str| seconds(cluster, &[&format!("truncate {table}")], &fill(table));
        let bare = time("bare");
        ours.push((time("captured") - bare) * 1e6 / BULK_ROWS as f64);
        peers.push((time("peer") - bare) * 1e6 / BULK_ROWS as f64);
    }
    let (ours, peer) = (median(ours), median(peers));
    report.add(Line {
        name: "P1",
        what: "capture, bulk insert of 100,000 rows: extra time a row".to_owned(),
        ours,
        compared_with: peer,
        unit: "us/row",
        ratio: ours / peer,
        target: Some(Target::OursAtMost(2.0)),
    });
    report.add(Line {
        name: "P1",
        what: "the same, against a plpgsql outbox trigger".to_owned(),
        ours,
        compared_with: peer,
        unit: "us/row",
        ratio: ours / peer,
        target: Some(Target::AtMost(1.0 / 12.0)),
    });
}

fn transactions_per_second(cluster: &Cluster, script: &str, clients: u32) -> f64 {
    let file = cluster.directory().join("pgbench.sql");
    std::fs::write(&file, script).expect("the script can be written");
    let output = cluster
        .client_program("pgbench", "postgres")
        .args(["-n", "-j", "2", "-f"])
        .arg(&file)
        .arg("-c")
        .arg(clients.to_string())
        .arg("-T")
        .arg(PGBENCH_SECONDS.to_string())
        .output()
        .expect("pgbench runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok())
        .unwrap_or_else(|| panic!("pgbench printed no tps: {text}"))
}

pub fn oltp(cluster: &Cluster, receiver: &Receiver, report: &mut Report) {
    cluster.sql("alter system set synchronous_commit = off");
    create_webhook(cluster, receiver);
    for table in ["bare", "captured"] {
        cluster.sql(&format!(
            "create table {table} {COLUMNS};
             create sequence {table}_id;
             insert into {table} select -i, 'name', 'note', 1, true, now(), gen_random_uuid(), 0
             from generate_series(1, 10000) i"
        ));
    }
    for kind in ["Insert", "Update"] {
        cluster.sql(&format!(
            "select from webhook.create_event('bench', 'captured', 'table.record{kind}')"
        ));
    }
    let insert = |table: &str| {
        format!(
            "insert into {table} values (nextval('{table}_id'), 'name', 'a note of some length', 12.5,
                true, now(), 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 1);"
        )
    };
    let update = |table: &str| {
        format!("\\set id random(1, 10000)\nupdate {table} set place = place + 1 where id = -:id;")
    };
    for delivery in ["off", "on"] {
        cluster.configure("webhook.delivery", delivery);
        cluster.reload();
        for (clients, share) in [(1, 0.92), (8, 0.85)] {
            for (what, script) in [
                ("insert", &insert as &dyn Fn(&str) -> String),
                ("update", &update),
            ] {
                let (mut ours, mut bare) = (Vec::new(), Vec::new());
                for _ in 0..PGBENCH_ROUNDS {
                    bare.push(transactions_per_second(cluster, &script("bare"), clients));
                    ours.push(transactions_per_second(
                        cluster,
                        &script("captured"),
                        clients,
                    ));
                }
                let (ours, bare) = (median(ours), median(bare));
                report.add(Line {
                    name: "P2",
                    what: format!("one-row {what}, {clients} client(s), delivery {delivery}"),
                    ours,
                    compared_with: bare,
                    unit: "tps",
                    ratio: ours / bare,
                    // What the worker takes of the machine meanwhile is for information.
                    target: (delivery == "off").then_some(Target::AtLeast(share)),
                });
            }
        }
    }
}

pub fn filtered_out(cluster: &Cluster, receiver: &Receiver, report: &mut Report) {
    create_webhook(cluster, receiver);
    for table in ["bare", "captured"] {
        cluster.sql(&format!("create table {table} {COLUMNS}"));
        cluster.sql(&fill(table));
    }
    cluster.sql(
        "select from webhook.create_event('bench', 'captured', 'table.recordUpdate',
             object_fields => array['name', 'amount'])",
    );
    let (mut extra, mut returning) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let time = |table: &str, capture: &str| {
            let (vacuum, set) = (
                format!("vacuum {table}"),
                format!("set webhook.capture = {capture}"),
            );
            let update = format!("update {table} set place = place + 1");
            seconds(cluster, &[&vacuum, &set], &update) * 1e6 / BULK_ROWS as f64
        };
        let bare = time("bare", "on");
        extra.push(time("captured", "on") - bare);
        // What PostgreSQL itself takes for an AFTER trigger that does nothing.
        returning.push(time("captured", "off") - bare);
    }
    let written: i64 = cluster.value("select count(*) from webhook.messages");
    let (ours, returning) = (median(extra), median(returning));
    report.add(Line {
        name: "P3",
        what: format!(
            "update that no event watches: extra a row ({written} messages) / capture off"
        ),
        ours,
        compared_with: returning,
        unit: "us/row",
        ratio: ours / returning,
        target: Some(Target::AtMost(1.25)),
    });
}
