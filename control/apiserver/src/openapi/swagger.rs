//! OpenAPI 2: everything in one document.

use super::definitions::{self, Definitions};
use super::operations::{self, Operation, parameter_type};
use crate::discovery::{self, Catalog};
use machinery::release;
use machinery::schema::openapi::Dialect;
use serde_json::{Map, Value, json};

/// The document but for its definitions, and what those are.
fn parts(catalog: &Catalog) -> (Value, Definitions<'_>) {
    let groups = catalog.groups();
    let mut definitions = Definitions::new(catalog, Dialect::V2);
    for group in &*groups {
        for v in &group.versions {
            for resource in &v.resources {
                let api_version = machinery::object::format_api_version(&group.name, &v.name);
                if definitions::of_kind(&api_version, &resource.kind).is_none() {
                    definitions.add(&group.name, &v.name, resource);
                }
            }
        }
    }
    let mut paths = Map::new();
    for operation in operations::all(&groups) {
        let item = paths.entry(operation.path.clone()).or_insert_with(|| path_item(&operation.path));
        item[operation.method] = render(&operation, &definitions);
    }
    let document = json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": release::GIT_VERSION},
        "paths": paths,
        "securityDefinitions": {"BearerToken": {
            "type": "apiKey", "in": "header", "name": "authorization", "description": "Bearer Token authentication"}},
        "security": [{"BearerToken": []}],
    });
    (document, definitions)
}

/// The document as a value.
#[must_use]
pub fn document(catalog: &Catalog) -> Value {
    let (mut document, definitions) = parts(catalog);
    let all: Map<String, Value> =
        definitions.names().filter_map(|name| Some((name.to_owned(), definitions.get(name)?))).collect();
    document["definitions"] = all.into();
    document
}

/// The document as JSON. Definitions are written one at a time: of hundreds of custom resources, they are many times larger as values.
#[must_use]
pub fn json(catalog: &Catalog) -> Vec<u8> {
    let (document, definitions) = parts(catalog);
    let mut out = document.to_string().into_bytes();
    // It is an object with members: the definitions are its last.
    out.pop();
    out.extend_from_slice(b",\"definitions\":{");
    let mut first = true;
    for name in definitions.names() {
        let Some(schema) = definitions.get(name) else { continue };
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        out.extend_from_slice(Value::from(name).to_string().as_bytes());
        out.push(b':');
        out.extend_from_slice(schema.to_string().as_bytes());
    }
    out.extend_from_slice(b"}}");
    out
}

/// What every PATCH takes.
pub(super) const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";

/// The definition that describes a kind; `None` where nothing does.
pub(super) fn definition_name(of: &(String, String), definitions: &Definitions<'_>) -> Option<String> {
    let (api_version, kind) = of;
    if kind == "Patch" {
        return Some(PATCH.to_owned());
    }
    definitions::of_kind(api_version, kind)
        .or_else(|| {
            let (group, version) = api_version.split_once('/')?;
            Some(discovery::custom::schema_name(group, version, kind))
        })
        .filter(|name| definitions.has(name))
}

fn path_item(path: &str) -> Value {
    let parameters: Vec<Value> = ["namespace", "name"]
        .into_iter()
        .filter(|name| path.contains(&format!("{{{name}}}")))
        .map(|name| json!({"name": name, "in": "path", "required": true, "type": "string", "uniqueItems": true}))
        .collect();
    if parameters.is_empty() { json!({}) } else { json!({"parameters": parameters}) }
}

fn render(o: &Operation, definitions: &Definitions<'_>) -> Value {
    let reference = |of: &Option<(String, String)>| {
        Some(Dialect::V2.reference(&definition_name(of.as_ref()?, definitions)?))
    };
    let mut parameters: Vec<Value> = Vec::new();
    if let Some(schema) = reference(&o.body) {
        parameters
            .push(json!({"name": "body", "in": "body", "required": o.method != "delete", "schema": schema}));
    }
    parameters.extend(
        o.query.iter().map(
            |name| json!({"name": name, "in": "query", "type": parameter_type(name), "uniqueItems": true}),
        ),
    );
    let mut ok = json!({"description": "OK"});
    if let Some(schema) = reference(&o.answer) {
        ok["schema"] = schema;
    }
    let (group, version, kind) = &o.gvk;
    let mut operation = json!({
        "operationId": o.id,
        "consumes": o.consumes(),
        "produces": ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"],
        "schemes": ["https"],
        "responses": {"200": ok, "401": {"description": "Unauthorized"}},
        "x-kubernetes-action": o.action,
        "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
    });
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    operation
}
