//! The definitions, compiled for sending.
//!
//! A webhook whose row cannot be used (edited by hand) is held, with the reason in
//! its view; the others go on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use zeroize::Zeroizing;

use super::message::EventRoute;
use super::time;
use crate::core::body::Body;
use crate::core::definition::DeliveryOrder;
use crate::core::endpoint::Endpoint;
use crate::core::error::Result;
use crate::core::event::{test_event_key, TEST_EVENT_TYPE};
use crate::core::headers;
use crate::core::payload::{DefaultPayload, PayloadConstants};
use crate::core::redaction::{credentials_in_url, Redactions};
use crate::core::secret::Secret;
use crate::core::signing::Signer;
use crate::core::template::render::TemplateConstants;
use crate::delivery::call::Target;
use crate::store::routing::{Definitions, EventRow, SecretRow, UrlRow, WebhookRow};

/// What of a webhook's calls is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logged {
    All,
    Errors,
    None,
}

/// What concerns all URLs of a webhook.
pub struct WebhookRoute {
    pub webhook_key: i32,
    pub id: Arc<str>,
    pub paused: bool,
    pub per_second: Option<u32>,
    pub max_in_flight: usize,
    /// Each URL gets its messages in their order.
    pub fifo: bool,
    pub max_attempts: u32,
    pub max_age_us: i64,
    pub logged: Logged,
    pub url_keys: Vec<i32>,
    /// Why the row cannot be used.
    pub broken: Option<String>,
    /// What the view says now.
    pub shown_detail: Option<String>,
}

/// One URL.
pub struct UrlRoute {
    pub webhook_key: i32,
    pub disabled: bool,
    /// `None` if the webhook is broken.
    pub target: Option<Arc<Target>>,
}

/// See the module.
#[derive(Default)]
pub struct Routes {
    pub webhooks: HashMap<i32, WebhookRoute>,
    pub urls: HashMap<i32, UrlRoute>,
    pub events: HashMap<i32, Arc<EventRoute>>,
}

impl Routes {
    pub fn compile(definitions: Definitions, account_id: &str, integration_url: &str) -> Self {
        let mut routes = Self::default();
        let secrets = by_webhook(&definitions.secrets);
        let mut tokens = HashMap::new();
        let mut ids = HashMap::new();
        for row in definitions.webhooks {
            let own = secrets.get(&row.webhook_key).map_or(&[][..], Vec::as_slice);
            let urls = definitions
                .urls
                .iter()
                .filter(|url| url.webhook_key == row.webhook_key);
            routes.add_webhook(&row, own, urls, &mut tokens);
            ids.insert(row.webhook_key, row.id);
        }
        for event in definitions.events {
            let token = tokens.get(&event.webhook_key).map_or("", String::as_str);
            let webhook_id = ids.get(&event.webhook_key).map_or("", String::as_str);
            let constants = PayloadConstants {
                event_id: &event.id,
                webhook_id,
                account_id,
                token,
                event_type: &event.event_type,
                object_name: event.object_name.as_deref().unwrap_or(""),
            };
            routes.add_event(&event, constants, integration_url);
        }
        for (webhook_key, id) in &ids {
            let token = tokens.get(webhook_key).map_or("", String::as_str);
            let route = test_route(*webhook_key, id, account_id, token);
            routes.events.insert(route.event_key, Arc::new(route));
        }
        routes
    }

    /// An event whose template cannot be read holds its webhook.
    fn add_event(
        &mut self,
        event: &EventRow,
        constants: PayloadConstants<'_>,
        integration_url: &str,
    ) {
        let constants = TemplateConstants {
            payload: constants,
            object_fields: &event.object_fields,
            integration_url,
        };
        let body = Body::compile(event.payload_template.as_deref(), &constants)
            .map_err(|error| format!("event \"{}\": {}", event.id, error.message));
        if let (Err(why), Some(webhook)) = (&body, self.webhooks.get_mut(&event.webhook_key)) {
            webhook.broken.get_or_insert_with(|| why.clone());
        }
        let route = EventRoute {
            event_key: event.event_key,
            webhook_key: event.webhook_key,
            body,
        };
        self.events.insert(event.event_key, Arc::new(route));
    }

