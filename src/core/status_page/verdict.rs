//! The one sentence at the top of the page, what else is wrong, and the statements that mend it.

use super::facts::{Facts, Url};
use crate::core::values::sql_text::literal;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Good,
    Warn,
    Bad,
}

/// A finding, and a statement that mends it.
#[derive(Clone, Debug)]
pub struct Finding {
    pub level: Level,
    pub text: String,
    pub advice: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Verdict {
    pub level: Level,
    pub headline: String,
    /// The worst first; the headline is the first one.
    pub findings: Vec<Finding>,
}

/// See the module.
pub fn of(facts: &Facts) -> Verdict {
    let mut findings = server(facts);
    findings.extend(totals(facts));
    findings.sort_by_key(|finding| finding.level != Level::Bad);
    let level = findings.first().map_or(Level::Good, |first| first.level);
    let headline = match &findings[..] {
        [] if facts.totals.urls == 0 => "no webhooks".to_owned(),
        [] => "all is well".to_owned(),
        [first, ..] => first.text.clone(),
    };
    Verdict {
        level,
        headline,
        findings,
    }
}

fn finding(level: Level, text: impl Into<String>, advice: Option<&str>) -> Finding {
    Finding {
        level,
        text: text.into(),
        advice: advice.map(str::to_owned),
    }
}

fn server(facts: &Facts) -> Vec<Finding> {
    let server = &facts.server;
    let mut findings = Vec::new();
    if server.in_recovery {
        let text = "this server is a standby: its primary delivers";
        findings.push(finding(Level::Warn, text, None));
    } else if server.worker_pid.is_none() {
        let why = server.worker_error.as_deref().unwrap_or("it was stopped");
        let text = format!("no worker runs: {why}");
        let advice = Some("select webhook.start_worker();");
        findings.push(finding(Level::Bad, text, advice));
    }
    if !server.delivery_is_on {
        let advice = "alter system set webhook.delivery = on; select pg_reload_conf();";
        let text = "delivery is switched off (webhook.delivery)";
        findings.push(finding(Level::Bad, text, Some(advice)));
    }
    if let Some(detail) = &server.worker_detail {
        findings.push(finding(Level::Bad, format!("the worker: {detail}"), None));
    }
    let limit = server.disk_limit_bytes;
    if limit.is_some_and(|limit| server.disk_bytes > limit) {
        let text =
            "outbox and log are larger than webhook.log_max_size: messages that wait are kept";
        findings.push(finding(Level::Warn, text, None));
    }
    findings
}

fn totals(facts: &Facts) -> Vec<Finding> {
    let totals = &facts.totals;
    let mut findings = Vec::new();
    let mut add = |count: i64, level, text: &str| {
        if count > 0 {
            let urls = if count == 1 { "URL" } else { "URLs" };
            findings.push(finding(level, format!("{count} {urls} {text}"), None));
        }
    };
    let since = totals.failing_since.as_deref();
    let failing = since.map_or("failing".to_owned(), |since| {
        format!("failing since {since}")
    });
    add(totals.failing, Level::Bad, &failing);
    add(totals.disabled, Level::Bad, "switched off");
    add(totals.blocked, Level::Bad, "blocked");
    add(totals.paused, Level::Warn, "paused");
    let counted = |count: i64, one: &str, many: &str| match count {
        1 => format!("1 {one}"),
        _ => format!("{count} {many}"),
    };
    if totals.events_off > 0 {
        let text = counted(
            totals.events_off,
            "event produces nothing",
            "events produce nothing",
        );
        findings.push(finding(Level::Warn, text, None));
    }
    if totals.failed > 0 {
        let text = counted(
            totals.failed,
            "message was given up",
            "messages were given up",
        );
        findings.push(finding(Level::Warn, text, None));
    }
    findings
}

pub fn level_of(url: &Url) -> Level {
    match url.state.as_str() {
        "disabled" | "blocked" | "failing" | "backing_off" | "no_worker" => Level::Bad,
        "active" if url.retrying == 0 && url.failed == 0 => Level::Good,
        _ => Level::Warn,
    }
}

/// A statement that mends what is wrong with the URL.
pub fn advice_for(url: &Url) -> Option<String> {
    let webhook = literal(&url.webhook_id);
    Some(match url.state.as_str() {
        "disabled" | "paused" => format!("select webhook.resume_webhook({webhook});"),
        "no_worker" => "select webhook.start_worker();".to_owned(),
        "delivery_off" => {
            "alter system set webhook.delivery = on; select pg_reload_conf();".to_owned()
        }
        "blocked" => "select detail from webhook.worker;".to_owned(),
        "failing" | "backing_off" => {
            let url = literal(&url.url);
            format!("select webhook.retry_now({webhook}, {url});")
        }
        _ if url.failed > 0 => format!("select webhook.redeliver_failed({webhook});"),
        _ if url.retrying > 0 => format!("select webhook.retry_now({webhook});"),
        _ => return None,
    })
}
