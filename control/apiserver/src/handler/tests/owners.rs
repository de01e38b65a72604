//! Who owns fields written through other versions, and fields that are sent and not kept.

use super::*;

const SCALERS: &str = "namespaces/default/horizontalpodautoscalers";

async fn apply(s: &Server, target: &str, who: &str, config: &Value) -> Received {
    s.patch(&format!("{target}?fieldManager={who}"), "apply-patch+yaml", config.clone()).await
}

fn fields(object: &Value, who: &str) -> Value {
    let all = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    all.iter()
        .find(|owner| owner["manager"] == who)
        .map(|owner| owner["fieldsV1"].clone())
        .unwrap_or_default()
}

fn scaler(version: &str, target: Value) -> Value {
    let mut spec = json!({"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}});
    let name = if version == "v1" { "targetCPUUtilizationPercentage" } else { "metrics" };
    spec[name] = target;
    json!({"apiVersion": format!("autoscaling/{version}"), "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"}, "spec": spec})
}

fn metrics(percentage: i64) -> Value {
    json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percentage}}}])
}

#[tokio::test]
async fn a_built_in_kinds_other_version_must_not_conflict_over_the_same_value() {
    let s = Server::start().await;
    let (one, two) =
        (format!("/apis/autoscaling/v1/{SCALERS}/h"), format!("/apis/autoscaling/v2/{SCALERS}/h"));
    let made = apply(&s, &one, "a", &scaler("v1", json!(50))).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let same = apply(&s, &two, "b", &scaler("v2", metrics(50))).await;
    assert_eq!(same.code, 200, "{}", same.body);
    let other = apply(&s, &two, "c", &scaler("v2", metrics(60))).await;
    assert_eq!(
        other.body["message"],
        "Apply failed with 2 conflicts: conflicts with \"a\":\n- .spec.targetCPUUtilizationPercentage\n\
         conflicts with \"b\":\n- .spec.metrics"
    );
    // One who gives it up in its version does not take it from the other.
    let mut less = scaler("v1", Value::Null);
    less["spec"].as_object_mut().unwrap().remove("targetCPUUtilizationPercentage");
    let kept = apply(&s, &one, "a", &less).await.body;
    assert_eq!(kept["spec"]["targetCPUUtilizationPercentage"], 50, "{kept}");
    // An update through the first version is one in the second, too.
    let patched =
        s.patch(&one, "merge-patch+json", json!({"spec": {"targetCPUUtilizationPercentage": 70}})).await;
    assert_eq!(fields(&patched.body, "b")["f:spec"].get("f:metrics"), None, "{}", patched.body);
}

#[tokio::test]
async fn a_version_nobody_knows_must_not_own_anything() {
    let s = Server::start().await;
    let made = s.ok("POST", MAPS, config_map("a")).await;
    let mut owners = made["metadata"]["managedFields"].clone();
    let mut stranger = owners[0].clone();
    (stranger["manager"], stranger["apiVersion"]) = (json!("old"), json!("extensions/v1beta1"));
    owners.as_array_mut().unwrap().push(stranger);
    let patch = json!({"metadata": {"managedFields": owners}, "data": {"b": "2"}});
    let patched = s.patch(&format!("{MAPS}/a?fieldManager=me"), "merge-patch+json", patch).await.body;
    assert_eq!(fields(&patched, "old"), Value::Null);
    assert_eq!(fields(&patched, "me"), json!({"f:data": {"f:b": {}}}));
}

#[tokio::test]
async fn what_a_feature_that_is_off_drops_is_owned_by_who_sent_it() {
    let s = Server::start().await;
    let grouped = |name: &str| {
        let mut pod = pod(name);
        pod["spec"]["schedulingGroup"] = json!({"podGroupName": "g"});
        pod
    };
    let made = s.ok("POST", &format!("{PODS}?fieldManager=p"), grouped("a")).await;
    assert_eq!(made["spec"].get("schedulingGroup"), None);
    assert_eq!(fields(&made, "p")["f:spec"]["f:schedulingGroup"], json!({".": {}, "f:podGroupName": {}}));
    let target = format!("{PODS}/b");
    let applied = apply(&s, &target, "q", &grouped("b")).await.body;
    assert_eq!(fields(&applied, "q")["f:spec"]["f:schedulingGroup"], json!({"f:podGroupName": {}}));
    assert_eq!(apply(&s, &target, "q", &grouped("b")).await.body, applied, "the same again was written");
}

