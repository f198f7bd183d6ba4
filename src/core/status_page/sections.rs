//! The parts of the page, from top to bottom.

use super::chart;
use super::facts::{Call, Facts, Url};
use super::html::Html;
use super::verdict::{advice_for, level_of, Level, Verdict};

fn class_of(level: Level) -> &'static str {
    match level {
        Level::Good => "good",
        Level::Warn => "warn",
        Level::Bad => "bad",
    }
}

pub fn head(facts: &Facts, verdict: &Verdict) -> Html {
    let server = &facts.server;
    let mut out = Html::default();
    out.markup("<header><h1 class=\"")
        .markup(class_of(verdict.level))
        .markup("\">")
        .text(&verdict.headline)
        .markup("</h1><p>database ")
        .element("b", "", &server.database)
        .text(", webhook_ext ")
        .text(&server.version)
        .text(", worker ");
    match server.worker_pid {
        Some(pid) => out.text("runs as process ").number(pid),
        None => out.text(&server.worker_state),
    };
    out.text(if server.delivery_is_on {
        ", delivery on"
    } else {
        ", delivery off"
    })
    .text(if server.in_recovery { ", standby" } else { "" })
    .text("; ")
    .element("time", "", &facts.now)
    .markup("</p>");
    if !verdict.findings.is_empty() {
        out.markup("<ul>");
        for finding in &verdict.findings {
            out.markup("<li class=\"")
                .markup(class_of(finding.level))
                .markup("\">")
                .text(&finding.text);
            if let Some(advice) = &finding.advice {
                out.text(" ").element("code", "", advice);
            }
            out.markup("</li>");
        }
        out.markup("</ul>");
    }
    out.markup("</header>");
    out
}

pub fn tiles(facts: &Facts) -> Html {
    let totals = &facts.totals;
    let mut out = Html::default();
    out.markup("<section aria-label=\"figures\" class=\"tiles\">");
    let mut tile = |name: &str, value: &str, class: &'static str| {
        out.markup("<div class=\"tile\">")
            .element("span", "", name)
            .element("strong", class, value)
            .markup("</div>");
    };
    let bad_if = |bad: bool| if bad { "bad" } else { "" };
    tile("pending", &grouped(totals.pending), "");
    tile("retrying", &grouped(totals.retrying), "");
    tile("failed", &grouped(totals.failed), bad_if(totals.failed > 0));
    let oldest = totals.oldest_seconds.map_or("–".to_owned(), duration);
    tile("oldest waits", &oldest, "");
    let off = totals.events_off;
    tile("events switched off", &grouped(off), bad_if(off > 0));
    let used = bytes(facts.server.disk_bytes);
    let limit = facts.server.disk_limit_bytes.map(bytes);
    let disk = limit.map_or(used.clone(), |limit| format!("{used} of {limit}"));
    tile("disk", &disk, "");
    out.markup("</section>");
    out
}

pub fn charts(facts: &Facts) -> Html {
    let mut out = section("Calls a minute, last hour");
    out.markup(
        "<p class=\"legend\"><i class=\"good\"></i> delivered <i class=\"bad\"></i> failed</p>",
    )
    .append(chart::calls(&facts.minutes))
    .markup("</section>")
    .append(section("Duration of calls, last hour"));
    out.markup("<p class=\"legend\"><i class=\"p50\"></i> p50 <i class=\"p95\"></i> p95</p>")
        .append(chart::durations(&facts.minutes))
        .markup("</section>");
    out
}

pub fn urls(facts: &Facts) -> Html {
    let mut out = section("URLs, worst first");
    if facts.urls.is_empty() {
        return nothing(out, "There is no URL.");
    }
    out.markup("<div class=\"cards\">");
    for url in &facts.urls {
        out.append(card(url));
    }
    out.markup("</div>");
    let more = facts.totals.urls - i64::try_from(facts.urls.len()).unwrap_or(i64::MAX);
    if more > 0 {
        out.markup("<p>")
            .number(more)
            .text(" more in webhook.queue.")
            .markup("</p>");
    }
    out.markup("</section>");
    out
}

fn card(url: &Url) -> Html {
    let class = class_of(level_of(url));
    let mut out = Html::default();
    out.markup("<article class=\"card ")
        .markup(class)
        .markup("\"><h3><bdi>");
    out.text(&url.webhook)
        .markup("</bdi> ")
        .markup("<span class=\"state ")
        .markup(class)
        .markup("\">")
        .text(&url.state)
        .markup("</span></h3><p class=\"url\"><bdi>")
        .text(&url.url)
        .markup("</bdi></p>")
        .append(chart::strip(&url.hours))
        .markup("<dl>");
    let (calls, failures) = url.hours.iter().fold((0, 0), |(calls, failures), hour| {
        (calls + hour.calls, failures + hour.failures)
    });
    let mut fact = |name: &str, value: &str| {
        out.element("dt", "", name).element("dd", "", value);
    };
    let rate = match calls {
        0 => "no calls in 24 hours".to_owned(),
        _ => format!(
            "{:.1} % of {} calls",
            100.0 * failures as f64 / calls as f64,
            grouped(calls)
        ),
    };
    fact("errors", &rate);
    if let Some(p95) = url.p95_ms {
        let digits = usize::from(p95 < 10.0);
        fact("p95", &format!("{p95:.digits$} ms"));
    }
    let waits = [
        (url.pending, "pending"),
        (url.retrying, "retrying"),
        (url.failed, "failed"),
    ];
    let waits: Vec<String> = waits
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| format!("{} {name}", grouped(*count)))
        .collect();
    if !waits.is_empty() {
        fact("messages", &waits.join(", "));
    }
    let times = [
        ("failing since", &url.failing_since),
        ("last success", &url.last_success_at),
        ("next attempt", &url.next_attempt_at),
        ("last error", &url.last_error),
    ];
    for (name, value) in times {
        if let Some(value) = value {
            fact(name, value);
        }
    }
    out.markup("</dl>");
    if let Some(advice) = advice_for(url) {
        out.element("code", "", &advice);
    }
    out.markup("</article>");
    out
}

