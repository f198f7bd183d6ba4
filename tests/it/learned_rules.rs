//! What sessions keep of events that match values: bounded, and yet nothing is read again for each row.

use postgres::Client;

use super::support::definitions::create_webhook;
use super::support::{ready_cluster, Cluster, Receiver};

/// No row comes from there, so that rules are learned and no message is made.
const ELSEWHERE: &str = "event_sources => array['elsewhere']";

fn with_webhook(name: &str, table: &str) -> (Cluster, Receiver) {
    let (cluster, receiver) = ready_cluster(name);
    create_webhook(&cluster, "crm", &[receiver.url("/ok")], "");
    cluster.sql(table);
    (cluster, receiver)
}

fn run(session: &mut Client, statements: &str) {
    session
        .batch_execute(statements)
        .unwrap_or_else(|error| panic!("{statements}: {error:?}"));
}

/// How often the transaction has searched the events and their indexes.
fn searches(session: &mut Client) -> i64 {
    let query = "
        select sum(pg_stat_get_xact_numscans(r.oid))::bigint
        from (select 'webhook.event_def'::regclass::oid
              union all
              select indexrelid from pg_index where indrelid = 'webhook.event_def'::regclass) r (oid)";
    session.query_one(query, &[]).unwrap().get(0)
}

fn memory_kb(session: &mut Client) -> i64 {
    let pid: i32 = session
        .query_one("select pg_backend_pid()", &[])
        .unwrap()
        .get(0);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.expect("a process has memory").parse().unwrap()
}

#[test]
fn a_value_of_more_events_than_a_session_keeps_is_looked_up_once() {
    let (cluster, _receiver) = with_webhook(
        "learned_once",
        "create table things (id integer, status text);
         do $$ begin
             for n in 0 .. 99 loop execute format('alter table things add column c%s integer', n); end loop;
             for n in 0 .. 9 loop execute format('alter table things add column d%s integer', n); end loop;
         end $$;
         insert into things
         select n, (array['new', 'paid'])[1 + n % 2] from generate_series(1, 8) n;
         insert into things values (9, 'sent')",
    );
    cluster.sql(&format!(
        "select count(*)
         from generate_series(0, 999) n
         cross join webhook.create_event('crm', 'things', 'table.recordUpdate', array['c' || n % 100, 'd' || n / 100],
                                         {ELSEWHERE}, match => '{{\"status\": \"paid\"}}')"
    ));
    let mut session = cluster.connect("postgres");
    run(
        &mut session,
        "begin; update things set c0 = 1 where id <= 3",
    );
    let before = searches(&mut session);
    run(&mut session, "update things set c0 = 2 where id <= 8");
    assert_eq!(searches(&mut session) - before, 0);
    // Another value costs its own look-up alone.
    run(&mut session, "update things set c0 = 3 where id = 9");
    let of_another = searches(&mut session) - before;
    assert!((1..=3).contains(&of_another), "{of_another}");
    run(&mut session, "update things set c0 = 4; commit");
}

/// Each partition has rules of its own, which count together.
#[test]
fn a_session_keeps_a_bounded_part_of_the_rules_of_many_partitions() {
    const PARTITIONS: i32 = 12;
    const EVENTS: i32 = 120;
    let (cluster, _receiver) = with_webhook(
        "learned_bound",
        "create table things (part integer, tenant integer) partition by list (part);
         do $$ begin
             for n in 1 .. 250 loop execute format('alter table things add column c%s integer', n); end loop;
         end $$",
    );
    cluster.sql(&format!(
        "do $$ begin
             for n in 1 .. {PARTITIONS} loop
                 execute format('create table things_%s partition of things for values in (%s)', n, n);
             end loop;
         end $$;
         insert into things (part, tenant)
         select p, t from generate_series(1, {PARTITIONS}) p, generate_series(1, {EVENTS}) t;
         select count(*)
         from generate_series(1, {EVENTS}) n
         cross join webhook.create_event('crm', 'things', 'table.recordUpdate', array['c' || n], {ELSEWHERE},
                                         match => jsonb_build_object('tenant', n))"
    ));
    let mut session = cluster.connect("postgres");
    // One value in each partition: what does not depend on the number of events.
    run(
        &mut session,
        "update things set c1 = 0, c2 = 0 where tenant = 1",
    );
    let before = memory_kb(&mut session);
    run(&mut session, "update things set c1 = 1");
    let grown_kb = memory_kb(&mut session) - before;
    println!("grown by {grown_kb} kB");
    assert!(grown_kb < 32 << 10, "{grown_kb} kB");
}
