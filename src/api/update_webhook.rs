//! `webhook.update_webhook`.

use pgrx::datum::{Interval, TimestampWithTimeZone};
use pgrx::prelude::*;
use pgrx::JsonB;
use serde_json::json;

use super::create_webhook::{
    checked_disable_after, checked_headers, checked_max_age, checked_order, given_secret,
    WebhookArguments,
};
use super::doubts::tell_of_urls;
use super::secrets::default_overlap;
use crate::core::definitions::limits::DESCRIPTION_CHARS;
use crate::core::definitions::webhook::{self, MAX_ATTEMPTS, MAX_IN_FLIGHT, MAX_URLS, TIMEOUT_MS};
use crate::core::definitions::words::{DeliveryOrder, LogLevel};
use crate::core::error::Result;
use crate::core::policy::masked_headers;
use crate::pg::arguments::{
    json, list, required_word, text, word, JsonArgument, TextArgument, TextListArgument,
};
use crate::pg::owner::current_role;
use crate::pg::report::ok_or_raise;
use crate::pg::text::{texts, Text};
use crate::store::webhook_changes::{self, ChangedWebhook, WebhookChanges};
use crate::store::webhook_definitions;
use crate::store::{change_log, order_key, reach};

/// What the schema of 0.1.0 calls.
#[pg_extern(sql = false)]
#[expect(
    clippy::too_many_arguments,
    clippy::type_complexity,
    reason = "the signature is the contract"
)]
fn update_webhook(
    webhook: Option<TextArgument>,
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
        name!(modified_at, Option<TimestampWithTimeZone>),
        name!(modified_by, Option<Text>),
    ),
> {
    update_webhook_v2(
        webhook,
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
fn update_webhook_v2(
    webhook: Option<TextArgument>,
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
        name!(modified_at, Option<TimestampWithTimeZone>),
        name!(modified_by, Option<Text>),
    ),
> {
    let updated = || -> Result<ChangedWebhook> {
        let webhook = required_word(webhook, "webhook")?;
        let name = word(name, "name")?;
        let delivery_order = word(delivery_order, "delivery_order")?;
        let log_level = word(log_level, "log_level")?;
        let wanted = WebhookArguments {
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
        };
        update(&webhook, wanted)
    };
    let now = ok_or_raise(updated());
    TableIterator::once((
        now.id.into(),
        now.name.into(),
        now.description.map(Text),
        texts(now.outgoing_urls),
        now.call_throttling,
        now.enabled,
        now.modified_at,
        now.modified_by.map(Text),
    ))
}

/// Changes the webhook with this id or name; checks everything before it writes.
pub fn update(webhook: &str, mut wanted: WebhookArguments<'_>) -> Result<ChangedWebhook> {
    let (key, _) = webhook_definitions::find(webhook)?;
    let secret = wanted.secret.take();
    let changes = checked(with_stored_headers(key, wanted)?)?;
    reach::check_changes(key, &changes)?;
    if changes.delivery_order == Some(DeliveryOrder::Key.as_str()) {
        order_key::check_webhook(key)?;
    }
    let urls = changes.outgoing_urls.clone();
    let changed = webhook_changes::apply(key, changes, &current_role())?;
    tell_of_urls(&urls.unwrap_or_default());
    if let Some(secret) = secret {
        webhook_definitions::replace_secret(key, &secret, default_overlap())?;
        change_log::webhook_happened(key, "replace_secret", json!({}), &current_role());
    }
    Ok(changed)
}

/// A client that writes back what the view or the REST API has shown leaves masked values as they are.
fn with_stored_headers(key: i32, mut wanted: WebhookArguments<'_>) -> Result<WebhookArguments<'_>> {
    if let Some(JsonB(headers)) = wanted.headers.take() {
        let stored = webhook_definitions::headers(key);
        wanted.headers = Some(JsonB(masked_headers::unmasked(headers, &stored)?));
    }
    Ok(wanted)
}

fn checked(wanted: WebhookArguments<'_>) -> Result<WebhookChanges> {
    Ok(WebhookChanges {
        name: wanted
            .name
            .map(|name| webhook::name(name).map(str::to_owned))
            .transpose()?,
        outgoing_urls: wanted
            .outgoing_urls
            .map(|urls| webhook::outgoing_urls(&urls))
            .transpose()?,
        description: wanted.description.map(webhook::description).transpose()?,
        call_throttling: wanted
            .call_throttling
            .map(webhook::changed_throttling)
            .transpose()?,
        enabled: wanted.enabled,
        headers: wanted.headers.map(checked_headers).transpose()?,
        timeout_ms: wanted
            .timeout_ms
            .map(|value| TIMEOUT_MS.check(value))
            .transpose()?,
        max_attempts: wanted
            .max_attempts
            .map(|value| MAX_ATTEMPTS.check(value))
            .transpose()?,
        max_age: wanted.max_age.map(checked_max_age).transpose()?,
        max_in_flight: wanted
            .max_in_flight
            .map(|value| MAX_IN_FLIGHT.check(value))
            .transpose()?,
        delivery_order: wanted.delivery_order.map(checked_order).transpose()?,
        log_level: wanted
            .log_level
            .map(|level| LogLevel::parse(level).map(LogLevel::as_str))
            .transpose()?,
        disable_after: wanted
            .disable_after
            .map(checked_disable_after)
            .transpose()?,
    })
}
