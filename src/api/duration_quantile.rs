//! `webhook.duration_quantile`, which `webhook.activity` asks.

use pgrx::prelude::*;

use crate::core::values::durations::Durations;
use crate::pg::arguments::TextArgument;
use crate::pg::report::ok_or_raise;

/// An hour of a thousand busy URLs has some megabytes.
const MOST_CHARS: usize = 32 * 1024 * 1024;

#[pg_extern(sql = false)]
fn duration_quantile(durations: TextArgument, part: f64, max_ms: f64) -> Option<f64> {
    let text = ok_or_raise(durations.read("durations", MOST_CHARS));
    let mut all = Durations::default();
    all.add_text(&text);
    all.quantile_ms(part).map(|found| found.min(max_ms))
}
