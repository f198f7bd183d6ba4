//! All events of one kind on a table that have no condition share one trigger: only the first needs
//! a lock on the table, and the trigger goes with the last one.

use std::time::{Duration, Instant};

use postgres::Client;

use super::support::copies::{dump, restore};
use super::support::definitions::{create_event, create_webhook, records_at, wait_idle};
use super::support::{ready_cluster, Cluster, Receiver, PATIENCE};

/// One call at a time: messages arrive in the order of the changes.
const IN_ORDER: &str = "max_in_flight => 1";

/// Less than any wait for a lock: `lock_timeout` is 5 s.
const AT_ONCE: Duration = Duration::from_secs(4);

fn with_webhooks(name: &str) -> (Cluster, Receiver) {
    let (cluster, receiver) = ready_cluster(name);
    for webhook in ["one", "two", "three"] {
        let url = receiver.url(&format!("/ok/{webhook}"));
        create_webhook(&cluster, webhook, &[url], IN_ORDER);
    }
    cluster.sql("create table items (id integer, name text)");
    (cluster, receiver)
}

fn run(session: &mut Client, statements: &str) {
    session
        .batch_execute(statements)
        .unwrap_or_else(|error| panic!("{statements}: {error:?}"));
}

/// The names of the triggers on a table that capture, without ids.
fn triggers(cluster: &Cluster, table: &str) -> String {
    cluster.psql(&format!(
        "select regexp_replace(tgname, '_[a-z0-9]{{6}}$', '') from pg_trigger
         where tgrelid = '{table}'::regclass and tgfoid = 'webhook.capture()'::regprocedure order by 1"
    ))
}

#[test]
fn further_events_need_no_lock_on_the_table_and_leave_none() {
    let (cluster, receiver) = with_webhooks("no_lock");
    create_event(&cluster, "one", "items", "Insert", "");
    for lock in ["row exclusive", "access exclusive"] {
        let mut other = cluster.connect("postgres");
        run(
            &mut other,
            &format!("begin; lock table items in {lock} mode"),
        );
        let mut session = cluster.connect("postgres");
        run(&mut session, "set lock_timeout = '5s'");
        let begun = Instant::now();
        run(
            &mut session,
            "begin;
             select webhook.create_event('two', 'items', 'table.recordInsert');
             select webhook.create_event('three', 'items', 'table.recordInsert', match => '{\"id\": 1}');
             select count(*) from webhook.events where webhook_name in ('two', 'three')",
        );
        let held: i64 = session
            .query_one(
                "select count(*) from pg_locks where relation = 'items'::regclass and pid = pg_backend_pid()",
                &[],
            )
            .unwrap()
            .get(0);
        assert_eq!(held, 0);
        run(
            &mut session,
            "select webhook.drop_event(id) from webhook.events where webhook_name = 'two';
             select webhook.drop_webhook('three'); rollback",
        );
        assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
        run(&mut other, "rollback");
    }
    create_event(&cluster, "two", "items", "Insert", "");
    cluster.sql("insert into items values (1)");
    wait_idle(&cluster);
    assert_eq!(receiver.received_at("/ok/one").len(), 1);
    assert_eq!(receiver.received_at("/ok/two").len(), 1);
    assert_eq!(triggers(&cluster, "items"), "webhook_insert\n");
}

