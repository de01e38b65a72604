//! A JSON value to bytes.

use super::wire::{FIXED64, put_bytes, put_int, put_nested, put_tag};
use super::{Error, MAGIC, MAX_DEPTH};
use crate::quantity::Quantity;
use crate::schema::{Schema, Shape, Special, TypeId, normalize};
use crate::{duration, time};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

/// An object of type `id` without an envelope.
///
/// # Errors
/// For a value that is not of its type.
pub(super) fn message(schema: &Schema, id: TypeId, object: &Value) -> Result<Vec<u8>, Error> {
    let mut out = Vec::with_capacity(512);
    put_message(schema, id, object, &mut out, 0)?;
    Ok(out)
}

pub(super) fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut meta = Vec::with_capacity(4 + api_version.len() + kind.len());
    put_bytes(&mut meta, 1, api_version.as_bytes());
    put_bytes(&mut meta, 2, kind.as_bytes());
    let mut out = Vec::with_capacity(MAGIC.len() + meta.len() + raw.len() + 16);
    out.extend_from_slice(MAGIC);
    put_bytes(&mut out, 1, &meta);
    put_bytes(&mut out, 2, raw);
    put_bytes(&mut out, 3, b"");
    put_bytes(&mut out, 4, b"");
    out
}

pub(super) fn watch_event(event_type: &str, object: &[u8]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(object.len() + 8);
    put_bytes(&mut raw, 1, object);
    let mut out = Vec::with_capacity(raw.len() + event_type.len() + 16);
    put_bytes(&mut out, 1, event_type.as_bytes());
    put_bytes(&mut out, 2, &raw);
    out
}

/// What went wrong, before it is known in which field.
enum Failed {
    Here,
    Inside(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Failed::Inside(error)
    }
}

fn put_message(
    schema: &Schema,
    id: TypeId,
    object: &Value,
    out: &mut Vec<u8>,
    depth: usize,
) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(Error::Depth);
    }
    let kind = schema.get(id);
    for field in kind.numbered() {
        let put = |out: &mut Vec<u8>, shape: &Shape, value: &Value| {
            put_value(schema, shape, field.number, value, out, depth)
        };
        let value = if field.inline { Some(object) } else { object.get(field.name).filter(|v| !v.is_null()) };
        let written = match (&field.shape, value) {
            (Shape::List(_) | Shape::Map(_) | Shape::Items | Shape::Bytes | Shape::Any, None) => Ok(()),
            (_, None) if field.pointer => Ok(()),
            (Shape::List(inner), Some(Value::Array(items))) => {
                items.iter().try_for_each(|item| put(out, inner, item))
            }
            (Shape::Map(inner), Some(Value::Object(entries))) => {
                entries.iter().try_for_each(|(key, value)| {
                    put_nested(out, field.number, |out| {
                        put_bytes(out, 1, key.as_bytes());
                        put_value(schema, inner, 2, value, out, depth)
                    })
                })
            }
            (shape, value) => put(out, shape, value.unwrap_or(&Value::Null)),
        };
        written.map_err(|failed| match failed {
            Failed::Here => Error::Encode { message: kind.name, field: field.name },
            Failed::Inside(error) => error,
        })?;
    }
    Ok(())
}

/// One value; null is the shape's zero.
fn put_value(
    schema: &Schema,
    shape: &Shape,
    number: u32,
    value: &Value,
    out: &mut Vec<u8>,
    depth: usize,
) -> Result<(), Failed> {
    let zero;
    let value = if value.is_null() && !matches!(shape, Shape::Struct(_) | Shape::Special(_)) {
        zero = normalize::zero(shape);
        &zero
    } else {
        value
    };
    match (shape, value) {
        (Shape::Bool, Value::Bool(b)) => put_int(out, number, i64::from(*b)),
        (Shape::Int32 | Shape::Int64, Value::Number(n)) => {
            put_int(out, number, n.as_i64().ok_or(Failed::Here)?)
        }
        (Shape::Float64, Value::Number(n)) => {
            put_tag(out, number, FIXED64);
            out.extend_from_slice(&n.as_f64().ok_or(Failed::Here)?.to_le_bytes());
        }
        (Shape::String, Value::String(s)) => put_bytes(out, number, s.as_bytes()),
        (Shape::Bytes, Value::String(s)) => {
            put_bytes(out, number, &BASE64.decode(s).map_err(|_| Failed::Here)?);
        }
        (Shape::Bytes | Shape::Items, Value::Null) => put_bytes(out, number, b""),
        (Shape::Struct(id), Value::Object(_) | Value::Null) => {
            put_nested(out, number, |out| put_message(schema, *id, value, out, depth + 1))?;
        }
        (Shape::Items, Value::Array(items)) => put_nested(out, number, |out| {
            items.iter().try_for_each(|item| {
                put_bytes(out, 1, item.as_str().ok_or(Failed::Here)?.as_bytes());
                Ok::<_, Failed>(())
            })
        })?,
        (Shape::Special(kind), value) => {
            put_nested(out, number, |out| put_special(schema, *kind, value, out, depth + 1))?;
        }
        _ => return Err(Failed::Here),
    }
    Ok(())
}

