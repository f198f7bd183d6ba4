//! Hostile values for every argument of every function that an admin may call: each call
//! succeeds or says with a documented SQLSTATE which argument is wrong and what to do.
//!
//! The calls are made from the catalog, so a new function or argument takes part at once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use postgres::error::DbError;
use postgres::Client;
use serde_json::{json, Value};

use super::support::definitions::{create_event, create_webhook, wait_idle};
use super::support::{ready_cluster, Cluster, Receiver};

/// What the contract allows.
const SQLSTATES: [&str; 7] = [
    "22023", "42704", "42710", "42501", "42809", "55000", "55P03",
];
/// These are about an argument, so they name it.
const ABOUT_AN_ARGUMENT: [&str; 3] = ["22023", "42704", "42809"];

const CANCELED: &str = "57014";

/// No call takes longer. A busy machine may stop a call for a while, so a second try decides.
const LIMIT: Duration = Duration::from_secs(2);

/// A message is read by people.
const LONGEST_MESSAGE: usize = 2_000;

/// All that defines what is sent where, and what holds it.
const DIGEST: &str = "
select md5(concat(
    (select json_agg(w order by w.webhook_key) from webhook.webhook_def w),
    (select json_agg(u order by u.url_key) from webhook.url_def u),
    (select json_agg(s order by s.secret) from webhook.secret_def s),
    (select json_agg(e order by e.event_key) from webhook.event_def e),
    (select json_agg(o) from webhook.def_origin o),
    (select json_agg(c.cancellation_id order by 1) from webhook_internal.cancellation c),
    (select json_agg(r order by r::text) from webhook_internal.retry r),
    (select json_agg(t.tgname order by t.oid) from pg_trigger t where not t.tgisinternal)))";

/// Functions that the role may call, with the names and types of their arguments and how
/// many of these have no default.
const FUNCTIONS: &str = "
select p.pronamespace::regnamespace || '.' || p.proname,
       coalesce(p.proargnames[1:p.pronargs], '{}'),
       array(select format_type(t.oid, null)
             from unnest(p.proargtypes) with ordinality as t (oid, place)
             order by t.place),
       (p.pronargs - p.pronargdefaults)::integer
from pg_proc p
where p.pronamespace::regnamespace::text in ('webhook', 'webhook_internal')
  and p.prokind = 'f'
  and p.prorettype not in ('trigger'::regtype, 'event_trigger'::regtype)
  and has_function_privilege('grid_admin', p.oid, 'execute')
order by p.oid";

struct Scene {
    cluster: Cluster,
    _receiver: Receiver,
    webhook: String,
    event: String,
    message: String,
}

impl Scene {
    fn new(name: &str) -> Self {
        let (cluster, receiver) = ready_cluster(name);
        cluster.sql(
            "create role grid_admin login in role webhook_admin;
             create table items (id integer, name text, payload jsonb);
             create table \"odd.name\" (id integer);
             create table parted (id integer) partition by list (id);
             create table part_1 partition of parted for values in (1);
             create view rich as select * from items;
             create sequence numbers;
             create index items_id on items (id);
             create table closed (id integer);
             alter table items owner to grid_admin;
             alter table \"odd.name\" owner to grid_admin;
             alter table parted owner to grid_admin;
             create schema locked; create table locked.away (id integer);",
        );
        create_webhook(&cluster, "Grid", &[receiver.url("/ok")], "");
        create_webhook(&cluster, "Other", &[receiver.url("/ok")], "");
        let event = create_event(&cluster, "Grid", "items", "Insert", "");
        cluster.sql("insert into items values (1, 'a', '{}')");
        wait_idle(&cluster);
        Self {
            webhook: cluster.value("select id from webhook.webhooks where name = 'Grid'"),
            message: cluster.value("select message_id::text from webhook.messages"),
            _receiver: receiver,
            event,
            cluster,
        }
    }

    fn session(&self) -> Client {
        let mut session = self.cluster.connect_as("grid_admin", "postgres");
        session
            .batch_execute("set statement_timeout = '2s'; set client_min_messages = error")
            .unwrap();
        session
    }

    fn digest(&self, session: &mut Client) -> String {
        session.query_one(DIGEST, &[]).unwrap().get(0)
    }

