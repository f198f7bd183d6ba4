//! Custom payloads: JSON with `[@…]` parameters in the place of values.
//!
//! Pure. A template is read and checked once, when its event is defined
//! ([`checked`]) or loaded ([`Template::parse`]); what cannot be read is an error
//! that says where. Sending is the business of `render`: literal bytes
//! and values in turn. A value is copied only where JSON has room for it, so no
//! value can end its string, its key or its object.
//!
//! A key that is given twice on one level keeps its first place and its last value.

pub mod parameter;
mod read;
mod record;
pub mod render;

use std::collections::{HashMap, HashSet};

use parameter::{Fixed, Parameter};
use read::{Node, Part};

use crate::core::definitions::event::{numbered, Column, Fields};
use crate::core::definitions::limits;
use crate::core::definitions::webhook::shown;
use crate::core::definitions::words::EventType;
use crate::core::error::{Error, Result};
use crate::core::values::json_text::{push_escaped, push_string};

/// The argument that errors name.
const ARGUMENT: &str = "payload_template";

/// A template that was read: what to write, and which fields of the row it needs.
#[derive(Debug, Default)]
pub struct Template {
    pieces: Vec<Piece>,
    fields: Vec<String>,
    old_fields: Vec<String>,
}

#[derive(Debug)]
enum Piece {
    Literal(Vec<u8>),
    Value(Source, Form),
}

/// Where a value comes from; fields by their place in the template's lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Field(usize),
    Old(usize),
    Fixed(Fixed),
}

/// How a value is written: as JSON of its own, or inside a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Typed,
    Text,
}

/// A template that fits its table: what is stored of it. The fields are all those
/// it names, before and after the change, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedTemplate {
    pub text: String,
    pub fields: Fields,
}

/// Checks the argument `payload_template`; an empty text is none.
///
/// # Errors
/// `22023` if it is not JSON or holds an unknown parameter, `42704` if it names a
/// column the table does not have, `42809` if it names a virtual generated one.
pub fn checked(text: Option<&str>, columns: &[Column]) -> Result<Option<CheckedTemplate>> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    limits::check_text(ARGUMENT, text, limits::TEMPLATE_CHARS)?;
    let template = Template::parse(text)?;
    Ok(Some(CheckedTemplate {
        text: text.to_owned(),
        fields: numbered(ARGUMENT, template.all_fields(), columns)?,
    }))
}

/// What is JSON and still not what was meant, as far as that shows.
pub fn doubts(text: &str, event_type: EventType) -> Vec<Doubt> {
    let mut doubts = Vec::new();
    if let Some(placeholder) = foreign_placeholder(text) {
        doubts.push(Doubt {
            what: format!("payload_template sends \"{}\" as it is", shown(placeholder)),
            hint: "parameters are written as [@field:column]; webhook.template_parameters() lists them",
        });
    }
    let template = Template::parse(text).unwrap_or_default();
    let old = template.old_fields.first();
    if let Some(field) = old.filter(|_| event_type == EventType::Insert) {
        doubts.push(Doubt {
            what: format!(
                "payload_template names [@old:{}], which is null in every message: the event is about inserts",
                shown(field)
            ),
            hint: "use [@field:...], or an event of the type 'table.recordUpdate'",
        });
    }
    doubts
}

/// A parameter as other template languages write them.
fn foreign_placeholder(text: &str) -> Option<&str> {
    let opened = text.match_indices("{{").find_map(|(begin, _)| {
        let rest = &text[begin..];
        let end = rest.find("}}")? + 2;
        Some(&rest[..end])
    })?;
    // Outside of a string braces are JSON's own.
    (!opened.contains('"')).then_some(opened)
}

/// Something that a user is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    pub what: String,
    pub hint: &'static str,
}

/// An event has a template or chooses the fields of the default payload.
///
/// # Errors
/// `22023` if it has both.
pub fn refuse_both(has_template: bool, has_payload_fields: bool) -> Result<()> {
    if !(has_template && has_payload_fields) {
        return Ok(());
    }
    Err(
        Error::invalid("payload_template cannot be used with payload_fields").with_hint(
            "the template names the fields it sends: leave payload_fields out, or give an empty array",
        ),
    )
}

