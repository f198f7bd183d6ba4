//! What an event leaves out: by field, by condition, by source, by switch; and that
//! what a payload does not name is written nowhere.

use super::support::definitions::{create_event, create_webhook, records_at, wait_idle};
use super::support::{contents, ready_cluster_without_retries, Cluster, Receiver};

/// One call at a time: messages arrive in the order of the changes.
const IN_ORDER: &str = "max_in_flight => 1";

fn with_webhook(name: &str) -> (Cluster, Receiver) {
    let (cluster, receiver) = ready_cluster_without_retries(name);
    create_webhook(&cluster, "filtered", &[receiver.url("/ok")], IN_ORDER);
    (cluster, receiver)
}

/// The field `label` of each message, in order of arrival, once nothing is pending.
fn labels(cluster: &Cluster, receiver: &Receiver) -> Vec<String> {
    wait_idle(cluster);
    let received = receiver.received_at("/ok");
    let labels = received.iter().map(|message| {
        message.body()["data"][0]["label"]
            .as_str()
            .map(str::to_owned)
    });
    labels.map(|label| label.expect("has a label")).collect()
}

#[test]
fn an_update_counts_only_if_the_stored_image_of_a_trigger_field_differs() {
    let (cluster, receiver) = with_webhook("fields");
    cluster.sql(
        "create table things (label text, watched text, \"NULL able\" text, big text);
         alter table things alter big set storage external;
         insert into things select '', 'a', null, string_agg(md5(n::text), '') from generate_series(1, 300) n;
         create function shout() returns trigger language plpgsql as $$
         begin
             if new.label = 'set by a trigger' then
                 new.watched := new.watched || '!';
             end if;
             return new;
         end
         $$;
         create trigger shout before update on things for each row execute function shout()",
    );
    create_event(
        &cluster,
        "filtered",
        "things",
        "Update",
        "object_fields => array['watched', 'NULL able', 'big'], payload_fields => array['label']",
    );
    let steps = [
        ("only the label", "", false),
        ("same value", ", watched = 'a'", false),
        ("itself", ", watched = watched, big = big", false),
        ("another value", ", watched = 'b'", true),
        ("null stays null", ", \"NULL able\" = null", false),
        ("null to empty", ", \"NULL able\" = ''", true),
        ("empty to null", ", \"NULL able\" = null", true),
        (
            "toasted again with the same text",
            ", big = big || ''",
            false,
        ),
        (
            "toasted again with another text",
            ", big = 'X' || substr(big, 2)",
            true,
        ),
        ("toast left alone", ", watched = 'b'", false),
        ("set by a trigger", "", true),
        (
            "several at once",
            ", watched = 'c', \"NULL able\" = 'd'",
            true,
        ),
        ("toasted to null", ", big = null", true),
    ];
    for (label, change, _) in steps {
        cluster.sql(&format!("update things set label = '{label}'{change}"));
    }
    let expected: Vec<&str> = steps
        .iter()
        .filter(|(_, _, counts)| *counts)
        .map(|(label, _, _)| *label)
        .collect();
    assert_eq!(labels(&cluster, &receiver), expected);
}

#[test]
fn a_condition_decides_with_the_row_before_and_after() {
    let (cluster, receiver) = with_webhook("condition");
    cluster.sql("create table accounts (label text primary key, balance numeric)");
    create_event(
        &cluster,
        "filtered",
        "accounts",
        "Update",
        "condition => 'new.balance < 0 and old.balance >= 0 -- overdrawn'",
    );
    create_event(
        &cluster,
        "filtered",
        "accounts",
        "Insert",
        "condition => $$new.label like 'vip %' or new.balance is null$$",
    );
    cluster.sql("insert into accounts values ('plain', 1)");
    cluster.sql("insert into accounts values ('vip a', 1), ('other', 1), ('unknown', null)");
    cluster.sql("update accounts set balance = 2");
    cluster.sql("update accounts set balance = -1 where label in ('plain', 'vip a')");
    cluster.sql("update accounts set balance = -2");
    assert_eq!(
        labels(&cluster, &receiver),
        ["vip a", "unknown", "plain", "vip a", "other", "unknown"]
    );
}

