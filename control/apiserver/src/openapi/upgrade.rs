//! OpenAPI 2 of a server that speaks nothing newer, as OpenAPI 3. Pure; some of what it says is lost.
//! Upstream: `kube-openapi/pkg/openapiconv`.

use machinery::access::Get as _;
use machinery::schema::openapi::Dialect;
use serde_json::{Map, Value, json};

const METHODS: [&str; 7] = ["get", "put", "post", "delete", "options", "head", "patch"];
/// Where references led to, and where they lead.
const MOVED: [(&str, &str); 3] = [
    ("#/definitions/", "#/components/schemas/"),
    ("#/parameters/", "#/components/parameters/"),
    ("#/responses/", "#/components/responses/"),
];

/// The document in OpenAPI 3.
pub(crate) fn document(v2: &Value) -> Value {
    let mut paths = Map::new();
    for (path, item) in entries(v2.at("paths")) {
        paths.insert(path.clone(), path_item(item));
    }
    let mut components = Map::new();
    let mut section = |name: &str, from: &Value, converted: &dyn Fn(&Value) -> Value| {
        let all: Map<String, Value> =
            entries(from).map(|(name, value)| (name.clone(), converted(value))).collect();
        if !all.is_empty() {
            components.insert(name.to_owned(), all.into());
        }
    };
    let produces = v2.items("produces");
    section("schemas", v2.at("definitions"), &schema);
    section("parameters", v2.at("parameters"), &parameter);
    section("responses", v2.at("responses"), &|of| response(of, produces));
    section("securitySchemes", v2.at("securityDefinitions"), &Value::clone);
    json!({"openapi": "3.0.0", "info": v2.at("info"), "paths": paths, "components": components})
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn path_item(item: &Value) -> Value {
    let mut out = Map::new();
    for (name, value) in entries(item) {
        let value = match name.as_str() {
            method if METHODS.contains(&method) => operation(value),
            "parameters" => value.items("").iter().map(parameter).collect(),
            _ => value.clone(),
        };
        out.insert(name.clone(), value);
    }
    out.into()
}

fn operation(of: &Value) -> Value {
    let mut out = Map::new();
    let (consumes, produces) = (of.items("consumes"), of.items("produces"));
    for (name, value) in entries(of) {
        match name.as_str() {
            "consumes" | "produces" | "schemes" | "security" => {}
            "parameters" => {
                let (bodies, others): (Vec<_>, Vec<_>) =
                    value.items("").iter().partition(|p| p.text("in") == "body" && p.has("schema"));
                if let Some(body) = bodies.first() {
                    let content = content(consumes, body.at("schema"));
                    out.insert("requestBody".to_owned(), json!({"content": content}));
                }
                if !others.is_empty() {
                    let others: Value = others.into_iter().map(parameter).collect();
                    out.insert(name.clone(), others);
                }
            }
            "responses" => {
                let all = entries(value).map(|(code, of)| (code.clone(), response(of, produces)));
                out.insert(name.clone(), Value::Object(all.collect()));
            }
            _ => drop(out.insert(name.clone(), value.clone())),
        }
    }
    out.into()
}

fn content(media_types: &[Value], of: &Value) -> Value {
    let schema = schema(of);
    let each = media_types.iter().filter_map(Value::as_str);
    Value::Object(each.map(|media| (media.to_owned(), json!({"schema": schema}))).collect())
}

fn response(of: &Value, produces: &[Value]) -> Value {
    let mut out = moved(of);
    if let Some(fields) = out.as_object_mut()
        && fields.remove("schema").is_some()
        && !produces.is_empty()
    {
        fields.insert("content".to_owned(), content(produces, of.at("schema")));
    }
    out
}

fn parameter(of: &Value) -> Value {
    let mut out = moved(of);
    let Some(fields) = out.as_object_mut().filter(|fields| !fields.contains_key("$ref")) else { return out };
    let mut plain = Map::new();
    for name in ["type", "format", "uniqueItems"] {
        plain.extend(fields.remove(name).map(|value| (name.to_owned(), value)));
    }
    let described = of.present("schema").map_or(Value::Object(plain), schema);
    fields.insert("schema".to_owned(), described);
    out
}

/// A schema, whose references lead elsewhere, and count beside others only in a list.
fn schema(of: &Value) -> Value {
    let mut out = match of {
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(name, value)| (name.clone(), below(name, value))).collect())
        }
        other => other.clone(),
    };
    out = moved(&out);
    Dialect::V3.settle(&mut out);
    out
}

