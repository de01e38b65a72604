//! Reading and writing an object's members in place, tolerant of any shape: a missing or mistyped member reads as empty.

use serde_json::{Map, Value};

/// The member at `path`, if all of it exists.
pub(crate) fn at<'a>(object: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(object, |v, name| v.get(name)).filter(|v| !v.is_null())
}

/// The text at `path`, or the empty string.
pub(crate) fn text<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    at(object, path).and_then(Value::as_str).unwrap_or_default()
}

/// The items at `path`, or none.
pub(crate) fn items<'a>(object: &'a Value, path: &[&str]) -> &'a [Value] {
    at(object, path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The object at `path`, made (in place of anything else that was there) if need be.
pub(crate) fn object_mut<'a>(object: &'a mut Value, path: &[&str]) -> &'a mut Map<String, Value> {
    let mut here = object;
    for name in path {
        here = as_object(here).entry((*name).to_owned()).or_insert(Value::Null);
    }
    as_object(here)
}

fn as_object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        // Made an object two lines up.
        _ => unreachable!("not an object"),
    }
}

/// The list at `path`, made if need be.
pub(crate) fn list_mut<'a>(object: &'a mut Value, path: &[&str]) -> &'a mut Vec<Value> {
    let (last, parents) = path.split_last().unwrap_or((&"", &[]));
    let slot = object_mut(object, parents).entry((*last).to_owned()).or_insert(Value::Null);
    if !slot.is_array() {
        *slot = Value::Array(Vec::new());
    }
    match slot {
        Value::Array(list) => list,
        // Made a list two lines up.
        _ => unreachable!("not a list"),
    }
}

/// Sets the member at `path`.
pub(crate) fn set(object: &mut Value, path: &[&str], value: impl Into<Value>) {
    if let Some((last, parents)) = path.split_last() {
        object_mut(object, parents).insert((*last).to_owned(), value.into());
    }
}

/// Removes the member at `path`.
pub(crate) fn remove(object: &mut Value, path: &[&str]) -> Option<Value> {
    let (last, parents) = path.split_last()?;
    let mut here = object;
    for name in parents {
        here = here.get_mut(name)?;
    }
    here.as_object_mut()?.remove(*last)
}

/// Copies the member at `path` from one object to another; absent there, it is removed here.
pub(crate) fn copy(from: &Value, to: &mut Value, path: &[&str]) {
    match at(from, path) {
        Some(value) => set(to, path, value.clone()),
        None => {
            remove(to, path);
        }
    }
}

/// `metadata.name`.
pub(crate) fn name(object: &Value) -> &str {
    text(object, &["metadata", "name"])
}

/// `metadata.namespace`.
pub(crate) fn namespace(object: &Value) -> &str {
    text(object, &["metadata", "namespace"])
}

/// `metadata.finalizers`.
pub(crate) fn finalizers(object: &Value) -> Vec<&str> {
    items(object, &["metadata", "finalizers"]).iter().filter_map(Value::as_str).collect()
}

/// True once a delete was asked for.
pub(crate) fn deleting(object: &Value) -> bool {
    at(object, &["metadata", "deletionTimestamp"]).is_some()
}

/// `metadata.labels` or another map of texts.
pub(crate) fn texts<'a>(object: &'a Value, path: &[&str]) -> impl Iterator<Item = (&'a str, &'a str)> {
    at(object, path)
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(k, v)| Some((k.as_str(), v.as_str()?)))
}

/// The time as `metav1.Time` writes it: UTC, whole seconds.
pub(crate) fn time(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
