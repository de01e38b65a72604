//! Admission policies, from their objects to the answers of requests they are about.

use super::*;

const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn matching(resources: &Value) -> Value {
    json!({"resourceRules": [{"operations": ["CREATE", "UPDATE"], "apiGroups": ["*"], "apiVersions": ["*"],
        "resources": resources}]})
}

async fn configure(s: &Server, kind: &str, spec: Value, binding: Value) {
    let plural =
        if kind.starts_with('M') { "mutatingadmissionpolicies" } else { "validatingadmissionpolicies" };
    let object = |kind: &str, name: &str, spec: Value| json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    let bindings = plural.replace("policies", "policybindings");
    s.ok("POST", &format!("{POLICIES}/{plural}"), object(kind, "p", spec)).await;
    s.ok("POST", &format!("{POLICIES}/{bindings}"), object(&format!("{kind}Binding"), "b", binding)).await;
    // A consistent list waits for the watch cache.
    s.get(&format!("{POLICIES}/{plural}")).await;
    s.get(&format!("{POLICIES}/{bindings}")).await;
}

fn config_map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

#[tokio::test]
async fn a_validating_policy_denies_in_upstreams_words() {
    let s = Server::start().await;
    let spec = json!({
        "matchConstraints": matching(&json!(["configmaps"])),
        "matchConditions": [{"name": "not-exempt", "expression": "object.metadata.name != 'exempt'"}],
        "variables": [{"name": "size", "expression": "size(object.data)"}, {"name": "limit", "expression": "variables.size - variables.size + 1"}],
        "validations": [
            {"expression": "variables.size <= variables.limit", "messageExpression": "'has ' + string(variables.size)"},
            {"expression": "namespaceObject.metadata.name == 'default'", "reason": "Forbidden"},
        ],
    });
    configure(
        &s,
        "ValidatingAdmissionPolicy",
        spec,
        json!({"policyName": "p", "validationActions": ["Deny"]}),
    )
    .await;
    let two = json!({"a": "1", "b": "2"});
    let answer = s.ask("POST", MAPS, config_map("m", two.clone())).await;
    let message = "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: has 2";
    assert_eq!(answer.code, 422, "{}", answer.body);
    assert_eq!(answer.body["message"], format!("configmaps \"m\" is forbidden: {message}"));
    assert_eq!(answer.body["reason"], "Invalid");
    assert_eq!(answer.body["details"]["causes"], json!([{"message": message}]));
    s.ok("POST", MAPS, config_map("exempt", two)).await;
    s.ok("POST", MAPS, config_map("n", json!({"a": "1"}))).await;
}

#[tokio::test]
async fn parameters_warnings_and_failures() {
    let s = Server::start().await;
    s.ok("POST", MAPS, config_map("limits", json!({"most": "1"}))).await;
    let spec = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConstraints": matching(&json!(["secrets"])),
        "validations": [{"expression": "size(object.data) <= int(params.data.most)", "message": "too much"}],
    });
    let binding = json!({"policyName": "p", "validationActions": ["Warn"],
        "paramRef": {"name": "limits", "parameterNotFoundAction": "Deny"}});
    configure(&s, "ValidatingAdmissionPolicy", spec, binding).await;
    let secrets = "/api/v1/namespaces/default/secrets";
    let secret = |name: &str| json!({"metadata": {"name": name}, "stringData": {"a": "1", "b": "2"}});
    let made = s.ask("POST", secrets, secret("x")).await;
    assert_eq!(made.code, 201, "{}", made.body);
    assert_eq!(
        made.headers["warning"].to_str().unwrap(),
        r#"299 - "Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': too much""#
    );
    s.ok("DELETE", &format!("{MAPS}/limits"), Value::Null).await;
    s.get(MAPS).await;
    let (code, text) = s.refused("POST", secrets, secret("y")).await;
    assert_eq!(
        (code, text.as_str()),
        (
            422,
            "secrets \"y\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: failed to \
             configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"
        )
    );
}

#[tokio::test]
async fn a_mutating_policy_merges_and_patches() {
    let s = Server::start().await;
    let spec = json!({
        "matchConstraints": matching(&json!(["configmaps"])),
        "reinvocationPolicy": "Never",
        "mutations": [
            {"patchType": "ApplyConfiguration", "applyConfiguration":
                {"expression": "Object{metadata: Object.metadata{labels: {'by': 'policy'}}}"}},
            {"patchType": "JSONPatch", "jsonPatch":
                {"expression": "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: object.metadata.labels.by}]"}},
        ],
    });
    configure(&s, "MutatingAdmissionPolicy", spec, json!({"policyName": "p"})).await;
    let made = s.ok("POST", MAPS, config_map("m", json!({"x": "y"}))).await;
    assert_eq!(made["metadata"]["labels"], json!({"a/b": "policy", "by": "policy"}));
    assert_eq!(made["data"], json!({"x": "y"}));
}

#[tokio::test]
async fn expressions_that_do_not_compile_are_refused() {
    let s = Server::start().await;
    let spec = json!({"failurePolicy": "Fail", "matchConstraints": matching(&json!(["configmaps"])),
        "validations": [{"expression": "object.a == nobody"}]});
    let policy = json!({"metadata": {"name": "p"}, "spec": spec});
    let (code, text) = s.refused("POST", &format!("{POLICIES}/validatingadmissionpolicies"), policy).await;
    assert_eq!(code, 422);
    assert!(
        text.contains("spec.validations[0].expression: Invalid value: \"object.a == nobody\": compilation failed: ERROR: <input>:1:13: undeclared reference to 'nobody'"),
        "{text}"
    );
}
