//! What stands in `data` for each kind of column, and which updates make a message.
//!
//! Every case of the conformance files travels the whole way, from a column of
//! that type to the receiver, under session settings that print values as oddly
//! as PostgreSQL can.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::support::definitions::wait_idle;
use super::support::{ready_cluster, Cluster, Receiver, PATIENCE};

pub(super) const CONTRACT: &str = include_str!("../conformance/payloads.json");
pub(super) const FURTHER_TYPES: &str = include_str!("../conformance/payload_types.json");

/// None of these may show in a payload.
pub(super) const ODD_SETTINGS: &str = "set datestyle = 'German';
    set intervalstyle = 'sql_standard';
    set timezone = 'Asia/Kolkata';
    set extra_float_digits = -5;
    set bytea_output = 'escape';";

#[derive(Deserialize)]
pub(super) struct Conformance {
    #[serde(default)]
    pub setup: Vec<String>,
    pub cases: Vec<Case>,
    #[serde(default)]
    pub keyed: Vec<Case>,
}

/// A column of `column_type` that holds `sql` has `json` in `data`.
#[derive(Debug, Deserialize)]
pub(super) struct Case {
    #[serde(rename = "type")]
    pub column_type: String,
    pub sql: String,
    pub json: String,
    #[serde(default = "typed")]
    pub null_style: String,
    #[serde(default = "array")]
    pub list_style: String,
}

fn typed() -> String {
    "typed".into()
}

fn array() -> String {
    "array".into()
}

pub(super) fn conformance(text: &str) -> Conformance {
    let mut file: Conformance = serde_json::from_str(text).expect("the file is valid");
    for case in &mut file.keyed {
        case.list_style = "keyed".into();
    }
    file
}

fn create_webhook(cluster: &Cluster, receiver: &Receiver) {
    cluster.sql(&format!(
        "select webhook.create_webhook(name => 'types', outgoing_urls => array['{}'])",
        receiver.url("/ok")
    ));
}

/// The inside of `data` of each received message, byte for byte, by its table.
fn records(receiver: &Receiver) -> BTreeMap<String, Vec<String>> {
    let mut records: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for received in receiver.received() {
        let table = received.body()["objectName"].as_str().unwrap().to_owned();
        let (_, data) = received.raw.split_once(",\"data\":[").expect("has data");
        let record = data.strip_suffix("]}").expect("data comes last");
        records.entry(table).or_default().push(record.to_owned());
    }
    records
}