    /// What an argument without a default is while another one is hostile.
    fn usual(&self, argument: &str) -> String {
        match argument {
            "webhook" => "'Grid'".to_owned(),
            "event" => format!("'{}'", self.event),
            "message_id" => format!("'{}'", self.message),
            "name" => "'New'".to_owned(),
            "outgoing_urls" => "array['https://example.com/x']".to_owned(),
            "object_name" => "'items'".to_owned(),
            "event_type" => "'table.recordUpdate'".to_owned(),
            "method" => "'GET'".to_owned(),
            "path" => "'/v3/outgoingWebhooks'".to_owned(),
            "since" => "'2000-01-01'".to_owned(),
            _ => "null".to_owned(),
        }
    }

    fn hostile(&self, sql_type: &str) -> Vec<String> {
        let mut values: Vec<String> = values_of(sql_type)
            .into_iter()
            .map(|value| value.into())
            .collect();
        if sql_type == "text" {
            values.push(format!("'{}'", self.webhook));
            values.push(format!("'{}'", self.event));
            values.push(format!("'{}'", self.event.to_uppercase()));
        }
        values.push("null".to_owned());
        values
    }
}

/// Values that the type takes and a function may stumble over.
fn values_of(sql_type: &str) -> Vec<&'static str> {
    match sql_type {
        "text" => TEXTS.to_vec(),
        "text[]" => TEXT_LISTS.to_vec(),
        "jsonb" => DOCUMENTS.to_vec(),
        "boolean" => vec!["true", "false"],
        "double precision" => vec!["'NaN'", "'infinity'", "'-infinity'", "-1", "0", "1e308"],
        "integer" | "bigint" => INTEGERS.to_vec(),
        "smallint[]" => vec!["'{}'", "'{1,2,3}'", "'{{1,2},{3,4}}'", "'{-32768,null}'"],
        "oid" => vec!["0", "1259", "4294967295"],
        "uuid" => vec![
            "'00000000-0000-0000-0000-000000000000'",
            "'ffffffff-ffff-ffff-ffff-ffffffffffff'",
        ],
        "interval" => INTERVALS.to_vec(),
        "timestamp with time zone" => vec![
            "'infinity'",
            "'-infinity'",
            "'4713-01-01 BC'",
            "'294276-12-31'",
            "'1970-01-01'",
        ],
        "regclass" => TABLES.to_vec(),
        "regrole" => vec!["0::oid::regrole", "4294967295::oid::regrole", "'postgres'"],
        other => panic!("add hostile values for arguments of type {other}"),
    }
}

const TEXTS: [&str; 66] = [
    "''",
    "' '",
    "'x'",
    "'Other'",
    "'none'",
    "'NONE'",
    "'fifo'",
    "'key'",
    "'typed'",
    "'array'",
    "'errors'",
    "'keep'",
    "'table.recordInsert'",
    "'table.recordDelete'",
    "'table.recordMerge'",
    "'webhook.test'",
    "''''",
    "'\"'",
    "'a\"b'",
    "'\"unclosed'",
    "'\"\"'",
    "',,'",
    "'a,b'",
    "'\\'",
    "E'two\\nlines'",
    "E'\\r\\n'",
    "E'tab\\there'",
    "E'\\x01'",
    "E'\\x7f'",
    "E'\\u0085'",
    "E'\\u202Egnp.exe'",
    "E'\\u2066x\\u2069'",
    "E'a\\u200Bb'",
    "E'a\\u200Db'",
    "E'\\uFEFFx'",
    "E'soft\\u00ADhyphen'",
    "E'\\u2028'",
    "E'\\U0010FFFF'",
    "E'e\\u0301'",
    "E'\\U0001F600'",
    "'NaN'",
    "'-1'",
    "'null'",
    "'%s%n'",
    "'$1'",
    "'new.id > $1'",
    "'new.id / 0 = 1'",
    "'new.id = ''x'''",
    "'new.nope'",
    "'old.id = 1'",
    "'pg_read_file(''/etc/passwd'') is null'",
    "'(select true)'",
    "'nosuchschema.f(new.id)'",
    "'true) execute function webhook.capture(''aaaaaa''); drop table items; --'",
    "'true /*'",
    "'{}'",
    "'{\"a\":'",
    "'{\"a\": \"[@field:nope]\", \"b\": \"[@old:id]\"}'",
    "'{\"[@field:id]\": 1}'",
    "'{\"a\": \"[@field:id\"}'",
    "'{\"a\": \"\\ud800\"}'",
    "repeat('[', 100000)",
    "repeat('[', 120) || repeat(']', 120)",
    "repeat('(', 20000) || 'true' || repeat(')', 20000)",
    "repeat('x', 101)",
    "repeat('x', 3000000)",
];

