//! Lists that are sets or maps: no item twice.

use super::schema::{ListKind, Schema};
use crate::field::{FieldError, Path};
use crate::schema::node::parts;
use serde_json::{Map, Value};
use std::collections::HashMap;

/// Every item of a set, and every key of a map, that is there more than once.
pub(crate) fn check(schema: &Schema, value: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    if let Value::Array(items) = value {
        match schema.list {
            ListKind::Atomic => {}
            ListKind::Set => {
                for i in repeated(items.iter().map(Value::to_string)) {
                    errors.push(FieldError::duplicate(&path.index(i), items[i].clone()));
                }
            }
            ListKind::Map => map(schema, items, path, errors),
        }
    }
    for (step, inner, part) in parts(schema, value) {
        check(inner, part, &step.below(path), errors);
    }
}

fn map(schema: &Schema, items: &[Value], path: &Path, errors: &mut Vec<FieldError>) {
    if let Some((i, item)) = items.iter().enumerate().find(|(_, v)| !v.is_object() && !v.is_null()) {
        let why = "must be an object for an array of list-type map";
        return errors.push(FieldError::invalid(&path.index(i), item.clone(), why));
    }
    let keys: Vec<Value> = items
        .iter()
        .map(|item| {
            let given = |k: &String| Some((k.clone(), item.get(k)?.clone()));
            Value::Object(schema.list_keys.iter().filter_map(given).collect::<Map<_, _>>())
        })
        .collect();
    for i in repeated(keys.iter().map(Value::to_string)) {
        errors.push(FieldError::duplicate(&path.index(i), keys[i].clone()));
    }
}

/// The index of each value's second appearance.
fn repeated(values: impl Iterator<Item = String>) -> Vec<usize> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut out = Vec::new();
    for (i, value) in values.enumerate() {
        let times = seen.entry(value).or_default();
        *times += 1;
        if *times == 2 {
            out.push(i);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn items_are_told_once_of() {
        let schema = Schema::from_props(&json!({"type": "object", "properties": {
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a", "b"],
                "items": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}}}}}));
        let mut errors = Vec::new();
        let value = json!({"set": ["x", "y", "x", "x"], "map": [{"a": "1"}, {"a": "1", "b": 1}, {"a": "1"}]});
        check(&schema, &value, &Path::root(), &mut errors);
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["map[2]: Duplicate value: {\"a\":\"1\"}", "set[2]: Duplicate value: \"x\""]);
    }
}