    fn add_webhook<'a>(
        &mut self,
        row: &WebhookRow,
        secrets: &[&SecretRow],
        urls: impl Iterator<Item = &'a UrlRow>,
        tokens: &mut HashMap<i32, String>,
    ) {
        let urls: Vec<&UrlRow> = urls.collect();
        let shared = shared_parts(row, secrets, &urls);
        let mut broken = shared.as_ref().err().map(|error| error.message.clone());
        let mut url_keys = Vec::new();
        for url in urls {
            let target = shared.as_ref().ok().and_then(|shared| {
                target(row, &url.url, shared)
                    .map_err(|error| broken = Some(error.message))
                    .ok()
            });
            url_keys.push(url.url_key);
            self.urls.insert(
                url.url_key,
                UrlRoute {
                    webhook_key: row.webhook_key,
                    disabled: url.disabled,
                    target,
                },
            );
        }
        if let Ok(shared) = shared {
            tokens.insert(row.webhook_key, shared.token);
        }
        self.webhooks
            .insert(row.webhook_key, webhook_route(row, url_keys, broken));
    }
}

fn by_webhook(secrets: &[SecretRow]) -> HashMap<i32, Vec<&SecretRow>> {
    let mut grouped: HashMap<i32, Vec<&SecretRow>> = HashMap::new();
    for secret in secrets {
        grouped.entry(secret.webhook_key).or_default().push(secret);
    }
    grouped
}

fn webhook_route(row: &WebhookRow, url_keys: Vec<i32>, broken: Option<String>) -> WebhookRoute {
    WebhookRoute {
        webhook_key: row.webhook_key,
        id: row.id.as_str().into(),
        paused: row.paused,
        per_second: row
            .call_throttling
            .and_then(|rate| u32::try_from(rate).ok())
            .filter(|rate| *rate > 0),
        max_in_flight: usize::try_from(row.max_in_flight).unwrap_or(1).max(1),
        fifo: row.delivery_order == DeliveryOrder::Fifo.as_str(),
        max_attempts: u32::try_from(row.max_attempts).unwrap_or(1).max(1),
        max_age_us: row.max_age_us,
        logged: match row.log_level.as_str() {
            "none" => Logged::None,
            "errors" => Logged::Errors,
            _ => Logged::All,
        },
        url_keys,
        broken,
        shown_detail: row.detail.clone(),
    }
}

struct SharedParts {
    headers: Vec<(String, String)>,
    signers: Vec<(Signer, Option<SystemTime>)>,
    token: String,
    confidential: Arc<Redactions>,
}

fn shared_parts(row: &WebhookRow, secrets: &[&SecretRow], urls: &[&UrlRow]) -> Result<SharedParts> {
    let value = serde_json::from_str(&row.headers).unwrap_or(serde_json::Value::Null);
    let headers = headers::validate(&value)?;
    let mut signers = Vec::new();
    let mut token = String::new();
    let mut confidential: Vec<Zeroizing<String>> = Vec::new();
    for secret_row in secrets {
        let secret = Secret::parse(&secret_row.secret)?;
        confidential.extend([secret_row.secret.clone(), secret.token().into()]);
        // An answer may hold the key without what marks it.
        confidential.push(secret.encoded_key().to_owned().into());
        if secret_row.expires_at.is_none() {
            token = secret.token();
        }
        let expires = secret_row.expires_at.map(time::system_time);
        signers.push((Signer::new(&secret), expires));
    }
    if signers.is_empty() {
        return Err(crate::core::error::Error::invalid(
            "the webhook has no secret",
        ));
    }
    confidential.extend(urls.iter().flat_map(|url| credentials_in_url(&url.url)));
    let values = headers.iter().map(|(_, value)| value.as_str());
    let values = values.chain(confidential.iter().map(|value| value.as_str()));
    let confidential = Arc::new(Redactions::of(values));
    Ok(SharedParts {
        headers,
        signers,
        token,
        confidential,
    })
}

fn target(row: &WebhookRow, url: &str, shared: &SharedParts) -> Result<Arc<Target>> {
    Ok(Arc::new(Target {
        url: Endpoint::parse(url)?,
        timeout: Duration::from_millis(u64::try_from(row.timeout_ms).unwrap_or(0).max(1)),
        headers: shared.headers.clone(),
        signers: shared.signers.clone(),
        confidential: Arc::clone(&shared.confidential),
    }))
}

/// What a webhook's test messages share.
fn test_route(webhook_key: i32, webhook_id: &str, account_id: &str, token: &str) -> EventRoute {
    EventRoute {
        event_key: test_event_key(webhook_key),
        webhook_key,
        body: Ok(Body::Default(DefaultPayload::compile(&PayloadConstants {
            event_id: "",
            webhook_id,
            account_id,
            token,
            event_type: TEST_EVENT_TYPE,
            object_name: "",
        }))),
    }
}
