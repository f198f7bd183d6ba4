//! `webhook.create_webhook`.

use pgrx::datum::{Interval, TimestampWithTimeZone};
use pgrx::prelude::*;
use pgrx::JsonB;
use zeroize::Zeroizing;

use super::adopt::warn_if_held;
use super::doubts::tell_of_urls;
use super::random;
use crate::core::definitions::limits::{DESCRIPTION_CHARS, WORD_CHARS};
use crate::core::definitions::webhook::{
    self, required, CALL_THROTTLING, MAX_ATTEMPTS, MAX_IN_FLIGHT, MAX_URLS, TIMEOUT_MS,
};
use crate::core::definitions::words::{DeliveryOrder, LogLevel};
use crate::core::error::{Error, Result};
use crate::core::policy::secret::Secret;
use crate::core::policy::{headers, masked_headers};
use crate::pg::arguments::{json, list, text, word, JsonArgument, TextArgument, TextListArgument};
use crate::pg::owner::current_role;
use crate::pg::report::ok_or_raise;
use crate::pg::text::{texts, Text};
use crate::store::citus;
use crate::store::webhook_definitions::{self, NewWebhook};

/// What NULL means where a value is needed; the same as the defaults in SQL.
const DEFAULT_TIMEOUT_MS: i32 = 15_000;
const DEFAULT_MAX_ATTEMPTS: i32 = 12;
const DEFAULT_MAX_AGE_DAYS: i32 = 3;
const DEFAULT_MAX_IN_FLIGHT: i32 = 16;

/// A receiver that is restarted is back by then.
const LEAST_DISABLE_AFTER_US: i128 = 60_000_000;

/// As the function returns it, column by column.
pub type CreatedWebhook = (
    Text,
    Text,
    Option<Text>,
    Vec<Text>,
    Option<i32>,
    bool,
    Text,
    Text,
    TimestampWithTimeZone,
    Text,
);

/// What the schema of 0.1.0 calls.
#[pg_extern(sql = false)]
#[expect(
    clippy::too_many_arguments,
    clippy::type_complexity,
    reason = "the signature is the contract"
)]
fn create_webhook(
    name: Option<TextArgument>,
    outgoing_urls: Option<TextListArgument>,
    description: Option<TextArgument>,
    call_throttling: Option<i32>,
    enabled: Option<bool>,
    headers: Option<JsonArgument>,
    timeout_ms: Option<i32>,
    max_attempts: Option<i32>,
    max_age: Option<Interval>,
    max_in_flight: Option<i32>,
    delivery_order: Option<TextArgument>,
    log_level: Option<TextArgument>,
) -> TableIterator<
    'static,
    (
        name!(id, Text),
        name!(name, Text),
        name!(description, Option<Text>),
        name!(outgoing_urls, Vec<Text>),
        name!(call_throttling, Option<i32>),
        name!(enabled, bool),
        name!(secret, Text),
        name!(token, Text),
        name!(created_at, TimestampWithTimeZone),
        name!(created_by, Text),
    ),
> {
    create_webhook_v2(
        name,
        outgoing_urls,
        description,
        call_throttling,
        enabled,
        headers,
        timeout_ms,
        max_attempts,
        max_age,
        max_in_flight,
        delivery_order,
        log_level,
        None,
        None,
    )
}

#[pg_extern(sql = false)]
#[expect(
    clippy::too_many_arguments,
    clippy::type_complexity,
    reason = "the signature is the contract"
)]
fn create_webhook_v2(
    name: Option<TextArgument>,
    outgoing_urls: Option<TextListArgument>,
    description: Option<TextArgument>,
    call_throttling: Option<i32>,
    enabled: Option<bool>,
    headers: Option<JsonArgument>,
    timeout_ms: Option<i32>,
    max_attempts: Option<i32>,
    max_age: Option<Interval>,
    max_in_flight: Option<i32>,
    delivery_order: Option<TextArgument>,
    log_level: Option<TextArgument>,
    secret: Option<TextArgument>,
    disable_after: Option<Interval>,
) -> TableIterator<
    'static,
    (
        name!(id, Text),
        name!(name, Text),
        name!(description, Option<Text>),
        name!(outgoing_urls, Vec<Text>),
        name!(call_throttling, Option<i32>),
        name!(enabled, bool),
        name!(secret, Text),
        name!(token, Text),
        name!(created_at, TimestampWithTimeZone),
        name!(created_by, Text),
    ),
> {
    let created = || -> Result<CreatedWebhook> {
        let name = word(name, "name")?;
        let delivery_order = word(delivery_order, "delivery_order")?;
        let log_level = word(log_level, "log_level")?;
        create(WebhookArguments {
            name: name.as_deref(),
            outgoing_urls: list(outgoing_urls, "outgoing_urls", MAX_URLS)?,
            description: text(description, "description", DESCRIPTION_CHARS)?,
            call_throttling,
            enabled,
            headers: json(headers, "headers")?.map(JsonB),
            timeout_ms,
            max_attempts,
            max_age,
            max_in_flight,
            delivery_order: delivery_order.as_deref(),
            log_level: log_level.as_deref(),
            secret: given_secret(secret)?,
            disable_after,
        })
    };
    TableIterator::once(ok_or_raise(created()))
}