pub fn causes(facts: &Facts) -> Html {
    let mut out = section("Failures by cause");
    if facts.causes.is_empty() {
        return nothing(out, "No call has failed.");
    }
    out.markup("<p>Of the last 1000 failed calls.</p>");
    begin_table(&mut out, &["cause", "calls", "URLs", "last"]);
    for cause in &facts.causes {
        out.markup("<tr>")
            .element("td", "wide", &cause.cause)
            .element("td", "number", &grouped(cause.calls))
            .element("td", "number", &grouped(cause.urls))
            .element("td", "", &cause.last_at)
            .markup("</tr>");
    }
    end_table(out)
}

pub fn calls(facts: &Facts) -> Html {
    let mut out = section("Last calls");
    if facts.calls.is_empty() {
        return nothing(out, "The log has no call.");
    }
    for call in &facts.calls {
        out.append(one_call(call));
    }
    out.markup("</section>");
    out
}

fn one_call(call: &Call) -> Html {
    let mut out = Html::default();
    let (class, result) = match call.success {
        true => ("good", "delivered"),
        false => ("bad", "failed"),
    };
    out.markup("<details><summary>")
        .element("time", "", &call.called_at)
        .text(" ")
        .markup("<span class=\"state ")
        .markup(class)
        .markup("\">");
    match call.http_code {
        Some(code) => out.number(code),
        None => out.text(result),
    };
    out.markup("</span> <bdi>")
        .text(&call.webhook)
        .markup("</bdi> <bdi class=\"url\">")
        .text(&call.url)
        .markup("</bdi></summary><dl>");
    let attempt = format!("{}, {:.1} ms", call.attempt, call.duration_ms);
    let rows = [
        ("event", Some(&call.event)),
        ("attempt", Some(&attempt)),
        ("message", Some(&call.message_id)),
        ("error", call.detail.as_ref()),
    ];
    for (name, value) in rows {
        if let Some(value) = value {
            out.element("dt", "", name).element("dd", "", value);
        }
    }
    if let Some(response) = &call.response {
        out.element("dt", "", "answer")
            .markup("<dd><pre>")
            .text(response)
            .markup("</pre></dd>");
    }
    out.markup("</dl></details>");
    out
}

pub fn events(facts: &Facts) -> Html {
    let mut out = section("Events that produce nothing");
    if facts.events.is_empty() {
        return nothing(out, "Every event produces messages.");
    }
    begin_table(&mut out, &["event", "webhook", "change", "why"]);
    for event in &facts.events {
        let change = format!("{} of {}", event.event_type, event.object_name);
        let why = event.reason.as_deref().unwrap_or("it was switched off");
        out.markup("<tr>")
            .element("td", "", &event.id)
            .element("td", "", &event.webhook)
            .element("td", "", &change)
            .element("td", "wide", why)
            .markup("</tr>");
    }
    end_table(out)
}

pub fn changes(facts: &Facts) -> Html {
    let mut out = section("Recent changes");
    if facts.changes.is_empty() {
        return nothing(out, "Nothing was changed.");
    }
    begin_table(&mut out, &["when", "who", "did", "what"]);
    for change in &facts.changes {
        out.markup("<tr>")
            .element("td", "", &change.changed_at)
            .element("td", "", &change.changed_by)
            .element("td", "", &change.action)
            .element("td", "wide", &change.what)
            .markup("</tr>");
    }
    end_table(out)
}

fn section(title: &'static str) -> Html {
    let mut out = Html::default();
    out.markup("<section><h2>").markup(title).markup("</h2>");
    out
}

fn nothing(mut out: Html, text: &'static str) -> Html {
    out.markup("<p>").markup(text).markup("</p></section>");
    out
}

fn begin_table(out: &mut Html, columns: &[&str]) {
    out.markup("<div class=\"scroll\" tabindex=\"0\"><table><thead><tr>");
    for column in columns {
        out.markup("<th scope=\"col\">")
            .text(column)
            .markup("</th>");
    }
    out.markup("</tr></thead><tbody>");
}

fn end_table(mut out: Html) -> Html {
    out.markup("</tbody></table></div></section>");
    out
}

/// 1,234,567
fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut out = if number < 0 {
        "-".to_owned()
    } else {
        String::new()
    };
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn bytes(bytes: i64) -> String {
    let bytes = bytes as f64;
    let units = [(1u64 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "kB")];
    let unit = units.into_iter().find(|(size, _)| bytes >= *size as f64);
    unit.map_or(format!("{bytes:.0} B"), |(size, name)| {
        format!("{:.1} {name}", bytes / size as f64)
    })
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => format!("{:.0} ms", s * 1000.0),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3600.0),
        s => format!("{:.0} days", s / 86_400.0),
    }
}
