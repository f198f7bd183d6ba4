//! A message on its way, as the delivery threads see it.

use std::sync::Arc;

use uuid::Uuid;

use crate::core::payload::DefaultPayload;
use crate::delivery::call::{CallStamp, Payload};
use crate::store::outbox::StoredMessage;

/// What all messages of one event share.
pub struct EventRoute {
    pub event_key: i32,
    pub webhook_key: i32,
    pub payload: DefaultPayload,
}

/// Rendered by the thread that sends it, so that the main thread only reads.
pub struct Message {
    pub message_id: Uuid,
    pub event: Arc<EventRoute>,
    /// Microseconds since 2000-01-01 UTC.
    pub captured_at: i64,
    /// Bytes of the stored record.
    pub size: usize,
    /// `None`: too large to wait in memory; read when it is sent.
    pub record: Option<String>,
}

impl Message {
    pub fn new(stored: StoredMessage, event: &Arc<EventRoute>) -> Arc<Self> {
        Arc::new(Self {
            message_id: stored.message_id,
            event: Arc::clone(event),
            captured_at: stored.captured_at,
            size: stored.size.max(0) as usize,
            record: stored.record,
        })
    }

    /// Bytes it holds in memory while it waits.
    pub fn held_bytes(&self) -> usize {
        self.record.as_ref().map_or(0, String::len)
    }
}

impl Payload for Message {
    fn render(&self, stamp: &CallStamp, out: &mut Vec<u8>) -> Result<(), String> {
        let record = self.record.as_deref().ok_or("the record was not loaded")?;
        self.event
            .payload
            .render(stamp.message_id, self.captured_at, record.as_bytes(), out);
        Ok(())
    }
}
