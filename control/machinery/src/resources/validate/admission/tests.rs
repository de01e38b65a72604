use serde_json::{Value, json};

use super::{policy, webhooks};
use crate::{
    resources::validate::cursor::{Cursor, look},
    schema::builtin,
};

fn texts(kind: &str, object: &Value, check: fn(Cursor<'_>)) -> Vec<String> {
    let kind = builtin().named("admissionregistration.k8s.io/v1", kind);
    look(kind, object, None, check).iter().map(ToString::to_string).collect()
}

fn of_hook(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let mut hook = json!({
        "name": "a.b.c",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "clientConfig": {"service": {"namespace": "n", "name": "s", "port": 443, "path": "/a"}},
        "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
    });
    change(&mut hook);
    texts("ValidatingWebhookConfiguration", &json!({"webhooks": [hook]}), webhooks)
}

#[test]
fn a_good_webhook_has_no_errors() {
    assert_eq!(of_hook(|_| {}), Vec::<String>::new());
    assert_eq!(of_hook(|h| h["clientConfig"] = json!({"url": "https://h:1/x"})), Vec::<String>::new());
}

#[test]
fn resources_must_not_repeat_what_a_wildcard_says() {
    let errors = of_hook(|h| h["rules"][0]["resources"] = json!(["a/*", "a/x", "*/y", "b/y"]));
    assert_eq!(
        errors,
        [
            "webhooks[0].rules[0].resources[1]: Invalid value: \"a/x\": if 'a/*' is present, must not specify a/x",
            "webhooks[0].rules[0].resources[3]: Invalid value: \"b/y\": if '*/y' is present, must not specify b/y",
        ]
    );
}

#[test]
fn urls_and_paths_are_checked_part_by_part() {
    let url = |url: &str| of_hook(|h| h["clientConfig"] = json!({"url": url}));
    assert_eq!(
        url("http://u@h/x?q#f"),
        [
            "webhooks[0].clientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
            "webhooks[0].clientConfig.url: Invalid value: \"u\": user information is not permitted in the URL",
            "webhooks[0].clientConfig.url: Invalid value: \"f\": fragments are not permitted in the URL",
            "webhooks[0].clientConfig.url: Invalid value: \"q\": query parameters are not permitted in the URL",
        ]
    );
    let path = of_hook(|h| h["clientConfig"]["service"]["path"] = json!("/a//b"));
    assert_eq!(
        path,
        ["webhooks[0].clientConfig.service.path: Invalid value: \"/a//b\": segment[1] may not be empty"]
    );
}

#[test]
fn review_versions_are_known_and_named_once() {
    let errors = of_hook(|h| h["admissionReviewVersions"] = json!(["v0", "v0"]));
    assert_eq!(
        errors,
        [
            "webhooks[0].admissionReviewVersions[1]: Invalid value: \"v0\": duplicate version",
            "webhooks[0].admissionReviewVersions: Invalid value: [\"v0\",\"v0\"]: must include at least one of v1, v1beta1",
        ]
    );
}

#[test]
fn conditions_are_named_once_and_say_something() {
    let errors = of_hook(|h| {
        h["matchConditions"] =
            json!([{"name": "a", "expression": "true"}, {"name": "a", "expression": " "}, {}]);
    });
    assert_eq!(
        errors,
        [
            "webhooks[0].matchConditions[1].expression: Required value",
            "webhooks[0].matchConditions[1].name: Duplicate value: \"a\"",
            "webhooks[0].matchConditions[2].expression: Required value",
            "webhooks[0].matchConditions[2].name: Required value",
        ]
    );
}

#[test]
fn a_policy_needs_rules_and_something_to_check() {
    let empty = json!({"spec": {"failurePolicy": "Fail", "matchConstraints":
        {"matchPolicy": "Exact", "namespaceSelector": {}, "objectSelector": {}}}});
    let errors = texts("ValidatingAdmissionPolicy", &empty, policy::validating);
    assert_eq!(
        errors,
        [
            "spec.matchConstraints.resourceRules: Required value",
            "spec.validations: Required value: validations or auditAnnotations must contain at least one item",
            "spec.auditAnnotations: Required value: validations or auditAnnotations must contain at least one item",
        ]
    );
    let errors = texts("MutatingAdmissionPolicy", &empty, policy::mutating);
    assert_eq!(
        errors[1..],
        [
            "spec.mutations: Required value: mutations must contain at least one item",
            "spec.reinvocationPolicy: Required value",
        ]
    );
}

#[test]
fn a_binding_denies_or_warns() {
    let binding = json!({"spec": {"policyName": "p", "validationActions": ["Deny", "Warn"], "paramRef": {"name": "x",
        "selector": {}, "parameterNotFoundAction": "Deny"}}});
    let texts = texts("ValidatingAdmissionPolicyBinding", &binding, policy::validating_binding);
    assert_eq!(texts[0], "spec.paramRef.name: Forbidden: name and selector are mutually exclusive");
    assert_eq!(texts[1], "spec.paramRef.selector: Forbidden: name and selector are mutually exclusive");
    assert!(
        texts[2]
            .starts_with("spec.validationActions: Invalid value: [\"Deny\",\"Warn\"]: must not contain both")
    );
    assert_eq!(texts.len(), 3);
}