/// A secret of the caller's own.
pub fn given_secret(secret: Option<TextArgument>) -> Result<Option<Secret>> {
    let given = text(secret, "secret", WORD_CHARS)?.map(Zeroizing::new);
    let read = |text: &Zeroizing<String>| {
        Secret::parse(text).map_err(|error| {
            error.with_hint(
                "give whsec_ and base64 of 24 to 64 random bytes, or leave secret out: one is made",
            )
        })
    };
    given.as_ref().map(read).transpose()
}

/// The settings of a webhook; `None` is the default, in an update what it was.
#[derive(Default)]
pub struct WebhookArguments<'a> {
    pub name: Option<&'a str>,
    pub outgoing_urls: Option<Vec<Option<String>>>,
    pub description: Option<String>,
    pub call_throttling: Option<i32>,
    pub enabled: Option<bool>,
    pub headers: Option<JsonB>,
    pub timeout_ms: Option<i32>,
    pub max_attempts: Option<i32>,
    pub max_age: Option<Interval>,
    pub max_in_flight: Option<i32>,
    pub delivery_order: Option<&'a str>,
    pub log_level: Option<&'a str>,
    pub secret: Option<Secret>,
    pub disable_after: Option<Interval>,
}

/// Checks everything, then stores.
pub fn create(mut wanted: WebhookArguments<'_>) -> Result<CreatedWebhook> {
    let secret = wanted.secret.take();
    let webhook = wanted.checked()?;
    store(webhook, secret)
}

impl WebhookArguments<'_> {
    fn checked(self) -> Result<NewWebhook> {
        Ok(NewWebhook {
            id: String::new(),
            name: webhook::name(required("name", self.name)?)?.to_owned(),
            description: self.description.map(webhook::description).transpose()?,
            outgoing_urls: webhook::outgoing_urls(&required("outgoing_urls", self.outgoing_urls)?)?,
            call_throttling: self
                .call_throttling
                .map(|calls| CALL_THROTTLING.check(calls))
                .transpose()?,
            enabled: self.enabled.unwrap_or(true),
            headers: checked_headers(self.headers.unwrap_or_else(|| JsonB(serde_json::json!({}))))?,
            timeout_ms: TIMEOUT_MS.check(self.timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS))?,
            max_attempts: MAX_ATTEMPTS.check(self.max_attempts.unwrap_or(DEFAULT_MAX_ATTEMPTS))?,
            max_age: checked_max_age(
                self.max_age
                    .unwrap_or_else(|| Interval::from_days(DEFAULT_MAX_AGE_DAYS)),
            )?,
            max_in_flight: MAX_IN_FLIGHT
                .check(self.max_in_flight.unwrap_or(DEFAULT_MAX_IN_FLIGHT))?,
            delivery_order: checked_order(
                self.delivery_order.unwrap_or(DeliveryOrder::None.as_str()),
            )?,
            log_level: LogLevel::parse(self.log_level.unwrap_or(LogLevel::All.as_str()))?.as_str(),
            disable_after: (self.disable_after)
                .map(checked_disable_after)
                .transpose()?
                .flatten(),
            created_by: current_role(),
        })
    }
}

pub fn checked_headers(headers: JsonB) -> Result<JsonB> {
    headers::validate(&headers.0)?;
    masked_headers::refuse_masks(&headers.0)?;
    Ok(headers)
}

/// Months count as 30 days here, as PostgreSQL does when it compares intervals.
pub fn checked_max_age(max_age: Interval) -> Result<Interval> {
    if super::operate::micros(&max_age) <= 0 {
        return Err(
            Error::invalid(format!("max_age \"{max_age}\" is not positive"))
                .with_hint("use an interval like '3 days'"),
        );
    }
    Ok(max_age)
}

/// `None`: zero, so that no URL is switched off.
pub fn checked_disable_after(disable_after: Interval) -> Result<Option<Interval>> {
    match super::operate::micros(&disable_after) {
        0 => Ok(None),
        micros if micros < LEAST_DISABLE_AFTER_US => Err(Error::invalid(format!(
            "disable_after \"{disable_after}\" is shorter than a minute"
        ))
        .with_hint("use an interval like '3 days', at least a minute, or '0' for never")),
        _ => Ok(Some(disable_after)),
    }
}

pub fn checked_order(delivery_order: &str) -> Result<&'static str> {
    DeliveryOrder::parse(delivery_order).map(DeliveryOrder::as_str)
}

fn store(mut webhook: NewWebhook, secret: Option<Secret>) -> Result<CreatedWebhook> {
    warn_if_held();
    citus::check_definitions_are_made_here()?;
    webhook.id = random::unused_id(webhook_definitions::id_is_taken)?;
    let secret = match secret {
        Some(secret) => secret,
        None => Secret::from_random(random::bytes()?),
    };
    let (id, name, description) = (
        webhook.id.clone(),
        webhook.name.clone(),
        webhook.description.clone(),
    );
    let (urls, throttling) = (webhook.outgoing_urls.clone(), webhook.call_throttling);
    let (enabled, created_by) = (webhook.enabled, webhook.created_by.clone());
    let created_at = webhook_definitions::insert(webhook, &secret)?;
    tell_of_urls(&urls);
    Ok((
        id.into(),
        name.into(),
        description.map(Text),
        texts(urls),
        throttling,
        enabled,
        secret.expose().into(),
        secret.token().into(),
        created_at,
        created_by.into(),
    ))
}