fn put_special(
    schema: &Schema,
    kind: Special,
    value: &Value,
    out: &mut Vec<u8>,
    depth: usize,
) -> Result<(), Failed> {
    let text = || value.as_str().ok_or(Failed::Here);
    match kind {
        Special::Time | Special::MicroTime if value.is_null() => {}
        Special::Time => {
            put_int(out, 1, time::parse(text()?).map_err(|_| Failed::Here)?.as_second());
            put_int(out, 2, 0);
        }
        Special::MicroTime => {
            // Before 1970 jiff's seconds and nanoseconds are both negative; the wire wants nanoseconds forward.
            let nanos = time::parse_micro(text()?).map_err(|_| Failed::Here)?.as_nanosecond();
            put_int(out, 1, i64::try_from(nanos.div_euclid(1_000_000_000)).map_err(|_| Failed::Here)?);
            put_int(out, 2, (nanos.rem_euclid(1_000_000_000) / 1000 * 1000) as i64);
        }
        Special::Duration => {
            let nanos =
                if value.is_null() { 0 } else { duration::parse(text()?).map_err(|_| Failed::Here)? };
            put_int(out, 1, nanos);
        }
        Special::Quantity => {
            let quantity = match value {
                Value::Null => Quantity::zero(),
                Value::Number(n) => Quantity::parse(&n.to_string()).map_err(|_| Failed::Here)?,
                _ => Quantity::parse(text()?).map_err(|_| Failed::Here)?,
            };
            put_bytes(out, 1, quantity.to_string().as_bytes());
        }
        Special::IntOrString => {
            let (kind, number, name) = match value {
                Value::String(name) => (1, 0, name.as_str()),
                Value::Null => (0, 0, ""),
                value => (0, value.as_i64().ok_or(Failed::Here)?, ""),
            };
            put_int(out, 1, kind);
            put_int(out, 2, number);
            put_bytes(out, 3, name.as_bytes());
        }
        Special::RawExtension | Special::FieldsV1 | Special::Json => {
            if !value.is_null() {
                put_bytes(out, 1, value.to_string().as_bytes());
            }
        }
        Special::SchemaOrArray | Special::SchemaOrBool | Special::SchemaOrStrings => {
            put_schema_or(schema, kind, value, out, depth)?;
        }
    }
    Ok(())
}

fn put_schema_or(
    schema: &Schema,
    kind: Special,
    value: &Value,
    out: &mut Vec<u8>,
    depth: usize,
) -> Result<(), Failed> {
    let props = schema.json_schema_props().ok_or(Failed::Here)?;
    let put_props = |out: &mut Vec<u8>, number, value: &Value| {
        put_nested(out, number, |out| put_message(schema, props, value, out, depth + 1))
    };
    match (kind, value) {
        (Special::SchemaOrBool, Value::Object(_)) => {
            put_int(out, 1, 1);
            put_props(out, 2, value)?;
        }
        (Special::SchemaOrBool, Value::Bool(allows)) => put_int(out, 1, i64::from(*allows)),
        (_, Value::Object(_)) => put_props(out, 1, value)?,
        (Special::SchemaOrArray, Value::Array(items)) => {
            items.iter().try_for_each(|item| put_props(out, 2, item))?;
        }
        (Special::SchemaOrStrings, Value::Array(items)) => {
            for item in items {
                put_bytes(out, 2, item.as_str().ok_or(Failed::Here)?.as_bytes());
            }
        }
        _ => return Err(Failed::Here),
    }
    Ok(())
}
