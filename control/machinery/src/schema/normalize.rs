//! A JSON value by its type, as decoding into the Go structure and encoding it again leaves it: types checked,
//! unknown fields listed and dropped, nulls and empty values written or left out as Go's tags say.
//!
//! That is what makes stored JSON canonical: two objects that mean the same are the same bytes.

use super::{Field, Schema, Shape, Special, TypeId};
use crate::duration;
use crate::intstr::IntOrString;
use crate::quantity::Quantity;
use crate::time;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value};

/// Upstream stops listing unknown and duplicate fields here.
pub(crate) const MAX_STRICT_ERRORS: usize = 100;

/// A value that is not of its type, worded as Go's `json` words it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TypeError {
    /// The wrong JSON type inside a structure.
    #[error("json: cannot unmarshal {found} into Go struct field {owner}.{path} of type {wanted}")]
    Field {
        /// `string`, `number 1.5`, `object`, ...
        found: String,
        /// The Go structure the field is in.
        owner: String,
        /// JSON names from the object to the field, without indexes.
        path: String,
        /// Go type of the field.
        wanted: String,
    },
    /// The wrong JSON type outside any structure.
    #[error("json: cannot unmarshal {found} into Go value of type {wanted}")]
    Value {
        /// `string`, `number 1.5`, `object`, ...
        found: String,
        /// Go type.
        wanted: String,
    },
    /// A text its type cannot be read from (times, quantities, durations, base64).
    #[error("{0}")]
    Text(String),
}

/// The canonical value and what was dropped on the way.
#[derive(Debug, Clone, PartialEq)]
pub struct Normalized {
    /// In the canonical form.
    pub value: Value,
    /// `unknown field "spec.foo"`, at most [`MAX_STRICT_ERRORS`].
    pub unknown: Vec<String>,
}

impl Schema {
    /// The canonical form of `value` read as `id`.
    ///
    /// # Errors
    /// For the first value that is not of its type.
    pub fn normalize(&self, id: TypeId, value: Value) -> Result<Normalized, TypeError> {
        let mut walk = Walk { schema: self, path: Vec::new(), unknown: Vec::new() };
        let value = walk.root(id, value)?;
        Ok(Normalized { value, unknown: walk.unknown })
    }
}

enum Step {
    Name(&'static str),
    Key(String),
    Index(usize),
}

struct Walk<'s> {
    schema: &'s Schema,
    path: Vec<Step>,
    unknown: Vec<String>,
}

impl<'s> Walk<'s> {
    fn root(&mut self, id: TypeId, value: Value) -> Result<Value, TypeError> {
        self.message(id, value, None, true)
    }

    /// With indexes, as strict errors have it.
    fn strict_path(&self, last: &str) -> String {
        let mut out = String::new();
        for step in &self.path {
            match step {
                Step::Index(i) => out.push_str(&format!("[{i}]")),
                Step::Name(name) => push_name(&mut out, name),
                Step::Key(name) => push_name(&mut out, name),
            }
        }
        push_name(&mut out, last);
        out
    }

    /// Without indexes and map keys, as Go's type errors have it.
    fn go_path(&self) -> String {
        let names = self.path.iter().filter_map(|s| match s {
            Step::Name(name) => Some(*name),
            Step::Key(_) | Step::Index(_) => None,
        });
        names.collect::<Vec<_>>().join(".")
    }

    fn mismatch(&self, value: &Value, wanted: &str, holder: Option<TypeId>) -> TypeError {
        let found = found(value);
        match holder {
            Some(holder) => TypeError::Field {
                found,
                owner: self.schema.get(holder).name.to_owned(),
                path: self.go_path(),
                wanted: wanted.to_owned(),
            },
            None => TypeError::Value { found, wanted: wanted.to_owned() },
        }
    }

