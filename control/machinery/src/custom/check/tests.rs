use super::*;
use serde_json::json;

fn crd(schema: Value) -> Value {
    json!({"metadata": {"name": "widgets.acme.com"},
        "spec": {"group": "acme.com", "scope": "Namespaced", "conversion": {"strategy": "None"},
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]},
        "status": {"storedVersions": ["v1"]}})
}

fn texts(errors: &[FieldError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

fn props(of: Value) -> Value {
    json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"x": of}}}})
}

#[track_caller]
fn refused(of: Value, expected: &[&str]) {
    let found = texts(&create(&crd(props(of))));
    let at = "spec.validation.openAPIV3Schema.properties[spec].properties[x]";
    let expected: Vec<String> = expected.iter().map(|t| t.replace('@', at)).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_plain_definition_is_taken() {
    refused(json!({"type": "string", "default": "a", "maxLength": 1}), &[]);
    refused(
        json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
        "items": {"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}}}}),
        &[],
    );
}

#[test]
fn schemas_are_refused_in_upstreams_words() {
    refused(
        json!({"type": "strange"}),
        &[
            "@.type: Unsupported value: \"strange\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"",
        ],
    );
    refused(
        json!({"type": "string", "default": 1}),
        &["@.default: Invalid value: \"integer\": @.default in body must be of type string: \"integer\""]
            .map(|t| t)
            .map(|t| {
                if t.contains("@.default in body") {
                    "@.default: Invalid value: \"integer\":  in body must be of type string: \"integer\""
                } else {
                    t
                }
            }),
    );
    refused(
        json!({"type": "array", "x-kubernetes-list-type": "map", "items": {"type": "object", "properties": {"k": {"type": "string"}}}, "x-kubernetes-list-map-keys": ["k"]}),
        &[
            "@.items.properties[k].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
        ],
    );
    refused(
        json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}}),
        &["@.additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive"],
    );
    refused(
        json!({"type": "string", "uniqueItems": true}),
        &[
            "@.uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        ],
    );
}

#[test]
fn names_and_versions() {
    let mut of = crd(props(json!({"type": "string"})));
    of["metadata"]["name"] = json!("gadgets.acme.com");
    of["spec"]["names"]["listKind"] = json!("Widget");
    of["spec"]["versions"][0]["storage"] = json!(false);
    let found = texts(&create(&of));
    assert!(
        found[0].starts_with("metadata.name: Invalid value: \"gadgets.acme.com\": must be spec.names.plural"),
        "{found:?}"
    );
    assert!(found.iter().any(|t| t.ends_with("must have exactly one version marked as storage version")));
    assert!(found.iter().any(|t| t.ends_with("kind and listKind may not be the same")));
}

#[test]
fn what_is_established_stays() {
    let mut old = crd(props(json!({"type": "string"})));
    old["status"]["conditions"] = json!([{"type": "Established", "status": "True"}]);
    let mut new = old.clone();
    assert_eq!(texts(&update(&new, &old)), Vec::<String>::new());
    new["spec"]["scope"] = json!("Cluster");
    new["spec"]["versions"][0]["name"] = json!("v2");
    new["status"]["storedVersions"] = json!(["v1", "v2"]);
    let found = texts(&update(&new, &old));
    assert_eq!(found[0], "spec.scope: Invalid value: \"Cluster\": field is immutable");
    assert!(
        found[1].starts_with("status.storedVersions[0]: Invalid value: \"v1\": missing from spec.versions")
    );
}

#[test]
fn a_webhook_needs_an_address() {
    let mut of = crd(props(json!({"type": "string"})));
    of["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v7"],
        "clientConfig": {"url": "http://a"}}});
    let found = texts(&create(&of));
    assert_eq!(
        found,
        [
            "spec.conversion.webhookClientConfig.url: Invalid value: \"http://a\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
            "spec.conversion.conversionReviewVersions: Invalid value: [\"v7\"]: must include at least one of v1, v1beta1",
        ]
    );
}

#[test]
fn nesting_is_bounded() {
    let mut schema = json!({"type": "string"});
    for _ in 0..500 {
        schema = json!({"type": "object", "properties": {"a": schema}});
    }
    assert!(texts(&create(&crd(schema))).iter().any(|t| t.contains("nested too deeply")));
}
