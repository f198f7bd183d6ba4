//! Which statements make messages, how many, and in which order: whatever changes
//! a row counts, as an independent witness sees it.

use super::support::definitions::{create_events, create_webhook, records_at, wait_idle};
use super::support::{ready_cluster, witness, Cluster, Receiver};

/// One call at a time: messages arrive in the order of the changes.
const IN_ORDER: &str = "max_in_flight => 1";

const TABLE: &str =
    "create table items (id integer primary key, name text, amount integer default 0)";

/// Table `items`, witnessed, with events for every change of it at `/ok`.
fn watched_items(name: &str) -> (Cluster, Receiver) {
    let (cluster, receiver) = ready_cluster(name);
    create_webhook(&cluster, "items", &[receiver.url("/ok")], IN_ORDER);
    cluster.sql(TABLE);
    watch(&cluster, "items");
    (cluster, receiver)
}

fn watch(cluster: &Cluster, table: &str) {
    witness::watch(cluster, table);
    create_events(cluster, "items", table, "null_style => 'null'");
}

/// What `statement` makes, after everything before it.
fn messages_of(cluster: &Cluster, receiver: &Receiver, statement: &str) -> usize {
    let before = receiver.count("/ok").requests;
    cluster.psql(statement);
    wait_idle(cluster);
    usize::try_from(receiver.count("/ok").requests - before).unwrap()
}

#[test]
fn every_statement_makes_one_message_for_each_row_that_it_changes() {
    let (cluster, receiver) = watched_items("statements");
    let made = |statement: &str, messages: usize| {
        let found = messages_of(&cluster, &receiver, statement);
        assert_eq!(found, messages, "messages of: {statement}");
    };
    made("insert into items values (1, 'one', 1)", 1);
    // More than a lane keeps in memory, so that it also reads its own backlog.
    made(
        "insert into items select n, 'bulk', n from generate_series(2, 3001) n",
        3000,
    );
    made(
        "copy items from stdin;\n4001\tcopied\t1\n4002\tcopied too\t\\N\n\\.\n",
        2,
    );
    made(
        "insert into items values (1, 'again', 7), (5000, 'new', 7)
         on conflict (id) do update set name = excluded.name",
        2,
    );
    made("insert into items values (1) on conflict do nothing", 0);
    made(
        "insert into items values (1, 'again', 7) on conflict (id) do update set name = excluded.name",
        0,
    );
    made(
        "merge into items
         using (values (1, 10), (2, 20), (3, 3), (6000, 60)) v (id, amount) on items.id = v.id
         when matched and v.id = 2 then delete
         when matched then update set amount = v.amount
         when not matched then insert values (v.id, 'merged', v.amount)",
        3,
    );
    made(
        "with gone as (delete from items where id between 4 and 6 returning id)
         insert into items select id + 7000, 'moved', 0 from gone",
        6,
    );
    made("update items set name = name, amount = amount + 0", 0);
    made("update items set amount = null where id = 4001", 1);
    made("delete from items where id > 2990", 11 + 2 + 1 + 1 + 3);
    made("begin; delete from items; rollback", 0);
    made("truncate items", 0);
    made("insert into items (id) values (1)", 1);
    witness::assert_received_in_order(&cluster, &receiver, "/ok");
}

#[test]
fn a_row_changed_often_in_one_transaction_makes_a_message_each_time_in_that_order() {
    let (cluster, receiver) = watched_items("order");
    cluster.sql(
        "begin;
         insert into items values (1, 'a', 0), (2, 'a', 0);
         update items set name = 'b' where id = 1;
         update items set name = 'c';
         update items set name = 'c';
         savepoint s;
         update items set name = 'never';
         rollback to s;
         delete from items where id = 1;
         insert into items values (1, 'd', 0);
         update items set id = 3 where id = 2;
         commit",
    );
    for round in 0..20 {
        cluster.sql(&format!("update items set amount = {round} where id = 1"));
    }
    wait_idle(&cluster);
    assert_eq!(records_at(&receiver, "/ok").len(), 2 + 1 + 2 + 3 + 19);
    witness::assert_received_in_order(&cluster, &receiver, "/ok");
}

#[test]
fn changes_that_triggers_and_foreign_keys_make_up_to_the_commit_are_captured() {
    let (cluster, receiver) = watched_items("cascades");
    cluster.sql(
        "create table orders (id integer primary key, item integer references items
                                  on update cascade on delete cascade deferrable initially deferred,
                              note text default 'open');
         create function settle() returns trigger language plpgsql as $$
         begin
             update items set amount = amount + 1 where id = new.item;
             update orders set note = 'settled' where id = new.id;
             insert into items values (new.item + 100, 'made at commit', 0);
             return null;
         end
         $$;
         create constraint trigger settle after insert on orders
         deferrable initially deferred for each row execute function settle()",
    );
    watch(&cluster, "orders");
    cluster.sql("insert into items values (1, 'one', 0)");
    cluster.sql("begin; insert into orders values (1, 1); commit");
    cluster.sql("update items set id = 2 where id = 1");
    cluster.sql("begin; insert into orders values (2, 2); rollback");
    let violates = cluster.connect("postgres").batch_execute(
        "begin; insert into items values (50); insert into orders values (3, 999); commit",
    );
    assert!(violates.is_err(), "a deferred foreign key fails at commit");
    cluster.sql("delete from items where id = 2");
    wait_idle(&cluster);

    let received = records_at(&receiver, "/ok");
    assert!(
        received.contains(&r#"Insert {"id":101,"name":"made at commit","amount":0}"#.to_owned()),
        "{received:#?}"
    );
    assert!(
        received.contains(&r#"Delete {"id":1,"item":2,"note":"settled"}"#.to_owned()),
        "{received:#?}"
    );
    assert_eq!(received.len(), 9, "{received:#?}");
    witness::assert_received_in_order(&cluster, &receiver, "/ok");
}
