//! A call that has ended, with what becomes of its message.

use std::sync::Arc;

use uuid::Uuid;

use super::definitions::Logged;
use crate::core::messages::order_keys::OrderKeys;
use crate::core::messages::position::MessagePosition;
use crate::delivery::call::Outcome;

/// See the module.
pub struct Settled {
    pub url_key: i32,
    pub webhook_key: i32,
    pub webhook_id: Option<Arc<str>>,
    pub event_key: i32,
    pub at: MessagePosition,
    pub keys: OrderKeys,
    pub message_id: Uuid,
    pub event_date: i64,
    /// Calls made, this one included.
    pub attempts: u32,
    pub is_retry: bool,
    /// When the next call is due, unless the message was delivered or given up.
    pub next_at: Option<i64>,
    pub logged: Logged,
    /// It was canceled while it was on its way to its first call.
    pub is_canceled: bool,
    /// Its URL is in use: one that is gone for good leaves nothing to repeat.
    pub url_is_live: bool,
    /// It is the message of an operational event.
    pub is_operational: bool,
    /// Since when its URL fails, after this call.
    pub failing_since: Option<i64>,
    /// Why its URL is switched off, if this call decides it.
    pub switches_off: Option<String>,
    pub outcome: Outcome,
}
