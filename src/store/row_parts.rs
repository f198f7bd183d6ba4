//! Which parts of a row a message of an event consists of.
//!
//! Decided once, when the event is loaded, by capture and by the preview alike. A
//! template's columns keep the names that it gives them, whatever they are called now.

use super::capture_definitions::CaptureDefinition;
use crate::core::payloads::template::Template;
use crate::pg::row_json::Field;

/// See the module.
pub struct RowParts {
    /// Of the row as it is, or as it was deleted; `None` is every column.
    pub sent: Option<Vec<Field>>,
    /// Of the row before the change.
    pub old: Vec<Field>,
    /// The names of all fields that changed.
    pub lists_changes: bool,
}

impl RowParts {
    /// `number_of` gives the number of a column in the relation at hand.
    pub fn of(definition: &CaptureDefinition, number_of: impl Fn(&str) -> Option<i16>) -> Self {
        let named = |names: &[String]| -> Vec<Field> {
            let field = |name: &String| {
                let known = definition.template_fields.iter().find(|(n, _)| n == name)?;
                Some(Field {
                    number: number_of(&known.1)?,
                    name: Some(name.clone()),
                })
            };
            names.iter().filter_map(field).collect()
        };
        match &definition.payload_template {
            Some(text) => Self::of_template(text, definition, named),
            None => Self {
                sent: definition.payload_fields.as_ref().map(|names| {
                    let numbers = names.iter().filter_map(|name| number_of(name));
                    numbers.map(|number| Field { number, name: None }).collect()
                }),
                old: Vec::new(),
                lists_changes: false,
            },
        }
    }

    /// A template that cannot be read (edited by hand) holds its webhook until it is
    /// mended: until then all that it may need is kept. Where it names nothing that is known,
    /// that is the row.
    fn of_template(
        text: &str,
        definition: &CaptureDefinition,
        named: impl Fn(&[String]) -> Vec<Field>,
    ) -> Self {
        match Template::parse(text) {
            Ok(template) => Self {
                sent: Some(named(template.fields())),
                old: named(template.old_fields()),
                lists_changes: template.lists_changes(),
            },
            Err(_) => {
                let all: Vec<String> = definition
                    .template_fields
                    .iter()
                    .map(|(name, _)| name.clone())
                    .collect();
                Self {
                    sent: (!all.is_empty()).then(|| named(&all)),
                    old: named(&all),
                    lists_changes: true,
                }
            }
        }
    }
}
