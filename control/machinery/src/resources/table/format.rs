//! Forms that several kinds' cells share.

use serde_json::{Value, json};

use crate::{
    access::{Fields, Get},
    labels::Selector,
};

pub(super) fn name(object: &Value) -> Value {
    json!(object.text("metadata.name"))
}

pub(super) fn or<'t>(text: &'t str, otherwise: &'t str) -> &'t str {
    if text.is_empty() { otherwise } else { text }
}

/// A number that reads as zero where it is absent.
pub(super) fn count(object: &Value, path: &str) -> Value {
    json!(object.int(path).unwrap_or_default())
}

/// A number or text, or what stands for its absence.
pub(super) fn scalar(value: &Value, otherwise: &str) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        _ => otherwise.to_owned(),
    }
}

/// `a=b,c=d`, or `<none>`.
pub(super) fn labels(labels: &Value) -> String {
    let pairs: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    or(&pairs.join(","), "<none>").to_owned()
}

/// A label selector as kubectl's `-l` takes it.
pub(super) fn selector(selector: &Value) -> String {
    match Selector::from_label_selector(selector) {
        Ok(parsed) if selector.is_object() => or(&parsed.to_string(), "<none>").to_owned(),
        Ok(_) => "<none>".to_owned(),
        Err(_) => "<error>".to_owned(),
    }
}

/// The names and images of a template's containers.
pub(super) fn containers(spec: &Value) -> (Value, Value) {
    let each = |key: &str| {
        let texts: Vec<&str> = spec.items("containers").iter().map(|container| container.text(key)).collect();
        json!(texts.join(","))
    };
    (each("name"), each("image"))
}

/// The first few of a list, and how many more there are.
pub(super) fn some(list: &[String], max: usize, separator: &str) -> String {
    let shown = list.iter().take(max).map(String::as_str).collect::<Vec<_>>().join(separator);
    match list.len().saturating_sub(max) {
        0 => shown,
        more => format!("{shown} + {more} more..."),
    }
}

pub(super) fn len(fields: Option<&Fields>) -> usize {
    fields.map_or(0, Fields::len)
}

/// The object's condition of a type.
pub(super) fn condition<'o>(object: &'o Value, kind: &str) -> Option<&'o Value> {
    object.items("status.conditions").iter().find(|condition| condition.text("type") == kind)
}

pub(super) fn is_true(object: &Value, kind: &str) -> bool {
    condition(object, kind).is_some_and(|condition| condition.text("status") == "True")
}
