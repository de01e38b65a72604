//! What the server says it serves: discovery, OpenAPI 2 and 3. Pure.

use crate::{GROUP, VERSIONS};
use serde_json::{Map, Value, json};

const VERBS: [&str; 6] = ["create", "delete", "get", "list", "update", "watch"];

/// The document at a path; one that speaks no OpenAPI 3 has none of it.
#[must_use]
pub fn find(path: &str, old: bool) -> Option<Value> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match parts.as_slice() {
        ["apis"] => Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group()]})),
        ["apis", GROUP] => {
            let mut group = group();
            group["kind"] = "APIGroup".into();
            group["apiVersion"] = "v1".into();
            Some(group)
        }
        ["apis", GROUP, version] => known(version).map(resources),
        ["openapi", "v2"] => Some(openapi2()),
        ["openapi", "v3"] if !old => {
            let paths: Map<String, Value> = VERSIONS.iter().map(|version| listed(version)).collect();
            Some(json!({"paths": paths}))
        }
        ["openapi", "v3", "apis", GROUP, version] if !old => known(version).map(openapi3),
        _ => None,
    }
}

fn known(version: &str) -> Option<&'static str> {
    VERSIONS.into_iter().find(|known| *known == version)
}

fn group() -> Value {
    let versions =
        VERSIONS.map(|version| json!({"groupVersion": format!("{GROUP}/{version}"), "version": version}));
    json!({"name": GROUP, "versions": versions, "preferredVersion": versions[0]})
}

fn resources(version: &str) -> Value {
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{GROUP}/{version}"), "resources": [
        {"name": "things", "singularName": "thing", "namespaced": true, "kind": "Thing", "verbs": VERBS, "shortNames": ["th"]},
        {"name": "things/echo", "singularName": "", "namespaced": true, "kind": "Thing", "verbs": ["create", "get"]},
    ]})
}

/// What a definition is called: `dev.windlass.example.v1.Thing`.
fn definition(version: &str) -> String {
    let turned: Vec<&str> = GROUP.rsplit('.').collect();
    format!("{}.{version}.Thing", turned.join("."))
}

fn thing(version: &str, metadata: &str) -> Value {
    json!({
        "type": "object",
        "description": "Something of a size.",
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"$ref": metadata},
            "spec": {"type": "object", "description": "What it is to be.",
                "properties": {"size": {"type": "integer", "description": "How large it is."}}},
        },
        "x-kubernetes-group-version-kind": [{"group": GROUP, "version": version, "kind": "Thing"}],
    })
}

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

fn metadata() -> Value {
    json!({"type": "object", "description": "What this server knows of metadata.", "properties": {"name": {"type": "string"}}})
}

fn item(version: &str) -> String {
    format!("/apis/{GROUP}/{version}/namespaces/{{namespace}}/things/{{name}}")
}

fn openapi2() -> Value {
    let (mut paths, mut definitions) = (Map::new(), Map::new());
    for version in VERSIONS {
        let reference = json!({"$ref": format!("#/definitions/{}", definition(version))});
        let kind = json!({"group": GROUP, "version": version, "kind": "Thing"});
        let read = json!({
            "operationId": format!("readThing{version}"), "produces": ["application/json"], "consumes": ["*/*"], "schemes": ["https"],
            "parameters": [{"$ref": "#/parameters/pretty"}],
            "responses": {"200": {"description": "OK", "schema": reference}},
            "x-kubernetes-action": "get", "x-kubernetes-group-version-kind": kind,
        });
        paths.insert(
            item(version),
            json!({"get": read, "parameters": [
            {"name": "name", "in": "path", "required": true, "type": "string", "uniqueItems": true},
            {"name": "namespace", "in": "path", "required": true, "type": "string", "uniqueItems": true}]}),
        );
        definitions.insert(definition(version), thing(version, &format!("#/definitions/{META}")));
    }
    paths.insert(
        "/version/".to_owned(),
        json!({"get": {"operationId": "getTheirVersion", "responses": {"200": {"description": "OK"}}}}),
    );
    definitions.insert(META.to_owned(), metadata());
    json!({
        "swagger": "2.0", "info": {"title": "Example", "version": "v1"}, "paths": paths, "definitions": definitions,
        "parameters": {"pretty": {"name": "pretty", "in": "query", "type": "string", "uniqueItems": true}},
    })
}

fn listed(version: &str) -> (String, Value) {
    let key = format!("apis/{GROUP}/{version}");
    let url = format!("/openapi/v3/{key}?hash=1");
    (key, json!({"serverRelativeURL": url}))
}

fn openapi3(version: &str) -> Value {
    let name = definition(version);
    let reference = json!({"$ref": format!("#/components/schemas/{name}")});
    let mut paths = Map::new();
    paths.insert(
        item(version),
        json!({"get": {"operationId": format!("readThing{version}"),
            "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": reference}}}}}}),
    );
    let mut schemas = Map::new();
    schemas.insert(name, thing(version, &format!("#/components/schemas/{META}")));
    schemas.insert(META.to_owned(), metadata());
    json!({"openapi": "3.0.0", "info": {"title": "Example", "version": "v1"}, "paths": paths, "components": {"schemas": schemas}})
}