const TEXT_LISTS: [&str; 22] = [
    "'{}'",
    "array[null]::text[]",
    "array['id', null]",
    "array['']",
    "array['id', '']",
    "array['id', 'id']",
    "array[['id', 'name'], ['name', 'id']]",
    "array[[['id']]]",
    "'[5:6]={id,name}'::text[]",
    "array['https://example.com/a', 'HTTPS://EXAMPLE.com:443/a']",
    "array['https://user:password@example.com/']",
    "array['https://example.com/#x']",
    "array['ftp://example.com/']",
    "array['']",
    "array[E'two\\nlines']",
    "array[E'\\u202Ex']",
    "array[repeat('x', 100000)]",
    "array['https://example.com/' || repeat('x', 100000)]",
    "array(select 's' || g from generate_series(1, 32000) g)",
    "array(select 'https://example.com/' || g from generate_series(1, 32000) g)",
    "array(select 's' || g || repeat('x', 100) from generate_series(1, 100000) g)",
    "array_fill(null::text, array[100000])",
];

const DOCUMENTS: [&str; 33] = [
    "'{}'",
    "'[]'",
    "'null'",
    "'1'",
    "'true'",
    "'\"x\"'",
    "'1e400'",
    "'-0'",
    "'{\"id\": 1e400}'",
    "'{\"id\": -1e-400}'",
    "'{\"id\": 99999999999999999999999}'",
    "'{\"id\": \"NaN\"}'",
    "'{\"id\": null}'",
    "'{\"id\": [[1]]}'",
    "'{\"name\": {\"a\": [1, 2]}}'",
    "'{\"nope\": 1}'",
    "'{\"\": 1}'",
    "'{\"\": \"\"}'",
    "'{\"X-A\": \"a\\r\\nb\"}'",
    "'{\"X\\u202EA\": \"x\"}'",
    "'{\"X-A\": 1, \"x-a\": 2}'",
    "'{\"$serde_json::private::Number\": \"1\"}'",
    "'{\"$serde_json::private::Number\": 1}'",
    "'{\"$serde_json::private::RawValue\": \"{}\"}'",
    "'{\"payload\": {\"$serde_json::private::RawValue\": \"x\"}}'",
    "'{\"payload\": [{\"$serde_json::private::Number\": \"x\"}]}'",
    "(repeat('[', 64) || repeat(']', 64))::jsonb",
    "(repeat('[', 128) || repeat(']', 128))::jsonb",
    "('{\"payload\": ' || repeat('[', 1000) || repeat(']', 1000) || '}')::jsonb",
    "jsonb_build_object('id', 10::numeric ^ 100000)",
    "jsonb_build_object(repeat('k', 100000), repeat('v', 2000000))",
    "(select jsonb_object_agg('x-' || g, 'v') from generate_series(1, 20000) g)",
    "(select jsonb_agg(10::numeric ^ 1000) from generate_series(1, 2000) g)",
];

const INTEGERS: [&str; 7] = [
    "0",
    "-1",
    "1",
    "601000",
    "1000001",
    "2147483647",
    "'-2147483648'",
];

const INTERVALS: [&str; 8] = [
    "'0'",
    "'-1 second'",
    "'-0.000001 second'",
    "'1 month -31 days'",
    "'0.000001 second'",
    "'2147483647 days'",
    "'178000000 years'",
    "'-178000000 years'",
];

const TABLES: [&str; 15] = [
    "0::oid::regclass",
    "4294967295::oid::regclass",
    "'pg_class'",
    "'pg_stat_activity'",
    "'information_schema.sql_features'",
    "(select reltoastrelid::regclass from pg_class where relname = 'items')",
    "'webhook.secret_def'",
    "'rich'",
    "'numbers'",
    "'items_id'",
    "'closed'",
    "(select oid::regclass from pg_class where relname = 'away')",
    "'part_1'",
    "'\"odd.name\"'",
    "'pg_proc_oid_index'",
];

#[derive(Default)]
struct Findings {
    counts: BTreeMap<String, usize>,
    faults: Vec<String>,
    calls: usize,
    slowest: (Duration, String),
}

impl Findings {
    fn count(&mut self, outcome: &str) {
        self.calls += 1;
        *self.counts.entry(outcome.to_owned()).or_default() += 1;
    }

    fn fault(&mut self, call: &str, what: impl Into<String>) {
        let call: String = call.chars().take(300).collect();
        self.faults.push(format!("{}\n    {call}", what.into()));
    }

