//! Server-side apply: what is written, what is owned, what is refused.

use super::*;

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn version(object: &Value) -> String {
    object["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned()
}

async fn apply(s: &Server, target: &str, config: &Value) -> Value {
    let answer = s.patch(&format!("{target}?fieldManager=me"), "apply-patch+yaml", config.clone()).await;
    assert!(answer.code < 300, "{target}: {} {}", answer.code, answer.body);
    answer.body
}

/// Applies twice, and says that the second time nothing was written.
async fn applied_twice(s: &Server, target: &str, config: &Value) -> Value {
    let first = apply(s, target, config).await;
    let again = apply(s, target, config).await;
    assert_eq!(again, first, "{target}: the same again was written");
    first
}

fn template(container: Value) -> Value {
    json!({"metadata": {"creationTimestamp": null, "labels": {"a": "b"}}, "spec": {"containers": [container]}})
}

fn deployment() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "creationTimestamp": null},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "strategy": {}, "template": template(json!({
            "name": "c", "image": "i", "command": [], "ports": [{"name": "web", "containerPort": 80}],
            "livenessProbe": {"httpGet": {"port": "web"}},
            "resources": {"limits": {"memory": "1024Mi", "cpu": 0.5}, "requests": {"memory": "1048576Ki", "cpu": "0.50"}}}))}})
}

#[tokio::test]
async fn an_item_without_its_key_must_be_refused_by_the_validation_alone() {
    let s = Server::start().await;
    let nameless = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [{"image": "i"}]}});
    let orphan = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "m", "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n"}]}});
    let portless = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"ports": [{"name": "web"}]}});
    for (target, config, why) in [
        ("/api/v1/namespaces/default/pods/p", nameless, "spec.containers[0].name: Required value"),
        (
            "/api/v1/namespaces/default/configmaps/m",
            orphan,
            "metadata.ownerReferences.uid: Invalid value: \"\"",
        ),
        ("/api/v1/namespaces/default/services/s", portless, "spec.ports[0].port: Invalid value: 0"),
    ] {
        let refused = s.patch(&format!("{target}?fieldManager=me"), "apply-patch+yaml", config).await;
        let text = refused.body["message"].as_str().unwrap_or_default();
        assert!(refused.code == 422 && text.contains(why), "{}: {text}", refused.code);
    }
}

#[tokio::test]
async fn the_same_apply_must_not_write_again_however_values_are_spelt() {
    let s = Server::start().await;
    let made = applied_twice(&s, &format!("{DEPLOYMENTS}/d"), &deployment()).await;
    let resources = &made["spec"]["template"]["spec"]["containers"][0]["resources"];
    assert_eq!(resources["limits"], json!({"memory": "1Gi", "cpu": "500m"}));
    // A time with a fraction and a zone.
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"},
        "spec": {"holderIdentity": "x", "renewTime": "2024-01-01T02:00:00.500000+02:00"}});
    let made = applied_twice(&s, "/apis/coordination.k8s.io/v1/namespaces/default/leases/l", &lease).await;
    assert_eq!(made["spec"]["renewTime"], "2024-01-01T00:00:00.500000Z");
    // Ports distinguished by their protocol, where one is left to its default.
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "labels": {}, "annotations": null},
        "spec": {"selector": {"a": "b"}, "ports": [{"port": 80, "name": "t"}, {"port": 80, "protocol": "UDP", "name": "u", "targetPort": "dns"}]}});
    applied_twice(&s, "/api/v1/namespaces/default/services/s", &service).await;
    // What is only ever sent.
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "t"}, "stringData": {"b": "6"}, "data": {}});
    applied_twice(&s, "/api/v1/namespaces/default/secrets/t", &secret).await;
}

