//! The body of a message: the event's template, or the default payload.
//!
//! Pure. The worker and the preview both make bodies here, so that a preview is what
//! is sent. Fails only for a template or a record that somebody damaged by hand.

use super::error::Result;
use super::payload::DefaultPayload;
use super::template::{MessageParts, Template, TemplateConstants, TemplatePayload};

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

    /// Appends the body of one message.
    ///
    /// # Errors
    /// The stored record is damaged.
    pub fn render(
        &self,
        message: &MessageParts<'_>,
        out: &mut Vec<u8>,
    ) -> std::result::Result<(), String> {
        match self {
            Self::Template(payload) => payload.render(message, out),
            Self::Default(payload) => {
                payload.render(
                    message.message_id,
                    message.event_date_micros,
                    message.record,
                    out,
                );
                Ok(())
            }
        }
    }
}
