//! The columns of a table or the attributes of a composite type, as members of a
//! JSON object: escaped names, order, and a writer for each.
//!
//! Compiled once; fails only with PostgreSQL's own errors (an unknown type).

use std::ffi::CStr;

use pgrx::pg_sys;

use crate::core::values::json_text::push_string_bytes;
use crate::pg::encoding::from_server;

use super::limited::{LimitedText, Written};
use super::render::{Render, NULL};
use super::tuple::{attribute, TupleReader};
use super::{Field, Surroundings};

pub(super) struct Fields {
    reader: TupleReader,
    members: Vec<Member>,
}

struct Member {
    /// `"name":`, with the comma before it unless it is the first.
    key: Vec<u8>,
    /// Place of the attribute in the tuple, from 0.
    place: usize,
    null: &'static [u8],
    render: Render,
}

impl Fields {
    /// # Safety
    /// As `RowWriter::compile`.
    pub(super) unsafe fn compile(
        descriptor: pg_sys::TupleDesc,
        fields: Option<&[Field]>,
        surroundings: &mut Surroundings,
    ) -> Self {
        // SAFETY: the descriptor is valid.
        let count = unsafe { (*descriptor).natts };
        let places: Vec<(usize, Option<&str>)> = match fields {
            Some(fields) => fields
                .iter()
                .filter(|field| field.number >= 1 && i32::from(field.number) <= count)
                .map(|field| (field.number as usize - 1, field.name.as_deref()))
                .collect(),
            None => (0..count as usize).map(|place| (place, None)).collect(),
        };
        let mut members = Vec::with_capacity(places.len());
        for (place, name) in places {
            // SAFETY: `place` is below natts.
            let column = unsafe { attribute(descriptor, place) };
            if is_stored(column) {
                members.push(Member::compile(
                    column,
                    name,
                    place,
                    members.is_empty(),
                    surroundings,
                ));
            }
        }
        let needed = members.iter().map(|member| member.place + 1).max();
        Self {
            // SAFETY: no more attributes than the descriptor has.
            reader: unsafe { TupleReader::compile(descriptor, needed.unwrap_or(0)) },
            members,
        }
    }

    /// Bytes by which an object may be longer than a body that a template makes of it: the
    /// names, and quotes or `null` where the template puts a value into a string.
    pub(super) fn dispensable_len(&self) -> usize {
        const BRACES: usize = 2;
        let dispensable = |member: &Member| member.key.len() + NULL.len();
        BRACES + self.members.iter().map(dispensable).sum::<usize>()
    }

    /// # Safety
    /// `header` starts a tuple of `descriptor`, which is the one compiled from.
    pub(super) unsafe fn write(
        &mut self,
        descriptor: pg_sys::TupleDesc,
        header: pg_sys::HeapTupleHeader,
        out: &mut LimitedText,
        surroundings: &mut Surroundings,
    ) -> Written {
        // SAFETY: as this function's.
        unsafe { self.reader.read(descriptor, header) };
        out.push(b'{')?;
        for member in &mut self.members {
            out.push_bytes(&member.key)?;
            let image = self.reader.image(member.place);
            if image.is_null() {
                out.push_bytes(member.null)?;
            } else {
                // SAFETY: the reader found a value of the attribute's type there.
                unsafe { member.render.write(image, out, surroundings)? };
            }
        }
        out.push(b'}')
    }
}

/// Whether tuples hold a value of this column: not when it is dropped or virtual.
fn is_stored(column: &pg_sys::FormData_pg_attribute) -> bool {
    const GENERATED_VIRTUAL: u8 = b'v';
    !column.attisdropped && column.attgenerated as u8 != GENERATED_VIRTUAL
}

impl Member {
    fn compile(
        column: &pg_sys::FormData_pg_attribute,
        name: Option<&str>,
        place: usize,
        first: bool,
        surroundings: &mut Surroundings,
    ) -> Self {
        let render = Render::for_type(column.atttypid, surroundings);
        // SAFETY: a name is NUL-terminated within its fixed length.
        let own = unsafe { CStr::from_ptr(column.attname.data.as_ptr()) };
        let mut key = Vec::new();
        if !first {
            key.push(b',');
        }
        match name {
            Some(name) => push_string_bytes(&mut key, name.as_bytes()),
            None => push_string_bytes(&mut key, from_server(own.to_bytes()).as_bytes()),
        }
        key.push(b':');
        Self {
            key,
            place,
            null: render.null_text(surroundings.nulls),
            render,
        }
    }
}
