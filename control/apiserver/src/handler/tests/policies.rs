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

/// Refusals of a ConfigMap by a validating policy of this spec.
async fn refusals(s: &Server, spec: Value) -> Vec<String> {
    let mut spec = spec;
    spec["matchConstraints"] = matching(&json!(["configmaps"]));
    let binding = json!({"policyName": "p", "validationActions": ["Deny"]});
    configure(s, "ValidatingAdmissionPolicy", spec, binding).await;
    let answer = s.ask("POST", MAPS, config_map("m", json!({"a": "1"}))).await;
    let causes = answer.body["details"]["causes"].as_array().cloned().unwrap_or_default();
    let prefix = "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: ";
    let message = |cause: &Value| cause["message"].as_str().unwrap_or_default().replace(prefix, "");
    causes.iter().map(message).collect()
}

#[tokio::test]
async fn validations_must_not_cost_more_than_the_budget_together() {
    let s = Server::start().await;
    // Each costs 9 in 10 of what a call may; eleven are as many as fit.
    let dear =
        json!({"expression": "lists.range(150000).all(x, x >= 0) && false", "messageExpression": "'never'"});
    let spec = json!({"validations": vec![dear; 14]});
    let over = "validation failed due to running out of cost budget, no further validation rules will be run";
    assert_eq!(refusals(&s, spec).await, [over]);
}

#[tokio::test]
async fn a_call_that_costs_too_much_must_not_pass() {
    let s = Server::start().await;
    let dear = "lists.range(500000).all(x, x >= 0)";
    let spec = json!({"validations": [{"expression": dear}]});
    let but =
        format!("expression '{dear}' resulted in error: operation cancelled: actual cost limit exceeded");
    assert_eq!(refusals(&s, spec).await, [but]);
}

#[tokio::test]
async fn messages_fall_back_where_their_expression_makes_none() {
    let s = Server::start().await;
    let spec = json!({"validations": [
        {"expression": "false", "messageExpression": "'line\\nbreak'", "message": " own "}]});
    assert_eq!(refusals(&s, spec).await, ["own"]);
    let s = Server::start().await;
    let spec =
        json!({"validations": [{"expression": " 1 == 2 ", "messageExpression": "string(object.nothing)"}]});
    assert_eq!(refusals(&s, spec).await, ["failed expression: 1 == 2"]);
}

#[tokio::test]
async fn an_audit_annotation_that_fails_refuses_the_request() {
    let s = Server::start().await;
    let spec = json!({
        "validations": [{"expression": "true"}],
        "auditAnnotations": [{"key": "k", "valueExpression": "object.metadata.name + string(object.nothing)"},
            {"key": "l", "valueExpression": "object.metadata.name == 'm' ? '' : 'x'"}],
    });
    let but =
        "expression 'object.metadata.name + string(object.nothing)' resulted in error: no such key: nothing";
    assert_eq!(refusals(&s, spec).await, [but]);
}

#[tokio::test]
async fn the_authorizer_is_asked_by_validations_only() {
    let s = Server::start().await;
    let spec = json!({
        "variables": [{"name": "may", "expression": "authorizer.requestResource.check('create').allowed()"}],
        "validations": [
            {"expression": "variables.may && authorizer.group('').resource('pods').check('get').allowed()"},
            {"expression": "false", "messageExpression": "'may: ' + string(variables.may)", "message": "not here"},
        ],
    });
    assert_eq!(refusals(&s, spec).await, ["not here"]);
    let asking = json!({"matchConstraints": matching(&json!(["configmaps"])), "failurePolicy": "Fail",
        "validations": [{"expression": "true", "messageExpression": "authorizer.requestResource.check('get').reason()"}]});
    let policy = json!({"metadata": {"name": "q"}, "spec": asking});
    let (_, text) = s.refused("POST", &format!("{POLICIES}/validatingadmissionpolicies"), policy).await;
    assert!(text.contains("undeclared reference to 'authorizer'"), "{text}");
}

#[tokio::test]
async fn custom_resources_are_parameters_and_their_types_are_checked() {
    let s = custom::defined().await;
    let widget = json!({"apiVersion": "acme.com/v1", "kind": "Widget", "metadata": {"name": "limits"}, "spec": {"replicas": 1}});
    s.ok("POST", custom::WIDGETS, widget).await;
    s.get(custom::WIDGETS).await;
    let spec = json!({
        "paramKind": {"apiVersion": "acme.com/v1", "kind": "Widget"},
        "matchConstraints": {"resourceRules": [
            {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]},
            {"operations": ["CREATE"], "apiGroups": ["acme.com"], "apiVersions": ["v1"], "resources": ["widgets"]}]},
        "validations": [
            {"expression": "object.kind == 'Widget' || size(object.data) <= params.spec.replicas",
                "messageExpression": "'more than ' + string(params.spec.replicas)"},
            {"expression": "object.kind != 'Widget' || object.spec.colour == params.spec.color"},
        ],
    });
    let binding = json!({"policyName": "p", "validationActions": ["Deny"],
        "paramRef": {"name": "limits", "namespace": "default", "parameterNotFoundAction": "Deny"}});
    configure(&s, "ValidatingAdmissionPolicy", spec, binding).await;
    let (_, text) = s.refused("POST", MAPS, config_map("m", json!({"a": "1", "b": "2"}))).await;
    assert!(text.ends_with("denied request: more than 1"), "{text}");
    s.ok("POST", MAPS, config_map("n", json!({"a": "1"}))).await;
    let path = format!("{POLICIES}/validatingadmissionpolicies/p");
    for _ in 0..200 {
        let checked = s.get(&path).await["status"]["typeChecking"].clone();
        if let Some(warnings) = checked["expressionWarnings"].as_array() {
            let of: Vec<&str> = warnings.iter().filter_map(|w| w["fieldRef"].as_str()).collect();
            assert_eq!(of, ["spec.validations[0].expression", "spec.validations[1].expression"]);
            let text = |at: usize| warnings[at]["warning"].as_str().unwrap_or_default().to_owned();
            assert!(
                text(0).starts_with("acme.com/v1, Kind=Widget: ERROR: <input>:1:39: undefined field 'data'"),
                "{}",
                text(0)
            );
            assert!(
                text(1).contains("/v1, Kind=ConfigMap: ERROR: ")
                    && text(1).contains("undefined field 'spec'"),
                "{}",
                text(1)
            );
            assert!(
                text(1).contains("acme.com/v1, Kind=Widget: ERROR: ")
                    && text(1).contains("undefined field 'colour'"),
                "{}",
                text(1)
            );
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("its types are not checked");
}
