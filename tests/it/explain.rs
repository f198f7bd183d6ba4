//! `webhook.explain_event` says of a live system what keeps a message back.

use super::support::definitions::wait_idle;
use super::support::{ready_cluster, Cluster, Receiver, PATIENCE};

/// A webhook `crm` with these URLs and an event for inserts into `customers`; its id.
fn create_crm(cluster: &Cluster, urls: &[String]) -> String {
    let urls: Vec<String> = urls.iter().map(|url| format!("'{url}'")).collect();
    cluster.sql(&format!(
        "create table customers (id integer primary key);
         select webhook.create_webhook('crm', array[{}])",
        urls.join(", ")
    ));
    cluster.value("select id from webhook.create_event('crm', 'customers', 'table.recordInsert')")
}

fn explain(event: &str, which: &str) -> String {
    format!(
        "select coalesce(string_agg(check_name || ': ' || detail, E'\\n'), '')
         from webhook.explain_event('{event}') where {which}"
    )
}

fn with_one_url(name: &str, path: &str) -> (Cluster, Receiver, String, String) {
    let (cluster, receiver) = ready_cluster(name);
    let url = receiver.url(path);
    let event = create_crm(&cluster, std::slice::from_ref(&url));
    (cluster, receiver, url, event)
}

#[test]
fn when_messages_come_no_check_fails() {
    let (cluster, receiver, _, event) = with_one_url("explain-ok", "/ok");
    cluster.sql("insert into customers values (1)");
    wait_idle(&cluster);
    assert_eq!(receiver.count("/ok").requests, 1);
    assert_eq!(cluster.value::<String>(&explain(&event, "not ok")), "");
    let overall: String = cluster.value(&explain(&event, "check_name = 'overall'"));
    assert_eq!(
        overall,
        "overall: a change made in this session makes a message, and it is sent"
    );
}

#[test]
fn a_url_that_was_switched_off_says_by_whom() {
    let (cluster, _receiver, url, event) = with_one_url("explain-gone", "/status/410");
    cluster.sql("insert into customers values (1)");
    let expected = format!(
        "url_state: {url} is switched off: the receiver answered 410 Gone; \
         webhook.resume_webhook() opens it again"
    );
    let asked = explain(&event, "not ok and check_name <> 'overall'");
    cluster.wait_for_text(PATIENCE, &asked, &expected);
}

#[test]
fn a_url_that_backs_off_shows_its_last_error_and_next_call() {
    let (cluster, _receiver, url, event) = with_one_url("explain-down", "/status/503");
    cluster.sql("insert into customers select n from generate_series(1, 50) n");
    let asked = explain(&event, "not ok and check_name = 'url_state'");
    let said = cluster.wait_until(PATIENCE, "the URL to back off", || {
        let said: String = cluster.value(&asked);
        match said.contains("the next call is a probe ") {
            true => Ok(said),
            false => Err(said),
        }
    });
    assert!(
        said.starts_with(&format!("url_state: {url} fails since ")),
        "{said}"
    );
    assert!(said.contains("503"), "{said}");
    assert!(said.contains("; 50 wait for it, "), "{said}");
    assert!(!said.contains("disable_after"), "it is not set: {said}");
    // The moment that it names is still to come, whenever it is asked.
    for _ in 0..50 {
        let moment = format!(
            "select coalesce(min(m.at), 'infinity') >= date_trunc('second', clock_timestamp() - interval '1 s')
             from (select substring(detail from ' a probe at ([^;]+);')::timestamptz as at
                   from webhook.explain_event('{event}')) m"
        );
        assert!(
            cluster.value::<bool>(&moment),
            "{}",
            cluster.value::<String>(&asked)
        );
    }
}

#[test]
fn a_url_that_fails_says_when_disable_after_switches_it_off() {
    let (cluster, _receiver, _, event) = with_one_url("explain-disable-after", "/status/503");
    cluster.sql(
        "select webhook.update_webhook('crm', disable_after => '1 hour');
         insert into customers values (1)",
    );
    let moment = format!(
        "select coalesce(string_agg((m.at between now() + interval '55 minutes' and now() + interval '1 hour 1 second')::text, ','), '')
         from (select substring(detail from 'a failure from (.+) on switches it off')::timestamptz as at
               from webhook.explain_event('{event}') where check_name = 'url_state') m"
    );
    cluster.wait_for_text(PATIENCE, &moment, "true");
}

#[test]
fn a_name_that_does_not_resolve_fails_its_check_with_the_error_and_what_to_do() {
    let (cluster, _receiver) = ready_cluster("explain-names");
    let url = "https://nobody.invalid/".to_owned();
    let event = create_crm(&cluster, std::slice::from_ref(&url));
    cluster.sql("insert into customers values (1)");
    let failed = "select (count(*) > 0)::text from webhook.calls where status = 'Failure'";
    cluster.wait_for_text(PATIENCE, failed, "true");
    let said: String = cluster.value(&explain(&event, "not ok"));
    assert!(
        said.starts_with(&format!("url_state: {url} fails since ")),
        "{said}"
    );
    let lines: Vec<&str> = said.lines().collect();
    assert!(
        lines[0].contains("; 1 wait for it, the next call comes ")
            && lines[0].contains("; check the host name of the URL, ")
            && lines[0].ends_with(&format!("then call webhook.retry_now('crm', '{url}')")),
        "{said}"
    );
    assert_eq!(lines[1], "overall: see url_state", "{said}");
}

#[test]
fn no_worker_an_old_setting_and_a_message_too_large_are_told() {
    let (cluster, receiver, _, event) = with_one_url("explain-server", "/ok");
    cluster.sql("create table notes (id integer, body text)");
    let notes: String =
        cluster.value("select id from webhook.create_event('crm', 'notes', 'table.recordInsert')");
    cluster.sql("insert into notes values (1, repeat('x', 11 << 20))");
    wait_idle(&cluster);
    assert_eq!(receiver.count("/ok").requests, 0);
    let failing = "not ok and check_name <> 'overall'";
    assert_eq!(
        cluster.value::<String>(&explain(&notes, failing)),
        "message_size: 1 of the last calls were refused for their size (webhook.max_message_size is \
         10485760 bytes): send fewer columns with payload_fields, or raise the setting"
    );
    assert_eq!(cluster.value::<String>(&explain(&event, failing)), "");

    cluster.sql("select webhook.stop_worker()");
    cluster.configure("webhook.delivery", "off");
    cluster.configure("webhook.allowed_networks", "");
    cluster.reload();
    let delivery = "select current_setting('webhook.delivery', true)";
    cluster.wait_for_text(PATIENCE, delivery, "off");
    let said: String = cluster.value(&explain(&event, failing));
    let names: Vec<&str> = said
        .lines()
        .filter_map(|line| line.split(':').next())
        .collect();
    assert_eq!(names, ["delivery", "worker", "url_address"], "{said}");
    assert!(said.contains("call webhook.start_worker()"), "{said}");
}