    fn message(
        &mut self,
        id: TypeId,
        value: Value,
        holder: Option<TypeId>,
        root: bool,
    ) -> Result<Value, TypeError> {
        let kind = self.schema.get(id);
        let mut given = match value {
            Value::Object(map) => map,
            Value::Null => Map::new(),
            other => {
                let wanted = format!("{}.{}", kind.go_package(), kind.name);
                return Err(self.mismatch(&other, &wanted, holder));
            }
        };
        let mut out = Map::new();
        if root || kind.is_object {
            for name in ["apiVersion", "kind"] {
                // A structure may have such a field of its own.
                if self.schema.field(id, name).is_none() {
                    self.type_meta(kind.name, name, &mut given, &mut out)?;
                }
            }
        }
        self.fields(id, &mut given, &mut out)?;
        for name in given.keys() {
            if self.unknown.len() < MAX_STRICT_ERRORS {
                let path = self.strict_path(name);
                self.unknown.push(format!("unknown field {}", crate::goformat::go_quote(&path)));
            }
        }
        Ok(Value::Object(out))
    }

    fn type_meta(
        &mut self,
        owner: &str,
        name: &'static str,
        given: &mut Map<String, Value>,
        out: &mut Map<String, Value>,
    ) -> Result<(), TypeError> {
        match given.remove(name) {
            None | Some(Value::Null) => Ok(()),
            Some(Value::String(text)) => {
                if !text.is_empty() {
                    out.insert(name.to_owned(), text.into());
                }
                Ok(())
            }
            Some(other) => {
                self.path.push(Step::Name(name));
                let (found, path) = (found(&other), self.go_path());
                Err(TypeError::Field { found, owner: owner.to_owned(), path, wanted: "string".to_owned() })
            }
        }
    }

    fn fields(
        &mut self,
        id: TypeId,
        given: &mut Map<String, Value>,
        out: &mut Map<String, Value>,
    ) -> Result<(), TypeError> {
        let schema = self.schema;
        for field in &schema.get(id).fields {
            if field.inline {
                if let Shape::Struct(inner) = field.shape {
                    self.fields(inner, given, out)?;
                }
                continue;
            }
            let value = match given.remove(field.name) {
                None | Some(Value::Null) => self.absent(id, field)?,
                Some(value) => {
                    self.path.push(Step::Name(field.name));
                    let value = self.value(&field.shape, value, id, field.go_type)?;
                    self.path.pop();
                    Some(value).filter(|v| field.pointer || field.always || !is_omitted(&field.shape, v))
                }
            };
            if let Some(value) = value {
                out.insert(field.name.to_owned(), value);
            }
        }
        Ok(())
    }

    /// What Go writes for a field that was not given.
    fn absent(&mut self, owner: TypeId, field: &'s Field) -> Result<Option<Value>, TypeError> {
        if field.pointer {
            return Ok(field.always.then_some(Value::Null));
        }
        Ok(match &field.shape {
            // `omitzero`, alone among the times held by value.
            Shape::Special(Special::Time) if field.name == "creationTimestamp" => None,
            Shape::Special(Special::SchemaOrArray | Special::SchemaOrBool | Special::SchemaOrStrings) => None,
            Shape::Special(_) => Some(zero(&field.shape)),
            Shape::Struct(id) => {
                self.path.push(Step::Name(field.name));
                let value = self.message(*id, Value::Null, Some(owner), false)?;
                self.path.pop();
                Some(value)
            }
            shape => field.always.then(|| zero(shape)),
        })
    }

