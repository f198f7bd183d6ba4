//! A template's text as a tree.
//!
//! Pure. serde_json judges the text as a whole and says where it is wrong; the
//! tree is read here, because numbers and the order of keys must stay as they are
//! written, whatever serde_json makes of them.

use std::collections::HashMap;

use serde::de::IgnoredAny;

use super::parameter::Parameter;
use super::ARGUMENT;
use crate::core::definitions::webhook::shown;
use crate::core::error::{Error, Result};

/// Far more than anybody writes by hand; the tree is walked recursively.
const MAX_DEPTH: usize = 128;

const OPEN: &str = "[@";
const CLOSE: char = ']';

/// A value of the template.
#[derive(Debug, PartialEq)]
pub(super) enum Node<'a> {
    /// A number, `true`, `false` or `null` as it is written.
    Scalar(&'a str),
    Text(Vec<Part>),
    List(Vec<Node<'a>>),
    /// Each key once.
    Object(Vec<(String, Node<'a>)>),
}

/// A stretch of a string.
#[derive(Debug, PartialEq)]
pub(super) enum Part {
    Literal(String),
    Parameter(Parameter),
}

/// Reads the whole text.
///
/// # Errors
/// JSON that does not parse, a parameter that is unknown, not closed or inside a key.
pub(super) fn document(text: &str) -> Result<Node<'_>> {
    if let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
        return Err(not_json(text, &error));
    }
    Reader {
        text,
        at: 0,
        depth: 0,
    }
    .value()
}

fn not_json(text: &str, error: &serde_json::Error) -> Error {
    let line = text.split('\n').nth(error.line().saturating_sub(1));
    // serde_json counts bytes, readers count characters.
    let bytes = line.unwrap_or_default().bytes().take(error.column());
    let column = bytes.filter(|byte| byte & 0xc0 != 0x80).count();
    let what = error.to_string();
    let what = what.split(" at line ").next().unwrap_or_default();
    Error::invalid(format!(
        "{ARGUMENT} is not valid JSON at line {}, column {column}: {what}",
        error.line()
    ))
    .with_hint("parameters stand inside strings, as in {\"id\": \"[@field:id]\"}")
}

/// Reads a text that is known to be JSON.
struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn value(&mut self) -> Result<Node<'a>> {
        match self.peek() {
            b'{' => self.nested(Self::object),
            b'[' => self.nested(Self::list),
            b'"' => {
                let start = self.at;
                let text = self.string()?;
                let parts = parts(&text).map_err(|error| self.located(error, start))?;
                Ok(Node::Text(parts))
            }
            _ => Ok(Node::Scalar(self.scalar())),
        }
    }

    fn nested(&mut self, read: fn(&mut Self) -> Result<Node<'a>>) -> Result<Node<'a>> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            let error = Error::invalid(format!("{ARGUMENT} nests deeper than {MAX_DEPTH} levels"))
                .with_hint("a parameter may hold json of any depth; the template itself may not");
            return Err(self.located(error, self.at));
        }
        self.at += 1;
        let node = read(self);
        self.depth -= 1;
        node
    }

    fn object(&mut self) -> Result<Node<'a>> {
        let mut members: Vec<(String, Node<'a>)> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        while !self.skip(b'}') {
            self.skip(b',');
            self.peek();
            let key = self.key()?;
            self.skip(b':');
            let value = self.value()?;
            match places.get(&key) {
                Some(place) => members[*place].1 = value,
                None => {
                    places.insert(key.clone(), members.len());
                    members.push((key, value));
                }
            }
        }
        Ok(Node::Object(members))
    }

    fn list(&mut self) -> Result<Node<'a>> {
        let mut items = Vec::new();
        while !self.skip(b']') {
            self.skip(b',');
            items.push(self.value()?);
        }
        Ok(Node::List(items))
    }

    fn key(&mut self) -> Result<String> {
        let start = self.at;
        let key = self.string()?;
        if key.contains(OPEN) {
            let error = Error::invalid(format!(
                "{ARGUMENT} holds a parameter inside a key: \"{}\"",
                shown(&key)
            ))
            .with_hint("only values may hold parameters");
            return Err(self.located(error, start));
        }
        Ok(key)
    }

    /// The string that starts here, without its escapes.
    fn string(&mut self) -> Result<String> {
        let start = self.at;
        let bytes = self.text.as_bytes();
        let mut end = start + 1;
        while bytes[end] != b'"' {
            end += if bytes[end] == b'\\' { 2 } else { 1 };
        }
        self.at = end + 1;
        serde_json::from_str(&self.text[start..self.at]).map_err(|_| {
            let error = Error::invalid(format!("{ARGUMENT} holds half of a surrogate pair"))
                .with_hint("write the character itself in place of its \\u escapes");
            self.located(error, start)
        })
    }

    fn scalar(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let is_end = |byte: u8| matches!(byte, b',' | b'}' | b']') || byte.is_ascii_whitespace();
        let len = rest.bytes().position(is_end).unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    /// The next byte that is not white space; there is one until the text is done.
    fn peek(&mut self) -> u8 {
        let bytes = self.text.as_bytes();
        while bytes[self.at].is_ascii_whitespace() {
            self.at += 1;
        }
        bytes[self.at]
    }

    fn skip(&mut self, byte: u8) -> bool {
        let found = self.peek() == byte;
        self.at += usize::from(found);
        found
    }

    fn located(&self, error: Error, at: usize) -> Error {
        let before = &self.text[..at];
        let line = before.matches('\n').count() + 1;
        let in_line = before.rsplit('\n').next().unwrap_or_default();
        let column = in_line.chars().count() + 1;
        error.with_detail(format!("in the string at line {line}, column {column}"))
    }
}

/// Splits a string at its parameters.
fn parts(text: &str) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(OPEN) {
        let inside = &rest[start + OPEN.len()..];
        let end = inside
            .find(CLOSE)
            .ok_or_else(|| not_closed(&rest[start..]))?;
        if start > 0 {
            parts.push(Part::Literal(rest[..start].to_owned()));
        }
        parts.push(Part::Parameter(Parameter::parse(&inside[..end])?));
        rest = &inside[end + CLOSE.len_utf8()..];
    }
    if !rest.is_empty() {
        parts.push(Part::Literal(rest.to_owned()));
    }
    Ok(parts)
}

fn not_closed(parameter: &str) -> Error {
    Error::invalid(format!(
        "{ARGUMENT} holds a parameter that is not closed: \"{}\"",
        shown(parameter)
    ))
    .with_hint("a parameter ends with ], as in [@field:id]")
}
