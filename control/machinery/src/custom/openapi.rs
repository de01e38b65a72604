//! A custom resource's schema as clients read it (upstream: `pkg/controller/openapi`): the author's schema, with the fields every
//! object has. OpenAPI 2 cannot say all that a schema says: there it says less.

use super::outline::Listed;
use super::structural;
use crate::access::{Get as _, remove, set};
use crate::field::Path;
use crate::schema::descriptions::Descriptions;
use crate::schema::openapi::{self, Dialect, LIST_META, OBJECT_META, describe};
use serde_json::{Map, Value, json};

/// The schema of a version's objects, which its definition writes as `props`.
#[must_use]
pub fn object(version: &Listed, props: Value, preserve_unknown: bool, dialect: Dialect) -> Value {
    let mut out = json!({"type": "object"});
    let structural = props.is_object() && structural::check(&props, &Path::root()).is_empty();
    let free = preserve_unknown || props.flag("x-kubernetes-preserve-unknown-fields");
    if structural && !(dialect == Dialect::V2 && free) {
        out = props;
        either(&mut out);
        if dialect == Dialect::V2 {
            less(&mut out);
        }
        embedded(&mut out, dialect);
        type_meta(&mut out, OBJECT_META, dialect);
    }
    selectable(version, &mut out);
    out
}

/// The schema of a version's lists; `name` is the definition of its objects.
#[must_use]
pub fn list(version: &Listed, name: &str, dialect: Dialect) -> Value {
    let resource = version.resource;
    let mut out = json!({
        "type": "object",
        "description": format!("{} is a list of {}", resource.list_kind, resource.kind),
        "required": ["items"],
        "properties": {
            "items": {"type": "array", "items": dialect.present(name), "description": format!("List of {}.", resource.plural)},
        },
    });
    openapi::of_kind(&mut out, resource.group, version.name, &resource.list_kind);
    type_meta(&mut out, LIST_META, dialect);
    selectable(version, &mut out);
    out
}

fn selectable(version: &Listed, schema: &mut Value) {
    if !version.selectable.is_empty() {
        let fields: Vec<Value> = version.selectable.iter().map(|s| json!({"fieldPath": s.name})).collect();
        set(schema, "x-kubernetes-selectable-fields", fields);
    }
}

fn properties(schema: &mut Value) -> Option<&mut Map<String, Value>> {
    if !schema.at("properties").is_object() {
        set(schema, "properties", Value::Object(Map::new()));
    }
    schema.get_mut("properties")?.as_object_mut()
}

/// Gives a schema the fields every object (or list) has.
fn type_meta(schema: &mut Value, metadata: &str, dialect: Dialect) {
    let texts = Descriptions::read();
    let metadata_text = match metadata {
        LIST_META => texts.of_type("ListMeta"),
        _ => texts.common("metadata").map(str::to_owned),
    };
    let Some(properties) = properties(schema) else { return };
    openapi::type_meta(properties, &texts);
    let mut field = dialect.present(metadata);
    describe(&mut field, metadata_text);
    properties.insert("metadata".into(), field);
}

fn each(schema: &mut Value, visit: &mut dyn FnMut(&mut Value)) {
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(&mut *visit);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get_mut(key).filter(|v| v.is_object()) {
            visit(inner);
        }
    }
}

fn embedded(schema: &mut Value, dialect: Dialect) {
    each(schema, &mut |inner| embedded(inner, dialect));
    if dialect == Dialect::V2 && schema.flag("x-kubernetes-preserve-unknown-fields") {
        return;
    }
    if schema.flag("x-kubernetes-embedded-resource") {
        type_meta(schema, OBJECT_META, dialect);
        let mut required = schema.items("required").to_vec();
        for name in ["kind", "apiVersion"] {
            if !required.iter().any(|r| r == name) {
                required.push(name.into());
            }
        }
        set(schema, "required", required);
    }
}

/// A number or a text, said in the words of the language.
fn either(schema: &mut Value) {
    each(schema, &mut either);
    let both = json!([{"type": "integer"}, {"type": "string"}]);
    let first = schema.items("allOf").first().is_some_and(|a| *a.at("anyOf") == both);
    if !schema.flag("x-kubernetes-int-or-string") || *schema.at("anyOf") == both || first {
        return;
    }
    if schema.has("anyOf") {
        let mut all = vec![json!({"anyOf": both})];
        all.extend(schema.items("allOf").iter().cloned());
        set(schema, "allOf", all);
    } else {
        set(schema, "anyOf", both);
    }
}

/// What OpenAPI 2, and kubectl with it, can take.
fn less(schema: &mut Value) {
    for key in ["allOf", "oneOf", "anyOf", "not"] {
        remove(schema, key);
    }
    let loose: Vec<Value> = schema
        .fields("properties")
        .into_iter()
        .flatten()
        .filter(|(_, of)| of.flag("nullable"))
        .map(|(name, _)| name.as_str().into())
        .collect();
    if schema.flag("nullable") {
        for key in ["type", "nullable", "items", "properties"] {
            remove(schema, key);
        }
    }
    if schema.flag("x-kubernetes-preserve-unknown-fields") {
        remove(schema, "items");
        remove(schema, "properties");
        if schema.text("type") == "object" {
            remove(schema, "type");
        }
    }
    if !schema.has("items") && schema.text("type") == "array" {
        remove(schema, "type");
    }
    let mut required = schema.items("required").to_vec();
    required.retain(|name| !loose.contains(name));
    if schema.at("additionalProperties").flag("nullable") {
        required.clear();
    }
    if required.is_empty() {
        remove(schema, "required");
    } else {
        set(schema, "required", required);
    }
    each(schema, &mut less);
}
