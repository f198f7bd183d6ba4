//! A message on its way, as the delivery threads see it.

use std::sync::Arc;

use uuid::Uuid;

use crate::core::messages::oversize::Oversize;
use crate::core::payloads::body::Body;
use crate::core::payloads::template::render::MessageParts;
use crate::core::policy::budget::Share;
use crate::delivery::call::{CallStamp, Payload};
use crate::store::outbox::StoredMessage;

/// More than the names of all columns of a table have in a record.
const LONGEST_NAMES: usize = 1 << 20;

/// What all messages of one event share.
pub struct EventRoute {
    pub event_key: i32,
    pub webhook_key: i32,
    /// It tells of other webhooks.
    pub is_operational: bool,
    /// How the body is made, or why the template cannot be read; then the webhook is
    /// held until that is mended.
    pub body: Result<Body, String>,
}

impl EventRoute {
    /// Whether the message was captured for this body; one that is not in memory is
    /// taken to be.
    pub fn fits(&self, stored: &StoredMessage) -> bool {
        match (&self.body, &stored.record) {
            (Ok(body), Some(record)) => body.fits(record.as_bytes()),
            _ => true,
        }
    }
}

/// Rendered by the thread that sends it, so that the main thread only reads.
pub struct Message {
    pub message_id: Uuid,
    pub event: Arc<EventRoute>,
    /// Microseconds since 2000-01-01 UTC.
    pub captured_at: i64,
    /// Since when its age counts: its capture, or its redelivery.
    pub accepted_at: i64,
    /// Bytes of the stored record, and of the one before the change.
    pub size: usize,
    /// `None`: too large to wait in memory and read when it is sent, or `no_body`.
    pub record: Option<String>,
    pub old_record: Option<String>,
    /// What templates may need beside the row.
    pub changed: Option<String>,
    pub source: Option<String>,
    pub actor: Option<String>,
    /// Of the memory for large bodies, which this one holds.
    share: Option<Share>,
    /// Why it cannot have a body, if that is known without its record.
    no_body: Option<NoBody>,
}

/// See [`Message`].
enum NoBody {
    TooLarge(Oversize),
    /// The row has none, and does not say that it was too large: it was written by hand.
    NoRecord,
}

impl NoBody {
    fn of(stored: &StoredMessage) -> Option<Self> {
        if stored.has_record {
            return None;
        }
        let oversize = stored.changed.as_deref().and_then(Oversize::from_stored);
        Some(oversize.map_or(Self::NoRecord, Self::TooLarge))
    }
}

impl Message {
    pub fn new(stored: StoredMessage, event: &Arc<EventRoute>) -> Arc<Self> {
        Arc::new(Self {
            no_body: NoBody::of(&stored),
            message_id: stored.message_id,
            event: Arc::clone(event),
            captured_at: stored.captured_at,
            accepted_at: stored.accepted_at.unwrap_or(stored.captured_at),
            size: stored.size.max(0) as usize,
            record: stored.record,
            old_record: stored.old_record,
            changed: stored.changed,
            source: stored.source,
            actor: stored.actor,
            share: None,
        })
    }

    /// The same message with its body, which was too large to wait in memory.
    pub fn with_body(&self, stored: StoredMessage, share: Share) -> Arc<Self> {
        let accepted_at = Some(self.accepted_at);
        let mut message = Self::new(
            StoredMessage {
                accepted_at,
                ..stored
            },
            &self.event,
        );
        if let Some(message) = Arc::get_mut(&mut message) {
            message.share = Some(share);
        }
        message
    }

    /// The same message without the body that it got by [`Message::with_body`].
    pub fn without_body(&self) -> Arc<Self> {
        Arc::new(Self {
            message_id: self.message_id,
            event: Arc::clone(&self.event),
            captured_at: self.captured_at,
            accepted_at: self.accepted_at,
            size: self.size,
            record: None,
            old_record: None,
            changed: None,
            source: self.source.clone(),
            actor: self.actor.clone(),
            share: None,
            no_body: None,
        })
    }

    /// Whether its body is a large one that was read for its call.
    pub fn has_share(&self) -> bool {
        self.share.is_some()
    }

    /// Whether it can be handed to a thread: its record is here, or it needs none to fail.
    pub fn is_ready(&self) -> bool {
        self.record.is_some() || self.no_body.is_some()
    }

    /// The same message, to fail for its size, if its record need not be read to know that its
    /// body is over the limit. `bytes_a_character`: how many bytes in the server's encoding may
    /// be one in UTF-8.
    pub fn as_too_large(&self, limit_bytes: usize, bytes_a_character: usize) -> Option<Arc<Self>> {
        let least = self.size / bytes_a_character;
        let bound = match &self.event.body {
            Ok(Body::Default(_)) => limit_bytes,
            // A template may leave out names, and use either record alone.
            _ => 2 * (limit_bytes + LONGEST_NAMES),
        };
        (least > bound).then(|| {
            Arc::new(Self {
                message_id: self.message_id,
                event: Arc::clone(&self.event),
                captured_at: self.captured_at,
                accepted_at: self.accepted_at,
                size: 0,
                record: None,
                old_record: None,
                changed: self.changed.clone(),
                source: self.source.clone(),
                actor: self.actor.clone(),
                share: None,
                no_body: Some(NoBody::TooLarge(Oversize {
                    at_least_bytes: least as u64,
                    limit_bytes: limit_bytes as u64,
                })),
            })
        })
    }

    /// Bytes it holds in memory while it waits, a large body left out: that is accounted for
    /// by its share.
    pub fn held_bytes(&self) -> usize {
        let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let body = length(&self.record) + length(&self.old_record) + length(&self.changed);
        let beside = length(&self.source) + length(&self.actor);
        beside + if self.has_share() { 0 } else { body }
    }
}

impl Message {
    fn parts<'a>(&'a self, stamp: &CallStamp, record: &'a str) -> MessageParts<'a> {
        MessageParts {
            message_id: stamp.message_id,
            call_id: stamp.call_id,
            event_date_micros: self.captured_at,
            record: record.as_bytes(),
            old_record: self.old_record.as_deref().map(str::as_bytes),
            changed: self.changed.as_deref(),
            actor: self.actor.as_deref(),
            source: self.source.as_deref(),
        }
    }
}

impl Payload for Message {
    fn oversize(&self) -> Option<Oversize> {
        match self.no_body {
            Some(NoBody::TooLarge(oversize)) => Some(oversize),
            _ => None,
        }
    }

    fn render(
        &self,
        stamp: &CallStamp,
        limit_bytes: usize,
        out: &mut Vec<u8>,
    ) -> Result<usize, String> {
        let record = self.record.as_deref();
        let record = record.ok_or("the row of webhook_internal.outbox has no record")?;
        let body = self.event.body.as_ref().map_err(String::clone)?;
        body.render(&self.parts(stamp, record), limit_bytes, out)
    }
}
