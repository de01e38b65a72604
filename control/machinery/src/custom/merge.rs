//! How a custom resource's values merge under server-side apply: maps of a value without a schema do, lists do not.

use super::node::Custom;
use super::schema::{Additional, ListKind};
use crate::apply::structure::{Naming, Rule, Structure, Takes};
use crate::schema::node::Node as _;
use serde_json::Value;

impl Custom<'_> {
    /// Whether fields nobody describes may stand here and anywhere below, even where pruning drops them.
    fn keeps(&self) -> bool {
        match *self {
            Custom::Metadata(_) => false,
            Custom::Free | Custom::Object(None) => true,
            Custom::Object(Some(schema)) => schema.preserve,
            Custom::Value { schema, keeps } => keeps || schema.preserve,
        }
    }

    /// The same below a place that keeps what nobody describes.
    fn below(self, keeper: bool) -> Self {
        match self {
            Custom::Value { schema, keeps } => Custom::Value { schema, keeps: keeps || keeper },
            other => other,
        }
    }
}

impl Structure for Custom<'_> {
    fn rule(&self, value: &Value) -> Rule {
        let schema = match *self {
            Custom::Metadata(builtin) => return builtin.rule(value),
            Custom::Free => return if value.is_object() { Rule::Map } else { Rule::Atomic },
            Custom::Object(None) => return if value.is_object() { Rule::Struct } else { Rule::Atomic },
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

    fn takes(&self) -> Takes {
        match *self {
            Custom::Metadata(builtin) => builtin.takes(),
            Custom::Free => Takes::Anything,
            Custom::Object(_) => Takes::Object,
            Custom::Value { schema, .. } if schema.int_or_string => Takes::Anything,
            Custom::Value { schema, .. } => match (schema.kind.as_str(), schema.format.as_str()) {
                ("object", _) => Takes::Object,
                ("array", _) => Takes::List,
                ("integer" | "number", _) => Takes::Number,
                ("boolean", _) => Takes::Flag,
                ("string", "" | "byte") => Takes::Text,
                ("string", _) => Takes::Scalar,
                _ => Takes::Anything,
            },
        }
    }

    /// As kube-openapi's `schemaconv` has it: an object of no properties takes any, and so does what is below one that keeps them.
    fn naming(&self, name: &str) -> Naming {
        let (schema, whole) = match *self {
            Custom::Metadata(builtin) => return builtin.naming(name),
            Custom::Free => return Naming::Open,
            Custom::Object(schema) => (schema, true),
            Custom::Value { schema, .. } => (Some(schema), schema.embedded),
        };
        if whole && matches!(name, "apiVersion" | "kind" | "metadata") {
            return Naming::Declared;
        }
        let Some(schema) = schema else { return Naming::Open };
        if schema.properties.contains_key(name) {
            return Naming::Declared;
        }
        let open = match &schema.additional {
            Some(Additional::Schema(_)) => true,
            Some(Additional::Any(any)) => *any,
            None => self.keeps() || (schema.properties.is_empty() && !whole),
        };
        if open { Naming::Open } else { Naming::Undeclared }
    }

    fn field(&self, name: &str) -> Self {
        self.member(name).node().unwrap_or(Custom::Free).below(self.keeps())
    }

    fn element(&self) -> Self {
        self.item().unwrap_or(Custom::Free).below(self.keeps())
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
    use crate::apply::versions::Halt;
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
            &(),
        )
        .unwrap();
        let two = apply::apply(
            structure,
            &one.object,
            &config(json!([{"port": 81}]), json!(["a"])),
            &one.managed,
            &Write { manager: &manager("two"), ..write.clone() },
            &(),
        )
        .unwrap();
        assert_eq!(two.object["spec"]["ports"].as_array().unwrap().len(), 2);
        let refused = apply::apply(
            structure,
            &two.object,
            &config(json!([]), json!(["b"])),
            &two.managed,
            &Write { manager: &manager("two"), ..write.clone() },
            &(),
        )
        .unwrap_err();
        let Halt::Refused(refused) = refused else { panic!("{refused:?}") };
        assert_eq!(refused.message, "Apply failed with 1 conflict: conflict with \"one\": .spec.args");
    }

    fn open_schema() -> Schema {
        Schema::from_props(
            &json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "any": {"type": "object"},
            "more": {"type": "object", "additionalProperties": true},
            "closed": {"type": "object", "properties": {"x": {"type": "string"}}},
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                "properties": {"inner": {"type": "object", "properties": {"x": {"type": "string"}}}}}}}}}),
        )
    }

    #[test]
    fn a_field_of_an_open_object_must_not_be_refused() {
        let schema = open_schema();
        let refused = |spec: Value| apply::untypable(Custom::Object(Some(&schema)), &json!({"spec": spec}));
        for open in [
            json!({"any": {"a": {"b": [{"c": 1}]}}}),
            json!({"more": {"a": {"b": 1}}}),
            json!({"free": {"a": {"b": 1}, "inner": {"y": 1}}}),
        ] {
            assert_eq!(refused(open.clone()), [""; 0], "{open}");
        }
        assert_eq!(refused(json!({"closed": {"y": 1}})), [".spec.closed.y: field not declared in schema"]);
        assert_eq!(refused(json!({"other": 1})), [".spec.other: field not declared in schema"]);
        let null =
            ".spec.set: element 1: associative list without keys has an element that's an explicit null";
        assert_eq!(refused(json!({"set": ["a", null]})), [null]);
        let root = json!({"apiVersion": "a/v1", "kind": "W", "metadata": {"name": "x", "odd": 1}});
        let structure = Custom::Object(Some(&schema));
        assert_eq!(apply::untypable(structure, &root), [".metadata.odd: field not declared in schema"]);
    }

    #[test]
    fn a_map_nobody_describes_must_be_owned_itself() {
        let schema = open_schema();
        let owned =
            |spec: Value| apply::field_set(Custom::Object(Some(&schema)), &json!({"spec": spec})).paths();
        assert_eq!(
            owned(json!({"any": {"a": {"b": 1}}})),
            [".spec.any.a", ".spec.any.a.b"],
            "the declared field is owned by what is in it"
        );
        assert_eq!(owned(json!({"more": {"a": {}}})), [".spec.more.a"]);
        assert_eq!(
            owned(json!({"free": {"a": {"b": {"c": [1]}}, "inner": {"x": "1"}}})),
            [".spec.free.a", ".spec.free.a.b", ".spec.free.a.b.c", ".spec.free.inner.x"]
        );
        let nothing_said =
            apply::field_set(Custom::Object(None), &json!({"kind": "W", "spec": {"a": {"b": 1}}}));
        assert_eq!(nothing_said.paths(), [".kind", ".spec", ".spec.a", ".spec.a.b"]);
        assert_eq!(owned(json!({"closed": {}, "set": []})), [".spec.closed"], "an empty list has nobody");
    }
}
