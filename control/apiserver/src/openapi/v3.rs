//! OpenAPI 3: one document a group version, with just the types it needs.

use super::definitions::{self, Definitions};
use super::operations::{self, Operation, parameter_type};
use super::swagger::{PATCH, definition_name};
use crate::discovery::{Catalog, Version};
use machinery::release;
use machinery::schema::openapi::Dialect;
use serde_json::{Map, Value, json};

/// The document of a group version.
#[must_use]
pub fn document(catalog: &Catalog, group: &str, of: &Version) -> Value {
    let mut all = Definitions::new(catalog, Dialect::V3);
    let api_version = machinery::object::format_api_version(group, &of.name);
    let mut wanted = vec![PATCH.to_owned()];
    for resource in &of.resources {
        match definitions::of_kind(&api_version, &resource.kind) {
            Some(name) => wanted.push(name),
            None => wanted.extend(all.add(group, &of.name, resource)),
        }
    }
    let mut paths = Map::new();
    for operation in operations::of_version(group, of) {
        let both = operation.body.iter().chain(&operation.answer);
        wanted.extend(both.filter_map(|of| definition_name(of, &all)));
        let item = paths.entry(operation.path.clone()).or_insert_with(|| path_item(&operation.path));
        item[operation.method] = render(&operation, &all);
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": release::GIT_VERSION},
        "paths": paths,
        "components": {"schemas": reachable(wanted, &all)},
    })
}

/// The definitions that are wanted, and those they refer to.
fn reachable(mut open: Vec<String>, all: &Definitions<'_>) -> Map<String, Value> {
    let mut out = Map::new();
    while let Some(name) = open.pop() {
        if out.contains_key(&name) {
            continue;
        }
        if let Some(schema) = all.get(&name) {
            references(&schema, &mut open);
            out.insert(name, schema);
        }
    }
    out
}

fn references(schema: &Value, found: &mut Vec<String>) {
    match schema {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value.as_str().and_then(|v| v.strip_prefix("#/components/schemas/")) {
                    Some(name) if key == "$ref" => found.push(name.to_owned()),
                    _ => references(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|i| references(i, found)),
        _ => {}
    }
}

fn path_item(path: &str) -> Value {
    let parameters: Vec<Value> = ["namespace", "name"]
        .into_iter()
        .filter(|name| path.contains(&format!("{{{name}}}")))
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "uniqueItems": true}}))
        .collect();
    if parameters.is_empty() { json!({}) } else { json!({"parameters": parameters}) }
}

fn render(o: &Operation, all: &Definitions<'_>) -> Value {
    let reference =
        |of: &Option<(String, String)>| Some(Dialect::V3.reference(&definition_name(of.as_ref()?, all)?));
    let mut ok = json!({"description": "OK"});
    if let Some(schema) = reference(&o.answer) {
        ok["content"] = json!({"application/json": {"schema": schema}});
    }
    let (group, version, kind) = &o.gvk;
    let mut operation = json!({
        "operationId": o.id,
        "responses": {"200": ok, "401": {"description": "Unauthorized"}},
        "x-kubernetes-action": o.action,
        "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
    });
    if !o.query.is_empty() {
        let parameters = o.query.iter().map(|name| {
            json!({"name": name, "in": "query", "schema": {"type": parameter_type(name), "uniqueItems": true}})
        });
        operation["parameters"] = parameters.collect::<Vec<_>>().into();
    }
    if let Some(schema) = reference(&o.body) {
        let content: Map<String, Value> =
            o.consumes().iter().map(|media| ((*media).to_owned(), json!({"schema": schema}))).collect();
        operation["requestBody"] = json!({"content": content});
    }
    operation
}
