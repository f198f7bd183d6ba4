//! The words that a webhook's and an event's definition may use, each parsed once
//! where it enters and a type from then on.
//!
//! Pure. What is not one of the words is an error that names the argument, the
//! value and the words there are.

use super::error::{Error, Result};

/// How a SQL NULL in a column stands in the payload.
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

/// How an array stands in the payload.
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

fn unknown_word(argument: &str, value: &str, words: &str) -> Error {
    Error::invalid(format!("{argument} cannot be \"{value}\"")).with_hint(format!("use {words}"))
}

#[cfg(test)]
mod tests {
    use super::*;

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
