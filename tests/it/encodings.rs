//! Databases that are not UTF-8: every function takes and gives text that is not ASCII, and
//! what goes out is UTF-8.

use postgres::Client;

use super::support::{ready_cluster, Cluster, PATIENCE};

/// One that PostgreSQL converts, and one whose bytes mean what clients make of them.
const ENCODINGS: &[&str] = &["LATIN1", "SQL_ASCII"];

/// Others that a server may have.
const OTHERS: &[&str] = &[
    "EUC_JP",
    "EUC_CN",
    "EUC_KR",
    "EUC_TW",
    "EUC_JIS_2004",
    "LATIN2",
    "WIN1251",
    "KOI8R",
];

fn database_in(cluster: &Cluster, encoding: &str) -> Client {
    let name = encoding.to_lowercase();
    cluster.sql(&format!(
        "create database {name} encoding '{encoding}' template template0 locale 'C'"
    ));
    let mut session = cluster.connect(&name);
    session.batch_execute(CREATE).expect("the table is made");
    session
}

const CREATE: &str = "
create extension webhook_ext;
create table \"größe\" (id integer primary key, \"wört\" text)";

fn text(session: &mut Client, query: &str) -> String {
    let row = session.query_one(query, &[]);
    let row = row.unwrap_or_else(|error| panic!("{query}: {error:?}"));
    row.get(0)
}

fn assert_text(session: &mut Client, query: &str, wanted: &str) {
    assert_eq!(text(session, query), wanted, "{query}");
}

fn assert_refused(session: &mut Client, query: &str, sqlstate: &str) {
    let refused = session.query(query, &[]).expect_err(query);
    let refused = refused.as_db_error().expect("the server answered");
    assert_eq!(refused.code().code(), sqlstate, "{query}: {refused:?}");
    assert!(refused.message().is_ascii(), "{refused:?}");
}

/// A webhook and an event whose texts are not ASCII; returns the event's id.
fn define(session: &mut Client, url: &str) -> String {
    assert_text(
        session,
        &format!(
            "select concat_ws('|', w.name, w.description)
             from webhook.create_webhook('Müller', array['{url}'], 'für Ü') w"
        ),
        "Müller|für Ü",
    );
    let created = text(
        session,
        r#"select concat_ws('|', e.id, e.object_name, e.event_sources, e.payload_template, e.condition)
           from webhook.create_event(
               'Müller', '"größe"', 'table.recordInsert', event_sources => array['Büro'],
               payload_template => '{"ü": "[@field:wört]", "q": "[@out-hook:source]"}',
               condition => $$new."wört" <> 'nö'$$) e"#,
    );
    let (id, rest) = created.split_once('|').expect("an id comes first");
    assert_eq!(
        rest,
        r#"größe|{Büro}|{"ü": "[@field:wört]", "q": "[@out-hook:source]"}|new."wört" <> 'nö'"#
    );
    id.to_owned()
}

fn assert_functions_know_text(session: &mut Client, event: &str, url: &str) {
    let checks = [
        (
            format!(r#"select webhook.preview_payload('{event}', '{{"wört": "é"}}')"#),
            r#"{"ü":"é","q":"Büro"}"#.to_owned(),
        ),
        (
            format!("select condition from webhook.update_event('{event}', condition => $$new.\"wört\" <> 'ä'$$)"),
            "new.\"wört\" <> 'ä'::text".to_owned(),
        ),
        (
            "select string_agg(parameter, ' ') from webhook.template_parameters('\"größe\"')
             where parameter like '%:wört]'"
                .to_owned(),
            "[@field:wört] [@old:wört]".to_owned(),
        ),
        (
            format!("select bool_and(ok)::text from webhook.explain_event('{event}') where detail like '%größe%'"),
            "true".to_owned(),
        ),
        (
            "select concat_ws('|', w.name, w.description)
             from webhook.update_webhook('Müller', name => 'Maß', description => 'é') w"
                .to_owned(),
            "Maß|é".to_owned(),
        ),
        (
            format!(
                r#"select r.status || (r.body ->> 'Name') || (r.body ->> 'Description')
                   from webhook.rest('POST', '/v3/outgoingWebhooks',
                       '{{"Name": "Käse", "Description": "süß", "OutgoingUrls": ["{url}"]}}') r"#
            ),
            "201Käsesüß".to_owned(),
        ),
        (
            "select string_agg(name, ' ' order by name collate \"C\") from webhook.webhooks".to_owned(),
            "Käse Maß".to_owned(),
        ),
        (
            "select concat_ws(' ', webhook.pause_webhook('Maß'), webhook.resume_webhook('Maß'),
                 length(webhook.regenerate_secret('Maß')), (select count(*) from webhook.reveal_secret('Maß')),
                 webhook.redeliver_failed('Maß'), webhook.cancel_pending('Maß'),
                 (select count(*) from webhook.test_webhook('Maß')), webhook.drop_webhook('Käse'))"
                .to_owned(),
            "  50 2 0 0 1 ".to_owned(),
        ),
    ];
    for (query, wanted) in checks {
        assert_text(session, &query, &wanted);
    }
}

