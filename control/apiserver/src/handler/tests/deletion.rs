use super::watches::{event, open};
use super::*;

#[tokio::test]
async fn a_delete_answers_status_or_object_as_upstream() {
    let s = Server::start().await;
    let made = s.ok("POST", MAPS, config_map("a")).await;
    let gone = s.ok("DELETE", &format!("{MAPS}/a"), Value::Null).await;
    assert_eq!(
        gone,
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": {"name": "a", "kind": "configmaps", "uid": made["metadata"]["uid"]}})
    );
    s.ok("POST", PODS, pod("p")).await;
    assert_eq!(s.ok("DELETE", &format!("{PODS}/p"), Value::Null).await["kind"], "Pod");
    assert_eq!(s.refused("DELETE", &format!("{PODS}/p"), Value::Null).await.0, 404);
}

#[tokio::test]
async fn a_bound_pod_goes_by_the_kubelets_second_delete() {
    let s = Server::start().await;
    s.ok("POST", PODS, pod("p")).await;
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    s.ok("POST", &format!("{PODS}/p/binding"), binding.clone()).await;
    let bound = s.get(&format!("{PODS}/p")).await;
    assert_eq!(bound["spec"]["nodeName"], "n1");
    assert_eq!(bound["status"]["conditions"][0]["type"], "PodScheduled");
    let (code, text) = s.refused("POST", &format!("{PODS}/p/binding"), binding).await;
    assert_eq!(code, 409);
    assert!(text.contains("pod p is already assigned to node \"n1\""), "{text}");
    let going = s.ok("DELETE", &format!("{PODS}/p"), Value::Null).await;
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 30);
    assert!(going["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(s.get(&format!("{PODS}/p")).await["metadata"]["uid"], going["metadata"]["uid"]);
    let now = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0,
        "preconditions": {"uid": going["metadata"]["uid"]}});
    s.ok("DELETE", &format!("{PODS}/p"), now).await;
    assert_eq!(s.refused("GET", &format!("{PODS}/p"), Value::Null).await.0, 404);
}

#[tokio::test]
async fn preconditions_and_dry_runs_hold() {
    let s = Server::start().await;
    s.ok("POST", MAPS, config_map("a")).await;
    let wrong = json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": "other"}});
    let (code, text) = s.refused("DELETE", &format!("{MAPS}/a"), wrong).await;
    assert_eq!(code, 409);
    // Upstream: `rest/delete.go`, which knows the kind only.
    assert!(
        text.starts_with(
            "Operation cannot be fulfilled on ConfigMap \"a\": the UID in the precondition (other)"
        ),
        "{text}"
    );
    s.ok("DELETE", &format!("{MAPS}/a?dryRun=All"), Value::Null).await;
    s.get(&format!("{MAPS}/a")).await;
}

#[tokio::test]
async fn finalizers_hold_an_object_until_the_last_is_gone() {
    let s = Server::start().await;
    let mut map = config_map("a");
    map["metadata"]["finalizers"] = json!(["example.com/x"]);
    s.ok("POST", MAPS, map).await;
    let target = format!("{MAPS}/a");
    let going = s.ok("DELETE", &target, Value::Null).await;
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 0);
    let more = json!({"metadata": {"finalizers": ["example.com/x", "example.com/y"]}});
    let refused = s.patch(&target, "merge-patch+json", more).await;
    assert_eq!(refused.code, 422);
    assert!(refused.body["message"].as_str().unwrap().contains(
        "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"example.com/y\"}"
    ));
    assert_eq!(
        s.patch(&target, "merge-patch+json", json!({"metadata": {"finalizers": null}})).await.code,
        200
    );
    assert_eq!(s.refused("GET", &target, Value::Null).await.0, 404);
    let foreground = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Foreground"});
    s.ok("POST", MAPS, config_map("b")).await;
    let going = s.ok("DELETE", &format!("{MAPS}/b"), foreground).await;
    assert_eq!(going["metadata"]["finalizers"], json!(["foregroundDeletion"]));
}

#[tokio::test]
async fn an_object_whose_last_holder_lets_go_must_not_be_stored_without_one() {
    // a server killed after such a write would leave an object that is finished and that nobody deletes
    let s = Server::start().await;
    let held = |mut object: Value| {
        object["metadata"]["finalizers"] = json!(["example.com/x"]);
        object
    };
    let (freed, unfinalized) =
        (json!({"metadata": {"finalizers": null}}), json!({"spec": {"finalizers": []}}));
    let service = json!({"metadata": {"name": "a"}, "spec": {"ports": [{"port": 80}]}});
    for (all, object, free) in [
        (MAPS, held(config_map("a")), &freed),
        ("/api/v1/namespaces/default/services", held(service), &freed),
        ("/api/v1/namespaces", json!({"metadata": {"name": "a"}}), &unfinalized),
    ] {
        let target = format!("{all}/a");
        s.ok("POST", all, object).await;
        let mut going = s.ok("DELETE", &target, Value::Null).await;
        let from = going["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
        let mut events = open(&s, &format!("{all}?watch=1&resourceVersion={from}"), &[]).await;
        if free == &unfinalized {
            going["spec"]["finalizers"] = json!([]);
            s.ok("PUT", &format!("{target}/finalize"), going).await;
        } else {
            assert_eq!(s.patch(&target, "merge-patch+json", free.clone()).await.code, 200);
        }
        assert_eq!(events.named().await, event("DELETED", "a"), "{all}");
        assert_eq!(s.refused("GET", &target, Value::Null).await.0, 404);
    }
}

#[tokio::test]
async fn a_collection_goes_by_its_selection() {
    let s = Server::start().await;
    for name in ["a", "b", "c"] {
        s.ok("POST", PODS, pod(name)).await;
    }
    let gone = s.ok("DELETE", &format!("{PODS}?labelSelector=app!%3Db"), Value::Null).await;
    assert_eq!(gone["kind"], "PodList");
    let left = s.get(PODS).await;
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
    assert_eq!(left["items"][0]["metadata"]["name"], "b");
}

#[tokio::test]
async fn a_namespace_is_terminated_then_finalized() {
    let s = Server::start().await;
    s.ok("POST", "/api/v1/namespaces", json!({"metadata": {"name": "x"}})).await;
    let going = s.ok("DELETE", "/api/v1/namespaces/x", Value::Null).await;
    assert_eq!(going["status"]["phase"], "Terminating");
    let answer = s.ask("POST", "/api/v1/namespaces/x/configmaps", config_map("a")).await;
    assert_eq!(answer.code, 403);
    assert_eq!(
        answer.body["message"],
        "configmaps \"a\" is forbidden: unable to create new content in namespace x because it is being terminated"
    );
    assert_eq!(answer.body["details"]["causes"][0]["reason"], "NamespaceTerminating");
    let mut finalized = going;
    finalized["spec"]["finalizers"] = json!([]);
    s.ok("PUT", "/api/v1/namespaces/x/finalize", finalized).await;
    assert_eq!(s.refused("GET", "/api/v1/namespaces/x", Value::Null).await.0, 404);
    let (code, text) = s.refused("POST", "/api/v1/namespaces/x/configmaps", config_map("a")).await;
    assert_eq!((code, text.as_str()), (404, "namespaces \"x\" not found"));
    let (code, text) = s.refused("DELETE", "/api/v1/namespaces/default", Value::Null).await;
    assert_eq!(
        (code, text.as_str()),
        (403, "namespaces \"default\" is forbidden: this namespace may not be deleted")
    );
}
