//! The definitions, compiled for sending.
//!
//! A webhook whose row cannot be used (edited by hand) is held, with the reason in
//! its view; the others go on.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pgrx::pg_sys;
use zeroize::Zeroizing;

use super::Known;
use crate::core::definitions::event::{test_event_key, TEST_EVENT_TYPE};
use crate::core::definitions::operational::OperationalEvent;
use crate::core::definitions::words::DeliveryOrder;
use crate::core::error::Result;
use crate::core::messages::snapshot::Snapshot;
use crate::core::payloads::body::Body;
use crate::core::payloads::default_payload::{DefaultPayload, PayloadConstants};
use crate::core::payloads::template::render::TemplateConstants;
use crate::core::policy::endpoint::Endpoint;
use crate::core::policy::headers;
use crate::core::policy::redaction::{credentials_in_url, Redactions};
use crate::core::policy::secret::Secret;
use crate::core::policy::signing::Signer;
use crate::core::policy::throttle::{Part, Rate};
use crate::delivery::call::Target;
use crate::store::routing::{Definitions, EventRow, SecretRow, UrlRow, WebhookRow};
use crate::worker::message::EventRoute;
use crate::worker::time;

/// About what one URL, event or webhook takes in memory, beside its texts.
const BYTES_A_PART: usize = 500;

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
    pub name: String,
    pub paused: bool,
    pub rate: Option<Rate>,
    pub max_in_flight: usize,
    /// In which order each URL gets its messages.
    pub order: DeliveryOrder,
    pub max_attempts: u32,
    pub max_age_us: i64,
    /// A URL that has failed for so long is switched off.
    pub disable_after_us: Option<i64>,
    pub logged: Logged,
    /// Those in use.
    pub urls: Vec<UrlRoute>,
    pub dropped_urls: HashSet<i32>,
    pub events: HashMap<i32, Arc<EventRoute>>,
    /// Those that the events watch.
    pub tables: HashSet<pg_sys::Oid>,
    /// Why the row cannot be used.
    pub broken: Option<String>,
    /// What the view says now.
    pub shown_detail: Option<String>,
    /// What all this takes in memory, about.
    pub bytes: usize,
}

/// One URL.
pub struct UrlRoute {
    pub url_key: i32,
    pub disabled: bool,
    /// `None` if the webhook is broken.
    pub target: Option<Arc<Target>>,
    /// Everything that was committed before this snapshot was canceled.
    pub canceled_before: Option<Arc<Snapshot>>,
    /// When a user said that its receiver is back.
    pub reopened_at: Option<i64>,
}

impl WebhookRoute {
    /// A URL takes what comes.
    pub fn sends(&self) -> bool {
        let takes = |url: &UrlRoute| !url.disabled && url.target.is_some();
        !self.paused && self.urls.iter().any(takes)
    }

    pub fn url(&self, url_key: i32) -> Option<&UrlRoute> {
        self.urls.iter().find(|url| url.url_key == url_key)
    }
}

/// What is the same for all webhooks.
pub struct Surroundings {
    pub account_id: String,
    pub integration_url: String,
    pub part: Part,
}

