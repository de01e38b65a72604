//! OpenAPI 2: everything in one document, with what other servers describe.

use super::definitions::{self, Definitions};
use super::merge::{Added, merge};
use super::operations::{self, Operation, parameter_type};
use crate::discovery::{self, Catalog};
use machinery::release;
use machinery::schema::openapi::Dialect;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The document but for its definitions, those of what is served here, and those that others add or take the place of.
fn parts(catalog: &Catalog) -> (Value, Definitions<'_>, BTreeMap<String, Value>) {
    let groups = catalog.groups();
    let mut definitions = Definitions::new(catalog, Dialect::V2);
    let (mut own, mut others) = (Vec::new(), Vec::new());
    for (group, v) in groups.iter().flat_map(|group| group.versions.iter().map(move |v| (group, v))) {
        match catalog.described(&group.name, &v.name).v2 {
            Some(document) => others.push(document),
            None => own.push((group, v)),
        }
    }
    for (group, v) in &own {
        let api_version = machinery::object::format_api_version(&group.name, &v.name);
        for resource in &v.resources {
            if definitions::of_kind(&api_version, &resource.kind).is_none() {
                definitions.add(&group.name, &v.name, resource);
            }
        }
    }
    let mut paths = Map::new();
    for operation in own.iter().flat_map(|(group, v)| operations::of_version(&group.name, v)) {
        let item = paths.entry(operation.path.clone()).or_insert_with(|| path_item(&operation.path));
        item[operation.method] = render(&operation, &definitions);
    }
    let mut added = Added::default();
    for other in others {
        match serde_json::from_slice(&other) {
            Ok(other) => merge(other, &mut paths, &|name| definitions.get(name), &mut added),
            Err(error) => tracing::warn!(%error, "read the OpenAPI 2 of an aggregated server"),
        }
    }
    let mut document = json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": release::GIT_VERSION},
        "paths": paths,
        "securityDefinitions": {"BearerToken": {
            "type": "apiKey", "in": "header", "name": "authorization", "description": "Bearer Token authentication"}},
        "security": [{"BearerToken": []}],
    });
    if !added.parameters.is_empty() {
        document["parameters"] = added.parameters.into();
    }
    (document, definitions, added.definitions)
}

/// Every definition, one at a time.
fn each_definition(
    definitions: &Definitions<'_>,
    mut added: BTreeMap<String, Value>,
    mut see: impl FnMut(&str, Value),
) {
    for name in definitions.names() {
        if let Some(schema) = added.remove(name).or_else(|| definitions.get(name)) {
            see(name, schema);
        }
    }
    added.into_iter().for_each(|(name, schema)| see(&name, schema));
}

/// The document as a value.
#[must_use]
pub fn document(catalog: &Catalog) -> Value {
    let (mut document, definitions, added) = parts(catalog);
    let mut all = Map::new();
    each_definition(&definitions, added, |name, schema| drop(all.insert(name.to_owned(), schema)));
    document["definitions"] = all.into();
    document
}

/// The document as JSON. Definitions are written one at a time: of hundreds of custom resources, they are many times larger as values.
#[must_use]
pub fn json(catalog: &Catalog) -> Vec<u8> {
    let (document, definitions, added) = parts(catalog);
    let mut out = document.to_string().into_bytes();
    // It is an object with members: the definitions are its last.
    out.pop();
    out.extend_from_slice(b",\"definitions\":{");
    let mut first = true;
    each_definition(&definitions, added, |name, schema| {
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        out.extend_from_slice(Value::from(name).to_string().as_bytes());
        out.push(b':');
        out.extend_from_slice(schema.to_string().as_bytes());
    });
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
