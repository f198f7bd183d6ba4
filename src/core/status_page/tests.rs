use super::facts::{Call, Cause, Change, Event, Facts, Hour, Minute, Server, Totals, Url};
use super::*;

const HOSTILE: &str =
    "</title></style><script>alert(1)</script>\"'><img src=x onerror=alert(2)>\u{202e}\u{0}&amp;";

fn running() -> Server {
    Server {
        database: "shop".to_owned(),
        version: "0.2.0".to_owned(),
        worker_pid: Some(42),
        worker_state: "running".to_owned(),
        delivery_is_on: true,
        ..Server::default()
    }
}

fn url(state: &str) -> Url {
    Url {
        webhook_id: "abc123".to_owned(),
        webhook: "crm".to_owned(),
        url: "https://example.com/hook".to_owned(),
        state: state.to_owned(),
        hours: vec![Hour::default(); 24],
        ..Url::default()
    }
}

/// Every text is hostile.
fn hostile() -> Facts {
    let text = || HOSTILE.to_owned();
    Facts {
        now: text(),
        refresh_seconds: 10,
        server: Server {
            database: text(),
            version: text(),
            worker_pid: None,
            worker_state: text(),
            worker_error: Some(text()),
            worker_detail: Some(text()),
            ..Server::default()
        },
        totals: Totals {
            urls: 100,
            failing: 2,
            failing_since: Some(text()),
            ..Totals::default()
        },
        minutes: vec![
            Minute {
                label: text(),
                delivered: 2,
                failed: 1,
                p50_ms: Some(1.0),
                p95_ms: Some(2.0),
            };
            60
        ],
        urls: ["disabled", HOSTILE, "failing", "active"]
            .map(|state| Url {
                webhook_id: text(),
                webhook: text(),
                url: text(),
                failed: 1,
                failing_since: Some(text()),
                last_success_at: Some(text()),
                next_attempt_at: Some(text()),
                last_error: Some(text()),
                ..url(state)
            })
            .to_vec(),
        causes: vec![Cause {
            cause: text(),
            calls: 1,
            urls: 1,
            last_at: text(),
        }],
        calls: vec![Call {
            called_at: text(),
            webhook: text(),
            url: text(),
            event: text(),
            message_id: text(),
            detail: Some(text()),
            response: Some(text()),
            ..Call::default()
        }],
        events: vec![Event {
            id: text(),
            webhook: text(),
            event_type: text(),
            object_name: text(),
            reason: Some(text()),
        }],
        changes: vec![Change {
            changed_at: text(),
            changed_by: text(),
            action: text(),
            what: text(),
        }],
    }
}

#[test]
fn nothing_that_users_and_receivers_write_is_markup() {
    let page = page(&hostile());
    for forbidden in ["<script", "<img", "\u{0}", "\u{202e}"] {
        assert!(!page.contains(forbidden), "{forbidden:?} in {page}");
    }
    assert_eq!(
        page.matches("</title>").count(),
        3,
        "the page's and one of each chart"
    );
    assert_eq!(page.matches("</style>").count(), 1);
    // Every `<` begins a tag that is written here.
    let known = [
        "!DOCTYPE", "html", "head", "meta", "link", "title", "style", "body", "main", "header",
        "h1", "h2", "h3", "p", "b", "i", "ul", "li", "code", "section", "div", "span", "strong",
        "svg", "line", "text", "rect", "path", "article", "bdi", "dl", "dt", "dd", "table",
        "thead", "tbody", "tr", "th", "td", "details", "summary", "time", "pre",
    ];
    for part in page.split('<').skip(1) {
        let tag = part.trim_start_matches('/');
        let end = tag.find(|c: char| !c.is_ascii_alphanumeric() && c != '!');
        let tag = &tag[..end.unwrap_or(tag.len())];
        assert!(known.contains(&tag), "<{tag}> is not of this page");
    }
    // Attributes hold texts, too: of each tag all quotes are in pairs.
    for part in page.split('<').skip(1) {
        let tag = part.split('>').next().unwrap_or_default();
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
    }
}

#[test]
fn the_page_loads_itself_again_only_if_it_is_to() {
    let mut facts = Facts {
        server: running(),
        ..Facts::default()
    };
    assert!(!page(&facts).contains("http-equiv=\"refresh\""));
    facts.refresh_seconds = 30;
    assert!(page(&facts).contains("<meta http-equiv=\"refresh\" content=\"30\">"));
}

fn headline(change: impl FnOnce(&mut Facts)) -> String {
    let mut facts = Facts {
        server: running(),
        totals: Totals {
            urls: 3,
            ..Totals::default()
        },
        ..Facts::default()
    };
    change(&mut facts);
    verdict::of(&facts).headline
}

#[test]
fn the_headline_is_the_worst_that_is_known() {
    assert_eq!(headline(|_| {}), "all is well");
    assert_eq!(headline(|facts| facts.totals.urls = 0), "no webhooks");
    let failing = headline(|facts| {
        facts.totals.paused = 1;
        facts.totals.failing = 2;
        facts.totals.failing_since = Some("14:03".to_owned());
    });
    assert_eq!(failing, "2 URLs failing since 14:03");
    assert_eq!(headline(|facts| facts.totals.paused = 1), "1 URL paused");
    let stopped = headline(|facts| {
        facts.server.worker_pid = None;
        facts.totals.failing = 2;
    });
    assert_eq!(stopped, "no worker runs: it was stopped");
    let standby = headline(|facts| {
        facts.server.worker_pid = None;
        facts.server.in_recovery = true;
    });
    assert_eq!(standby, "this server is a standby: its primary delivers");
    let off = headline(|facts| facts.server.delivery_is_on = false);
    assert_eq!(off, "delivery is switched off (webhook.delivery)");
}

#[test]
fn a_url_that_needs_somebody_comes_with_a_statement() {
    for (state, advice) in [
        ("disabled", "select webhook.resume_webhook('abc123');"),
        ("paused", "select webhook.resume_webhook('abc123');"),
        (
            "failing",
            "select webhook.retry_now('abc123', 'https://example.com/hook');",
        ),
        ("no_worker", "select webhook.start_worker();"),
    ] {
        assert_eq!(
            verdict::advice_for(&url(state)).as_deref(),
            Some(advice),
            "{state}"
        );
    }
    assert_eq!(verdict::advice_for(&url("active")), None);
    let given_up = Url {
        failed: 1,
        ..url("active")
    };
    let advice = "select webhook.redeliver_failed('abc123');";
    assert_eq!(verdict::advice_for(&given_up).as_deref(), Some(advice));
}
