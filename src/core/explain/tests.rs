//! Every reason is told, and what to do about it.

use super::*;

fn event() -> EventFacts {
    EventFacts {
        id: "abc123".to_owned(),
        event_type: "table.recordUpdate".to_owned(),
        enabled: true,
        webhook: "crm".to_owned(),
        webhook_enabled: true,
        table: "My table".to_owned(),
        table_in_sql: "public.\"My table\"".to_owned(),
        table_is_there: true,
        trigger: Some("O".to_owned()),
        trigger_is_ours: true,
        delivery_order: "none".to_owned(),
        ..EventFacts::default()
    }
}

fn server() -> ServerFacts {
    ServerFacts {
        capture: true,
        recheck_privileges: true,
        replication_role: "origin".to_owned(),
        source: "psql".to_owned(),
        delivery: true,
        worker_pid: Some(7),
        require_https: true,
        ..ServerFacts::default()
    }
}

fn url(url: &str) -> UrlFacts {
    UrlFacts {
        url: url.to_owned(),
        state: "active".to_owned(),
        ..UrlFacts::default()
    }
}

fn failed(event: &EventFacts, urls: &[UrlFacts], server: &ServerFacts) -> Vec<&'static str> {
    let checks = explain(event, urls, server);
    assert!(checks.iter().all(|check| !check.detail.is_empty()));
    let (last, before) = checks.split_last().expect("there is an overall check");
    assert_eq!(last.name, "overall");
    assert_eq!(last.ok, before.iter().all(|check| check.ok));
    let failed = before.iter().filter(|check| !check.ok);
    failed.map(|check| check.name).collect()
}

#[test]
fn nothing_wrong_is_said_so() {
    let urls = [url("https://example.com/"), url("https://8.8.8.8/")];
    assert!(failed(&event(), &urls, &server()).is_empty());
}

#[test]
fn each_reason_of_the_event_is_found() {
    type Change = fn(&mut EventFacts);
    let changes: [(&str, Change); 16] = [
        ("event_enabled", |e| e.enabled = false),
        ("webhook_enabled", |e| e.webhook_enabled = false),
        ("webhook_usable", |e| {
            e.webhook_detail = Some("no secret".into())
        }),
        ("webhook_not_paused", |e| e.webhook_paused = true),
        ("columns", |e| e.missing_columns = Some("name".into())),
        ("owner", |e| e.lost_rights = Some("its owner left".into())),
        ("trigger", |e| e.trigger = None),
        ("trigger", |e| e.trigger = Some("D".into())),
        ("trigger", |e| e.trigger_is_ours = false),
        ("match", |e| e.retyped_columns = Some("tenant_id".into())),
        ("match", |e| e.unknown_values = Some("mood = ok".into())),
        ("partitions", |e| e.deaf_partitions = Some("p1".into())),
        ("source", |e| {
            e.event_sources = Some(vec!["REST API".into()])
        }),
        ("message_size", |e| e.too_large = 2),
        ("shards", |e| {
            e.shards = Some(Shards {
                here: 2,
                deaf: Some("orders_102008".into()),
                ..Shards::default()
            })
        }),
        ("source", |e| {
            e.event_sources = Some(vec!["psql".into()]);
            e.shards = Some(Shards {
                elsewhere: 1,
                ..Shards::default()
            });
        }),
    ];
    for (name, change) in changes {
        let mut event = event();
        change(&mut event);
        assert_eq!(failed(&event, &[], &server()), [name]);
    }
    let mut gone = event();
    gone.table_is_there = false;
    gone.trigger = None;
    assert_eq!(failed(&gone, &[], &server()), ["table"]);
}

#[test]
fn a_lost_right_stops_nothing_where_rights_are_not_checked_again() {
    let mut event = event();
    event.lost_rights = Some("its owner left".into());
    let mut server = server();
    server.recheck_privileges = false;
    assert!(failed(&event, &[], &server).is_empty());
}

#[test]
fn each_reason_of_the_server_is_found() {
    type Change = fn(&mut ServerFacts);
    let changes: [(&str, Change); 6] = [
        ("capture", |s| s.capture = false),
        ("node", |s| {
            s.nodes = vec![("n1:5432".into(), Err("timeout".into()))]
        }),
        ("node", |s| {
            s.nodes = vec![
                ("n1:5432".into(), Ok(String::new())),
                ("n2:5432".into(), Ok("worker: no worker runs".into())),
            ]
        }),
        ("session_replication_role", |s| {
            s.replication_role = "replica".into()
        }),
        ("delivery", |s| s.delivery = false),
        ("worker", |s| s.worker_pid = None),
    ];
    for (name, change) in changes {
        let mut server = server();
        change(&mut server);
        assert_eq!(failed(&event(), &[], &server), [name]);
    }
}

