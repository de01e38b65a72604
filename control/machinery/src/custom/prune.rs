//! Pruning: fields a schema does not know are dropped and named; nulls that mean nothing are dropped.

use super::schema::Schema;
use serde_json::Value;

const META: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Drops what an object's schema does not know, at the root but for the fields every object has. Gives the sorted paths of
/// what went: `spec.list[0].x`.
pub(crate) fn prune(root: &Schema, object: &mut Value) -> Vec<String> {
    let mut walk = Walk { path: String::new(), gone: Vec::new() };
    walk.visit(object, Some(root), true);
    walk.gone.sort_unstable();
    walk.gone
}

/// Drops what the schema of a value inside an object does not know.
pub(crate) fn prune_value(schema: &Schema, value: &mut Value) -> Vec<String> {
    let mut walk = Walk { path: String::new(), gone: Vec::new() };
    walk.visit(value, Some(schema), false);
    walk.gone
}

struct Walk {
    path: String,
    gone: Vec<String>,
}

impl Walk {
    fn below(&mut self, name: &str, visit: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        if length > 0 {
            self.path.push('.');
        }
        self.path.push_str(name);
        visit(self);
        self.path.truncate(length);
    }

    fn item(&mut self, index: usize, visit: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        self.path.push_str(&format!("[{index}]"));
        visit(self);
        self.path.truncate(length);
    }

    fn name(&mut self, name: &str) {
        let dot = if self.path.is_empty() { "" } else { "." };
        self.gone.push(format!("{}{dot}{name}", self.path));
    }

    fn visit(&mut self, value: &mut Value, schema: Option<&Schema>, root: bool) {
        if let Some(schema) = schema.filter(|s| s.preserve) {
            return self.keep(value, schema, root);
        }
        match value {
            Value::Object(fields) => {
                let names: Vec<String> = fields.keys().cloned().collect();
                for name in names {
                    if schema.is_some_and(|s| s.embedded || root) && META.contains(&name.as_str()) {
                        continue;
                    }
                    let known = schema.map(|s| (s.properties.get(&name), s));
                    match known {
                        Some((Some(property), _)) => {
                            if let Some(value) = fields.get_mut(&name) {
                                self.below(&name, |w| w.visit(value, Some(property), false));
                            }
                        }
                        Some((None, s)) if s.additional.is_some() => {
                            let inner = s.additional_schema();
                            if let Some(value) = fields.get_mut(&name) {
                                self.below(&name, |w| w.visit(value, inner, false));
                            }
                        }
                        _ => {
                            if !META.contains(&name.as_str()) || !self.path.is_empty() {
                                self.name(&name);
                            }
                            fields.remove(&name);
                        }
                    }
                }
            }
            Value::Array(items) => {
                let inner = schema.and_then(|s| s.items.as_deref());
                for (i, item) in items.iter_mut().enumerate() {
                    self.item(i, |w| w.visit(item, inner, false));
                }
            }
            _ => {}
        }
    }

    /// Unknown fields stay; known ones are looked into.
    fn keep(&mut self, value: &mut Value, schema: &Schema, root: bool) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields.iter_mut() {
                    if (schema.embedded || root) && META.contains(&name.as_str()) {
                        continue;
                    }
                    if let Some(property) = schema.properties.get(name) {
                        self.below(name, |w| w.visit(value, Some(property), false));
                    } else if schema.additional.is_some() {
                        self.below(name, |w| w.visit(value, schema.additional_schema(), false));
                    }
                }
            }
            Value::Array(list) => {
                if let Some(inner) = schema.items.as_deref() {
                    for (i, item) in list.iter_mut().enumerate() {
                        self.item(i, |w| w.keep(item, inner, false));
                    }
                }
            }
            _ => {}
        }
    }
}

/// Drops entries that are null where null is no value and nothing stands in for it.
pub(crate) fn drop_nulls(schema: Option<&Schema>, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, value| {
                let field = schema.and_then(|s| s.field(name));
                !(value.is_null() && field.is_some_and(|s| !s.nullable && s.default.is_none()))
            });
            for (name, value) in fields.iter_mut() {
                drop_nulls(schema.and_then(|s| s.field(name)), value);
            }
        }
        Value::Array(items) => {
            let inner = schema.and_then(|s| s.items.as_deref());
            items.iter_mut().for_each(|item| drop_nulls(inner, item));
        }
        _ => {}
    }
}

