//! `webhook.reveal_secret` and `webhook.regenerate_secret`.
//!
//! Secrets are made here and not passed in, because a failing statement is
//! logged with its arguments. One that a webhook brings along is an argument of
//! `create_webhook` and `update_webhook`.

use pgrx::datum::{Interval, TimestampWithTimeZone};
use pgrx::prelude::*;
use serde_json::json;

use super::operate::{micros, DAY_MICROS};
use super::random;
use crate::core::error::{Error, Result};
use crate::core::policy::secret::Secret;
use crate::pg::arguments::{required_word, TextArgument};
use crate::pg::owner::current_role;
use crate::pg::report::ok_or_raise;
use crate::pg::text::Text;
use crate::store::change_log;
use crate::store::webhook_definitions::{self, SecretRow};

const DEFAULT_OVERLAP_HOURS: i32 = 24;
/// Ten years: receivers know the new secret long before.
const MAX_OVERLAP_DAYS: i32 = 3_650;

const MICROS_A_SECOND: i128 = 1_000_000;

/// As the function returns it, column by column.
type RevealedSecret = (Text, Text, Option<TimestampWithTimeZone>);

#[pg_extern(sql = false)]
fn reveal_secret(
    webhook: Option<TextArgument>,
) -> TableIterator<
    'static,
    (
        name!(secret, Text),
        name!(token, Text),
        name!(expires_at, Option<TimestampWithTimeZone>),
    ),
> {
    let revealed = || -> Result<Vec<RevealedSecret>> {
        let key = webhook_definitions::look_up(&required_word(webhook, "webhook")?)?;
        webhook_definitions::secrets(key)
            .into_iter()
            .map(with_token)
            .collect()
    };
    TableIterator::new(ok_or_raise(revealed()))
}

fn with_token(row: SecretRow) -> Result<RevealedSecret> {
    let token = Secret::parse(&row.secret)?.token();
    Ok((row.secret.as_str().into(), token.into(), row.expires_at))
}

#[pg_extern(sql = false)]
fn regenerate_secret(webhook: Option<TextArgument>, overlap: Option<Interval>) -> Text {
    let regenerated = || -> Result<Text> {
        let (key, _) = webhook_definitions::find(&required_word(webhook, "webhook")?)?;
        let overlap = overlap.unwrap_or_else(default_overlap);
        check_overlap(&overlap)?;
        let secret = Secret::from_random(random::bytes()?);
        let details =
            json!({ "overlap_seconds": i64::try_from(micros(&overlap) / MICROS_A_SECOND).ok() });
        webhook_definitions::replace_secret(key, &secret, overlap)?;
        change_log::webhook_happened(key, "regenerate_secret", details, &current_role());
        Ok(secret.expose().into())
    };
    ok_or_raise(regenerated())
}

/// So long those before a new secret sign along.
pub fn default_overlap() -> Interval {
    Interval::from_hours(DEFAULT_OVERLAP_HOURS)
}

fn check_overlap(overlap: &Interval) -> Result<()> {
    let micros = micros(overlap);
    let wrong = if micros < 0 {
        "is negative".to_owned()
    } else if micros > i128::from(MAX_OVERLAP_DAYS) * DAY_MICROS {
        format!("is longer than {MAX_OVERLAP_DAYS} days")
    } else {
        return Ok(());
    };
    Err(Error::invalid(format!("overlap \"{overlap}\" {wrong}"))
        .with_hint("use an interval like '24 hours'; with '0' the old secret ends at once"))
}
