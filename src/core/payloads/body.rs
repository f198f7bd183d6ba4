//! The body of a message: the event's template, or the default payload.
//!
//! Pure. The worker and the preview both make bodies here, so that a preview is what
//! is sent. Fails only for a template or a record that was damaged by hand.

use super::default_payload::DefaultPayload;
use super::template::render::{MessageParts, TemplateConstants, TemplatePayload};
use super::template::Template;
use crate::core::error::Result;

/// What all bodies of one event share.
pub enum Body {
    Default(DefaultPayload),
    Template(TemplatePayload),
}

impl Body {
    /// # Errors
    /// Why the template cannot be read.
    pub fn compile(template: Option<&str>, constants: &TemplateConstants<'_>) -> Result<Self> {
        Ok(match template {
            None => Self::Default(DefaultPayload::compile(&constants.payload)),
            Some(text) => {
                let template = Template::parse(text)?;
                Self::Template(TemplatePayload::compile(&template, constants))
            }
        })
    }

    /// Whether the record was captured for this body, as far as that can be seen.
    pub fn fits(&self, record: &[u8]) -> bool {
        match self {
            Self::Template(payload) => payload.fits(record),
            Self::Default(_) => true,
        }
    }

    /// Appends the body of one message and returns its size. One over `limit_bytes` is
    /// not written to its end.
    ///
    /// # Errors
    /// The stored record is damaged.
    pub fn render(
        &self,
        message: &MessageParts<'_>,
        limit_bytes: usize,
        out: &mut Vec<u8>,
    ) -> std::result::Result<usize, String> {
        match self {
            Self::Template(payload) => payload.render(message, limit_bytes, out),
            Self::Default(payload) => {
                let size = payload.body_len(message.record.len());
                if size > limit_bytes {
                    return Ok(size);
                }
                payload.render(
                    message.message_id,
                    message.event_date_micros,
                    message.record,
                    out,
                );
                Ok(out.len())
            }
        }
    }
}