/// Sends one row for each case and compares what came.
fn check(name: &str, setup: &[String], cases: &[&Case]) {
    let (cluster, receiver) = ready_cluster(name);
    for statement in setup {
        cluster.sql(statement);
    }
    create_webhook(&cluster, &receiver);
    for (number, case) in cases.iter().enumerate() {
        cluster.sql(&format!(
            "create table case_{number} (f {});
             select webhook.create_event(
                webhook => 'types',
                object_name => 'case_{number}',
                event_type => 'table.recordInsert',
                null_style => '{}',
                list_style => '{}')",
            case.column_type, case.null_style, case.list_style
        ));
    }
    let inserts = cases
        .iter()
        .enumerate()
        .map(|(number, case)| format!("insert into case_{number} values ({});", case.sql));
    cluster.sql(&format!("{ODD_SETTINGS} {}", inserts.collect::<String>()));
    wait_idle(&cluster);

    let received = records(&receiver);
    let mut wrong = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let expected = vec![format!("{{\"f\":{}}}", case.json)];
        let found = received.get(&format!("case_{number}"));
        if found != Some(&expected) {
            wrong.push(format!("{case:?}\n  came as {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_type_of_the_contract_has_its_json() {
    let file = conformance(CONTRACT);
    let cases: Vec<&Case> = file.cases.iter().chain(&file.keyed).collect();
    assert!(cases.len() > 30, "the file was read");
    check("contract_types", &file.setup, &cases);
}

#[test]
fn the_corners_of_every_type_have_their_json_and_no_user_code_runs() {
    let file = conformance(FURTHER_TYPES);
    let cases: Vec<&Case> = file.cases.iter().collect();
    assert!(cases.len() > 90, "the file was read");
    check("further_types", &file.setup, &cases);
}

#[test]
fn quoted_dropped_and_later_columns_are_named_as_they_are() {
    let (cluster, receiver) = ready_cluster("column_names");
    create_webhook(&cluster, &receiver);
    cluster.sql(
        "create table odd (gone text, \"a\"\"b\" integer, \"größe 🎉\" integer, \"back\\slash\" integer);
         alter table odd drop column gone;
         select webhook.create_event('types', 'odd', 'table.recordInsert');
         select webhook.create_event('types', 'odd', 'table.recordDelete')",
    );
    cluster.sql("insert into odd values (1, 2, 3)");
    cluster.sql("alter table odd add column later numeric default 1.50");
    cluster.sql("delete from odd");
    wait_idle(&cluster);

    let names = r#""a\"b":1,"größe 🎉":2,"back\\slash":3"#;
    let expected = vec![
        format!("{{{names}}}"),
        format!("{{{names},\"later\":1.50}}"),
    ];
    let mut found = records(&receiver).remove("odd").unwrap_or_default();
    found.sort_by_key(String::len);
    assert_eq!(found, expected);
}

#[test]
fn a_row_of_9_mb_and_one_of_1600_columns_arrive_whole() {
    const TEXT_LEN: usize = 9 * 1024 * 1024;
    let (cluster, receiver) = ready_cluster("large_rows");
    create_webhook(&cluster, &receiver);
    cluster.sql(
        "create table large (t text);
         do $$ begin
            execute (select 'create table wide (' || string_agg('c' || i || ' integer', ', ' order by i) || ')'
                     from generate_series(1, 1600) i);
         end $$;
         select webhook.create_event('types', 'large', 'table.recordInsert');
         select webhook.create_event('types', 'wide', 'table.recordInsert')",
    );
    cluster.sql(&format!(
        "insert into large select left(string_agg(md5(i::text), ''), {TEXT_LEN})
         from generate_series(1, {TEXT_LEN} / 32) i"
    ));
    cluster.sql("insert into wide (c1, c1600) values (1, 1600)");
    wait_idle(&cluster);

    let records = records(&receiver);
    let sent: String = cluster.value("select t from large");
    assert_eq!(sent.len(), TEXT_LEN);
    // Not assert_eq, which would print 18 MB.
    assert!(records["large"] == [format!("{{\"t\":\"{sent}\"}}")]);
    let wide: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&records["wide"][0]).unwrap();
    assert_eq!(wide.len(), 1600);
    assert_eq!(wide["c1600"], 1600);
    assert!(wide["c1599"].is_null());
}

#[test]
fn text_of_another_server_encoding_arrives_as_utf_8() {
    let (cluster, receiver) = ready_cluster("encodings");
    cluster.sql("create database latin encoding 'LATIN1' template template0 locale 'C'");
    cluster.sql_in("latin", "create extension webhook_ext");
    cluster.sql_in(
        "latin",
        &format!(
            "select webhook.create_webhook(name => 'types', outgoing_urls => array['{}']);
             create table words (\"wört\" text, j json);
             select webhook.create_event('types', 'words', 'table.recordInsert');
             insert into words values ('größe', '{{\"ä\": 1}}')",
            receiver.url("/ok")
        ),
    );
    receiver.wait_for(PATIENCE, "/ok", 1);
    assert_eq!(
        records(&receiver)["words"],
        [r#"{"wört":"größe","j":{"ä": 1}}"#]
    );
}

#[test]
fn an_update_counts_when_the_stored_value_differs_whatever_its_type() {
    let (cluster, receiver) = ready_cluster("changes");
    create_webhook(&cluster, &receiver);
    cluster.sql(
        "create type shape;
         create function shape_in(cstring) returns shape language internal immutable strict as 'byteain';
         create function shape_out(shape) returns cstring language internal immutable strict as 'byteaout';
         create type shape (input = shape_in, output = shape_out);
         create table things (id integer, n numeric, t text, s shape);
         alter table things alter t set storage external;
         insert into things select 1, 1.0, string_agg(md5(i::text), ''), 'a' from generate_series(1, 300) i;
         select webhook.create_event('types', 'things', 'table.recordUpdate',
                                     payload_fields => array['id'])",
    );
    let step = |id: i32, change: &str| {
        cluster.sql(&format!(
            "update things set id = {id}; update things set {change}"
        ));
    };
    let unchanged = [
        "id = id",
        "n = 1.0",
        "t = t || ''",
        "s = 'a'",
        "t = t, n = n, s = s",
    ];
    for change in unchanged {
        cluster.sql(&format!("update things set {change}"));
    }
    step(2, "n = 1.00");
    step(3, "t = 'X' || substr(t, 2)");
    step(4, "s = 'b'");
    step(5, "n = null");
    wait_idle(&cluster);

    // Each step changes the id and then what it is about.
    let found = records(&receiver).remove("things").unwrap_or_default();
    let mut found: Vec<&str> = found.iter().map(String::as_str).collect();
    found.sort_unstable();
    let expected: Vec<String> = (2..=5)
        .flat_map(|id| [id, id])
        .map(|id| format!("{{\"id\":{id}}}"))
        .collect();
    assert_eq!(found, expected);
}