/// What stands in a schema under a name.
fn below(name: &str, value: &Value) -> Value {
    match (name, value) {
        ("properties", Value::Object(fields)) => {
            Value::Object(fields.iter().map(|(name, value)| (name.clone(), schema(value))).collect())
        }
        ("items" | "allOf", Value::Array(all)) => all.iter().map(schema).collect(),
        ("items" | "additionalProperties" | "additionalItems", Value::Object(_)) => schema(value),
        _ => value.clone(),
    }
}

/// An object whose own reference leads to where that is in OpenAPI 3.
fn moved(of: &Value) -> Value {
    let mut out = of.clone();
    if let Some(Value::String(reference)) = out.get_mut("$ref")
        && let Some((name, to)) =
            MOVED.iter().find_map(|(from, to)| Some((reference.strip_prefix(from)?.to_owned(), to)))
    {
        *reference = format!("{to}{name}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_says_the_same_in_openapi_3() {
        let thing = json!({"$ref": "#/definitions/Thing"});
        let v2 = json!({
            "swagger": "2.0", "info": {"title": "t", "version": "1"},
            "paths": {"/things/{name}": {
                "parameters": [{"name": "name", "in": "path", "required": true, "type": "string", "uniqueItems": true}],
                "put": {
                    "operationId": "put", "consumes": ["*/*"], "produces": ["application/json", "application/yaml"], "schemes": ["https"],
                    "parameters": [{"name": "body", "in": "body", "required": true, "schema": thing}, {"$ref": "#/parameters/pretty"}],
                    "responses": {"200": {"description": "OK", "schema": thing}, "401": {"description": "Unauthorized"}},
                    "x-kubernetes-action": "put",
                }}},
            "definitions": {"Thing": {"type": "object", "properties": {
                "one": {"$ref": "#/definitions/Part", "description": "d"},
                "many": {"type": "array", "items": {"$ref": "#/definitions/Part"}},
                "properties": {"type": "object", "additionalProperties": {"$ref": "#/definitions/Part"}}}}, "Part": {"type": "string"}},
            "parameters": {"pretty": {"name": "pretty", "in": "query", "type": "string"}},
        });
        let reference = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
        let (thing, part) = (json!({"schema": reference("Thing")}), reference("Part"));
        assert_eq!(
            document(&v2),
            json!({
                "openapi": "3.0.0", "info": {"title": "t", "version": "1"},
                "paths": {"/things/{name}": {
                    "parameters": [{"name": "name", "in": "path", "required": true, "schema": {"type": "string", "uniqueItems": true}}],
                    "put": {
                        "operationId": "put",
                        "parameters": [{"$ref": "#/components/parameters/pretty"}],
                        "requestBody": {"content": {"*/*": thing}},
                        "responses": {
                            "200": {"description": "OK", "content": {"application/json": thing, "application/yaml": thing}},
                            "401": {"description": "Unauthorized"}},
                        "x-kubernetes-action": "put",
                    }}},
                "components": {
                    "schemas": {"Thing": {"type": "object", "properties": {
                        "one": {"allOf": [part], "description": "d"},
                        "many": {"type": "array", "items": part},
                        "properties": {"type": "object", "additionalProperties": part}}}, "Part": {"type": "string"}},
                    "parameters": {"pretty": {"name": "pretty", "in": "query", "schema": {"type": "string"}}}},
            })
        );
    }
}