/// A kind whose objects may have fields that are taken and not kept.
async fn opens() -> Server {
    let s = Server::start().await;
    let text = json!({"type": "string"});
    let spec = json!({
        "any": {"type": "object"},
        "more": {"type": "object", "additionalProperties": true},
        "text": text,
        "nullable": {"type": "string", "nullable": true},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
            "properties": {"inner": {"type": "object", "properties": {"x": text}}}},
    });
    s.ok("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "opens.acme.com"},
        "spec": {"group": "acme.com", "scope": "Namespaced", "names": {"plural": "opens", "kind": "Open"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object",
                "properties": {"spec": {"type": "object", "properties": spec}}}}}]}}))
        .await;
    definitions::until(|| s.registry.kind("acme.com", "v1", "opens").is_some()).await;
    s
}

fn open(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "acme.com/v1", "kind": "Open", "metadata": {"name": name}, "spec": spec})
}

/// As upstream 1.36.2 has it.
#[tokio::test]
async fn what_is_taken_and_not_kept_is_owned_by_who_applies_it_only() {
    let s = opens().await;
    let collection = "/apis/acme.com/v1/namespaces/default/opens";
    let target = format!("{collection}/a");
    let config =
        open("a", json!({"any": {"a": {"b": 1}}, "free": {"q": {"w": 1}, "inner": {"x": "1", "y": 2}}}));
    let made = apply(&s, &target, "a", &config).await.body;
    assert_eq!(made["spec"], json!({"any": {}, "free": {"q": {"w": 1}, "inner": {"x": "1"}}}), "{made}");
    let owned = &fields(&made, "a")["f:spec"];
    assert_eq!(owned["f:any"], json!({"f:a": {".": {}, "f:b": {}}}));
    assert_eq!(owned["f:free"]["f:inner"], json!({"f:x": {}, "f:y": {}}));
    assert_eq!(apply(&s, &target, "a", &config).await.body, made, "the same again was written");
    // Another who sends it is taken to add it.
    let other = apply(&s, &target, "b", &open("a", json!({"any": {"a": {"b": 1}}}))).await;
    assert_eq!(other.code, 409, "{}", other.body);
    assert_eq!(apply(&s, &target, "b", &open("a", json!({"any": {"c": 1}}))).await.code, 200);
    // What a client sends in any other way is pruned first.
    let sent = open("b", json!({"any": {"a": 1}, "zzz": 1, "more": {"a": {"b": 1}}, "text": null}));
    let made = s.ok("POST", &format!("{collection}?fieldManager=p"), sent).await;
    let owned = json!({".": {}, "f:any": {}, "f:more": {".": {}, "f:a": {}}});
    assert_eq!(fields(&made, "p"), json!({ "f:spec": owned }));
    let patch = json!({"spec": {"any": {"b": 1}, "yyy": 2}});
    let patched = s.patch(&format!("{collection}/b?fieldManager=m"), "merge-patch+json", patch).await.body;
    assert_eq!(patched, made);
}

#[tokio::test]
async fn a_null_where_there_may_be_none_must_not_be_applied() {
    let s = opens().await;
    let target = "/apis/acme.com/v1/namespaces/default/opens/a";
    let refused = apply(&s, target, "a", &open("a", json!({"text": null}))).await;
    assert_eq!(refused.code, 422);
    let why = "Open.acme.com \"a\" is invalid: spec.text: Invalid value: \"null\": spec.text in body must be of type string: \"null\"";
    assert_eq!(refused.body["message"], why);
    let refused = apply(&s, target, "a", &open("a", json!({"any": null}))).await;
    assert_eq!(refused.code, 422, "{}", refused.body);
    let fine = apply(&s, target, "a", &open("a", json!({"nullable": null}))).await;
    assert_eq!((fine.code, &fine.body["spec"]), (201, &json!({"nullable": null})), "{}", fine.body);
    assert_eq!(fields(&fine.body, "a"), json!({"f:spec": {"f:nullable": {}}}));
}

