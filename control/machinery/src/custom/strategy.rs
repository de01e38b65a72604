//! What becomes of a custom resource on its way in (upstream: `apiextensions-apiserver/pkg/registry/customresource`).
//!
//! Objects are in the version the client speaks; so are schema and rules.

use super::definition::{Scale, Version};
use super::schema::Schema;
use super::{lists, meta, validate};
use crate::access::{Get as _, copy, find, remove};
use crate::field::{ErrorType, FieldError, Path};
use crate::goformat::{go_type, go_value};
use crate::object;
use crate::resources::validate as builtin;
use serde_json::Value;

/// Makes a new object what objects start as: no status of its author's, generation 1.
pub fn prepare_create(version: &Version, object: &mut Value) {
    if version.status {
        remove(object, "status");
    }
    object::set_generation(object, 1);
}

/// Carries over the status, and counts a change of anything but metadata.
pub fn prepare_update(version: &Version, new: &mut Value, old: &Value) {
    if version.status {
        copy(new, old, "status");
    }
    let body = |v: &Value| -> Vec<(String, Value)> {
        let fields = v.as_object().into_iter().flatten();
        fields.filter(|(k, _)| *k != "metadata").map(|(k, v)| (k.clone(), v.clone())).collect()
    };
    let before = object::generation(old);
    object::set_generation(new, if body(new) == body(old) { before } else { before + 1 });
}

/// Carries over everything but the status.
pub fn prepare_status_update(new: &mut Value, old: &Value) {
    let mut kept = old.clone();
    copy(&mut kept, new, "status");
    for field in ["managedFields", "resourceVersion"] {
        let given = new.at("metadata").get(field).cloned();
        let metadata = object::metadata_mut(&mut kept);
        match given {
            Some(value) => metadata.insert(field.to_owned(), value),
            None => metadata.remove(field),
        };
    }
    *new = kept;
}

/// What is wrong with a new object.
#[must_use]
pub fn validate_create(version: &Version, object: &Value) -> Vec<FieldError> {
    let mut errors = type_meta(version, object);
    if !errors.is_empty() {
        return errors;
    }
    let root = Path::root();
    errors.extend(builtin::metadata(version.resource, object, None));
    if let Some(schema) = &version.schema {
        errors.extend(validate::check(schema, object, None, &root));
    }
    if let Some(scale) = &version.scale {
        replicas(object, &scale.spec_replicas, &mut errors);
        scale_status(object, scale, &mut errors);
    }
    if let Some(schema) = &version.schema {
        fields(schema, |s, name, value| meta::check(s, value, &root.child(name), &mut errors), object);
        lists::check(schema, object, &root, &mut errors);
        rules(schema, object, None, &mut errors);
    }
    errors
}

/// What is wrong with a change of the object itself.
#[must_use]
pub fn validate_update(version: &Version, new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = type_meta(version, new);
    if !errors.is_empty() {
        return errors;
    }
    let root = Path::root();
    errors.extend(builtin::metadata(version.resource, new, Some(old)));
    if let Some(schema) = &version.schema {
        errors.extend(validate::check(schema, new, Some(old), &root));
    }
    if let Some(scale) = &version.scale {
        replicas(new, &scale.spec_replicas, &mut errors);
        scale_status(new, scale, &mut errors);
    }
    if let Some(schema) = &version.schema {
        fields(schema, |s, name, value| meta::check(s, value, &root.child(name), &mut errors), new);
        unique(schema, new, old, &mut errors);
        rules(schema, new, Some(old), &mut errors);
    }
    errors
}

/// What is wrong with a change of the status.
#[must_use]
pub fn validate_status(version: &Version, new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = type_meta(version, new);
    if !errors.is_empty() {
        return errors;
    }
    errors.extend(builtin::metadata(version.resource, new, Some(old)));
    let schema = version.schema.as_deref();
    if let (Some(schema), Some(status)) = (schema.and_then(|s| s.properties.get("status")), new.get("status"))
    {
        errors.extend(validate::check(schema, status, old.get("status"), &Path::new("status")));
    }
    if let Some(scale) = &version.scale {
        scale_status(new, scale, &mut errors);
    }
    if let Some(schema) = schema {
        unique(schema, new, old, &mut errors);
        rules(schema, new, Some(old), &mut errors);
    }
    errors
}

/// Sets and maps of a change: an object that had repeats before may keep having them.
fn unique(schema: &Schema, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let mut before = Vec::new();
    lists::check(schema, old, &Path::root(), &mut before);
    if before.is_empty() {
        lists::check(schema, new, &Path::root(), errors);
    }
}

