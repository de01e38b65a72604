//! A schema as a type of expressions, and JSON as a value of it.

use crate::cel::value::list::{Identity, List};
use crate::cel::words::field_name;
use crate::cel::{Key, ObjectType, Type, Value as Cel};
use crate::custom::schema::{ListKind, Schema};
use base64::Engine as _;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What fits into a request, in bytes.
const REQUEST: u64 = 3 * 1024 * 1024;
/// The longest text that fits into a request with its quotes.
const LONGEST: u64 = REQUEST - 2;
/// A date in JSON, with quotes.
const DATE: u64 = 12;

/// How many values of a schema fit into a request, with a comma between two.
pub(super) fn most(schema: &Schema, root: bool) -> u64 {
    REQUEST / (least(schema, root) + 1)
}

fn bound(most: Option<i64>, other: u64) -> u64 {
    most.map_or(other, |most| u64::try_from(most).unwrap_or_default())
}

/// Fields that every object has. Where the schema does not say so itself, rules see no more of `metadata` than names (upstream:
/// `WithTypeAndObjectMeta`).
const META: [&str; 3] = ["apiVersion", "kind", "metadata"];

fn says_meta(schema: &Schema) -> bool {
    let is = |of: &Schema, name: &str, kind: &str| of.properties.get(name).is_some_and(|p| p.kind == kind);
    let named = |of: &Schema| is(of, "name", "string") && is(of, "generateName", "string");
    is(schema, "apiVersion", "string")
        && is(schema, "kind", "string")
        && is(schema, "metadata", "object")
        && schema.properties.get("metadata").is_some_and(|of| named(of))
}

/// How few bytes a value of the schema takes in a request. `root`: it is an object of a kind of its own.
fn least(schema: &Schema, root: bool) -> u64 {
    if schema.int_or_string {
        return 1;
    }
    match (schema.kind.as_str(), schema.format.as_str()) {
        ("boolean", _) => 4,
        ("string", "duration") => 3,
        ("string", "date") => DATE,
        ("string", "date-time") => 21,
        ("object", _) if schema.additional_schema().is_none() => {
            let given = root && !says_meta(schema);
            let needed = |name: &String| {
                // Texts and objects that need no field are two bytes long.
                let size = match schema.properties.get(name) {
                    _ if given && META.contains(&name.as_str()) => 2,
                    Some(property) if property.default.is_none() => {
                        of(property, property.embedded).map(|_| least(property, property.embedded))?
                    }
                    _ => return None,
                };
                Some(name.len() as u64 + size + 4)
            };
            2 + schema.required.iter().filter_map(needed).sum::<u64>()
        }
        ("object" | "array" | "string", _) => 2,
        _ => 1,
    }
}

/// The type of a schema's values; none for values no rule can use. `root`: it is an object of a kind of its own.
pub(super) fn of(schema: &Schema, root: bool) -> Option<Type> {
    named(schema, root, "selfType")
}

/// Objects at different places are of different types, whatever is in them: they are called by their place.
fn named(schema: &Schema, root: bool, name: &str) -> Option<Type> {
    if schema.int_or_string {
        return Some(Type::Dyn);
    }
    match schema.kind.as_str() {
        "boolean" => Some(Type::Bool),
        "integer" => Some(Type::Int),
        "number" => Some(Type::Double),
        "string" => Some(text(schema)),
        "array" => {
            let items = schema.items.as_deref()?;
            let item = named(items, items.embedded, &format!("{name}.@idx"))?;
            let fit = LONGEST / (least(items, items.embedded) + 1);
            Some(Type::List(Box::new(item), bound(schema.max_items, fit)))
        }
        "object" => {
            if let Some(inner) = schema.additional_schema() {
                let value = named(inner, inner.embedded, &format!("{name}.@elem"))?;
                let fit = LONGEST / (least(inner, inner.embedded) + 6);
                return Some(Type::Map(
                    // Upstream knows no length of keys.
                    Box::new(Type::Text(0)),
                    Box::new(value),
                    bound(schema.max_properties, fit),
                ));
            }
            let mut fields = BTreeMap::new();
            for (field, property) in &schema.properties {
                let kind = named(property, property.embedded, &format!("{name}.{field}"));
                if let (Some(field), Some(kind)) = (field_name(field), kind) {
                    fields.insert(field, kind);
                }
            }
            if root && !says_meta(schema) {
                fields.insert("apiVersion".to_owned(), Type::Text(LONGEST));
                fields.insert("kind".to_owned(), Type::Text(LONGEST));
                let names = ["name", "generateName"].map(|name| (name.to_owned(), Type::Text(LONGEST)));
                let name = format!("{name}.metadata");
                let metadata = ObjectType { name, fields: names.into(), open: false };
                fields.insert("metadata".to_owned(), Type::Object(Arc::new(metadata)));
            }
            Some(Type::Object(Arc::new(ObjectType { name: name.to_owned(), fields, open: false })))
        }
        _ => None,
    }
}