#[test]
fn a_source_reaches_shards_where_set_local_is_passed_on() {
    let event = EventFacts {
        event_sources: Some(vec!["psql".into()]),
        shards: Some(Shards {
            elsewhere: 1,
            ..Shards::default()
        }),
        ..event()
    };
    let server = ServerFacts {
        propagates_set_local: true,
        ..server()
    };
    assert!(failed(&event, &[], &server).is_empty());
}

#[test]
fn urls_are_judged_one_by_one() {
    for (bad, said) in [
        ("http://example.com/", "plain http"),
        ("http://8.8.8.8/", "plain http"),
        ("https://10.0.0.1/", "private network"),
        ("https://169.254.169.254/", "link-local"),
    ] {
        let checks = explain(&event(), &[url(bad)], &server());
        let judged = checks.iter().find(|check| check.name == "url_address");
        let judged = judged.expect("every URL is judged");
        assert!(!judged.ok && judged.detail.contains(said), "{judged:?}");
    }
    let mut server = server();
    server.policy = AddressPolicy::parse("10.0.0.0/8").unwrap();
    let urls = [url("http://10.0.0.1/"), url("http://inside.example/")];
    assert!(failed(&event(), &urls, &server).is_empty());
}

#[test]
fn a_url_that_is_held_says_why() {
    let state = |state: &str| UrlFacts {
        state: state.to_owned(),
        ..url("https://example.com/")
    };
    assert_eq!(
        failed(&event(), &[state("disabled")], &server()),
        ["url_state"]
    );
    assert_eq!(
        failed(&event(), &[state("backing_off")], &server()),
        ["url_state"]
    );
    assert_eq!(
        failed(&event(), &[state("blocked")], &server()),
        ["url_state"]
    );
    assert!(failed(&event(), &[state("throttled")], &server()).is_empty());
}

/// The check of the only URL.
fn state_of(url: UrlFacts) -> Check {
    let checks = explain(&event(), &[url], &server());
    let check = checks.into_iter().find(|check| check.name == "url_state");
    check.expect("every URL has one")
}

#[test]
fn a_url_whose_last_call_failed_fails_its_check_whatever_is_due() {
    let failing = |state: &str, next_attempt: Option<&str>| UrlFacts {
        state: state.to_owned(),
        retrying: 2,
        next_attempt: next_attempt.map(str::to_owned),
        last_error: Some("the host name has no address".to_owned()),
        failing_since: Some("14:03".to_owned()),
        ..url("https://o'hare.example/")
    };
    let check = state_of(failing("failing", Some("at 14:08")));
    assert_eq!(
        (check.ok, check.detail.as_str()),
        (
            false,
            "https://o'hare.example/ fails since 14:03: the host name has no address; 2 wait for it, the \
             next call comes at 14:08; check the host name of the URL, and that this server can resolve \
             it, then call webhook.retry_now('crm', 'https://o''hare.example/')"
        )
    );
    let probes = state_of(failing("backing_off", Some("now")));
    assert!(!probes.ok && probes.detail.contains("the next call is a probe now;"));
    for state in ["paused", "no_worker", "delivery_off"] {
        let held = state_of(failing(state, None));
        assert!(
            !held.ok
                && held
                    .detail
                    .contains("2 wait for it, and nothing is sent now;")
        );
    }
}

#[test]
fn a_refused_message_does_not_fail_a_url_whose_last_call_succeeded() {
    let check = state_of(UrlFacts {
        retrying: 1,
        next_attempt: Some("at 14:08".to_owned()),
        ..url("https://example.com/")
    });
    assert!(
        check.ok
            && check
                .detail
                .contains("1 wait for a retry, the next call comes at 14:08")
    );
}

#[test]
fn a_source_is_the_same_in_any_case() {
    let mut event = event();
    event.event_sources = Some(vec!["PSQL".to_owned()]);
    assert!(failed(&event, &[], &server()).is_empty());
}

#[test]
fn a_trigger_that_always_fires_fires_on_a_replica() {
    let (mut event, mut server) = (event(), server());
    server.replication_role = "replica".to_owned();
    event.trigger = Some("A".to_owned());
    assert!(failed(&event, &[], &server).is_empty());
}

#[test]
fn what_is_to_be_run_can_be_run_whatever_the_names() {
    let (mut event, mut server) = (event(), server());
    event.id = "a'b\"c".to_owned();
    event.enabled = false;
    event.trigger = Some("D".to_owned());
    server.replication_role = "replica".to_owned();
    let checks = explain(&event, &[], &server);
    let said = |name: &str| {
        let found = checks.iter().find(|check| check.name == name);
        found.expect("the check is there").detail.as_str()
    };
    assert!(said("event_enabled").contains("webhook.update_event('a''b\"c', "));
    for (name, statement) in [
        (
            "trigger",
            r#"alter table public."My table" enable trigger "webhook_a'b""c""#,
        ),
        (
            "session_replication_role",
            r#"alter table public."My table" enable always trigger "webhook_a'b""c""#,
        ),
    ] {
        assert!(said(name).ends_with(statement), "{}", said(name));
    }
}
