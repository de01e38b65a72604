//! How a custom resource's values merge under server-side apply.

use super::schema::{ListKind, Schema};
use crate::apply::structure::{Builtin, Rule, Structure};
use crate::object::Gvk;
use crate::schema;
use serde_json::Value;

/// A value of a custom resource.
#[derive(Clone, Copy, Debug)]
pub enum Custom<'s> {
    /// The object, or an object in it.
    Object(Option<&'s Schema>),
    /// A value its schema describes.
    Value(&'s Schema),
    /// A value no schema describes: maps merge, lists do not.
    Free,
    /// `metadata`.
    Metadata(Builtin<'s>),
}

/// The structure of `metadata`, as any built-in object has it.
fn metadata() -> Option<Custom<'static>> {
    let table = schema::builtin();
    let id = table.kind(&Gvk::new("", "v1", "ConfigMap"))?;
    Some(Custom::Metadata(Builtin::new(table, id).field("metadata")))
}

impl<'s> Custom<'s> {
    fn of(schema: Option<&'s Schema>) -> Self {
        match schema {
            Some(schema) if schema.embedded => Custom::Object(Some(schema)),
            Some(schema) => Custom::Value(schema),
            None => Custom::Free,
        }
    }

    fn of_field(schema: &'s Schema, name: &str) -> Self {
        match schema.field(name) {
            Some(field) => Custom::of(Some(field)),
            None => Custom::Free,
        }
    }
}

impl Structure for Custom<'_> {
    fn rule(&self, value: &Value) -> Rule {
        match self {
            Custom::Metadata(builtin) => builtin.rule(value),
            Custom::Free | Custom::Object(None) => {
                if value.is_object() {
                    Rule::Struct
                } else {
                    Rule::Atomic
                }
            }
            Custom::Object(Some(schema)) | Custom::Value(schema) => match value {
                Value::Object(_) if schema.map_atomic => Rule::Atomic,
                Value::Object(_) if schema.additional_schema().is_some() => Rule::Map,
                Value::Object(_) => Rule::Struct,
                Value::Array(_) => match schema.list {
                    ListKind::Atomic => Rule::Atomic,
                    ListKind::Set => Rule::ListSet,
                    ListKind::Map => Rule::ListMap(schema.list_keys.clone()),
                },
                _ => Rule::Atomic,
            },
        }
    }

    fn field(&self, name: &str) -> Self {
        match self {
            Custom::Metadata(builtin) => Custom::Metadata(builtin.field(name)),
            Custom::Object(_) if name == "metadata" => metadata().unwrap_or(Custom::Free),
            Custom::Object(Some(schema)) | Custom::Value(schema) => Custom::of_field(schema, name),
            Custom::Object(None) | Custom::Free => Custom::Free,
        }
    }

    fn item(&self) -> Self {
        match self {
            Custom::Metadata(builtin) => Custom::Metadata(builtin.item()),
            Custom::Object(Some(schema)) | Custom::Value(schema) => Custom::of(schema.items.as_deref()),
            Custom::Object(None) | Custom::Free => Custom::Free,
        }
    }

    fn key_default(&self, key: &str) -> Option<Value> {
        match self {
            Custom::Metadata(builtin) => builtin.key_default(key),
            Custom::Object(Some(schema)) | Custom::Value(schema) => {
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