/// What the rows say of each webhook.
pub fn compile(
    rows: Definitions,
    canceled: &HashMap<i32, Arc<Snapshot>>,
    surroundings: &Surroundings,
) -> HashMap<i32, Known> {
    let Surroundings {
        account_id,
        integration_url,
        part,
    } = surroundings;
    let secrets = group(&rows.secrets, |secret| secret.webhook_key);
    let urls = group(&rows.urls, |url| url.webhook_key);
    let events = group(&rows.events, |event| event.webhook_key);
    let of = |key: &i32| {
        (
            secrets.get(key).map_or(&[][..], Vec::as_slice),
            urls.get(key).map_or(&[][..], Vec::as_slice),
            events.get(key).map_or(&[][..], Vec::as_slice),
        )
    };
    let compiled = rows.webhooks.iter().map(|row| {
        let key = row.webhook_key;
        if row.dropped {
            return (key, Known::Dropped);
        }
        let (secrets, urls, events) = of(&key);
        let (dropped, live): (Vec<&UrlRow>, Vec<&UrlRow>) =
            urls.iter().partition(|url| url.dropped);
        let shared = shared_parts(row, secrets, &live);
        let mut route = webhook_route(row, &shared, &live, canceled, *part);
        route.dropped_urls = dropped.iter().map(|url| url.url_key).collect();
        let token = shared.as_ref().map_or("", |shared| shared.token.as_str());
        for event in events {
            let constants = PayloadConstants {
                event_id: &event.id,
                webhook_id: &row.id,
                account_id,
                token,
                event_type: &event.event_type,
                object_name: event.object_name.as_deref().unwrap_or(""),
            };
            route.add_event(event, constants, integration_url);
        }
        let test = test_route(key, &row.id, account_id, token);
        route.events.insert(test.event_key, Arc::new(test));
        (key, Known::Live(Arc::new(route)))
    });
    compiled.collect()
}

fn group<T>(rows: &[T], key: impl Fn(&T) -> i32) -> HashMap<i32, Vec<&T>> {
    let mut grouped: HashMap<i32, Vec<&T>> = HashMap::new();
    for row in rows {
        grouped.entry(key(row)).or_default().push(row);
    }
    grouped
}

impl WebhookRoute {
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
        if let Err(why) = &body {
            self.broken.get_or_insert_with(|| why.clone());
        }
        let route = EventRoute {
            event_key: event.event_key,
            webhook_key: event.webhook_key,
            is_operational: OperationalEvent::parse(&event.event_type).is_some(),
            body,
        };
        let template = event.payload_template.as_ref().map_or(0, String::len);
        self.bytes += BYTES_A_PART + 2 * template;
        self.tables.extend(event.table);
        self.events.insert(event.event_key, Arc::new(route));
    }
}

fn webhook_route(
    row: &WebhookRow,
    shared: &Result<SharedParts>,
    urls: &[&UrlRow],
    canceled: &HashMap<i32, Arc<Snapshot>>,
    part: Part,
) -> WebhookRoute {
    let mut broken = shared.as_ref().err().map(|error| error.message.clone());
    let live: Vec<UrlRoute> = urls
        .iter()
        .map(|url| UrlRoute {
            url_key: url.url_key,
            disabled: url.disabled,
            target: shared.as_ref().ok().and_then(|shared| {
                target(row, &url.url, shared)
                    .map_err(|error| broken = Some(error.message))
                    .ok()
            }),
            canceled_before: canceled.get(&url.url_key).cloned(),
            reopened_at: url.reopened_at,
        })
        .collect();
    WebhookRoute {
        webhook_key: row.webhook_key,
        id: row.id.as_str().into(),
        name: row.name.clone(),
        paused: row.paused,
        rate: row
            .call_throttling
            .and_then(|rate| u32::try_from(rate).ok())
            .filter(|rate| *rate > 0)
            .map(|rate| part.of(rate)),
        max_in_flight: usize::try_from(row.max_in_flight).unwrap_or(1).max(1),
        order: DeliveryOrder::parse(&row.delivery_order).unwrap_or(DeliveryOrder::None),
        max_attempts: u32::try_from(row.max_attempts).unwrap_or(1).max(1),
        max_age_us: row.max_age_us,
        disable_after_us: row.disable_after_us,
        logged: match row.log_level.as_str() {
            "none" => Logged::None,
            "errors" => Logged::Errors,
            _ => Logged::All,
        },
        bytes: BYTES_A_PART * (4 + live.len()) + 2 * live.len() * row.headers.len(),
        urls: live,
        dropped_urls: HashSet::new(),
        events: HashMap::new(),
        tables: HashSet::new(),
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
        is_operational: false,
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