fn text(schema: &Schema) -> Type {
    match schema.format.as_str() {
        "byte" => Type::Bytes(bound(schema.max_length, LONGEST)),
        "duration" => Type::Duration,
        "date" => Type::Time(DATE),
        "date-time" => Type::time(),
        // A character is up to four bytes long.
        _ if schema.max_length.is_some() => Type::Text(bound(schema.max_length, LONGEST).saturating_mul(4)),
        _ if !schema.choices.is_empty() => {
            let longest = schema.choices.iter().filter_map(Value::as_str).map(str::len).max();
            Type::Text(longest.unwrap_or_default() as u64)
        }
        _ => Type::Text(LONGEST),
    }
}

/// A value as rules see it: what the schema does not know is not there.
pub(super) fn value(schema: &Schema, json: &Value, object: bool) -> Cel {
    match json {
        Value::Null => Cel::Null,
        Value::Number(n) if schema.kind == "number" => Cel::Double(n.as_f64().unwrap_or_default()),
        Value::Number(n) if schema.kind == "integer" => {
            // A whole number written with a point is one all the same.
            Cel::Int(n.as_i64().unwrap_or_else(|| n.as_f64().unwrap_or_default() as i64))
        }
        Value::String(text) if schema.kind == "string" => formatted(&schema.format, text),
        Value::Array(items) => {
            let Some(inner) = schema.items.as_deref() else { return Cel::from_json(json) };
            let items: Vec<Cel> = items.iter().map(|i| value(inner, i, inner.embedded)).collect();
            let identity = match schema.list {
                ListKind::Atomic => Identity::Place,
                ListKind::Set => Identity::Itself,
                ListKind::Map => {
                    Identity::Fields(schema.list_keys.iter().filter_map(|name| field_name(name)).collect())
                }
            };
            Cel::List(Arc::new(List::identified(items, identity)))
        }
        Value::Object(fields) => {
            if let Some(inner) = schema.additional_schema() {
                return Cel::map_of(fields.iter().map(|(k, v)| (k.clone(), value(inner, v, inner.embedded))));
            }
            let whole = (object || schema.embedded) && !says_meta(schema);
            let mut out = BTreeMap::new();
            for (name, json) in fields {
                let of_object = whole && matches!(name.as_str(), "apiVersion" | "kind" | "metadata");
                let seen = match schema.properties.get(name) {
                    Some(_) | None if of_object && name == "metadata" => Some(metadata(json)),
                    Some(property) => Some(value(property, json, property.embedded)),
                    None if of_object => Some(Cel::from_json(json)),
                    None if schema.kind.is_empty() => Some(Cel::from_json(json)),
                    None => None,
                };
                let name = if schema.kind.is_empty() { Some(name.clone()) } else { field_name(name) };
                if let (Some(name), Some(seen)) = (name, seen) {
                    out.insert(Key::Text(name.into()), seen);
                }
            }
            Cel::Map(Arc::new(out))
        }
        other => Cel::from_json(other),
    }
}

/// Name and generateName, as upstream shows no more.
fn metadata(json: &Value) -> Cel {
    let field = |name: &str| Some((name.to_owned(), Cel::from_json(json.get(name)?)));
    Cel::map_of(["name", "generateName"].into_iter().filter_map(field))
}

fn formatted(format: &str, text: &str) -> Cel {
    let parsed = match format {
        "byte" => base64::engine::general_purpose::STANDARD.decode(text).ok().map(|b| Cel::Bytes(b.into())),
        "duration" => crate::duration::parse(text).ok().map(Cel::Duration),
        "date-time" => text.parse().ok().map(Cel::Time),
        "date" => format!("{text}T00:00:00Z").parse().ok().map(Cel::Time),
        _ => None,
    };
    parsed.unwrap_or_else(|| Cel::text_of(text))
}
