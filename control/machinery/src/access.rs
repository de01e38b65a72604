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
    /// The entries of a map of strings at a dotted path.
    fn texts(&self, path: &str) -> impl Iterator<Item = (&str, &str)> {
        let entries = self.fields(path).into_iter().flatten();
        entries.filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
    }
    /// The value at a dotted path, unless it is absent or null.
    fn present(&self, path: &str) -> Option<&Value> {
        Some(self.at(path)).filter(|value| !value.is_null())
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
    *slot(parent, path) = value.into();
}

/// The object at a dotted path; anything else there or on the way becomes an object.
pub fn object_at<'v>(parent: &'v mut Value, path: &str) -> &'v mut Fields {
    as_object(slot(parent, path))
}

/// The list at a dotted path; anything else there becomes a list.
pub fn list_at<'v>(parent: &'v mut Value, path: &str) -> &'v mut Vec<Value> {
    let slot = slot(parent, path);
    if !slot.is_array() {
        *slot = Value::Array(Vec::new());
    }
    match slot {
        Value::Array(list) => list,
        // Made a list above.
        _ => unreachable!("not a list"),
    }
}

/// Takes the value at a dotted path out of its object.
pub fn remove_at(parent: &mut Value, path: &str) -> Option<Value> {
    let (above, key) = path.rsplit_once('.').unwrap_or(("", path));
    let above = above.split('.').filter(|key| !key.is_empty());
    above.into_iter().try_fold(parent, |value, key| value.get_mut(key))?.as_object_mut()?.remove(key)
}

/// Makes the value at a dotted path what it is in another object; absent there, it is removed here.
pub fn copy_at(from: &Value, to: &mut Value, path: &str) {
    match from.present(path) {
        Some(value) => set_at(to, path, value.clone()),
        None => {
            remove_at(to, path);
        }
    }
}

/// The place at a dotted path, null where nothing was.
fn slot<'v>(parent: &'v mut Value, path: &str) -> &'v mut Value {
    let keys = path.trim_start_matches('.').split('.');
    keys.fold(parent, |value, key| as_object(value).entry(key).or_insert(Value::Null))
}

fn as_object(value: &mut Value) -> &mut Fields {
    if !value.is_object() {
        *value = Value::Object(Fields::new());
    }
    match value {
        Value::Object(fields) => fields,
        // Made an object above.
        _ => unreachable!("not an object"),
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
        list_at(&mut object, "b.d.e").push(json!(1));
        object_at(&mut object, "b").insert("c.d".to_owned(), json!(null));
        assert_eq!(object["b"], json!({"c": 2, "c.d": null, "d": {"e": [1]}}));
        assert_eq!((object.present("b.d.x"), object.present("b.d.e")), (None, Some(&json!([1]))));
        assert_eq!(
            (remove_at(&mut object, "b.d"), remove_at(&mut object, "b.x.y")),
            (Some(json!({"e": [1]})), None)
        );
        let from = object.clone();
        copy_at(&from, &mut object, "a.b.x");
        copy_at(&json!({"a": {"b": 4}}), &mut object, "a.b");
        assert_eq!(object["a"], json!({"b": 4}));
        object = json!({"a": {"b": {"c": 3}}, "b": {"d": "x"}});
        assert_eq!(
            (object.int("a.b.c"), object.at("a.x.y"), object.text("b.d")),
            (Some(3), &Value::Null, "x")
        );
    }
}