fn assert_errors_have_their_codes(session: &mut Client, event: &str, url: &str) {
    let refused = [
        (format!("select webhook.create_webhook('Maß', array['{url}'])"), "42710"),
        ("select webhook.drop_webhook('Öl')".to_owned(), "42704"),
        (format!("select webhook.create_webhook('Öl', array['{url}'], headers => '{{\"x-ö\": \"1\"}}')"), "22023"),
        (format!("select webhook.create_webhook('Öl', array['{url}ö ö'])"), "22023"),
        (format!("select webhook.update_event('{event}', payload_template => '{{\"ö\": [@field:ö]}}')"), "22023"),
        (format!("select webhook.update_event('{event}', payload_template => '{{\"ö\": \"[@field:wörd]\"}}')"), "42704"),
        (format!("select webhook.update_event('{event}', condition => 'new.\"wörd\" is null')"), "42704"),
        (format!("select webhook.preview_payload('{event}', '{{\"wörd\": 1}}')"), "42704"),
    ];
    for (query, sqlstate) in refused {
        assert_refused(session, &query, sqlstate);
    }
}

#[test]
fn in_databases_of_other_encodings_every_function_takes_and_gives_text_that_is_not_ascii() {
    let (cluster, receiver) = ready_cluster("other_encodings");
    for encoding in ENCODINGS {
        let mut session = database_in(&cluster, encoding);
        let path = format!("/ok/{encoding}");
        session
            .batch_execute("set webhook.source = 'Büro'")
            .unwrap();
        let event = define(&mut session, &receiver.url(&path));
        session
            .batch_execute("insert into \"größe\" values (1, 'Grüße'), (2, 'nö')")
            .unwrap();
        receiver.wait_for(PATIENCE, &path, 1);
        assert_eq!(
            receiver.received_at(&path)[0].raw,
            r#"{"ü":"Grüße","q":"Büro"}"#
        );
        session.batch_execute("delete from \"größe\"").unwrap();
        assert_functions_know_text(&mut session, &event, &receiver.url(&path));
        assert_errors_have_their_codes(&mut session, &event, &receiver.url(&path));
        assert_text(&mut session, "select webhook.wait_idle()::text", "true");
    }
}

/// Replaced bytes would match no row of their own, and those of others.
#[test]
fn match_takes_no_text_that_is_not_utf8() {
    let (cluster, receiver) = ready_cluster("match_bytes");
    let mut session = database_in(&cluster, "SQL_ASCII");
    let event = define(&mut session, &receiver.url("/ok/a"));
    let given = |text: &str| {
        format!("match => jsonb_build_object('wört', convert_from('{text}', 'SQL_ASCII'))")
    };
    let update = |text: &str| format!("select webhook.update_event('{event}', {})", given(text));
    assert_refused(&mut session, &update("\\x4dfc6c6c6572"), "22023");
    assert_refused(
        &mut session,
        &format!(
            "select webhook.create_event('Müller', 'größe', 'table.recordUpdate', {})",
            given("\\xfc")
        ),
        "22023",
    );
    session
        .query(&update("\\x4dc3bc6c6c6572"), &[])
        .expect("UTF-8 is taken");
}

/// What a receiver answers need not have a form in the database's encoding; that must not stop
/// the log.
#[test]
fn an_answer_that_the_encoding_of_the_database_does_not_have_is_logged_all_the_same() {
    let (cluster, receiver) = ready_cluster("answers");
    let mut session = database_in(&cluster, "LATIN1");
    define(&mut session, &receiver.url("/ok/a"));
    receiver.behave(
        "/ok/a",
        "/status/400?body=10%20%E2%82%AC%20f%C3%BCr%20%C3%9C",
    );
    session
        .batch_execute("set webhook.source = 'Büro'; insert into \"größe\" values (1, 'a')")
        .unwrap();
    receiver.wait_for(PATIENCE, "/ok/a", 1);
    assert_text(&mut session, "select webhook.wait_idle()::text", "true");
    assert_text(
        &mut session,
        "select string_agg(http_response, '|') from webhook.calls",
        "10 ? für Ü",
    );
}

#[test]
fn the_extension_can_be_created_in_a_database_of_any_encoding() {
    let (cluster, receiver) = ready_cluster("any_encoding");
    for encoding in OTHERS {
        let name = encoding.to_lowercase();
        cluster.sql(&format!(
            "create database {name} encoding '{encoding}' template template0 locale 'C'"
        ));
        let path = format!("/ok/{encoding}");
        cluster.sql_in(
            &name,
            &format!(
                "create extension webhook_ext;
                 create table items (id integer);
                 select webhook.create_webhook('w', array['{}']);
                 select webhook.create_event('w', 'items', 'table.recordInsert');
                 insert into items values (1)",
                receiver.url(&path)
            ),
        );
        receiver.wait_for(PATIENCE, &path, 1);
        cluster.sql_in(&name, "select webhook.stop_worker()");
    }
}

/// So every encoding that a database may have reads them as they are.
#[test]
fn the_scripts_that_make_the_schema_are_ascii() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/sql");
    let mut count = 0;
    for file in std::fs::read_dir(directory).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read(&path).unwrap();
        assert!(text.is_ascii(), "{}", path.display());
        count += 1;
    }
    assert!(count > 5, "{count} scripts");
}