#[test]
fn the_trigger_goes_with_the_last_event_unless_the_table_is_in_use() {
    let (cluster, receiver) = with_webhooks("last_event");
    let first = create_event(&cluster, "one", "items", "Insert", "");
    let second = create_event(&cluster, "two", "items", "Insert", "");
    cluster.sql(&format!("select webhook.drop_event('{first}')"));
    assert_eq!(triggers(&cluster, "items"), "webhook_insert\n");
    cluster.sql("insert into items values (1)");
    let mut writer = cluster.connect("postgres");
    run(&mut writer, "begin; insert into items values (2)");
    let begun = Instant::now();
    cluster.sql(&format!("select webhook.drop_event('{second}')"));
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    run(&mut writer, "insert into items values (3); commit");
    assert_eq!(triggers(&cluster, "items"), "webhook_insert\n");
    run(&mut writer, "insert into items values (4)");
    // The next one finds the trigger that stayed.
    let third = create_event(&cluster, "three", "items", "Insert", "");
    run(&mut writer, "insert into items values (5)");
    wait_idle(&cluster);
    cluster.sql(&format!("select webhook.drop_event('{third}')"));
    assert_eq!(triggers(&cluster, "items"), "");
    run(&mut writer, "insert into items values (6)");
    wait_idle(&cluster);
    let of_two = records_at(&receiver, "/ok/two");
    assert_eq!(
        of_two[0],
        r#"Insert {"id":1,"name":null}"#.replace("null", "\"\"")
    );
    assert_eq!(
        records_at(&receiver, "/ok/three"),
        [r#"Insert {"id":5,"name":""}"#]
    );
}

/// The other session has dropped the trigger and not said COMMIT: an event must not rely on it.
#[test]
fn an_event_is_dropped_while_its_own_session_uses_the_table() {
    let (cluster, _receiver) = with_webhooks("in_use_here");
    cluster.sql(
        "create table parents (id integer primary key);
         alter table items add foreign key (id) references parents deferrable initially deferred;
         insert into parents values (1);
         insert into items values (1, 'a'), (1, 'b')",
    );
    let mut session = cluster.connect("postgres");
    for (what, using) in [
        (
            "a loop over the table",
            "do $$
             declare item record;
             begin
                 for item in select id from items loop
                     perform webhook.drop_event(e.id) from webhook.events e;
                 end loop;
             end $$",
        ),
        (
            "a trigger that is deferred",
            "begin;
             insert into items values (1, 'c');
             select webhook.drop_event(e.id) from webhook.events e;
             commit",
        ),
    ] {
        create_event(&cluster, "one", "items", "Insert", "");
        run(&mut session, using);
        let events: i64 = cluster.value("select count(*) from webhook.events");
        assert_eq!(events, 0, "{what}");
        // It captures nothing, and the next event has it.
        assert_eq!(triggers(&cluster, "items"), "webhook_insert\n", "{what}");
    }
}

#[test]
fn an_event_that_is_created_while_the_last_one_is_dropped_has_its_trigger() {
    let (cluster, receiver) = with_webhooks("drop_race");
    let first = create_event(&cluster, "one", "items", "Insert", "");
    for ending in ["commit", "rollback"] {
        let mut dropping = cluster.connect("postgres");
        run(&mut dropping, "begin");
        if ending == "commit" {
            run(
                &mut dropping,
                &format!("select webhook.drop_event('{first}')"),
            );
        } else {
            run(
                &mut dropping,
                "select webhook.drop_event(id) from webhook.events",
            );
        }
        std::thread::scope(|scope| {
            let creating = scope.spawn(|| {
                create_event(
                    &cluster,
                    "two",
                    "items",
                    "Insert",
                    &format!("match => '{{\"name\": \"{ending}\"}}'"),
                )
            });
            cluster.wait_for_text(
                super::support::PATIENCE,
                "select count(*)::text from pg_stat_activity where wait_event_type = 'Lock' and query ~ 'create_event'",
                "1",
            );
            run(&mut dropping, ending);
            creating.join().expect("the event is created");
        });
        cluster.sql(&format!("insert into items values (1, '{ending}')"));
    }
    wait_idle(&cluster);
    assert_eq!(receiver.received_at("/ok/two").len(), 2);
    assert_eq!(triggers(&cluster, "items"), "webhook_insert\n");
}

#[test]
fn a_condition_has_a_trigger_of_its_own_and_gives_it_up() {
    let (cluster, receiver) = with_webhooks("conditions");
    let event = create_event(
        &cluster,
        "one",
        "items",
        "Insert",
        "condition => 'new.id > 1'",
    );
    assert_eq!(triggers(&cluster, "items"), "webhook\n");
    create_event(&cluster, "two", "items", "Insert", "");
    assert_eq!(triggers(&cluster, "items"), "webhook\nwebhook_insert\n");
    cluster.sql("insert into items values (1, ''), (2, '')");
    cluster.sql(&format!(
        "select webhook.update_event('{event}', condition => '')"
    ));
    assert_eq!(triggers(&cluster, "items"), "webhook_insert\n");
    cluster.sql("insert into items values (1, '')");
    cluster.sql(&format!(
        "select webhook.update_event('{event}', condition => 'new.id > 2')"
    ));
    assert_eq!(triggers(&cluster, "items"), "webhook\nwebhook_insert\n");
    cluster.sql("insert into items values (2, ''), (3, '')");
    wait_idle(&cluster);
    let ids = |path: &str| -> Vec<i64> {
        let received = receiver.received_at(path);
        let id = received.iter().map(|m| m.body()["data"][0]["id"].as_i64());
        id.map(|id| id.expect("a row has an id")).collect()
    };
    assert_eq!(ids("/ok/one"), [2, 1, 3]);
    assert_eq!(ids("/ok/two"), [1, 2, 1, 2, 3]);
    cluster.sql("select webhook.drop_webhook('one'); select webhook.drop_webhook('two')");
    assert_eq!(triggers(&cluster, "items"), "");
}

/// A partition may have events of its own beside those of its parent, and come and go.
#[test]
fn events_of_a_partition_and_of_its_parent_stay_apart() {
    let (cluster, receiver) = with_webhooks("apart");
    cluster.sql(
        "create table parent (id integer, name text) partition by range (id);
         create table low partition of parent for values from (0) to (10);
         create table high (id integer, name text)",
    );
    create_event(&cluster, "one", "low", "Insert", "");
    create_event(&cluster, "one", "high", "Insert", "");
    create_event(&cluster, "two", "parent", "Insert", "");
    cluster.sql("alter table parent attach partition high for values from (10) to (20)");
    cluster.sql("insert into parent values (1), (11)");
    cluster.sql("alter table parent detach partition low; insert into low values (2); insert into high values (12)");
    cluster.sql("drop table parent cascade");
    wait_idle(&cluster);
    let ids = |path: &str| -> Vec<i64> {
        let received = receiver.received_at(path);
        let id = received.iter().map(|m| m.body()["data"][0]["id"].as_i64());
        id.map(|id| id.expect("a row has an id")).collect()
    };
    assert_eq!(ids("/ok/one"), [1, 11, 2, 12]);
    assert_eq!(ids("/ok/two"), [1, 11, 12]);
}

#[test]
fn a_dump_carries_the_trigger_and_a_copy_goes_on_sharing_it() {
    let (cluster, receiver) = with_webhooks("shared_dump");
    let first = create_event(&cluster, "one", "items", "Insert", "");
    create_event(&cluster, "two", "items", "Insert", "");
    cluster.sql(&format!("select webhook.drop_event('{first}')"));
    let script = dump(&cluster, "postgres", &[]);
    cluster.sql("create database copy");
    restore(&cluster, "copy", &script);
    cluster.sql_in("copy", "select webhook.adopt()");
    let mut busy = cluster.connect("copy");
    run(&mut busy, "begin; insert into items values (1)");
    let begun = Instant::now();
    cluster.sql_in(
        "copy",
        "select webhook.create_event('three', 'items', 'table.recordInsert')",
    );
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    run(&mut busy, "commit; insert into items values (2)");
    receiver.wait_for(super::support::PATIENCE, "/ok/two", 2);
    receiver.wait_for(super::support::PATIENCE, "/ok/three", 1);
    let status = cluster
        .connect("copy")
        .query_one("select string_agg(status, ' ') from webhook.events", &[]);
    assert_eq!(status.unwrap().get::<_, String>(0), "Active Active");
}

/// As 0.1.0 leaves it: one trigger an event, its id the argument.
#[test]
fn an_upgrade_turns_the_triggers_of_events_into_one() {
    let receiver = Receiver::start();
    let cluster = Cluster::builder("shared_upgrade")
        .set("webhook.allowed_networks", "127.0.0.0/8")
        .start();
    cluster.exempt_from_bookkeeping("its history is written by hand");
    cluster.sql("create extension webhook_ext version '0.1.0'");
    let data = include_str!("../upgrade/data-0.1.0.sql");
    cluster.sql(&data.replace("RECEIVER", &receiver.url("/ok/a")));
    cluster.sql(
        "create table busy (id bigint, note text);
         insert into webhook.event_def (id, webhook_key, event_type, object_name, object_label, object_oid, condition,
                                        enabled, null_style, list_style, created_by)
         select n.id, w.webhook_key, 'table.recordInsert', n.object, n.object, n.object::regclass, n.condition, true,
                'typed', 'array', 'postgres'
         from webhook.webhook_def w
         cross join (values ('event2', 'items', null), ('event3', 'items', null), ('event4', 'items', 'new.id > 5'),
                            ('event5', 'busy', null), ('event6', 'busy', null)) n (id, object, condition)
         where w.id = 'hook01';
         create trigger webhook_event2 after insert on items for each row execute function webhook.capture('event2');
         create trigger webhook_event3 after insert on items for each row execute function webhook.capture('event3');
         create trigger webhook_event4 after insert on items for each row when (new.id > 5) execute function webhook.capture('event4');
         create trigger webhook_event5 after insert on busy for each row execute function webhook.capture('event5');
         create trigger webhook_event6 after insert on busy for each row execute function webhook.capture('event6');
         alter table items disable trigger webhook_event3",
    );
    let mut writer = cluster.connect("postgres");
    run(&mut writer, "begin; lock table busy in row exclusive mode");
    cluster.sql("alter extension webhook_ext update");
    run(&mut writer, "insert into busy values (2); commit");
    let names = |table: &str| {
        cluster.psql(&format!(
            "select tgname from pg_trigger where tgrelid = '{table}'::regclass order by 1"
        ))
    };
    assert_eq!(names("items"), "webhook_event1\nwebhook_event4\n");
    // A session wrote to it: both stay, and one captures for both.
    assert_eq!(names("busy"), "webhook_event5\nwebhook_event6\n");
    run(
        &mut writer,
        "insert into busy values (3); insert into items values (1), (6)",
    );
    assert_eq!(
        cluster.psql("select id, status from webhook.events order by id"),
        "event1|Active\nevent2|Active\nevent3|Inactive\nevent4|Active\nevent5|Active\nevent6|Active\n"
    );
    // The trigger bears the name of an event that is dropped, or gets a condition.
    run(
        &mut writer,
        "select webhook.drop_event('event1');
         select webhook.update_event('event5', condition => 'new.id > 5');
         insert into items values (2); insert into busy values (4), (6)",
    );
    let counted = "
        select e.id, count(m.message_id)
        from webhook.event_def e
        left join webhook.messages m on m.event_id = e.id and m.event_date > now() - interval '1 hour'
        group by e.id
        order by e.id";
    wait_idle(&cluster);
    assert_eq!(
        cluster.psql(counted),
        "event1|2\nevent2|3\nevent3|0\nevent4|1\nevent5|3\nevent6|4\n"
    );
}

/// A session that has dropped nothing does not hold up the others until its transaction ends.
#[test]
fn a_trigger_that_stays_can_be_shared_at_once() {
    let (cluster, receiver) = with_webhooks("stays");
    let first = create_event(&cluster, "one", "items", "Insert", "");
    let mut writer = cluster.connect("postgres");
    run(&mut writer, "begin; insert into items values (1)");
    let mut dropping = cluster.connect("postgres");
    run(
        &mut dropping,
        &format!("begin; select webhook.drop_event('{first}')"),
    );
    let begun = Instant::now();
    create_event(&cluster, "two", "items", "Insert", "");
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    run(&mut dropping, "commit");
    run(&mut writer, "commit; insert into items values (2)");
    wait_idle(&cluster);
    assert_eq!(receiver.received_at("/ok/one").len(), 1);
    assert_eq!(
        records_at(&receiver, "/ok/two"),
        [r#"Insert {"id":2,"name":""}"#]
    );
}

/// First and last events of a table come and go in several sessions: none is without a trigger.
#[test]
fn events_that_come_and_go_together_capture_each_row() {
    const ROUNDS: usize = 30;
    let (cluster, _receiver) = with_webhooks("together");
    cluster.sql("select webhook.pause_webhook(w) from unnest(array['one', 'two', 'three']) w");
    std::thread::scope(|scope| {
        for webhook in ["one", "two", "three"] {
            let cluster = &cluster;
            scope.spawn(move || {
                let mut session = cluster.connect("postgres");
                for _ in 0..ROUNDS {
                    let created = session.query_one(
                        "select id from webhook.create_event($1, 'items', 'table.recordInsert',
                                                             match => jsonb_build_object('name', $1::text))",
                        &[&webhook],
                    );
                    let id: String = created.expect("the event is created").get(0);
                    run(
                        &mut session,
                        &format!(
                            "insert into items values (1, '{webhook}'); select webhook.drop_event('{id}')"
                        ),
                    );
                }
            });
        }
    });
    let messages: String = cluster.value(
        "select coalesce(string_agg(webhook_id || ' ' || n, ', ' order by n), '')
         from (select webhook_id, count(*) as n from webhook.messages group by webhook_id) m
         where n <> 30",
    );
    assert_eq!(messages, "");
    assert_eq!(
        cluster.psql("select count(*) from webhook.messages"),
        format!("{}\n", 3 * ROUNDS)
    );
}

/// More triggers than one transaction has locks for: an upgrade leaves some, which do nothing.
#[test]
fn an_upgrade_of_more_events_than_it_can_convert_captures_each_once() {
    let receiver = Receiver::start();
    let cluster = Cluster::builder("many_upgraded")
        .set("webhook.allowed_networks", "127.0.0.0/8")
        .start();
    cluster.exempt_from_bookkeeping("its history is written by hand");
    cluster.sql("create extension webhook_ext version '0.1.0'");
    let data = include_str!("../upgrade/data-0.1.0.sql");
    cluster.sql(&data.replace("RECEIVER", &receiver.url("/ok/a")));
    cluster.sql(
        "create table many (id bigint);
         insert into webhook.event_def (id, webhook_key, event_type, object_name, object_label, object_oid, enabled,
                                        null_style, list_style, created_by)
         select 'm' || lpad(n::text, 5, '0'), w.webhook_key, 'table.recordInsert', 'many', 'many', 'many'::regclass,
                true, 'typed', 'array', 'postgres'
         from webhook.webhook_def w
         cross join generate_series(1, 1500) n
         where w.id = 'hook01'",
    );
    // In steps, each of which has room for its locks.
    for step in 0..15 {
        cluster.sql(&format!(
            "do $$
             begin
                 for n in {from}..{to} loop
                     execute format('create trigger %I after insert on many for each row execute function webhook.capture(%L)',
                                    'webhook_m' || lpad(n::text, 5, '0'), 'm' || lpad(n::text, 5, '0'));
                 end loop;
             end
             $$",
            from = step * 100 + 1,
            to = step * 100 + 100
        ));
    }
    cluster.sql("alter extension webhook_ext update");
    cluster.sql("select webhook.pause_webhook('hook01')");
    let mut session = cluster.connect("postgres");
    run(&mut session, "insert into many values (1)");
    assert_eq!(
        cluster.psql(
            "select count(*) from pg_trigger where tgrelid = 'many'::regclass;
             select count(*), count(distinct event_id) from webhook.messages where object_name = 'many'"
        ),
        "500\n1500|1500\n"
    );
}

/// The body of a function in SQL that is read again by each session would read other strings here.
#[test]
fn a_session_with_backslashes_in_its_strings_captures_and_defines() {
    let (cluster, receiver) = ready_cluster("backslashes");
    let url = receiver.url("/ok/a");
    cluster.sql(&format!(
        "set standard_conforming_strings = off;
         set escape_string_warning = off;
         create table items (id integer primary key);
         select webhook.create_webhook('a', array['{url}']);
         select webhook.create_event('a', 'items', 'table.recordInsert');
         insert into items values (1);
         select count(*) from webhook.events"
    ));
    receiver.wait_for(PATIENCE, "/ok/a", 1);
}
