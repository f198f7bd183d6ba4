//! The parameters a template may hold, and what each means.
//!
//! Pure. Names are exact; a name that is unknown is answered with a suggestion.

use crate::core::definitions::event::Column;
use crate::core::definitions::suggest::suggest;
use crate::core::definitions::webhook::shown;
use crate::core::error::{Error, Result};

use super::ARGUMENT;

const FIELD: &str = "field:";
const OLD: &str = "old:";

/// A parameter as it is written between `[@` and `]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Parameter {
    /// A column of the row.
    Field(String),
    /// The same before the change.
    Old(String),
    Fixed(Fixed),
}

/// The parameters that do not name a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fixed {
    EventId,
    MessageId,
    CallId,
    WebhookId,
    AccountId,
    Secret,
    EventDate,
    EventType,
    ObjectName,
    ObjectFields,
    ChangedFields,
    Actor,
    Source,
    IntegrationUrl,
}

const FIXED: [(&str, Fixed, &str); 14] = [
    ("out-hook:eventId", Fixed::EventId, "id of the event"),
    (
        "out-hook:messageId",
        Fixed::MessageId,
        "id of the message, the same in every repetition",
    ),
    (
        "out-hook:callId",
        Fixed::CallId,
        "id of the call, another one in every repetition and for every URL",
    ),
    ("out-hook:webhookId", Fixed::WebhookId, "id of the webhook"),
    (
        "out-hook:accountId",
        Fixed::AccountId,
        "setting webhook.account_id",
    ),
    (
        "out-hook:secret",
        Fixed::Secret,
        "token that tells the receiver who sends; derived one-way from the secret",
    ),
    (
        "out-hook:eventDate",
        Fixed::EventDate,
        "when the row changed, in UTC",
    ),
    (
        "out-hook:eventType",
        Fixed::EventType,
        "table.recordInsert, table.recordUpdate or table.recordDelete",
    ),
    (
        "out-hook:objectName",
        Fixed::ObjectName,
        "name of the table, with its schema unless that is public",
    ),
    (
        "out-hook:objectFields",
        Fixed::ObjectFields,
        "the event's trigger fields as an array, in a longer string separated by commas; empty if any field triggers",
    ),
    (
        "out-hook:changedFields",
        Fixed::ChangedFields,
        "the fields that did change as an array, in a longer string separated by commas; empty unless the row was updated",
    ),
    (
        "out-hook:actor",
        Fixed::Actor,
        "role that made the change",
    ),
    (
        "out-hook:source",
        Fixed::Source,
        "event source of the session: webhook.source, or else application_name",
    ),
    (
        "sys:IntegrationURL",
        Fixed::IntegrationUrl,
        "setting webhook.integration_url",
    ),
];

/// The parameters that every table has, as they stand in a template, with their meaning.
pub fn fixed_parameters() -> impl Iterator<Item = (String, &'static str)> {
    FIXED
        .iter()
        .map(|(name, _, meaning)| (format!("[@{name}]"), *meaning))
}

/// The parameters of a table's columns, with their meaning. A name with a bracket that
/// would end the parameter has none, nor has a column without stored values.
pub fn column_parameters(columns: &[Column]) -> impl Iterator<Item = (String, String)> + '_ {
    let named = columns
        .iter()
        .filter(|column| column.stored && !column.name.contains(']'));
    named.flat_map(|Column { name, .. }| {
        [
            (
                format!("[@{FIELD}{name}]"),
                format!("column {name} after the change; of a deleted row, what it was"),
            ),
            (
                format!("[@{OLD}{name}]"),
                format!("column {name} before the change; null for an inserted row"),
            ),
        ]
    })
}

impl Parameter {
    /// # Errors
    /// An unknown name.
    pub(super) fn parse(name: &str) -> Result<Self> {
        if let Some(column) = name.strip_prefix(FIELD) {
            return Ok(Self::Field(column.to_owned()));
        }
        if let Some(column) = name.strip_prefix(OLD) {
            return Ok(Self::Old(column.to_owned()));
        }
        match FIXED.iter().find(|(known, _, _)| *known == name) {
            Some((_, fixed, _)) => Ok(Self::Fixed(*fixed)),
            None => Err(unknown(name)),
        }
    }
}

fn unknown(name: &str) -> Error {
    // `[@field]`, `[@Field:id]` and the like: what is before the colon is wrong.
    let kind = name.split_once(':').map_or(name, |(kind, _)| kind);
    let fixed = FIXED.iter().map(|(known, _, _)| *known);
    let hint = if let Some(near) = suggest(name, fixed) {
        format!("did you mean \"[@{near}]\"?")
    } else if let Some(near) = suggest(kind, ["field", "old"]) {
        format!("write \"[@{near}:<column>]\" with the name of a column")
    } else {
        "webhook.template_parameters() lists what a table's templates may hold".to_owned()
    };
    Error::invalid(format!(
        "{ARGUMENT} holds an unknown parameter: \"[@{}]\"",
        shown(name)
    ))
    .with_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parameter_is_known_by_its_exact_name() {
        for (name, fixed, _) in FIXED {
            assert_eq!(Parameter::parse(name), Ok(Parameter::Fixed(fixed)));
            assert!(Parameter::parse(&name.to_uppercase()).is_err());
        }
        assert_eq!(
            Parameter::parse("field:Größe \"x\""),
            Ok(Parameter::Field("Größe \"x\"".to_owned()))
        );
        assert_eq!(
            Parameter::parse("old:a:b"),
            Ok(Parameter::Old("a:b".to_owned()))
        );
    }

    #[test]
    fn an_unknown_one_is_answered_with_a_suggestion() {
        let hint = |name| Parameter::parse(name).unwrap_err().hint.unwrap();
        assert_eq!(
            hint("out-hook:eventID2"),
            "did you mean \"[@out-hook:eventId]\"?"
        );
        assert_eq!(
            hint("Field:id"),
            "write \"[@field:<column>]\" with the name of a column"
        );
        assert!(hint("weather").contains("webhook.template_parameters()"));
    }
}