    fn value(
        &mut self,
        shape: &'s Shape,
        value: Value,
        holder: TypeId,
        go_type: &str,
    ) -> Result<Value, TypeError> {
        let fail = |walk: &Self, value: &Value| {
            let wanted = go_name(go_type, walk.schema.get(holder).go_package());
            walk.mismatch(value, &wanted, Some(holder))
        };
        match (shape, value) {
            (Shape::Struct(id), value) => self.message(*id, value, Some(holder), false),
            (Shape::Special(special), value) => self.special(*special, value, holder),
            (Shape::Any, value) => Ok(value),
            (Shape::List(_) | Shape::Map(_) | Shape::Items | Shape::Bytes, Value::Null) => Ok(Value::Null),
            (shape, Value::Null) => Ok(zero(shape)),
            (Shape::Bool, value @ Value::Bool(_)) | (Shape::String, value @ Value::String(_)) => Ok(value),
            (Shape::Int32, Value::Number(n)) if n.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) => {
                Ok(n.into())
            }
            (Shape::Int64, Value::Number(n)) if n.as_i64().is_some() => Ok(n.into()),
            (Shape::Float64, Value::Number(n)) => Ok(canonical_float(n)),
            (Shape::Bytes, Value::String(text)) => match BASE64.decode(text.replace(['\n', '\r'], "")) {
                Ok(bytes) => Ok(BASE64.encode(bytes).into()),
                Err(error) => {
                    Err(TypeError::Text(format!("illegal base64 data at input byte {}", offset(&error))))
                }
            },
            (Shape::Items, Value::Array(items)) => self.list(&Shape::String, items, holder, "string"),
            (Shape::List(inner), Value::Array(items)) => {
                self.list(inner, items, holder, go_type.strip_prefix("[]").unwrap_or(go_type))
            }
            (Shape::Map(inner), Value::Object(entries)) => {
                let go_value = go_type.split_once(']').map_or(go_type, |(_, v)| v);
                let mut out = Map::new();
                for (key, value) in entries {
                    self.path.push(Step::Key(key));
                    let value = match value {
                        Value::Null => self.null_item(inner, holder)?,
                        value => self.value(inner, value, holder, go_value)?,
                    };
                    if let Some(Step::Key(key)) = self.path.pop() {
                        out.insert(key, value);
                    }
                }
                Ok(Value::Object(out))
            }
            // A number that is wanted, but is no integer or does not fit, is repeated.
            (Shape::Int32 | Shape::Int64, Value::Number(n)) => Err(match fail(self, &Value::Null) {
                TypeError::Field { owner, path, wanted, .. } => {
                    TypeError::Field { found: format!("number {n}"), owner, path, wanted }
                }
                other => other,
            }),
            (_, value) => Err(fail(self, &value)),
        }
    }

    fn list(
        &mut self,
        inner: &'s Shape,
        items: Vec<Value>,
        holder: TypeId,
        go_type: &str,
    ) -> Result<Value, TypeError> {
        let mut out = Vec::with_capacity(items.len());
        for (i, item) in items.into_iter().enumerate() {
            self.path.push(Step::Index(i));
            out.push(match item {
                Value::Null => self.null_item(inner, holder)?,
                item => self.value(inner, item, holder, go_type)?,
            });
            self.path.pop();
        }
        Ok(Value::Array(out))
    }

    fn null_item(&mut self, shape: &Shape, holder: TypeId) -> Result<Value, TypeError> {
        match shape {
            Shape::Struct(id) => self.message(*id, Value::Null, Some(holder), false),
            // No bytes are as many as none.
            Shape::Bytes => Ok("".into()),
            shape => Ok(zero(shape)),
        }
    }

    fn special(&mut self, special: Special, value: Value, holder: TypeId) -> Result<Value, TypeError> {
        let text = |e: &dyn std::fmt::Display| TypeError::Text(e.to_string());
        let not =
            |value: &Value, wanted: &str| TypeError::Value { found: found(value), wanted: wanted.to_owned() };
        if value.is_null() {
            return Ok(zero(&Shape::Special(special)));
        }
        match special {
            Special::Json | Special::RawExtension | Special::FieldsV1 => Ok(value),
            Special::Time | Special::MicroTime => {
                let Value::String(given) = &value else { return Err(not(&value, "string")) };
                let (parse, format): (fn(&str) -> _, fn(_) -> _) = match special {
                    Special::Time => (time::parse, time::format),
                    _ => (time::parse_micro, time::format_micro),
                };
                let parsed = parse(given).map_err(|e| text(&e))?;
                Ok(if time::is_zero(parsed) { Value::Null } else { format(parsed).into() })
            }
            Special::Duration => {
                let Value::String(given) = &value else { return Err(not(&value, "string")) };
                let nanos = duration::parse(given).map_err(|e| text(&e))?;
                Ok(duration::format(nanos).into())
            }
            Special::Quantity => {
                let given = match &value {
                    Value::String(given) => given.clone(),
                    Value::Number(n) => n.to_string(),
                    other => other.to_string(),
                };
                Ok(Quantity::parse(given.trim()).map_err(|e| text(&e))?.to_string().into())
            }
            Special::IntOrString => match IntOrString::from_value(&value) {
                Some(_) => Ok(value),
                None => Err(not(&value, "int32")),
            },
            Special::SchemaOrArray | Special::SchemaOrBool | Special::SchemaOrStrings => {
                let schema = self.schema.json_schema_props().ok_or_else(|| not(&value, "JSONSchemaProps"))?;
                match (special, value) {
                    (_, value @ Value::Object(_)) => self.message(schema, value, Some(holder), false),
                    (Special::SchemaOrBool, value @ Value::Bool(_)) => Ok(value),
                    (Special::SchemaOrArray, Value::Array(items)) => {
                        let items =
                            items.into_iter().map(|item| self.message(schema, item, Some(holder), false));
                        items.collect::<Result<Vec<_>, _>>().map(Value::Array)
                    }
                    (Special::SchemaOrStrings, Value::Array(items)) if items.iter().all(Value::is_string) => {
                        Ok(Value::Array(items))
                    }
                    (Special::SchemaOrBool, _) => Err(text(&"boolean or JSON schema expected")),
                    (Special::SchemaOrStrings, _) => Err(text(&"string array or JSON schema expected")),
                    (_, value) => Err(not(&value, "v1.JSONSchemaPropsOrArray")),
                }
            }
        }
    }
}