#[tokio::test]
async fn an_update_that_changes_nothing_must_not_write() {
    let s = Server::start().await;
    let target = format!("{DEPLOYMENTS}/d");
    let made = s.ok("POST", DEPLOYMENTS, deployment()).await;
    let mut put = deployment();
    put["metadata"]["uid"] = made["metadata"]["uid"].clone();
    put["status"] = json!({"replicas": 3});
    assert_eq!(version(&s.ok("PUT", &target, put).await), version(&made));
    let container =
        json!({"name": "c", "ports": [{"containerPort": 80}], "resources": {"limits": {"memory": "1024Mi"}}});
    let patch =
        json!({"metadata": {"finalizers": []}, "spec": {"template": {"spec": {"containers": [container]}}}});
    assert_eq!(version(&s.patch(&target, "strategic-merge-patch+json", patch).await.body), version(&made));
    let empty = json!({"metadata": {"labels": {}, "annotations": {}}, "spec": {"replicas": 1}, "status": {"replicas": 9}});
    assert_eq!(version(&s.patch(&target, "merge-patch+json", empty).await.body), version(&made));
    let path = "/spec/template/spec/containers/0/resources/limits/memory";
    let json = json!([{"op": "replace", "path": path, "value": "1048576Ki"}]);
    let patched = s.patch(&target, "json-patch+json", json).await;
    assert_eq!((patched.code, version(&patched.body)), (200, version(&made)));
    assert_eq!(s.get(&target).await, made);
}

#[tokio::test]
async fn an_apply_must_not_own_what_the_server_resets() {
    let s = Server::start().await;
    let target = format!("{DEPLOYMENTS}/d");
    let mut config = deployment();
    config["status"] = json!({"replicas": 3});
    let made = applied_twice(&s, &target, &config).await;
    let owned = made["metadata"]["managedFields"][0]["fieldsV1"].clone();
    assert!(owned.get("f:status").is_none() && owned.get("f:spec").is_some(), "{owned}");
    // The other way round: spec and labels through the status.
    let mut config = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "labels": {"x": "y"}},
        "spec": {"replicas": 7}, "status": {"replicas": 2}});
    config["metadata"]["annotations"] = json!({"k": "v"});
    let made = applied_twice(&s, &format!("{target}/status"), &config).await;
    assert_eq!(made["spec"]["replicas"], 1);
    let all = made["metadata"]["managedFields"].as_array().unwrap();
    let owned = &all.iter().find(|m| m["subresource"] == "status").unwrap()["fieldsV1"];
    assert_eq!(*owned, json!({"f:metadata": {"f:annotations": {"f:k": {}}}, "f:status": {"f:replicas": {}}}));
}

#[tokio::test]
async fn one_key_twice_must_not_be_applied() {
    let s = Server::start().await;
    let mut config = deployment();
    config["spec"]["template"] =
        template(json!({"name": "c", "image": "i", "env": [{"name": "E"}, {"name": "E"}]}));
    let target = format!("{DEPLOYMENTS}/d?fieldManager=me");
    let refused = s.patch(&target, "apply-patch+yaml", config.clone()).await;
    assert_eq!(refused.code, 500);
    assert_eq!(
        refused.body["message"],
        "failed to create typed patch object (default/d; apps/v1, Kind=Deployment): \
         .spec.template.spec.containers[name=\"c\"].env: duplicate entries for key [name=\"E\"]"
    );
    // What is stored may have it, as any other write may: the apply says which one it means.
    s.ok("POST", DEPLOYMENTS, config.clone()).await;
    config["spec"]["template"] =
        template(json!({"name": "c", "image": "i", "env": [{"name": "E", "value": "1"}]}));
    let forced = s.patch(&format!("{target}&force=true"), "apply-patch+yaml", config).await;
    assert_eq!(
        forced.body["spec"]["template"]["spec"]["containers"][0]["env"],
        json!([{"name": "E", "value": "1"}])
    );
}

#[tokio::test]
async fn an_unknown_field_must_not_be_applied() {
    let s = Server::start().await;
    let mut config = config_map("a");
    config["bogus"] = json!(1);
    let refused = s
        .patch(&format!("{MAPS}/a?fieldManager=me&fieldValidation=Ignore"), "apply-patch+yaml", config)
        .await;
    assert_eq!(refused.code, 500);
    assert_eq!(
        refused.body["message"],
        "failed to create typed patch object (default/a; /v1, Kind=ConfigMap): .bogus: field not declared in schema"
    );
}

