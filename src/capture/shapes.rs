//! What is read and written of a row, compiled once for all events that have it in common.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use sha2::{Digest, Sha256};

use crate::core::definitions::words::{ListStyle, NullStyle};
use crate::pg::row_json::changed::FieldWatch;
use crate::pg::row_json::order_key::RowKey;
use crate::pg::row_json::{Field, RowWriter};
use crate::pg::trigger::{Firing, Operation};
use crate::store::capture_definitions::CaptureDefinition;
use crate::store::order_key::OrderKey;
use crate::store::row_parts::RowParts;

const SHAPE_BYTES: usize = 4 << 10;
const FIELD_BYTES: usize = 200;
/// More than this is not kept for values of rows.
const SHAPES_AT_MOST_BYTES: usize = 4 << 20;

/// See the module.
pub struct Shape {
    pub watch: RefCell<FieldWatch>,
    pub writer: RefCell<RowWriter>,
    /// Writes the row before the change, if a template asks for it.
    pub old_writer: Option<RefCell<RowWriter>>,
    /// Finds all that changed, if a template lists it.
    pub listed: Option<RefCell<FieldWatch>>,
    /// The key of the message, if its webhook keeps the order of keys.
    pub order_key: Option<RefCell<RowKey>>,
}

/// What a shape is made of.
#[derive(PartialEq, Eq, Hash)]
struct ShapeKey {
    watched_fields: Option<Vec<String>>,
    payload_fields: Option<Vec<String>>,
    /// The hash of its text.
    payload_template: Option<[u8; 32]>,
    template_fields: Vec<(String, String)>,
    styles: (NullStyle, ListStyle),
    order_key: Option<OrderKey>,
}

impl ShapeKey {
    fn of(definition: &CaptureDefinition) -> Self {
        let template = definition.payload_template.as_ref();
        Self {
            watched_fields: definition.watched_fields.clone(),
            payload_fields: definition.payload_fields.clone(),
            payload_template: template.map(|text| Sha256::digest(text).into()),
            template_fields: definition.template_fields.clone(),
            styles: (definition.null_style, definition.list_style),
            order_key: definition.order_key.clone(),
        }
    }

    /// What the shape and its key take in memory, about.
    fn bytes(&self) -> usize {
        let key = self.order_key.as_ref().map(|key| &key.columns);
        let lists = [&self.watched_fields, &self.payload_fields]
            .into_iter()
            .chain(key);
        let names = lists.flatten().map(Vec::len).sum::<usize>();
        SHAPE_BYTES + FIELD_BYTES * (names + self.template_fields.len())
    }
}

/// The shapes of a trigger's rules.
#[derive(Default)]
pub struct Shapes {
    by_key: HashMap<ShapeKey, Rc<Shape>>,
    /// Of those that values of rows have brought.
    bytes: usize,
}

impl Shapes {
    pub fn of(&mut self, definition: &CaptureDefinition, firing: &Firing<'_>) -> Rc<Shape> {
        let key = ShapeKey::of(definition);
        if let Some(known) = self.by_key.get(&key) {
            return known.clone();
        }
        let shape = Rc::new(Shape::of(definition, firing));
        self.bytes += key.bytes();
        self.by_key.insert(key, shape.clone());
        shape
    }

    /// Those that there are now stay as long as the trigger's rules.
    pub fn keep(&mut self) {
        self.bytes = 0;
    }

    pub fn are_too_many(&self) -> bool {
        self.bytes > SHAPES_AT_MOST_BYTES
    }
}

/// The fields that an event watches; `None` is every one.
pub fn watched(definition: &CaptureDefinition, firing: &Firing<'_>) -> Option<Vec<i16>> {
    let names = definition.watched_fields.as_ref()?;
    Some(names.iter().filter_map(|n| firing.column(n)).collect())
}

impl Shape {
    fn of(definition: &CaptureDefinition, firing: &Firing<'_>) -> Self {
        let parts = RowParts::of(definition, |name| firing.column(name));
        let writer = |fields: Option<&[Field]>| {
            RefCell::new(firing.row_writer(fields, definition.null_style, definition.list_style))
        };
        let needs_old = !parts.old.is_empty() && firing.operation() != Operation::Insert;
        let lists_changes = parts.lists_changes && firing.operation() == Operation::Update;
        Self {
            watch: RefCell::new(firing.field_watch(watched(definition, firing).as_deref())),
            writer: writer(parts.sent.as_deref()),
            old_writer: needs_old.then(|| writer(Some(&parts.old))),
            listed: lists_changes.then(|| RefCell::new(firing.field_watch(None))),
            order_key: definition.order_key.as_ref().map(|key| {
                let numbers = key.numbers(|name| firing.column(name));
                RefCell::new(firing.row_key(key.table, numbers.as_deref()))
            }),
        }
    }
}
