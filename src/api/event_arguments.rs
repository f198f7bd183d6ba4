//! What `create_event` and `update_event` take alike, read from SQL.

use super::create_event::{Wanted, CONDITION_PATH};
use crate::core::definitions::limits::{
    CONDITION_CHARS, EVENT_SOURCES, FIELDS, ORDER_KEY_COLUMNS, SEARCH_PATH_CHARS, TEMPLATE_CHARS,
};
use crate::core::error::Result;
use crate::pg::arguments::{json, list, text, word, JsonArgument, TextArgument, TextListArgument};

/// As they come; the last two are not in the signatures of 0.1.0.
pub struct EventArguments {
    pub object_fields: Option<TextListArgument>,
    pub event_sources: Option<TextListArgument>,
    pub payload_fields: Option<TextListArgument>,
    pub payload_template: Option<TextArgument>,
    pub condition: Option<TextArgument>,
    pub enabled: Option<bool>,
    pub null_style: Option<TextArgument>,
    pub list_style: Option<TextArgument>,
    pub condition_path: Option<TextArgument>,
    pub matched: Option<JsonArgument>,
    pub order_key: Option<TextListArgument>,
}

impl EventArguments {
    /// Passes what they say, and the search path of the condition, to `use_them`.
    ///
    /// # Errors
    /// `22023` for one that is too long or not of its kind.
    pub fn read<T>(
        self,
        event_type: Option<&str>,
        use_them: impl FnOnce(Wanted<'_>, &str) -> Result<T>,
    ) -> Result<T> {
        let payload_template = text(self.payload_template, "payload_template", TEMPLATE_CHARS)?;
        let condition = text(self.condition, "condition", CONDITION_CHARS)?;
        let null_style = word(self.null_style, "null_style")?;
        let list_style = word(self.list_style, "list_style")?;
        let path = text(self.condition_path, "condition_path", SEARCH_PATH_CHARS)?;
        let wanted = Wanted {
            event_type,
            object_fields: list(self.object_fields, "object_fields", FIELDS)?,
            event_sources: list(self.event_sources, "event_sources", EVENT_SOURCES)?,
            payload_fields: list(self.payload_fields, "payload_fields", FIELDS)?,
            payload_template: payload_template.as_deref(),
            condition: condition.as_deref(),
            enabled: self.enabled,
            null_style: null_style.as_deref(),
            list_style: list_style.as_deref(),
            matched: json(self.matched, "match")?,
            order_key: list(self.order_key, "order_key", ORDER_KEY_COLUMNS)?,
        };
        use_them(wanted, path.as_deref().unwrap_or(CONDITION_PATH))
    }
}