#[tokio::test]
async fn the_same_apply_of_a_custom_resource_must_not_write_again() {
    let s = custom::defined().await;
    let config = json!({"apiVersion": "acme.com/v1", "kind": "Widget",
        "metadata": {"name": "a", "creationTimestamp": null, "labels": {}},
        "spec": {"replicas": 1.0, "ports": [{"port": 80.0}]}, "status": {"replicas": 4}});
    let made = applied_twice(&s, &format!("{}/a", custom::WIDGETS), &config).await;
    assert_eq!((&made["spec"]["replicas"], made.get("status")), (&json!(1), None));
    let owned = &made["metadata"]["managedFields"][0]["fieldsV1"];
    assert!(owned.get("f:status").is_none() && owned.get("f:spec").is_some(), "{owned}");
    let status = json!({"apiVersion": "acme.com/v1", "kind": "Widget", "metadata": {"name": "a", "labels": {"x": "y"}},
        "spec": {"replicas": 3}, "status": {"replicas": 4}});
    let made = applied_twice(&s, &format!("{}/a/status", custom::WIDGETS), &status).await;
    let all = made["metadata"]["managedFields"].as_array().unwrap();
    let owned = &all.iter().find(|m| m["subresource"] == "status").unwrap()["fieldsV1"];
    assert_eq!(*owned, json!({"f:status": {"f:replicas": {}}}));
    let twice = json!({"apiVersion": "acme.com/v1", "kind": "Widget", "metadata": {"name": "b"},
        "spec": {"ports": [{"port": 80}, {"port": 80}]}});
    let target = format!("{}/b?fieldManager=me", custom::WIDGETS);
    let refused = s.patch(&target, "apply-patch+yaml", twice).await;
    assert_eq!(
        refused.body["message"],
        "failed to create typed patch object (default/b; acme.com/v1, Kind=Widget): \
         .spec.ports: duplicate entries for key [port=80]"
    );
}

/// Every owned path of an object, such as `f:spec/f:ports`, by whomever.
fn owned(object: &Value) -> Vec<String> {
    fn walk(fields: &Value, path: &str, into: &mut Vec<String>) {
        for (name, below) in fields.as_object().into_iter().flatten() {
            let here = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
            walk(below, &here, into);
            into.push(here);
        }
    }
    let mut all = Vec::new();
    for entry in object["metadata"]["managedFields"].as_array().unwrap() {
        walk(&entry["fieldsV1"], "", &mut all);
    }
    all
}

#[tokio::test]
async fn what_admission_adds_must_not_be_owned_by_who_writes() {
    let s = Server::start().await;
    let made = s.ok("POST", PODS, pod("p")).await;
    assert_eq!(made["spec"]["serviceAccountName"], "default");
    let paths = owned(&made);
    assert!(paths.iter().any(|p| p == "f:spec/f:containers"), "{paths:?}");
    assert!(paths.iter().any(|p| p == "f:spec/f:restartPolicy"), "defaults are the writer's: {paths:?}");
    for added in
        ["f:spec/f:serviceAccountName", "f:spec/f:tolerations", "f:spec/f:volumes", "f:spec/f:priority"]
    {
        assert!(!paths.iter().any(|p| p == added), "{added} of {paths:?}");
    }
}

#[tokio::test]
async fn what_the_server_grants_must_not_be_owned_by_who_writes() {
    let s = Server::start().await;
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "s"},
        "spec": {"type": "NodePort", "ports": [{"port": 80}]},
    });
    let services = "/api/v1/namespaces/default/services";
    let made = s.ok("POST", services, service.clone()).await;
    assert!(made["spec"]["ports"][0]["nodePort"].is_number(), "{made}");
    let granted = |object: &Value| {
        owned(object).into_iter().filter(|p| p.contains("f:clusterIP") || p.contains("nodePort")).count()
    };
    assert_eq!(granted(&made), 0, "{made}");
    let apply = format!("{services}/t?fieldManager=m");
    let made = s.patch(&apply, "apply-patch+yaml", {
        let mut named = service;
        named["metadata"]["name"] = json!("t");
        named
    });
    assert_eq!(granted(&made.await.body), 0);
}