/// The rules, unless the object is so wrong that they cannot be asked.
fn rules(schema: &Schema, new: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    if !schema.ruled {
        return;
    }
    let blocking = |e: &FieldError| {
        matches!(
            e.error_type,
            ErrorType::NotSupported
                | ErrorType::Required
                | ErrorType::TooLong
                | ErrorType::TooMany
                | ErrorType::TypeInvalid
        )
    };
    if errors.iter().any(blocking) {
        let why = "some validation rules were not checked because the object was invalid; correct the existing \
                   errors to complete validation";
        errors.push(FieldError::invalid(&Path::root(), Value::Null, why));
        return;
    }
    errors.extend(super::rules::check(schema, new, old, &Path::root()));
}

fn fields(schema: &Schema, mut visit: impl FnMut(&Schema, &str, &Value), object: &Value) {
    for (name, value) in object.as_object().into_iter().flatten() {
        if let Some(inner) = schema.properties.get(name).filter(|_| name != "metadata") {
            visit(inner, name, value);
        }
    }
}

fn type_meta(version: &Version, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let wanted = version.resource.api_version(version.name);
    for (name, wanted) in [("kind", version.resource.kind), ("apiVersion", wanted.as_str())] {
        if object.text(name) != wanted {
            errors.push(FieldError::invalid(
                &Path::new(name),
                object.text(name),
                format!("must be {wanted}"),
            ));
        }
    }
    errors
}

fn accessor(path: &str, value: &Value, wanted: &str) -> String {
    let (shown, found) = (go_value(value), go_type(value));
    format!("{path} accessor error: {shown} is of the type {found}, expected {wanted}")
}

/// What is in the way of a path: a part of it that is there and is no object (upstream: `NestedFieldNoCopy`).
fn blocked(object: &Value, path: &str) -> Option<String> {
    let mut at = object;
    for (end, name) in path.trim_start_matches('.').split('.').scan(0, |end, name| {
        *end += name.len() + 1;
        Some((*end, name))
    }) {
        if at.is_null() {
            return None;
        }
        if !at.is_object() {
            let until = path.trim_start_matches('.').get(..end - 1).unwrap_or(path);
            return Some(accessor(&format!(".{until}"), at, "map[string]interface{}"));
        }
        at = at.get(name)?;
    }
    None
}

fn replicas(object: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let field = Path::from(path);
    if let Some(why) = blocked(object, path) {
        errors.push(FieldError::invalid(&field, 0, why));
        return;
    }
    let Some(value) = find(object, path) else { return };
    match value.as_i64() {
        None => errors.push(FieldError::invalid(&field, 0, accessor(path, value, "int64"))),
        Some(count) if count < 0 => {
            errors.push(FieldError::invalid(&field, count, "should be a non-negative integer"));
        }
        Some(count) if count > i64::from(i32::MAX) => {
            let why = format!("should be less than or equal to {}", i32::MAX);
            errors.push(FieldError::invalid(&field, count, why));
        }
        Some(_) => {}
    }
}

fn scale_status(object: &Value, scale: &Scale, errors: &mut Vec<FieldError>) {
    replicas(object, &scale.status_replicas, errors);
    if let Some(path) = &scale.selector
        && let Some(why) = blocked(object, path)
    {
        errors.push(FieldError::invalid(&Path::from(path.as_str()), "", why));
    }
    if let Some(path) = &scale.selector
        && let Some(value) = find(object, path).filter(|v| !v.is_string())
    {
        errors.push(FieldError::invalid(&Path::from(path.as_str()), "", accessor(path, value, "string")));
    }
}

const STANDARD_FINALIZERS: [&str; 3] = ["orphan", "foregroundDeletion", "kubernetes"];

/// The warnings about an object that is accepted: finalizers without a domain.
#[must_use]
pub fn warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    let before: Vec<&str> = old.into_iter().flat_map(object::finalizers).collect();
    let mut added: Vec<&str> = object::finalizers(new).filter(|f| !before.contains(f)).collect();
    added.sort_unstable();
    added.dedup();
    let mut out = Vec::new();
    for name in added {
        let quoted = crate::goformat::go_quote(name);
        let warning = |what: &str| format!("metadata.finalizers: {quoted}: {what}");
        out.extend(crate::names::qualified_name(name).iter().map(|m| warning(m)));
        if !name.contains('/') && !STANDARD_FINALIZERS.contains(&name) {
            out.push(warning(if name.contains('.') {
                "prefer a domain-qualified finalizer name including a path (/) to avoid accidental conflicts with other finalizer writers"
            } else {
                "prefer a domain-qualified finalizer name to avoid accidental conflicts with other finalizer writers"
            }));
        }
    }
    out
}
