//! Bytes to a JSON value.

use super::wire::{Reader, Wire};
use super::{Error, MAGIC, MAX_DEPTH};
use crate::intstr::IntOrString;
use crate::object::{Gvk, set_gvk};
use crate::schema::{Schema, Shape, Special, TypeId};
use crate::{duration, time};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Number, Value};

/// `runtime.Unknown`.
#[derive(Default)]
pub(super) struct Envelope<'a> {
    pub(super) api_version: String,
    pub(super) kind: String,
    raw: &'a [u8],
    content_encoding: String,
    content_type: String,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl<'a> Envelope<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, Error> {
        let body = bytes.strip_prefix(MAGIC.as_slice()).ok_or(Error::Magic)?;
        let mut envelope = Envelope::default();
        let mut reader = Reader::new(body, "Unknown");
        while let Some((number, wire)) = reader.field()? {
            match (number, wire) {
                (1, Wire::Bytes(bytes)) => envelope.type_meta(bytes)?,
                (2, Wire::Bytes(bytes)) => envelope.raw = bytes,
                (3, Wire::Bytes(bytes)) => envelope.content_encoding = text(bytes),
                (4, Wire::Bytes(bytes)) => envelope.content_type = text(bytes),
                _ => {}
            }
        }
        Ok(envelope)
    }

    fn type_meta(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let mut reader = Reader::new(bytes, "TypeMeta");
        while let Some((number, wire)) = reader.field()? {
            match (number, wire) {
                (1, Wire::Bytes(bytes)) => self.api_version = text(bytes),
                (2, Wire::Bytes(bytes)) => self.kind = text(bytes),
                _ => {}
            }
        }
        Ok(())
    }
}

pub(super) fn envelope(
    schema: &Schema,
    bytes: &[u8],
    default: Option<&Gvk>,
    depth: usize,
) -> Result<Value, Error> {
    let envelope = Envelope::read(bytes)?;
    if !envelope.content_encoding.is_empty() {
        return Err(Error::ContentEncoding(envelope.content_encoding));
    }
    if envelope.content_type == "application/json" {
        return raw_json(envelope.raw);
    }
    let named = Gvk::parse(&envelope.api_version, &envelope.kind).filter(|g| !g.kind.is_empty());
    let id = named.as_ref().or(default).and_then(|gvk| schema.kind(gvk));
    let Some(id) = id else {
        return Err(Error::UnknownKind { api_version: envelope.api_version, kind: envelope.kind });
    };
    let mut object = Value::Object(message(schema, id, envelope.raw, Map::new(), depth)?);
    if let Some(gvk) = &named {
        set_gvk(&mut object, gvk);
    }
    Ok(schema.normalize(id, object)?.value)
}

fn raw_json(bytes: &[u8]) -> Result<Value, Error> {
    serde_json::from_slice(bytes).map_err(|e| Error::RawJson(e.to_string()))
}

/// Adds a message's fields to `out`: its own object, or for an inlined structure its parent's.
fn message(
    schema: &Schema,
    id: TypeId,
    bytes: &[u8],
    mut out: Map<String, Value>,
    depth: usize,
) -> Result<Map<String, Value>, Error> {
    if depth > MAX_DEPTH {
        return Err(Error::Depth);
    }
    let kind = schema.get(id);
    let mismatch = || Error::Malformed { message: kind.name };
    let mut reader = Reader::new(bytes, kind.name);
    while let Some((number, wire)) = reader.field()? {
        let Some(field) = kind.by_number(number) else { continue };
        match (&field.shape, wire) {
            (Shape::Struct(inner), Wire::Bytes(bytes)) if field.inline => {
                out = message(schema, *inner, bytes, out, depth + 1)?;
            }
            (Shape::List(inner), wire) => {
                let list = out.entry(field.name).or_insert_with(|| Value::Array(Vec::new()));
                let Value::Array(items) = list else { return Err(mismatch()) };
                match (&**inner, wire) {
                    (Shape::Int32 | Shape::Int64 | Shape::Bool, Wire::Bytes(packed)) => {
                        let mut reader = Reader::new(packed, kind.name);
                        while !reader.is_empty() {
                            items.push(integer(inner, reader.varint()?));
                        }
                    }
                    (inner, wire) => {
                        items.push(single(schema, inner, wire, None, depth)?.ok_or_else(mismatch)?)
                    }
                }
            }
            (Shape::Map(inner), Wire::Bytes(bytes)) => {
                let (key, value) = entry(schema, inner, bytes, depth)?;
                let map = out.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
                let Value::Object(map) = map else { return Err(mismatch()) };
                map.insert(key, value);
            }
            (shape, wire) => {
                // A structure that comes in two parts is the two merged.
                let before = out.remove(field.name);
                let value = single(schema, shape, wire, before, depth)?.ok_or_else(mismatch)?;
                out.insert(field.name.to_owned(), value);
            }
        }
    }
    Ok(out)
}

fn entry(schema: &Schema, shape: &Shape, bytes: &[u8], depth: usize) -> Result<(String, Value), Error> {
    let (mut key, mut value) = (String::new(), None);
    let mut reader = Reader::new(bytes, "map entry");
    while let Some((number, wire)) = reader.field()? {
        match (number, wire) {
            (1, Wire::Bytes(bytes)) => key = text(bytes),
            (2, wire) => value = single(schema, shape, wire, None, depth)?,
            _ => {}
        }
    }
    Ok((key, value.unwrap_or_else(|| crate::schema::normalize::zero(shape))))
}