#[tokio::test]
async fn what_was_there_before_the_first_apply_must_not_be_lost_to_it() {
    let s = Server::start().await;
    let target = format!("{MAPS}/a");
    let map = |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": value}});
    s.ok("POST", MAPS, map("1")).await;
    let forgotten = json!({"metadata": {"managedFields": [{}]}});
    let forgot = s.patch(&target, "merge-patch+json", forgotten).await.body;
    assert!(!forgot["metadata"]["managedFields"].is_array(), "{forgot}");
    let changed = s.patch(&target, "merge-patch+json", json!({"data": {"l": "2"}})).await.body;
    assert!(
        !changed["metadata"]["managedFields"].is_array(),
        "nobody is noted until somebody applies: {changed}"
    );
    let apply = format!("{target}?fieldManager=me");
    let refused = s.patch(&apply, "apply-patch+yaml", map("3")).await;
    assert_eq!(
        refused.body["message"],
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.k"
    );
    let agreed = s.patch(&apply, "apply-patch+yaml", map("1")).await.body;
    let managers = agreed["metadata"]["managedFields"].as_array().unwrap();
    let names: Vec<&str> = managers.iter().filter_map(|m| m["manager"].as_str()).collect();
    assert_eq!(names, ["me", "before-first-apply"]);
}

#[tokio::test]
async fn owners_of_the_spec_and_of_the_status_must_not_conflict() {
    let s = Server::start().await;
    let target = format!("{DEPLOYMENTS}/d");
    let mut both = deployment();
    both["status"] = json!({"replicas": 3});
    apply(&s, &target, &both).await;
    let status = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"replicas": 9}, "status": {"replicas": 4}});
    let by = |who: &str| format!("{target}/status?fieldManager={who}");
    assert_eq!(s.patch(&by("b"), "apply-patch+yaml", status.clone()).await.code, 200);
    let mut other = status;
    other["status"]["replicas"] = json!(5);
    assert_eq!(s.patch(&by("c"), "apply-patch+yaml", other).await.code, 409, "b owns it");
}

#[tokio::test]
async fn a_field_the_server_granted_must_not_conflict_with_who_applies_it() {
    let s = Server::start().await;
    let target = "/api/v1/namespaces/default/services/s";
    let service =
        |spec: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": spec});
    apply(&s, target, &service(json!({"selector": {"a": "b"}, "ports": [{"port": 80}]}))).await;
    let other = service(json!({"ipFamilyPolicy": "PreferDualStack"}));
    let answer = s.patch(&format!("{target}?fieldManager=b"), "apply-patch+yaml", other).await;
    assert_eq!(answer.code, 200, "{}", answer.body);
    let again = service(json!({"sessionAffinity": "ClientIP"}));
    let answer = s.patch(&format!("{target}?fieldManager=c"), "apply-patch+yaml", again).await;
    assert_eq!(answer.code, 200, "what was left to its default is nobody's: {}", answer.body);
}

#[tokio::test]
async fn an_undeclared_field_of_a_custom_resource_must_not_be_applied() {
    let s = custom::defined().await;
    let config = json!({"apiVersion": "acme.com/v1", "kind": "Widget", "metadata": {"name": "o"},
        "spec": {"replicas": 1, "undeclared": 1}});
    let target = format!("{}/o?fieldManager=me", custom::WIDGETS);
    let refused = s.patch(&target, "apply-patch+yaml", config).await;
    assert_eq!(
        refused.body["message"],
        "failed to create typed patch object (default/o; acme.com/v1, Kind=Widget): \
         .spec.undeclared: field not declared in schema"
    );
}

#[tokio::test]
async fn a_field_must_not_be_owned_by_its_name_in_another_version() {
    let s = Server::start().await;
    let scaler = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
        "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 50,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}});
    let made = s.ok("POST", "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers", scaler).await;
    assert_eq!(made["metadata"]["managedFields"][0]["apiVersion"], "autoscaling/v1");
    let paths = owned(&made);
    assert!(paths.contains(&"f:spec/f:targetCPUUtilizationPercentage".to_owned()), "{paths:?}");
    assert!(!paths.contains(&"f:spec/f:metrics".to_owned()), "{paths:?}");
    let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"},
        "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "example.com/c", "reportingInstance": "i",
        "action": "Do", "reason": "Done", "type": "Normal", "note": "n",
        "regarding": {"kind": "Pod", "namespace": "default", "name": "p"}});
    let made = s.ok("POST", "/apis/events.k8s.io/v1/namespaces/default/events", event).await;
    let paths = owned(&made);
    assert!(paths.contains(&"f:note".to_owned()) && !paths.contains(&"f:message".to_owned()), "{paths:?}");
}
