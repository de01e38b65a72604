//! How a custom resource's values merge under server-side apply: maps of a value without a schema do, lists do not.

use super::node::Custom;
use super::schema::ListKind;
use crate::apply::structure::{Rule, Structure};
use serde_json::Value;

impl Structure for Custom<'_> {
    fn rule(&self, value: &Value) -> Rule {
        let schema = match *self {
            Custom::Metadata(builtin) => return builtin.rule(value),
            Custom::Free | Custom::Object(None) => {
                return if value.is_object() { Rule::Struct } else { Rule::Atomic };
            }
            Custom::Object(Some(schema)) | Custom::Value { schema, .. } => schema,
        };
        match value {
            Value::Object(_) if schema.map_atomic => Rule::Atomic,
            Value::Object(_) if schema.additional_schema().is_some() => Rule::Map,
            Value::Object(_) => Rule::Struct,
            Value::Array(_) => match schema.list {
                ListKind::Atomic => Rule::Atomic,
                ListKind::Set => Rule::ListSet,
                ListKind::Map => Rule::ListMap(schema.list_keys.clone()),
            },
            _ => Rule::Atomic,
        }
    }

    fn free(&self) -> Self {
        Custom::Free
    }

    fn key_default(&self, key: &str) -> Option<Value> {
        match self {
            Custom::Metadata(builtin) => builtin.key_default(key),
            Custom::Object(Some(schema)) | Custom::Value { schema, .. } => {
                schema.properties.get(key)?.default.clone()
            }
            Custom::Object(None) | Custom::Free => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::managed::{Managed, Manager};
    use crate::apply::set::Set;
    use crate::apply::{self, Write};
    use crate::custom::schema::Schema;
    use serde_json::json;

    fn schema() -> Schema {
        Schema::from_props(
            &json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "replicas": {"type": "integer"},
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port", "protocol"],
                "items": {"type": "object", "properties": {"port": {"type": "integer"}, "protocol": {"type": "string", "default": "TCP"}}}},
            "args": {"type": "array", "items": {"type": "string"}},
            "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}}}}}}),
        )
    }

    #[test]
    fn lists_of_kind_map_merge_and_others_do_not() {
        let schema = schema();
        let manager = |name: &str| Manager {
            name: name.into(),
            applies: true,
            api_version: "acme.com/v1".into(),
            ..Manager::default()
        };
        let config = |ports: Value, args: Value| json!({"apiVersion": "acme.com/v1", "kind": "W", "metadata": {"name": "x"}, "spec": {"ports": ports, "args": args}});
        let structure = Custom::Object(Some(&schema));
        let nothing = json!({"apiVersion": "acme.com/v1", "kind": "W"});
        let (nobody, reset) = (Manager::default(), Set::default());
        let write = Write { manager: &nobody, now: "now", force: false, reset: &reset };
        let one = apply::apply(
            structure,
            &nothing,
            &config(json!([{"port": 80}]), json!(["a"])),
            &Managed::default(),
            &Write { manager: &manager("one"), ..write.clone() },
        )
        .unwrap();
        let two = apply::apply(
            structure,
            &one.object,
            &config(json!([{"port": 81}]), json!(["a"])),
            &one.managed,
            &Write { manager: &manager("two"), ..write.clone() },
        )
        .unwrap();
        assert_eq!(two.object["spec"]["ports"].as_array().unwrap().len(), 2);
        let refused = apply::apply(
            structure,
            &two.object,
            &config(json!([]), json!(["b"])),
            &two.managed,
            &Write { manager: &manager("two"), ..write.clone() },
        )
        .unwrap_err();
        assert_eq!(refused.message, "Apply failed with 1 conflict: conflict with \"one\": .spec.args");
    }
}