fn integer(shape: &Shape, value: u64) -> Value {
    match shape {
        Shape::Bool => (value != 0).into(),
        Shape::Int32 => (value as i32).into(),
        _ => (value as i64).into(),
    }
}

/// One value; `None` where the wire type is not the shape's. `before` is what an earlier part of it said.
fn single(
    schema: &Schema,
    shape: &Shape,
    wire: Wire<'_>,
    before: Option<Value>,
    depth: usize,
) -> Result<Option<Value>, Error> {
    Ok(Some(match (shape, wire) {
        (Shape::Bool | Shape::Int32 | Shape::Int64, Wire::Varint(value)) => integer(shape, value),
        (Shape::Float64, Wire::Fixed64(bits)) => {
            Number::from_f64(f64::from_bits(bits)).map_or(0.into(), Value::Number)
        }
        (Shape::String, Wire::Bytes(bytes)) => text(bytes).into(),
        (Shape::Bytes, Wire::Bytes(bytes)) => BASE64.encode(bytes).into(),
        (Shape::Struct(id), Wire::Bytes(bytes)) => {
            let map = match before {
                Some(Value::Object(map)) => map,
                _ => Map::new(),
            };
            Value::Object(message(schema, *id, bytes, map, depth + 1)?)
        }
        (Shape::Items, Wire::Bytes(bytes)) => {
            let small = small(bytes, "items")?;
            small.all(1).map(text).collect()
        }
        (Shape::Special(kind), Wire::Bytes(bytes)) => special(schema, *kind, bytes, depth + 1)?,
        _ => return Ok(None),
    }))
}

/// A small message: the last integer and all byte strings by number.
struct Small<'a> {
    ints: [i64; 4],
    bytes: Vec<(u32, &'a [u8])>,
}

fn small<'a>(bytes: &'a [u8], name: &'static str) -> Result<Small<'a>, Error> {
    let mut out = Small { ints: [0; 4], bytes: Vec::new() };
    let mut reader = Reader::new(bytes, name);
    while let Some((number, wire)) = reader.field()? {
        match wire {
            Wire::Varint(value) => {
                if let Some(slot) = out.ints.get_mut(number as usize) {
                    *slot = value as i64;
                }
            }
            Wire::Bytes(bytes) => out.bytes.push((number, bytes)),
            Wire::Fixed32 | Wire::Fixed64(_) => {}
        }
    }
    Ok(out)
}

impl<'a> Small<'a> {
    fn all(&self, number: u32) -> impl Iterator<Item = &'a [u8]> {
        self.bytes.iter().filter(move |(n, _)| *n == number).map(|(_, b)| *b)
    }

    fn last(&self, number: u32) -> Option<&'a [u8]> {
        self.all(number).last()
    }
}

fn special(schema: &Schema, kind: Special, bytes: &[u8], depth: usize) -> Result<Value, Error> {
    if depth > MAX_DEPTH {
        return Err(Error::Depth);
    }
    let fields = small(bytes, "special type")?;
    let props = |bytes: &[u8]| -> Result<Value, Error> {
        let id = schema.json_schema_props().ok_or(Error::Malformed { message: "JSONSchemaProps" })?;
        Ok(Value::Object(message(schema, id, bytes, Map::new(), depth + 1)?))
    };
    Ok(match kind {
        Special::Time | Special::MicroTime => {
            let [_, seconds, nanos, _] = fields.ints;
            // Upstream takes the epoch for the zero time, too.
            if seconds == 0 && nanos == 0 {
                return Ok(Value::Null);
            }
            let time = i32::try_from(nanos).ok().and_then(|nanos| time::from_unix(seconds, nanos));
            let time = time.ok_or(Error::Malformed { message: "Timestamp" })?;
            if kind == Special::Time { time::format(time).into() } else { time::format_micro(time).into() }
        }
        Special::Duration => duration::format(fields.ints[1]).into(),
        Special::Quantity => text(fields.last(1).unwrap_or(b"0")).into(),
        Special::IntOrString => match fields.ints[1] {
            0 => IntOrString::Int(fields.ints[2] as i32).to_value(),
            _ => IntOrString::String(text(fields.last(3).unwrap_or_default())).to_value(),
        },
        Special::RawExtension => match fields.last(1) {
            None | Some([]) => Value::Null,
            Some(raw) if raw.starts_with(MAGIC) => envelope(schema, raw, None, depth + 1)?,
            Some(raw) => raw_json(raw)?,
        },
        Special::FieldsV1 | Special::Json => match fields.last(1) {
            None | Some([]) => Value::Null,
            Some(raw) => raw_json(raw)?,
        },
        Special::SchemaOrArray => match fields.last(1) {
            Some(bytes) => props(bytes)?,
            None => Value::Array(fields.all(2).map(props).collect::<Result<_, _>>()?),
        },
        Special::SchemaOrBool => match fields.last(2) {
            Some(bytes) => props(bytes)?,
            None => (fields.ints[1] != 0).into(),
        },
        Special::SchemaOrStrings => match fields.last(1) {
            Some(bytes) => props(bytes)?,
            None => fields.all(2).map(text).collect(),
        },
    })
}