pub(super) fn push_name(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
}

fn offset(error: &base64::DecodeError) -> usize {
    match error {
        base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => *at,
        base64::DecodeError::InvalidLength(len) => *len,
        base64::DecodeError::InvalidPadding => 0,
    }
}

fn found(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "string".to_owned(),
        Value::Array(_) => "array".to_owned(),
        Value::Object(_) => "object".to_owned(),
    }
}

/// `[]Container` of package `v1` as `[]v1.Container`, `core.v1.Pod` as `v1.Pod`.
fn go_name(go_type: &str, package: &str) -> String {
    if let Some(element) = go_type.strip_prefix("[]") {
        return format!("[]{}", go_name(element, package));
    }
    if let Some((key, value)) = go_type.strip_prefix("map[").and_then(|rest| rest.split_once(']')) {
        return format!("map[{}]{}", go_name(key, package), go_name(value, package));
    }
    let mut parts = go_type.rsplit('.');
    match (parts.next(), parts.next()) {
        (Some(name), Some(package)) => format!("{package}.{name}"),
        _ if go_type.starts_with(|c: char| c.is_ascii_uppercase()) => format!("{package}.{go_type}"),
        _ => go_type.to_owned(),
    }
}

/// Go writes a whole float without a point.
fn canonical_float(n: serde_json::Number) -> Value {
    match n.as_f64() {
        Some(f) if n.is_f64() && f.fract() == 0.0 && f.abs() < 9e15 => Value::from(f as i64),
        _ => n.into(),
    }
}

/// The zero value of a shape held by value.
pub(crate) fn zero(shape: &Shape) -> Value {
    match shape {
        Shape::Bool => Value::Bool(false),
        Shape::Int32 | Shape::Int64 | Shape::Float64 => 0.into(),
        Shape::String => "".into(),
        Shape::Special(Special::Quantity) => "0".into(),
        Shape::Special(Special::IntOrString) => 0.into(),
        Shape::Special(Special::Duration) => "0s".into(),
        Shape::Struct(_) => Value::Object(Map::new()),
        _ => Value::Null,
    }
}

/// Whether `omitempty` leaves a value out.
fn is_omitted(shape: &Shape, value: &Value) -> bool {
    match (shape, value) {
        (Shape::Special(Special::Time), Value::Null) => false,
        (Shape::Struct(_) | Shape::Special(_), _) => false,
        (_, Value::Null | Value::Bool(false)) => true,
        (_, Value::Number(n)) => n.as_f64() == Some(0.0),
        (_, Value::String(s)) => s.is_empty(),
        (_, Value::Array(a)) => a.is_empty(),
        (_, Value::Object(o)) => o.is_empty(),
        _ => false,
    }
}
