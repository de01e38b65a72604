//! What is dropped from a custom resource and what is filled in: fields its schema does not know, nulls that mean nothing, defaults.

use super::node::Custom;
use super::schema::Schema;
use crate::schema::node::parts_mut;
use crate::schema::prune;
use serde_json::Value;

/// Drops what an object's schema does not know, at the root but for the fields every object has. Gives the sorted paths of
/// what went: `spec.list[0].x`.
pub(crate) fn prune(root: &Schema, object: &mut Value) -> Vec<String> {
    let mut gone = prune::prune(Custom::Object(Some(root)), object);
    gone.sort_unstable();
    gone
}

/// Drops what the schema of a value inside an object does not know.
pub(crate) fn prune_value(schema: &Schema, value: &mut Value) -> Vec<String> {
    prune::prune(Custom::of(schema), value)
}

/// Drops entries that are null where null is no value and nothing stands in for it; with `told`, only those that nobody would be told of,
/// as any value may stand there.
pub(crate) fn drop_nulls(schema: &Schema, value: &mut Value, told: bool) {
    if let Value::Object(fields) = value {
        let meaningless = |schema: &Schema| {
            let typed = !schema.kind.is_empty() || schema.int_or_string;
            !schema.nullable && schema.default.is_none() && !(told && typed)
        };
        fields.retain(|name, value| !(value.is_null() && schema.field(name).is_some_and(meaningless)));
    }
    parts_mut(schema, value).for_each(|(_, inner, part)| drop_nulls(inner, part, told));
}

/// Fills in what is absent (or null where null is no value) and has a default.
pub(crate) fn fill(schema: &Schema, value: &mut Value) {
    let stands_in = |value: &Value, schema: &Schema| value.is_null() && !schema.nullable;
    if let Value::Object(fields) = value {
        for (name, property) in &schema.properties {
            if let Some(default) = &property.default
                && fields.get(name).is_none_or(|v| stands_in(v, property))
            {
                fields.insert(name.clone(), default.clone());
            }
        }
    }
    for (_, inner, part) in parts_mut(schema, value) {
        if stands_in(part, inner) {
            *part = inner.default.clone().unwrap_or_default();
        }
        fill(inner, part);
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
        drop_nulls(&schema(), &mut object, false);
        fill(&schema(), &mut object);
        assert_eq!(object, json!({"spec": {"known": "d", "nullable": null}}));
        let mut applied =
            json!({"spec": {"known": null, "nullable": null, "list": null, "map": {"a": {"x": null}}}});
        drop_nulls(&schema(), &mut applied, true);
        fill(&schema(), &mut applied);
        let told = json!({"known": "d", "nullable": null, "list": null, "map": {"a": {"x": null}}});
        assert_eq!(applied, json!({"spec": told}), "validation tells of them");
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
            drop_nulls(&schema(), &mut value, false);
            fill(&schema(), &mut value);
            let once = value.clone();
            prop_assert!(prune(&schema(), &mut value).is_empty());
            drop_nulls(&schema(), &mut value, false);
            fill(&schema(), &mut value);
            prop_assert_eq!(value, once);
        }
    }
}
