//! The words that a webhook's and an event's definition may use, each parsed once
//! where it enters and a type from then on.
//!
//! Pure. What is not one of the words is an error that names the argument, the
//! value and the words there are.

use super::webhook::shown;
use crate::core::error::{Error, Result};

/// How an SQL NULL in a column is written in the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NullStyle {
    /// `null` or `""`, by the column's type.
    Typed,
    /// Always `null`.
    Null,
}

impl NullStyle {
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "typed" => Ok(Self::Typed),
            "null" => Ok(Self::Null),
            _ => Err(unknown_word("null_style", text, "'typed' or 'null'")),
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Typed => "typed",
            Self::Null => "null",
        }
    }
}

/// How an array is written in the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListStyle {
    /// A JSON array.
    Array,
    /// An object by 1-based position: `{"1": …, "2": …}`.
    Keyed,
}

impl ListStyle {
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "array" => Ok(Self::Array),
            "keyed" => Ok(Self::Keyed),
            _ => Err(unknown_word("list_style", text, "'array' or 'keyed'")),
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Array => "array",
            Self::Keyed => "keyed",
        }
    }
}

/// Which change of a row makes a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    Insert,
    Update,
    Delete,
}

impl EventType {
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "table.recordInsert" => Ok(Self::Insert),
            "table.recordUpdate" => Ok(Self::Update),
            "table.recordDelete" => Ok(Self::Delete),
            _ => Err(unknown_word(
                "event_type",
                text,
                "'table.recordInsert', 'table.recordUpdate' or 'table.recordDelete', or without \
                 object_name 'webhook.urlFailing', 'webhook.urlRecovered', 'webhook.urlDisabled', \
                 'webhook.messageFailed', 'webhook.eventDisabled' or 'webhook.backlogGrowing'",
            )),
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Insert => "table.recordInsert",
            Self::Update => "table.recordUpdate",
            Self::Delete => "table.recordDelete",
        }
    }
}

/// In which order a URL gets its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeliveryOrder {
    /// As it comes; calls overlap.
    None,
    /// Changes of one row, and transactions that follow one another, in their order.
    Fifo,
    /// Changes with the same key in their order; different keys overlap.
    Key,
}

impl DeliveryOrder {
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "none" => Ok(Self::None),
            "fifo" => Ok(Self::Fifo),
            "key" => Ok(Self::Key),
            _ => Err(unknown_word(
                "delivery_order",
                text,
                "'none', 'fifo' or 'key'",
            )),
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Fifo => "fifo",
            Self::Key => "key",
        }
    }
}

/// Which calls are logged. Counters always count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogLevel {
    All,
    Errors,
    None,
}

impl LogLevel {
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "all" => Ok(Self::All),
            "errors" => Ok(Self::Errors),
            "none" => Ok(Self::None),
            _ => Err(unknown_word("log_level", text, "'all', 'errors' or 'none'")),
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Errors => "errors",
            Self::None => "none",
        }
    }
}

fn unknown_word(argument: &str, value: &str, words: &str) -> Error {
    Error::invalid(format!("{argument} cannot be \"{}\"", shown(value)))
        .with_hint(format!("use {words}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read_back_as_it_is_written() {
        for kind in [EventType::Insert, EventType::Update, EventType::Delete] {
            assert_eq!(EventType::parse(kind.as_str()), Ok(kind));
        }
        for order in [DeliveryOrder::None, DeliveryOrder::Fifo, DeliveryOrder::Key] {
            assert_eq!(DeliveryOrder::parse(order.as_str()), Ok(order));
        }
        for level in [LogLevel::All, LogLevel::Errors, LogLevel::None] {
            assert_eq!(LogLevel::parse(level.as_str()), Ok(level));
        }
        assert!(EventType::parse("table.recordinsert").is_err());
        assert!(DeliveryOrder::parse("lifo").is_err());
        assert!(LogLevel::parse("").is_err());
    }

    #[test]
    fn a_style_is_read_from_its_own_word_only() {
        for style in [NullStyle::Typed, NullStyle::Null] {
            assert_eq!(NullStyle::parse(style.as_str()), Ok(style));
        }
        for style in [ListStyle::Array, ListStyle::Keyed] {
            assert_eq!(ListStyle::parse(style.as_str()), Ok(style));
        }
        assert!(NullStyle::parse("Typed").is_err());
        let error = ListStyle::parse("list").expect_err("no such style");
        assert_eq!(error.message, "list_style cannot be \"list\"");
        assert_eq!(error.hint.as_deref(), Some("use 'array' or 'keyed'"));
    }
}