/// Fills in what is absent (or null where null is no value) and has a default.
pub(crate) fn fill(schema: &Schema, value: &mut Value) {
    let stands_in = |value: &Value, schema: &Schema| value.is_null() && !schema.nullable;
    match value {
        Value::Object(fields) => {
            for (name, property) in &schema.properties {
                if let Some(default) = &property.default
                    && fields.get(name).is_none_or(|v| stands_in(v, property))
                {
                    fields.insert(name.clone(), default.clone());
                }
            }
            for (name, value) in fields.iter_mut() {
                if let Some(property) = schema.properties.get(name) {
                    fill(property, value);
                } else if let Some(inner) = schema.additional_schema() {
                    if stands_in(value, inner) {
                        *value = inner.default.clone().unwrap_or_default();
                    }
                    fill(inner, value);
                }
            }
        }
        Value::Array(items) => {
            let Some(inner) = schema.items.as_deref() else { return };
            for item in items {
                if stands_in(item, inner) {
                    *item = inner.default.clone().unwrap_or_default();
                }
                fill(inner, item);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn schema() -> Schema {
        Schema::from_props(&json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "known": {"type": "string", "default": "d"},
            "nullable": {"type": "string", "nullable": true, "default": "n"},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                "properties": {"inner": {"type": "object", "properties": {"x": {"type": "string"}}}}},
            "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"x": {"type": "string"}}}},
            "list": {"type": "array", "items": {"type": "object", "properties": {"x": {"type": "string"}}}},
            "embedded": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}},
        }}}}))
    }

    #[test]
    fn unknown_fields_go_and_are_named() {
        let mut object = json!({
            "apiVersion": "a/v1", "kind": "K", "metadata": {"name": "x"}, "extra": 1,
            "spec": {"known": "k", "unknown": 1, "free": {"anything": 1, "inner": {"x": "1", "y": 2}},
                "map": {"a": {"x": "1", "y": 1}}, "list": [{"x": "1"}, {"z": 1}],
                "embedded": {"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": {"a": 1}}}});
        let gone = prune(&schema(), &mut object);
        assert_eq!(
            gone,
            [
                "extra",
                "spec.embedded.spec.a",
                "spec.free.inner.y",
                "spec.list[1].z",
                "spec.map.a.y",
                "spec.unknown"
            ]
        );
        assert_eq!(object["spec"]["free"], json!({"anything": 1, "inner": {"x": "1"}}));
        assert_eq!(object["spec"]["embedded"]["kind"], "Pod");
        assert_eq!(object["metadata"]["name"], "x");
    }

    #[test]
    fn nulls_and_defaults() {
        let mut object = json!({"spec": {"known": null, "nullable": null, "free": null}});
        drop_nulls(Some(&schema()), &mut object);
        fill(&schema(), &mut object);
        assert_eq!(object, json!({"spec": {"known": "d", "nullable": null}}));
        let mut absent = json!({});
        fill(&schema(), &mut absent);
        assert_eq!(absent, json!({}));
    }

    fn json_values() -> impl Strategy<Value = Value> {
        let names =
            prop::sample::select(vec!["spec", "known", "free", "inner", "map", "list", "x", "y", "metadata"]);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            "[a-z]{0,3}".prop_map(Value::from)
        ];
        leaf.prop_recursive(5, 32, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(names.clone().prop_map(str::to_owned), inner, 0..5)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_was_pruned_and_filled_stays_as_it_is(mut value in json_values()) {
            prune(&schema(), &mut value);
            drop_nulls(Some(&schema()), &mut value);
            fill(&schema(), &mut value);
            let once = value.clone();
            prop_assert!(prune(&schema(), &mut value).is_empty());
            drop_nulls(Some(&schema()), &mut value);
            fill(&schema(), &mut value);
            prop_assert_eq!(value, once);
        }
    }
}
