//! What is read and written of a row, compiled once for all events that have it in common.

use std::cell::{Cell, RefCell};
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

thread_local! {
    /// What the shapes of all triggers take that values of rows have brought.
    static LEARNED_BYTES: Cell<usize> = const { Cell::new(0) };
}

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
    /// What it takes in memory, about.
    bytes: usize,
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
}

/// The shapes of a trigger's rules.
#[derive(Default)]
pub struct Shapes {
    /// They stay as long as the trigger's rules.
    kept: HashMap<ShapeKey, Rc<Shape>>,
    /// Those that values of rows have brought.
    learned: HashMap<ShapeKey, Rc<Shape>>,
    learned_bytes: usize,
}

impl Shapes {
    pub fn of(&mut self, definition: &CaptureDefinition, firing: &Firing<'_>) -> Rc<Shape> {
        let key = ShapeKey::of(definition);
        if let Some(known) = self.kept.get(&key).or_else(|| self.learned.get(&key)) {
            return known.clone();
        }
        let shape = Rc::new(Shape::of(definition, firing));
        self.learned_bytes += shape.bytes;
        LEARNED_BYTES.set(LEARNED_BYTES.get() + shape.bytes);
        self.learned.insert(key, shape.clone());
        shape
    }

    /// Those that there are now stay as long as the trigger's rules.
    pub fn keep(&mut self) {
        self.kept.extend(self.learned.drain());
        self.forget_learned();
    }

    pub fn forget_learned(&mut self) {
        self.learned = HashMap::new();
        let bytes = std::mem::take(&mut self.learned_bytes);
        LEARNED_BYTES.set(LEARNED_BYTES.get().saturating_sub(bytes));
    }
}

impl Drop for Shapes {
    fn drop(&mut self) {
        self.forget_learned();
    }
}

/// What the shapes take that values of rows have brought in this session, about.
pub fn learned_bytes() -> usize {
    LEARNED_BYTES.get()
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
        let watched = watched(definition, firing);
        let sent = parts.sent.as_ref().map(Vec::len);
        let key = definition.order_key.as_ref();
        let key_fields = key.map(|key| key.columns.as_ref().map_or(0, Vec::len));
        let mut fields = vec![watched.as_ref().map(Vec::len), sent];
        fields.extend(key_fields.map(Some));
        fields.extend(needs_old.then_some(Some(parts.old.len())));
        fields.extend(lists_changes.then_some(None));
        Self {
            bytes: bytes_of(&fields, firing.column_count()),
            watch: RefCell::new(firing.field_watch(watched.as_deref())),
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

/// What parts of so many fields take, where `None` stands for every column of the row.
fn bytes_of(fields: &[Option<usize>], columns: usize) -> usize {
    let count = fields.iter().map(|count| count.unwrap_or(columns));
    SHAPE_BYTES + FIELD_BYTES * count.sum::<usize>()
}
