//! What the page shows, as it was read. Times are texts in UTC.

/// Everything.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub now: String,
    /// 0: the page does not load itself again.
    pub refresh_seconds: u32,
    pub server: Server,
    pub totals: Totals,
    /// The last hour, oldest first; minutes without a call are there, too.
    pub minutes: Vec<Minute>,
    /// The worst first.
    pub urls: Vec<Url>,
    pub causes: Vec<Cause>,
    /// The newest first.
    pub calls: Vec<Call>,
    /// Those that make no messages.
    pub events: Vec<Event>,
    /// The newest first.
    pub changes: Vec<Change>,
}

#[derive(Clone, Debug, Default)]
pub struct Server {
    pub database: String,
    pub version: String,
    pub worker_pid: Option<i32>,
    pub worker_state: String,
    /// Why no worker runs.
    pub worker_error: Option<String>,
    /// What holds the worker up.
    pub worker_detail: Option<String>,
    pub in_recovery: bool,
    pub delivery_is_on: bool,
    pub disk_bytes: i64,
    /// `webhook.log_max_size`; `None`: no limit.
    pub disk_limit_bytes: Option<i64>,
}

/// Of all URLs.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    pub urls: i64,
    pub pending: i64,
    pub retrying: i64,
    pub failed: i64,
    pub oldest_seconds: Option<f64>,
    /// URLs whose last call failed.
    pub failing: i64,
    pub failing_since: Option<String>,
    pub disabled: i64,
    pub blocked: i64,
    pub paused: i64,
    pub events_off: i64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Minute {
    /// `14:03`
    pub label: String,
    pub delivered: i64,
    pub failed: i64,
    pub p50_ms: Option<f64>,
    pub p95_ms: Option<f64>,
}

#[derive(Clone, Debug, Default)]
pub struct Url {
    pub webhook_id: String,
    pub webhook: String,
    pub url: String,
    pub state: String,
    pub pending: i64,
    pub retrying: i64,
    pub failed: i64,
    pub failing_since: Option<String>,
    pub last_success_at: Option<String>,
    pub next_attempt_at: Option<String>,
    pub last_error: Option<String>,
    /// Hours of the last day, oldest first.
    pub hours: Vec<Hour>,
    pub p95_ms: Option<f64>,
}

#[derive(Clone, Debug, Default)]
pub struct Hour {
    pub calls: i64,
    pub failures: i64,
}

#[derive(Clone, Debug, Default)]
pub struct Cause {
    pub cause: String,
    pub calls: i64,
    pub urls: i64,
    pub last_at: String,
}

#[derive(Clone, Debug, Default)]
pub struct Call {
    pub called_at: String,
    pub webhook: String,
    pub url: String,
    pub event: String,
    pub attempt: i32,
    pub success: bool,
    pub http_code: Option<i32>,
    pub duration_ms: f64,
    pub message_id: String,
    pub detail: Option<String>,
    /// `None` for roles that may not see it.
    pub response: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub struct Event {
    pub id: String,
    pub webhook: String,
    pub event_type: String,
    pub object_name: String,
    pub reason: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub struct Change {
    pub changed_at: String,
    pub changed_by: String,
    pub action: String,
    pub what: String,
}