#[test]
fn only_changes_of_the_named_sources_count_whatever_their_case() {
    let (cluster, receiver) = with_webhook("sources");
    cluster.sql("create table calls (label text); create role robot login");
    cluster.sql("grant all on calls to robot; alter role robot set webhook.source = 'Nightly Job'");
    create_event(
        &cluster,
        "filtered",
        "calls",
        "Insert",
        "event_sources => array['REST API', 'nightly job', 'Ünïcode']",
    );
    let insert = |settings: &str, label: &str| {
        cluster.sql(&format!(
            "begin; {settings}; insert into calls values ('{label}'); commit"
        ));
    };
    insert("select 1", "application_name of the tests");
    insert("set webhook.source = 'REST API'", "as written");
    insert("set webhook.source = 'rest api'", "lower case");
    insert("set webhook.source = 'Batch'", "another source");
    insert("set webhook.source = 'REST'", "a part of it");
    insert("set application_name = 'Rest Api'", "application_name");
    insert(
        "set application_name = 'REST API'; set webhook.source = 'Batch'",
        "source goes before application_name",
    );
    insert("set webhook.source = 'ÜNÏCODE'", "unicode");
    cluster.sql(
        "begin; set local webhook.source = 'REST API'; insert into calls values ('set local'); commit;
         insert into calls values ('after set local')",
    );
    let mut robot = cluster.connect_as("robot", "postgres");
    robot
        .batch_execute("insert into calls values ('alter role')")
        .unwrap();
    assert_eq!(
        labels(&cluster, &receiver),
        [
            "as written",
            "lower case",
            "application_name",
            "unicode",
            "set local",
            "alter role"
        ]
    );
    let sources = cluster.psql("select source from webhook.messages order by event_date");
    assert_eq!(
        sources,
        "REST API\nrest api\nRest Api\nÜNÏCODE\nREST API\nNightly Job\n"
    );
}

#[test]
fn a_payload_has_only_the_named_fields_and_the_others_are_written_nowhere() {
    const UNNAMED: &str = "4929-0000-unnamed";
    const NAMED: &str = "visible-to-all";
    let (cluster, receiver) = with_webhook("payload_fields");
    cluster.sql("create table cards (id integer, card text, label text)");
    for kind in ["Insert", "Update", "Delete"] {
        let fields = "payload_fields => array['label', 'id']";
        create_event(&cluster, "filtered", "cards", kind, fields);
    }
    receiver.behave_for("/ok", "/status/500", 1);
    cluster.sql(&format!(
        "insert into cards values (1, '{UNNAMED}', '{NAMED}')"
    ));
    cluster.sql(&format!("update cards set card = '{UNNAMED} 2'"));
    cluster.sql("delete from cards");
    wait_idle(&cluster);

    // In the order in which the event names them.
    let row = format!(r#"{{"label":"{NAMED}","id":1}}"#);
    assert_eq!(
        records_at(&receiver, "/ok"),
        ["Insert", "Update", "Delete"].map(|kind| format!("{kind} {row}"))
    );
    assert_eq!(contents::tables_with(&cluster, UNNAMED), [""; 0]);
    assert_eq!(contents::tables_with(&cluster, NAMED), ["webhook.outbox_0"]);
}

#[test]
fn what_is_switched_off_captures_nothing() {
    let (cluster, receiver) = with_webhook("switches");
    cluster.sql("create table things (label text)");
    create_event(&cluster, "filtered", "things", "Insert", "");
    create_event(
        &cluster,
        "filtered",
        "things",
        "Insert",
        "enabled => false, payload_fields => array['label']",
    );
    create_webhook(
        &cluster,
        "off",
        &[receiver.url("/ok/off")],
        "enabled => false",
    );
    create_event(&cluster, "off", "things", "Insert", "");
    let insert = |settings: &str, label: &str| {
        cluster.sql(&format!(
            "{settings}; insert into things values ('{label}')"
        ));
    };
    insert("select 1", "everything on");
    insert("set webhook.capture = off", "capture off");
    insert("set session_replication_role = replica", "replica");
    insert(
        "set webhook.capture = off; set webhook.capture = on",
        "capture on again",
    );
    cluster.sql("alter table things disable trigger user");
    insert("select 1", "trigger disabled");
    cluster.sql("alter table things enable trigger user");
    insert("select 1", "trigger enabled");

    let expected = ["everything on", "capture on again", "trigger enabled"];
    assert_eq!(labels(&cluster, &receiver), expected);
    assert_eq!(receiver.count("/ok/off").requests, 0);
    let counts = cluster.psql(
        "select webhook_name, status, messages from webhook.events order by webhook_name, messages",
    );
    assert_eq!(
        counts,
        "filtered|Inactive|0\nfiltered|Active|3\noff|Inactive|0\n"
    );
    assert_eq!(cluster.psql("select count(*) from webhook.messages"), "3\n");
}
