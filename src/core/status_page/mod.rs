//! The page of `webhook.status_page()`: facts in, HTML out.
//!
//! One document without scripts, fonts or images from elsewhere; its policy forbids scripts
//! altogether, and every style but its own. Everything that users or receivers have written is escaped (`html`).

mod chart;
pub mod facts;
mod html;
mod sections;
mod verdict;

use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use sha2::{Digest, Sha256};

use facts::Facts;
use html::Html;

const STYLE: &str = include_str!("style.css");

/// The whole page.
pub fn page(facts: &Facts) -> String {
    let verdict = verdict::of(facts);
    let mut page = Html::default();
    page.markup("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">")
        .markup("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">")
        .markup("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; style-src 'sha256-")
        .text(&STANDARD.encode(Sha256::digest(STYLE)))
        .markup("'\">")
        .markup("<meta name=\"color-scheme\" content=\"light dark\"><link rel=\"icon\" href=\"data:,\">");
    if facts.refresh_seconds > 0 {
        page.markup("<meta http-equiv=\"refresh\" content=\"")
            .number(facts.refresh_seconds)
            .markup("\">");
    }
    page.markup("<title>")
        .text(&verdict.headline)
        .text(" · webhooks of ")
        .text(&facts.server.database)
        .markup("</title><style>")
        .markup(STYLE)
        .markup("</style></head><body><main>");
    page.append(sections::head(facts, &verdict))
        .append(sections::tiles(facts))
        .append(sections::charts(facts))
        .append(sections::urls(facts))
        .append(sections::causes(facts))
        .append(sections::calls(facts))
        .append(sections::events(facts))
        .append(sections::changes(facts));
    page.markup("</main></body></html>\n");
    page.finish()
}

#[cfg(test)]
mod tests;
