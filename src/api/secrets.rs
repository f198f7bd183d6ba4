//! `webhook.reveal_secret` and `webhook.regenerate_secret`.
//!
//! Secrets are made here and never passed in, because a failing statement is
//! logged with its arguments.

use pgrx::datum::{Interval, TimestampWithTimeZone};
use pgrx::prelude::*;

use super::operate::micros;
use super::random;
use crate::core::error::{Error, Result};
use crate::core::secret::Secret;
use crate::core::webhook::required;
use crate::pg::report::ok_or_raise;
use crate::pg::text::Text;
use crate::store::webhook_definitions::{self, SecretRow};

const DEFAULT_OVERLAP_HOURS: i32 = 24;

/// As the function returns it, column by column.
type RevealedSecret = (Text, Text, Option<TimestampWithTimeZone>);

#[pg_extern(sql = false)]
fn reveal_secret(
    webhook: Option<Text>,
) -> TableIterator<
    'static,
    (
        name!(secret, Text),
        name!(token, Text),
        name!(expires_at, Option<TimestampWithTimeZone>),
    ),
> {
    let revealed = || -> Result<Vec<RevealedSecret>> {
        let (key, _) = webhook_definitions::find(required("webhook", webhook.as_deref())?)?;
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
fn regenerate_secret(webhook: Option<Text>, overlap: Option<Interval>) -> Text {
    let regenerated = || -> Result<Text> {
        let (key, _) = webhook_definitions::find(required("webhook", webhook.as_deref())?)?;
        let overlap = overlap.unwrap_or_else(|| Interval::from_hours(DEFAULT_OVERLAP_HOURS));
        if micros(&overlap) < 0 {
            return Err(
                Error::invalid(format!("overlap \"{overlap}\" is negative")).with_hint(
                    "use an interval like '24 hours'; with '0' the old secret ends at once",
                ),
            );
        }
        let secret = Secret::from_random(random::bytes()?);
        webhook_definitions::replace_secret(key, &secret, overlap);
        Ok(secret.expose().into())
    };
    ok_or_raise(regenerated())
}
