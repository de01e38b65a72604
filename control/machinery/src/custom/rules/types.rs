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

/// How many values of a schema fit into a request, with a comma between two.
pub(super) fn most(schema: &Schema) -> u64 {
    REQUEST / (least(schema) + 1)
}

fn bound(most: Option<i64>, other: u64) -> u64 {
    most.and_then(|m| u64::try_from(m).ok()).unwrap_or(other)
}

/// How few bytes a value of the schema takes in a request.
fn least(schema: &Schema) -> u64 {
    if schema.int_or_string {
        return 1;
    }
    match (schema.kind.as_str(), schema.format.as_str()) {
        ("boolean", _) => 4,
        ("string", "duration") => 3,
        ("string", "date") => 12,
        ("string", "date-time" | "datetime") => 21,
        ("object", _) if schema.additional_schema().is_none() => {
            let needed = |(name, property): (&String, &Schema)| {
                let wanted = schema.required.contains(name) && property.default.is_none();
                (wanted && of(property, property.embedded).is_some())
                    .then(|| name.len() as u64 + least(property) + 4)
            };
            2 + schema.properties.iter().filter_map(needed).sum::<u64>()
        }
        ("object" | "array" | "string", _) => 2,
        _ => 1,
    }
}

/// The type of a schema's values; none for values no rule can use.
pub(super) fn of(schema: &Schema, object: bool) -> Option<Type> {
    if schema.int_or_string {
        return Some(Type::Dyn);
    }
    match schema.kind.as_str() {
        "boolean" => Some(Type::Bool),
        "integer" => Some(Type::Int),
        "number" => Some(Type::Double),
        "string" => Some(match schema.format.as_str() {
            "byte" => Type::Bytes(bound(schema.max_length, LONGEST)),
            "duration" => Type::Duration,
            "date" | "date-time" | "datetime" => Type::Time,
            // A character is up to four bytes long.
            _ if schema.max_length.is_some() => {
                Type::Text(bound(schema.max_length, LONGEST).saturating_mul(4))
            }
            _ if !schema.choices.is_empty() => {
                let longest = schema.choices.iter().filter_map(Value::as_str).map(str::len).max();
                Type::Text(longest.unwrap_or_default() as u64)
            }
            _ => Type::Text(LONGEST),
        }),
        "array" => {
            let item = of(schema.items.as_deref()?, schema.items.as_ref().is_some_and(|i| i.embedded))?;
            let fit = LONGEST / (schema.items.as_deref().map_or(1, least) + 1);
            Some(Type::List(Box::new(item), bound(schema.max_items, fit)))
        }
        "object" => {
            if let Some(inner) = schema.additional_schema() {
                let value = of(inner, inner.embedded)?;
                let fit = LONGEST / (least(inner) + 6);
                return Some(Type::Map(
                    // Upstream knows no length of keys.
                    Box::new(Type::Text(0)),
                    Box::new(value),
                    bound(schema.max_properties, fit),
                ));
            }
            let mut fields = BTreeMap::new();
            for (name, property) in &schema.properties {
                if let (Some(name), Some(kind)) = (field_name(name), of(property, property.embedded)) {
                    fields.insert(name, kind);
                }
            }
            if object || schema.embedded {
                fields.insert("apiVersion".to_owned(), Type::Text(LONGEST));
                fields.insert("kind".to_owned(), Type::Text(LONGEST));
                let named = [
                    ("name".to_owned(), Type::Text(LONGEST)),
                    ("generateName".to_owned(), Type::Text(LONGEST)),
                ];
                let metadata = ObjectType { name: "object".into(), fields: named.into(), open: false };
                fields.insert("metadata".to_owned(), Type::Object(Arc::new(metadata)));
            }
            Some(Type::Object(Arc::new(ObjectType { name: "object".into(), fields, open: false })))
        }
        _ => None,
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
            let whole = object || schema.embedded;
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
        "date-time" | "datetime" => text.parse().ok().map(Cel::Time),
        "date" => format!("{text}T00:00:00Z").parse().ok().map(Cel::Time),
        _ => None,
    };
    parsed.unwrap_or_else(|| Cel::text_of(text))
}