    fn time(&mut self, taken: Duration, call: &str) {
        if taken > self.slowest.0 {
            self.slowest = (taken, call.chars().take(200).collect());
        }
    }

    fn report(&self, what: &str) {
        println!("{what}: {} calls, {:?}", self.calls, self.counts);
        println!("slowest: {:?} {}", self.slowest.0, self.slowest.1);
        assert!(
            self.faults.is_empty(),
            "{} faults in {what}:\n{}",
            self.faults.len(),
            self.faults.join("\n")
        );
    }
}

/// Characters that no message repeats: they would write elsewhere than where it stands.
fn misleads(text: &str) -> bool {
    text.chars().any(|c| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}')
    })
}

fn check_texts(findings: &mut Findings, call: &str, texts: &[Option<&str>]) {
    for text in texts.iter().flatten() {
        if misleads(text) {
            findings.fault(call, format!("control or format characters in {text:?}"));
        }
        if text.len() > LONGEST_MESSAGE {
            let head: String = text.chars().take(100).collect();
            findings.fault(call, format!("{} bytes of text: {head}", text.len()));
        }
    }
}

fn check_error(findings: &mut Findings, call: &str, argument: Option<&str>, error: &DbError) {
    let code = error.code().code();
    let message = error.message();
    if !SQLSTATES.contains(&code) {
        return findings.fault(call, format!("{code} {message}"));
    }
    if error.hint().is_none_or(str::is_empty) {
        findings.fault(call, format!("no hint: {code} {message}"));
    }
    if let Some(argument) = argument.filter(|_| ABOUT_AN_ARGUMENT.contains(&code)) {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        if !message.split(|c| !is_word(c)).any(|word| word == argument) {
            findings.fault(call, format!("{argument} is not named: {code} {message}"));
        }
    }
    check_texts(
        findings,
        call,
        &[Some(message), error.detail(), error.hint()],
    );
}

/// Runs a call, undoes it and gives what it raised; twice if it was too slow.
fn run(
    session: &mut Client,
    findings: &mut Findings,
    call: &str,
    look: &mut dyn FnMut(&mut Client, &mut Findings),
) -> Option<DbError> {
    for attempt in 1.. {
        session.batch_execute("begin").unwrap();
        let started = Instant::now();
        let error = session.batch_execute(call).err();
        let taken = started.elapsed();
        let error = error.map(|error| match error.as_db_error() {
            Some(error) => error.clone(),
            None => panic!("{call}: {error}"),
        });
        if error.is_none() {
            look(session, findings);
        }
        session.batch_execute("rollback").unwrap();
        let was_slow = taken > LIMIT
            || error
                .as_ref()
                .is_some_and(|error| error.code().code() == CANCELED);
        if !was_slow || attempt == 2 {
            findings.time(taken, call);
            return error;
        }
    }
    unreachable!("the second attempt returns")
}

#[test]
fn every_argument_of_every_function_takes_any_value_or_says_what_is_wrong() {
    let scene = Scene::new("bad_input");
    let mut findings = Findings::default();
    let mut session = scene.session();
    let mut onlooker = scene.cluster.connect("postgres");
    let before = scene.digest(&mut onlooker);
    let functions = onlooker.query(FUNCTIONS, &[]).unwrap();
    assert!(functions.len() > 15, "{} functions", functions.len());
    for function in &functions {
        let name: String = function.get(0);
        let arguments: Vec<String> = function.get(1);
        let types: Vec<String> = function.get(2);
        let required = function.get::<_, i32>(3) as usize;
        let call_with = |hostile: Option<(usize, &str)>| {
            let given =
                arguments
                    .iter()
                    .enumerate()
                    .filter_map(|(place, argument)| match hostile {
                        Some((at, value)) if at == place => Some(format!("{argument} => {value}")),
                        _ if place < required => {
                            Some(format!("{argument} => {}", scene.usual(argument)))
                        }
                        _ => None,
                    });
            let given: Vec<String> = given.collect();
            format!("select * from {name}({})", given.join(", "))
        };
        let mut ask = |call: &str, argument: Option<&str>| {
            let error = run(&mut session, &mut findings, call, &mut |_, _| ());
            match &error {
                None => findings.count("success"),
                Some(error) => {
                    findings.count(error.code().code());
                    check_error(&mut findings, call, argument, error);
                }
            }
        };
        ask(&call_with(None), None);
        for (place, argument) in arguments.iter().enumerate() {
            for value in scene.hostile(&types[place]) {
                ask(&call_with(Some((place, &value))), Some(argument));
            }
        }
        if scene.digest(&mut onlooker) != before {
            findings.fault(&name, "the definitions have changed");
        }
    }
    let calls = findings.calls;
    findings.report("functions");
    assert!(calls >= 1_000, "{calls} calls");
}

