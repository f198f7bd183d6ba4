//! `webhook.status_page()` in a browser: no message on the console, no overflow, enough contrast.
//!
//! Where no Chromium is installed the test says so and checks nothing.

use std::io::Write;
use std::process::Command;
use std::{env, fs, io};

use serde_json::{json, Value};

use super::support::definitions::{create_event, create_webhook, wait_idle};
use super::support::items::{cluster_with, insert, watch};
use super::support::signature::python;
use super::support::PATIENCE;

const BROWSE: &str = include_str!("support/browse.py");

/// A Chromium, or the program that WEBHOOK_CHROMIUM names.
fn browser() -> Option<String> {
    let named = env::var("WEBHOOK_CHROMIUM").ok();
    let known = ["chromium", "chromium-browser", "google-chrome"].map(str::to_owned);
    let mut candidates = named.into_iter().chain(known);
    candidates.find(|program| {
        let version = Command::new(program).arg("--version").output();
        version.is_ok_and(|output| output.status.success())
    })
}

#[test]
fn a_browser_shows_the_page_in_light_dark_and_narrow() {
    let Some(browser) = browser() else {
        // Not captured by the test harness, so that it is seen.
        let _ = io::stderr().write_all(
            b"SKIPPED: no Chromium found (apt install chromium, or WEBHOOK_CHROMIUM=program): \
              the status page was not looked at in a browser\n",
        );
        return;
    };
    let (cluster, receiver) = cluster_with("status_page_browser", "1h");
    let long = "a-name-without-a-blank-".repeat(4);
    let url = receiver.url(&format!("/status/500?body={}", "x".repeat(300)));
    create_webhook(&cluster, &long, &[url], "");
    create_event(&cluster, &long, "items", "Insert", "");
    watch(&cluster, &receiver, "good", &["/ok"], "");
    cluster.sql("create table gone (id integer)");
    create_event(&cluster, "good", "gone", "Insert", "");
    cluster.sql("drop table gone");
    insert(&cluster, 1..=5);
    wait_idle(&cluster);
    let activity = "select (sum(calls) >= 6)::text from webhook.activity";
    cluster.wait_for_text(PATIENCE, activity, "true");
    let page: String = cluster.value("select webhook.status_page('0')::text");
    let directory = env::temp_dir().join(format!("webhook-status-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let file = directory.join("status.html");
    fs::write(&file, page).unwrap();
    let output = Command::new(python())
        .args(["-c", BROWSE, &browser])
        .arg(&file)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    for look in ["light", "dark", "narrow"] {
        let seen = &found[look];
        assert!(seen["texts"].as_i64().unwrap() > 40, "{look}: {seen}");
        for wrong in ["weak", "wide", "console"] {
            assert_eq!(seen[wrong], json!([]), "{look}: {wrong}");
        }
        assert_eq!(seen["scrolls"], false, "{look}");
        let picture = fs::read(directory.join(format!("status.html.{look}.png")));
        assert!(picture.unwrap().len() > 10_000, "{look}");
    }
    fs::remove_dir_all(&directory).unwrap();
}
