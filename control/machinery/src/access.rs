//! Short ways through a JSON object for code that reads and fills in many fields. Paths are names with dots between.

use serde_json::{Map, Value};

/// A JSON object's fields.
pub type Fields = Map<String, Value>;

static NULL: Value = Value::Null;

/// Reading: absent, null and ill-typed all read as the zero value, as they would after decoding into upstream's types.
pub trait Get {
    /// The value at a dotted path, or null.
    fn at(&self, path: &str) -> &Value;
    /// The string at a dotted path, or "".
    fn text(&self, path: &str) -> &str {
        self.at(path).as_str().unwrap_or_default()
    }
    /// The integer at a dotted path.
    fn int(&self, path: &str) -> Option<i64> {
        self.at(path).as_i64()
    }
    /// Whether the path holds `true`.
    fn flag(&self, path: &str) -> bool {
        self.at(path).as_bool().unwrap_or_default()
    }
    /// The list at a dotted path, or none.
    fn items(&self, path: &str) -> &[Value] {
        self.at(path).as_array().map(Vec::as_slice).unwrap_or_default()
    }
    /// The object at a dotted path.
    fn fields(&self, path: &str) -> Option<&Fields> {
        self.at(path).as_object()
    }
    /// Whether the path holds anything but null.
    fn has(&self, path: &str) -> bool {
        !self.at(path).is_null()
    }
}

impl Get for Value {
    fn at(&self, path: &str) -> &Value {
        match path.split_once('.') {
            Some((first, rest)) => self.get(first).map_or(&NULL, |below| below.at(rest)),
            None if path.is_empty() => self,
            None => self.get(path).unwrap_or(&NULL),
        }
    }
}

/// The value at a dotted path, null or not; none where it is absent. Definitions begin such paths with a dot: `.spec.replicas`.
#[must_use]
pub fn find<'v>(object: &'v Value, path: &str) -> Option<&'v Value> {
    path.trim_start_matches('.').split('.').try_fold(object, |value, key| value.get(key))
}

/// Sets the value at a dotted path; what is on the way and no object is made one.
pub fn set_at(parent: &mut Value, path: &str, value: impl Into<Value>) {
    match path.trim_start_matches('.').split_once('.') {
        None => set(parent, path.trim_start_matches('.'), value),
        Some((key, rest)) => {
            if !parent.at(key).is_object() {
                set(parent, key, Fields::new());
            }
            if let Some(child) = parent.get_mut(key) {
                set_at(child, rest, value);
            }
        }
    }
}

/// The object under a key, made if absent; none where something else stands there.
pub(crate) fn object<'v>(parent: &'v mut Value, key: &str) -> Option<&'v mut Value> {
    let fields = parent.as_object_mut()?;
    let child = fields.entry(key).or_insert_with(|| Value::Object(Fields::new()));
    if child.is_null() {
        *child = Value::Object(Fields::new());
    }
    child.is_object().then_some(child)
}

/// The object at a dotted path, where each step is there already.
pub(crate) fn existing<'v>(parent: &'v mut Value, path: &str) -> Option<&'v mut Value> {
    path.split('.').try_fold(parent, |value, key| value.get_mut(key)).filter(|value| value.is_object())
}

/// The list's entries at a dotted path.
pub(crate) fn entries<'v>(parent: &'v mut Value, path: &str) -> impl Iterator<Item = &'v mut Value> {
    path.split('.')
        .try_fold(parent, |value, key| value.get_mut(key))
        .and_then(Value::as_array_mut)
        .map(|list| list.iter_mut())
        .into_iter()
        .flatten()
}

/// Fills in a field that is absent or null.
pub(crate) fn default(parent: &mut Value, key: &str, value: impl Into<Value>) {
    if let Some(fields) = parent.as_object_mut() {
        match fields.get_mut(key) {
            Some(Value::Null) | None => {
                fields.insert(key.to_owned(), value.into());
            }
            Some(_) => {}
        }
    }
}

/// Fills in a string that is absent, null or empty: for fields that are no pointer upstream.
pub(crate) fn default_text(parent: &mut Value, key: &str, value: &str) {
    if parent.text(key).is_empty() && !matches!(parent.at(key), Value::Number(_) | Value::Bool(_)) {
        set(parent, key, value);
    }
}

/// Fills in a number that is absent, null or zero: for fields that are no pointer upstream.
pub(crate) fn default_int(parent: &mut Value, key: &str, value: i64) {
    if matches!(parent.at(key), Value::Null) || parent.int(key) == Some(0) {
        set(parent, key, value);
    }
}

/// Writes a field of an object.
pub(crate) fn set(parent: &mut Value, key: &str, value: impl Into<Value>) {
    if let Some(fields) = parent.as_object_mut() {
        fields.insert(key.to_owned(), value.into());
    }
}

/// Takes a field out of an object.
pub(crate) fn remove(parent: &mut Value, key: &str) -> Option<Value> {
    parent.as_object_mut()?.remove(key)
}

/// Makes a field what it is in another object: present and equal, or absent.
pub(crate) fn copy(to: &mut Value, from: &Value, key: &str) {
    match from.get(key) {
        Some(value) => set(to, key, value.clone()),
        None => {
            remove(to, key);
        }
    }
}

/// Whether two values mean the same: absent, null, empty text and empty containers do, at any depth, as they do once
/// decoded into upstream's types.
pub(crate) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            a.iter().all(|(key, value)| same(value, b.get(key).unwrap_or(&NULL)))
                && b.iter().all(|(key, value)| a.contains_key(key) || is_empty(value))
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        _ => a == b || (is_empty(a) && is_empty(b)),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_on_the_way_and_no_object_must_not_stop_a_value_from_being_set() {
        let mut object = json!({"a": 1, "b": {"c": 2}});
        set_at(&mut object, ".a.b.c", 3);
        set_at(&mut object, "b.d", "x");
        assert_eq!(object, json!({"a": {"b": {"c": 3}}, "b": {"c": 2, "d": "x"}}));
        assert_eq!(find(&object, ".a.b.c"), Some(&json!(3)));
        assert_eq!(find(&json!({"a": null}), "a"), Some(&Value::Null), "there, and null");
        assert_eq!(find(&object, "a.b.x"), None);
        assert_eq!(
            (object.int("a.b.c"), object.at("a.x.y"), object.text("b.d")),
            (Some(3), &Value::Null, "x")
        );
    }
}