impl Template {
    /// # Errors
    /// Why and where the text is no template.
    pub fn parse(text: &str) -> Result<Self> {
        let mut writer = Writer::default();
        writer.node(&read::document(text)?);
        writer.end_literal();
        Ok(writer.template)
    }

    /// The fields whose present values it needs, in the order of their first use.
    pub fn fields(&self) -> &[String] {
        &self.fields
    }

    /// The fields whose values before the change it needs.
    pub fn old_fields(&self) -> &[String] {
        &self.old_fields
    }

    /// Whether it lists the changed fields.
    pub fn lists_changes(&self) -> bool {
        let changes = Source::Fixed(Fixed::ChangedFields);
        let is_changes =
            |piece: &Piece| matches!(piece, Piece::Value(source, _) if *source == changes);
        self.pieces.iter().any(is_changes)
    }

    /// Every field it names, once.
    pub fn all_fields(&self) -> Vec<String> {
        let present: HashSet<&String> = self.fields.iter().collect();
        let only_old = self.old_fields.iter().filter(|f| !present.contains(f));
        self.fields.iter().chain(only_old).cloned().collect()
    }
}

/// Turns the tree into pieces, neighbouring literals joined.
#[derive(Default)]
struct Writer {
    literal: Vec<u8>,
    places: Places,
    old_places: Places,
    template: Template,
}

impl Writer {
    fn node(&mut self, node: &Node<'_>) {
        match node {
            Node::Scalar(text) => self.literal.extend_from_slice(text.as_bytes()),
            Node::Text(parts) => self.string(parts),
            Node::List(items) => {
                self.literal.push(b'[');
                for (place, item) in items.iter().enumerate() {
                    self.comma(place);
                    self.node(item);
                }
                self.literal.push(b']');
            }
            Node::Object(members) => {
                self.literal.push(b'{');
                for (place, (key, value)) in members.iter().enumerate() {
                    self.comma(place);
                    push_string(&mut self.literal, key);
                    self.literal.push(b':');
                    self.node(value);
                }
                self.literal.push(b'}');
            }
        }
    }

    fn comma(&mut self, place: usize) {
        if place > 0 {
            self.literal.push(b',');
        }
    }

    fn string(&mut self, parts: &[Part]) {
        if let [Part::Parameter(only)] = parts {
            return self.value(only, Form::Typed);
        }
        self.literal.push(b'"');
        for part in parts {
            match part {
                Part::Literal(text) => push_escaped(&mut self.literal, text.as_bytes()),
                Part::Parameter(parameter) => self.value(parameter, Form::Text),
            }
        }
        self.literal.push(b'"');
    }

    fn value(&mut self, parameter: &Parameter, form: Form) {
        self.end_literal();
        let template = &mut self.template;
        let source = match parameter {
            Parameter::Field(name) => Source::Field(self.places.of(name, &mut template.fields)),
            Parameter::Old(name) => Source::Old(self.old_places.of(name, &mut template.old_fields)),
            Parameter::Fixed(fixed) => Source::Fixed(*fixed),
        };
        template.pieces.push(Piece::Value(source, form));
    }

    fn end_literal(&mut self) {
        if !self.literal.is_empty() {
            let literal = std::mem::take(&mut self.literal);
            self.template.pieces.push(Piece::Literal(literal));
        }
    }
}

/// The index of each name in a list.
#[derive(Default)]
struct Places(HashMap<String, usize>);

impl Places {
    /// The place of the name, which is appended if the list lacks it.
    fn of(&mut self, name: &str, names: &mut Vec<String>) -> usize {
        if let Some(place) = self.0.get(name) {
            return *place;
        }
        let place = names.len();
        self.0.insert(name.to_owned(), place);
        names.push(name.to_owned());
        place
    }
}

#[cfg(test)]
mod tests;