/// A call that the API answers, and the answer's status and body.
fn check_answer(findings: &mut Findings, call: &str, status: i32, body: Option<&Value>) {
    findings.count(&status.to_string());
    if !matches!(status, 200 | 201 | 204 | 400 | 404 | 405) {
        findings.fault(call, format!("status {status}"));
    }
    if status >= 400 {
        match body.and_then(|body| body["Message"].as_str()) {
            None | Some("") => findings.fault(call, format!("{status} without a message")),
            message => check_texts(findings, call, &[message]),
        }
    }
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn requests(scene: &Scene) -> Vec<(String, String, String)> {
    let webhooks = "/v3/outgoingWebhooks".to_owned();
    let webhook = format!("{webhooks}/{}", scene.webhook);
    let events = format!("{webhook}/events");
    let event = format!("{events}/{}", scene.event);
    let mut all = Vec::new();
    let mut paths: Vec<String> = [
        "",
        "/",
        "/v3",
        "/v3/",
        "v3/outgoingWebhooks",
        "/v9/outgoingWebhooks",
        "/v3/outgoingWebhooks/",
        "/v3/outgoingWebhooks?a=b",
        "/v2/outgoingWebhooks",
        "/v3//outgoingWebhooks",
        "/v3/outgoingWebhooks/Grid",
        "/v3/outgoingWebhooks/nosuch",
        "/v3/outgoingWebhooks/%00",
        "/v3/outgoingWebhooks/..",
        "/v3/outgoingWebhooks/'",
        "/v3/outgoingWebhooks/\u{202e}x",
        "/v3/outgoingWebhooks/a\nb",
        "/v3/outgoingWebhooks/nosuch/events",
        "/v3/outgoingWebhooks/nosuch/events/nosuch",
    ]
    .map(literal)
    .to_vec();
    for path in [
        &webhook,
        &events,
        &event,
        &format!("{events}/nosuch"),
        &format!("{event}/x"),
    ] {
        paths.push(literal(path));
    }
    paths.push("'/v3/outgoingWebhooks/' || repeat('x', 3000000)".to_owned());
    paths.push("repeat('/', 1000000)".to_owned());
    paths.push("null".to_owned());
    let methods = [
        "null",
        "''",
        "'GET'",
        "'get'",
        "'POST'",
        "'PUT'",
        "'DELETE'",
        "'PATCH'",
        "E'GET\\n'",
        "E'\\u202EGET'",
        "repeat('GET', 1000000)",
    ];
    let bodies = [
        "null",
        "'{}'",
        "'[]'",
        "'null'",
        "'\"x\"'",
        "'{\"\\u202EName\": 1}'",
        "'{\"$serde_json::private::Number\": \"1\"}'",
        "(repeat('[', 200) || repeat(']', 200))::jsonb",
    ];
    for method in methods {
        for path in &paths {
            for body in bodies {
                all.push((method.to_owned(), path.clone(), body.to_owned()));
            }
        }
    }
    let new_webhook = json!({"Name": "New", "OutgoingUrls": ["https://example.com/x"]});
    let new_event = json!({"EventType": "table.recordUpdate", "ObjectName": "items"});
    for (method, path, usual) in [
        ("'POST'", &webhooks, &new_webhook),
        ("'PUT'", &webhook, &json!({})),
        ("'POST'", &events, &new_event),
        ("'PUT'", &event, &json!({})),
    ] {
        for property in PROPERTIES {
            for value in VALUES {
                let body = format!(
                    "{}::jsonb || jsonb_build_object({}, {value})",
                    literal(&usual.to_string()),
                    literal(property)
                );
                all.push((method.to_owned(), literal(path), body));
            }
        }
    }
    all
}

const PROPERTIES: [&str; 16] = [
    "Name",
    "Description",
    "OutgoingUrls",
    "CallThrottling",
    "Enabled",
    "EventType",
    "ObjectName",
    "ObjectFields",
    "EventSources",
    "CustomPayloadFields",
    "CustomPayloadTemplate",
    "Id",
    "name",
    "",
    "\u{202e}Name",
    "$serde_json::private::RawValue",
];

const VALUES: [&str; 26] = [
    "null",
    "true",
    "1",
    "-1",
    "1.5",
    "2147483648",
    "10::numeric ^ 400",
    "''::text",
    "'x'::text",
    "'Other'::text",
    "E'two\\nlines'::text",
    "E'\\u202Ex'::text",
    "repeat('x', 500000)",
    "'[]'::jsonb",
    "'[null]'::jsonb",
    "'[1]'::jsonb",
    "'[[]]'::jsonb",
    "'[\"id\", \"id\"]'::jsonb",
    "'[\"\"]'::jsonb",
    "'[\"a\\nb\"]'::jsonb",
    "'{}'::jsonb",
    "'{\"a\": 1}'::jsonb",
    "'{\"$serde_json::private::Number\": \"1\"}'::jsonb",
    "'{\"$serde_json::private::RawValue\": \"[]\"}'::jsonb",
    "(repeat('[', 200) || repeat(']', 200))::jsonb",
    "(select jsonb_agg('s' || g) from generate_series(1, 32000) g)",
];

#[test]
fn the_rest_api_answers_any_method_path_and_body() {
    let scene = Scene::new("bad_requests");
    let mut findings = Findings::default();
    let mut session = scene.session();
    let mut onlooker = scene.cluster.connect("postgres");
    let before = scene.digest(&mut onlooker);
    session
        .batch_execute("create temporary table answer (status integer, body jsonb)")
        .unwrap();
    // The definitions as the session sees them within its own transaction.
    scene.cluster.sql(&format!(
        "create function public.digest() returns text language sql security definer as $${DIGEST}$$"
    ));
    for (method, path, body) in requests(&scene) {
        let call =
            format!("insert into answer select * from webhook.rest({method}, {path}, {body})");
        let error = run(
            &mut session,
            &mut findings,
            &call,
            &mut |session, findings| {
                let row = session
                    .query_one("select status, body::text from answer", &[])
                    .unwrap();
                let status: i32 = row.get(0);
                let body: Option<String> = row.get(1);
                let body = body.map(|body| serde_json::from_str(&body).unwrap());
                check_answer(findings, &call, status, body.as_ref());
                if status >= 400 {
                    let now: String = session
                        .query_one("select public.digest()", &[])
                        .unwrap()
                        .get(0);
                    if now != before {
                        findings.fault(&call, format!("{status} and the definitions have changed"));
                    }
                }
            },
        );
        if let Some(error) = error {
            let (code, message) = (error.code().code(), error.message());
            findings.count(code);
            findings.fault(&call, format!("no answer: {code} {message}"));
        }
    }
    if scene.digest(&mut onlooker) != before {
        findings.fault("", "the definitions have changed");
    }
    let calls = findings.calls;
    findings.report("requests");
    assert!(calls >= 2_000, "{calls} requests");
}

#[test]
fn a_source_that_is_too_long_is_refused_wherever_it_is_set() {
    let long = "s".repeat(300);
    let cluster = Cluster::builder("long_source")
        .set("shared_preload_libraries", "webhook_ext")
        .set("webhook.source", &long)
        .start();
    let source = || cluster.value::<String>("select current_setting('webhook.source')");
    assert_eq!(
        source(),
        "",
        "the server starts without what it cannot take"
    );
    cluster.configure("webhook.source", &"t".repeat(1_000));
    let refusals = || {
        cluster
            .log()
            .matches("webhook.source is longer than 200")
            .count()
    };
    let before = refusals();
    cluster.reload();
    cluster.wait_until(
        super::support::PATIENCE,
        "the refusal in the log",
        || match refusals() {
            now if now > before => Ok(()),
            now => Err(format!("{now} refusals")),
        },
    );
    assert_eq!(source(), "");
    let mut session = cluster.connect("postgres");
    for statement in [
        format!("set webhook.source = '{long}'"),
        format!("set local webhook.source = '{long}'"),
        format!("alter role postgres set webhook.source = '{long}'"),
        format!("alter database postgres set webhook.source = '{long}'"),
        format!("alter system set webhook.source = '{long}'"),
        "select set_config('webhook.source', repeat('s', 100000000), false)".to_owned(),
    ] {
        let error = session.batch_execute(&statement).unwrap_err();
        let error = error.as_db_error().expect("the server answers");
        assert_eq!(error.code().code(), "22023", "{error:?}");
        assert_eq!(
            error.message(),
            "webhook.source is longer than 200 characters"
        );
        assert!(error.hint().is_some(), "{error:?}");
    }
    session
        .batch_execute(&format!("set webhook.source = '{}'", "ä".repeat(200)))
        .unwrap();
}