/// Two versions of one schema, or of two that differ by a field, told apart by their names only.
async fn tools(differ: bool) -> Server {
    let s = Server::start().await;
    let mut spec = json!({"size": {"type": "integer"}, "colour": {"type": "string"}});
    let version = |name: &str, spec: &Value| {
        json!({"name": name, "served": true, "storage": name == "v1", "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "spec": {"type": "object", "properties": spec},
                "status": {"type": "object", "properties": {"ready": {"type": "boolean"}}}}}}})
    };
    let one = version("v1", &spec);
    if differ {
        spec["shape"] = json!({"type": "string"});
    }
    s.ok("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "tools.acme.com"},
        "spec": {"group": "acme.com", "scope": "Namespaced", "names": {"plural": "tools", "kind": "Tool"},
            "versions": [one, version("v2", &spec)]}}))
        .await;
    definitions::until(|| s.registry.kind("acme.com", "v2", "tools").is_some()).await;
    s
}

fn tools_of(version: &str) -> String {
    format!("/apis/acme.com/{version}/namespaces/default/tools")
}

fn tool(version: &str, spec: Value) -> Value {
    json!({"apiVersion": format!("acme.com/{version}"), "kind": "Tool", "metadata": {"name": "t"}, "spec": spec})
}

#[tokio::test]
async fn versions_that_differ_by_name_share_their_owners() {
    let s = tools(false).await;
    let (one, two) = (format!("{}/t", tools_of("v1")), format!("{}/t", tools_of("v2")));
    apply(&s, &one, "a", &tool("v1", json!({"size": 1, "colour": "red"}))).await;
    assert_eq!(apply(&s, &two, "b", &tool("v2", json!({"size": 1}))).await.code, 200);
    let refused = apply(&s, &two, "b", &tool("v2", json!({"size": 1, "colour": "blue"}))).await;
    assert_eq!(refused.body["message"], "Apply failed with 1 conflict: conflict with \"a\": .spec.colour");
    let less = apply(&s, &two, "a", &tool("v2", json!({"colour": "red"}))).await.body;
    assert_eq!(less["spec"], json!({"size": 1, "colour": "red"}), "b has the size");
    let patched = s
        .patch(&format!("{one}?fieldManager=c"), "merge-patch+json", json!({"spec": {"size": 2}}))
        .await
        .body;
    assert_eq!(fields(&patched, "b"), Value::Null, "{patched}");
    assert_eq!(fields(&patched, "a"), json!({"f:spec": {"f:colour": {}}}));
    // Whoever owns the status does so in every version.
    let status = json!({"apiVersion": "acme.com/v1", "kind": "Tool", "metadata": {"name": "t"}, "status": {"ready": true}});
    assert_eq!(apply(&s, &format!("{one}/status"), "d", &status).await.code, 200);
    let both = json!({"apiVersion": "acme.com/v2", "kind": "Tool", "metadata": {"name": "t"}, "spec": {"colour": "red"},
        "status": {"ready": false}});
    assert_eq!(apply(&s, &two, "a", &both).await.code, 200);
}

#[tokio::test]
async fn a_field_that_an_owners_version_does_not_have_is_not_its() {
    let s = tools(true).await;
    let (one, two) = (format!("{}/t", tools_of("v1")), format!("{}/t", tools_of("v2")));
    apply(&s, &one, "a", &tool("v1", json!({"size": 1}))).await;
    let made = apply(&s, &two, "b", &tool("v2", json!({"size": 1, "shape": "round"}))).await;
    assert_eq!(made.code, 200, "{}", made.body);
}
