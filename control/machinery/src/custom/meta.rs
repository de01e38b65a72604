//! `apiVersion`, `kind` and `metadata` of custom resources and of whole objects embedded in them: they have a type though the
//! schema says nothing of it.

use super::node;
use super::schema::Schema;
use crate::access::Get as _;
use crate::field::{FieldError, Path};
use crate::names;
use crate::resources::validate;
use crate::schema;
use crate::schema::node::{Of, parts, parts_mut};
use serde_json::Value;

/// Brings a `metadata` to its type: what it does not know is dropped and named as `unknown field "metadata.x"`. With
/// `lenient`, fields of the wrong type are dropped, otherwise they are the error.
///
/// # Errors
/// For the first field of the wrong type, in Go's words.
pub(crate) fn normalize(metadata: &mut Value, prefix: &str, lenient: bool) -> Result<Vec<String>, String> {
    let Some(Of::Struct { id, .. }) = node::metadata().map(|metadata| metadata.of) else {
        return Ok(Vec::new());
    };
    let table = schema::builtin();
    let prefixed = |unknown: Vec<String>| {
        let rename = |text: String| match text.strip_prefix("unknown field \"") {
            Some(path) => format!("unknown field \"{prefix}metadata.{path}"),
            None => text,
        };
        unknown.into_iter().map(rename).collect()
    };
    let mut normalized = match table.normalize(id, metadata.clone()) {
        Ok(normalized) => normalized,
        Err(error) if !lenient => return Err(error.to_string()),
        Err(_) => {
            let fields = metadata.as_object().cloned().unwrap_or_default();
            let fits = |(name, value): &(String, Value)| {
                let mut one = serde_json::Map::new();
                one.insert(name.clone(), value.clone());
                table.normalize(id, Value::Object(one)).is_ok()
            };
            let kept: serde_json::Map<String, Value> = fields.into_iter().filter(fits).collect();
            table.normalize(id, Value::Object(kept)).map_err(|e| e.to_string())?
        }
    };
    if let Some(fields) = normalized.value.as_object_mut()
        && fields.get("creationTimestamp").is_some_and(Value::is_null)
    {
        fields.remove("creationTimestamp");
    }
    *metadata = normalized.value;
    Ok(prefixed(normalized.unknown))
}

/// Brings embedded objects' metadata to its type, at any depth.
///
/// # Errors
/// For the first field of the wrong type, unless `lenient`.
pub(crate) fn coerce(
    schema: &Schema,
    value: &mut Value,
    path: &Path,
    lenient: bool,
    unknown: &mut Vec<String>,
) -> Result<(), FieldError> {
    if let Some(fields) = value.as_object_mut().filter(|_| schema.embedded) {
        for name in ["apiVersion", "kind"] {
            match fields.get(name) {
                None | Some(Value::String(_)) => {}
                Some(_) if lenient => {
                    fields.remove(name);
                }
                Some(other) => {
                    return Err(FieldError::invalid(&path.child(name), other.clone(), "must be a string"));
                }
            }
        }
        if let Some(metadata) = fields.get_mut("metadata") {
            let before = metadata.clone();
            match normalize(metadata, &format!("{}.", path.as_str()), lenient) {
                Ok(problems) => unknown.extend(problems),
                Err(why) => return Err(FieldError::invalid(&path.child("metadata"), before, why)),
            }
        }
    }
    for (step, inner, part) in parts_mut(schema, value) {
        coerce(inner, part, &step.below(path), lenient, unknown)?;
    }
    Ok(())
}

/// What is wrong with embedded objects, at any depth.
pub(crate) fn check(schema: &Schema, value: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    if schema.embedded && value.is_object() {
        embedded(value, path, errors);
    }
    for (step, inner, part) in parts(schema, value) {
        check(inner, part, &step.below(path), errors);
    }
}

/// What is wrong with one embedded object's type and metadata.
pub(crate) fn embedded(object: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    for name in ["apiVersion", "kind"] {
        let path = path.child(name);
        match object.get(name) {
            None => errors.push(FieldError::required(&path, "")),
            Some(Value::String(text)) if text.is_empty() => {
                errors.push(FieldError::invalid(&path, "", "must not be empty"));
            }
            Some(Value::String(text)) if name == "apiVersion" => {
                if text.matches('/').count() > 1 {
                    let why = format!("unexpected GroupVersion string: {text}");
                    errors.push(FieldError::invalid(&path, text.as_str(), why));
                }
            }
            Some(Value::String(text)) => {
                let wrong = names::dns1035_label(&text.to_lowercase());
                if !wrong.is_empty() {
                    let why = format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
                    errors.push(FieldError::invalid(&path, text.as_str(), why));
                }
            }
            Some(other) => errors.push(FieldError::invalid(&path, other.clone(), "must be a string")),
        }
    }
    if object.has("metadata") {
        validate::embedded_metadata(object, &path.child("metadata"), errors);
    }
}
