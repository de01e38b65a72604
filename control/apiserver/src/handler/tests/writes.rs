use super::*;

#[tokio::test]
async fn a_missing_name_must_not_hide_what_else_is_wrong() {
    let s = Server::start().await;
    let (code, text) = s.refused("POST", MAPS, json!({"metadata": {"labels": {"a": "-"}}})).await;
    assert_eq!(code, 422);
    assert!(
        text.starts_with("ConfigMap \"\" is invalid: [metadata.name: Required value: name or generateName is required, metadata.labels: "),
        "{text}"
    );
    for (target, mut object) in [
        (PODS, json!({"spec": {"containers": []}})),
        ("/apis/apps/v1/namespaces/default/deployments", json!({"spec": {}})),
        ("/api/v1/namespaces/default/services", json!({"spec": {"ports": []}})),
    ] {
        object["metadata"] = json!({});
        let answer = s.ask("POST", target, object).await;
        assert_eq!(answer.code, 422, "{target}");
        let causes = answer.body["details"]["causes"].as_array().unwrap();
        let fields: Vec<&str> = causes.iter().filter_map(|cause| cause["field"].as_str()).collect();
        assert_eq!(fields[0], "metadata.name", "{target}");
        assert!(fields.iter().any(|field| field.starts_with("spec.")), "{target}: {fields:?}");
    }
}

#[tokio::test]
async fn create_stamps_and_get_returns_it() {
    let s = Server::start().await;
    let mut map = config_map("a");
    map["metadata"]["uid"] = json!("mine");
    map["metadata"]["selfLink"] = json!("/x");
    let answer = s.ask("POST", MAPS, map).await;
    assert_eq!(answer.code, 201);
    let created = answer.body;
    assert_ne!(created["metadata"]["uid"], "mine");
    assert_eq!(created["metadata"]["namespace"], "default");
    assert!(created["metadata"]["creationTimestamp"].as_str().unwrap().ends_with('Z'));
    assert!(created["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap() > 0);
    assert!(created["metadata"].get("selfLink").is_none());
    assert_eq!(s.get(&format!("{MAPS}/a")).await, created);
    let (code, text) = s.refused("POST", MAPS, config_map("a")).await;
    assert_eq!((code, text.as_str()), (409, "configmaps \"a\" already exists"));
    let (code, text) = s.refused("GET", &format!("{MAPS}/b"), Value::Null).await;
    assert_eq!((code, text.as_str()), (404, "configmaps \"b\" not found"));
}

#[tokio::test]
async fn bad_bodies_get_upstreams_words() {
    let s = Server::start().await;
    let mut map = config_map("a");
    map["metadata"]["resourceVersion"] = json!("1");
    let (code, text) = s.refused("POST", MAPS, map).await;
    // The store's own error, of no reason (upstream: `storage/etcd3/store.go`).
    assert_eq!((code, text.as_str()), (500, "resourceVersion should not be set on objects to be created"));
    // A number that is none is nobody's version, and a dry run asks no store.
    let dry = json!({"metadata": {"name": "a", "resourceVersion": "1"}});
    assert_eq!(s.ask("POST", &format!("{MAPS}?dryRun=All"), dry).await.code, 201);
    // Names are compared before anything is looked up; who names a uid means an object that was there.
    let (code, text) = s.refused("PUT", &format!("{MAPS}/none"), config_map("other")).await;
    assert_eq!(
        (code, text.as_str()),
        (400, "the name of the object (other) does not match the name on the URL (none)")
    );
    let mut gone = config_map("none");
    gone["metadata"]["uid"] = json!("u");
    let (code, text) = s.refused("PUT", &format!("{MAPS}/none"), gone).await;
    assert_eq!(code, 409);
    assert!(text.contains("Precondition failed: UID in precondition: u, UID in object meta: "), "{text}");
    let mut map = config_map("a");
    map["metadata"]["namespace"] = json!("other");
    let (code, text) = s.refused("POST", MAPS, map).await;
    assert_eq!(
        (code, text.as_str()),
        (400, "the namespace of the provided object does not match the namespace sent on the request")
    );
    let (code, text) = s
        .refused(
            "POST",
            MAPS,
            json!({"apiVersion": "apps/v1", "kind": "ConfigMap", "metadata": {"name": "a"}}),
        )
        .await;
    assert_eq!(
        (code, text.as_str()),
        (400, "the API version in the data (apps/v1) does not match the expected API version (v1)")
    );
    let (code, text) = s.refused("POST", MAPS, json!({"metadata": {}})).await;
    assert_eq!(code, 422);
    assert!(text.contains("name or generateName is required"), "{text}");
    let large = answer(s.send("POST", MAPS, vec![b' '; 3 * 1024 * 1024 + 1], &[], admin()).await).await;
    assert_eq!(large.code, 413);
    assert_eq!(large.body["message"], "Request entity too large: limit is 3145728");
    let media = answer(s.send("POST", MAPS, "x", &[("content-type", "text/plain")], admin()).await).await;
    assert_eq!(media.code, 415);
    let garbage = answer(s.send("POST", MAPS, "{", &[], admin()).await).await;
    assert_eq!(garbage.code, 400);
    assert!(
        garbage.body["message"].as_str().unwrap().contains("couldn't get version/kind; json parse error")
    );
}

#[tokio::test]
async fn unknown_fields_are_ignored_warned_of_or_refused() {
    let s = Server::start().await;
    let mut map = config_map("a");
    map["foo"] = json!(1);
    let strict = s.ask("POST", &format!("{MAPS}?fieldValidation=Strict"), map.clone()).await;
    assert_eq!(strict.code, 400);
    assert_eq!(
        strict.body["message"],
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \"foo\""
    );
    let warned = s.ask("POST", MAPS, map.clone()).await;
    assert_eq!(warned.code, 201);
    assert_eq!(warned.headers["warning"], "299 - \"unknown field \\\"foo\\\"\"");
    assert!(warned.body.get("foo").is_none());
    map["metadata"]["name"] = json!("b");
    let ignored = s.ask("POST", &format!("{MAPS}?fieldValidation=Ignore"), map).await;
    assert!(ignored.headers.get("warning").is_none());
}

#[tokio::test]
async fn generated_names_are_unique_and_dry_runs_write_nothing() {
    let s = Server::start().await;
    let body = json!({"metadata": {"generateName": "x-"}});
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let name = s.ok("POST", MAPS, body.clone()).await["metadata"]["name"].as_str().unwrap().to_owned();
        assert_eq!((name.len(), &name[..2]), (7, "x-"));
        assert!(names.insert(name));
    }
    let dry = s.ask("POST", &format!("{MAPS}?dryRun=All"), config_map("dry")).await;
    assert_eq!(dry.code, 201);
    assert!(dry.body["metadata"].get("resourceVersion").is_none());
    assert_eq!(s.refused("GET", &format!("{MAPS}/dry"), Value::Null).await.0, 404);
    // Upstream: `endpoints/handlers/create.go` has invalid options refused as an invalid object.
    assert_eq!(s.refused("POST", &format!("{MAPS}?dryRun=Some"), config_map("dry")).await.0, 422);
}

#[tokio::test]
async fn updates_are_held_to_the_resource_version_they_name() {
    let s = Server::start().await;
    let first = s.ok("POST", MAPS, config_map("a")).await;
    let target = format!("{MAPS}/a");
    let mut second = first.clone();
    second["data"] = json!({"a": "2"});
    let second = s.ok("PUT", &target, second).await;
    assert_ne!(first["metadata"]["resourceVersion"], second["metadata"]["resourceVersion"]);
    let mut stale = first.clone();
    stale["data"] = json!({"a": "3"});
    let (code, text) = s.refused("PUT", &target, stale.clone()).await;
    assert_eq!(code, 409);
    assert_eq!(
        text,
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again"
    );
    stale["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    let third = s.ok("PUT", &target, stale.clone()).await;
    assert_eq!(third["data"]["a"], "3");
    // The same again changes nothing, and writes nothing.
    let again = s.ok("PUT", &target, stale.clone()).await;
    assert_eq!(again["metadata"]["resourceVersion"], third["metadata"]["resourceVersion"]);
    stale["metadata"]["uid"] = json!("other");
    assert_eq!(s.refused("PUT", &target, stale).await.0, 409);
    let (code, text) = s.refused("PUT", &target, config_map("b")).await;
    assert_eq!(
        (code, text.as_str()),
        (400, "the name of the object (b) does not match the name on the URL (a)")
    );
}

#[tokio::test]
async fn some_resources_are_created_by_put() {
    let s = Server::start().await;
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}, "spec": {"holderIdentity": "x"}});
    let target = "/apis/coordination.k8s.io/v1/namespaces/default/leases/l";
    assert_eq!(s.ask("PUT", target, lease).await.code, 201);
    assert_eq!(s.refused("PUT", &format!("{MAPS}/none"), config_map("none")).await.0, 404);
}

#[tokio::test]
async fn patches_apply_and_conflicts_are_retried() {
    let s = Server::start().await;
    s.ok("POST", MAPS, config_map("a")).await;
    let target = format!("{MAPS}/a");
    let merged = s.patch(&target, "merge-patch+json", json!({"data": {"a": null, "b": "2"}})).await;
    assert_eq!((merged.code, &merged.body["data"]), (200, &json!({"b": "2"})));
    let json =
        s.patch(&target, "json-patch+json", json!([{"op": "add", "path": "/data/c", "value": "3"}])).await;
    assert_eq!(json.body["data"], json!({"b": "2", "c": "3"}));
    let failed =
        s.patch(&target, "json-patch+json", json!([{"op": "test", "path": "/data/c", "value": "4"}])).await;
    assert_eq!(failed.code, 422);
    assert_eq!(s.patch(&target, "nonsense", json!({})).await.code, 415);
    let stale = json!({"metadata": {"resourceVersion": "1"}, "data": {"d": "4"}});
    assert_eq!(s.patch(&target, "merge-patch+json", stale).await.code, 409);
    // kubectl's migration to server-side apply names the version it read in a JSON patch.
    let version = s.get(&target).await["metadata"]["resourceVersion"].clone();
    let held = |version| {
        json!([{"op": "replace", "path": "/metadata/resourceVersion", "value": version},
        {"op": "add", "path": "/data/e", "value": "5"}])
    };
    assert_eq!(s.patch(&target, "json-patch+json", held(version.clone())).await.code, 200);
    assert_eq!(s.patch(&target, "json-patch+json", held(version)).await.code, 409);
    let strict =
        s.patch(&format!("{target}?fieldValidation=Strict"), "merge-patch+json", json!({"foo": 1})).await;
    assert_eq!(strict.code, 422);
    assert!(strict.body["message"].as_str().unwrap().contains("strict decoding error: unknown field"));
    // Four writers at once: every one of their changes arrives.
    let writers =
        (0..4).map(|i| {
            let (s, target) = (&s, &target);
            async move {
                s.patch(target, "merge-patch+json", json!({"data": {(format!("w{i}")): "x"}})).await.code
            }
        });
    assert_eq!(futures::future::join_all(writers).await, vec![200; 4]);
    let data = s.get(&target).await["data"].clone();
    assert!((0..4).all(|i| data[format!("w{i}")] == "x"), "{data}");
}

#[tokio::test]
async fn status_and_spec_are_written_apart() {
    let s = Server::start().await;
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}},
        "status": {"replicas": 9},
    });
    let target = "/apis/apps/v1/namespaces/default/deployments";
    let created = s.ok("POST", target, deployment).await;
    assert_eq!(created["metadata"]["generation"], 1);
    assert!(created["status"].get("replicas").is_none());
    let target = format!("{target}/d");
    let patch = json!({"spec": {"replicas": 5}, "status": {"replicas": 3}});
    let status = s.patch(&format!("{target}/status"), "merge-patch+json", patch.clone()).await.body;
    assert_eq!((&status["spec"]["replicas"], &status["status"]["replicas"]), (&json!(2), &json!(3)));
    assert_eq!(status["metadata"]["generation"], 1);
    let spec = s
        .patch(&target, "merge-patch+json", json!({"spec": {"replicas": 5}, "status": {"replicas": 7}}))
        .await
        .body;
    assert_eq!((&spec["spec"]["replicas"], &spec["status"]["replicas"]), (&json!(5), &json!(3)));
    assert_eq!(spec["metadata"]["generation"], 2);
}

#[tokio::test]
async fn strategic_patches_merge_lists_by_their_keys() {
    let s = Server::start().await;
    s.ok("POST", PODS, pod("p")).await;
    let patch = json!({"spec": {"containers": [{"name": "c", "image": "other"}]}});
    let patched = s.patch(&format!("{PODS}/p"), "strategic-merge-patch+json", patch).await;
    assert_eq!(patched.code, 200, "{}", patched.body);
    let containers = &patched.body["spec"]["containers"];
    assert_eq!((containers.as_array().unwrap().len(), &containers[0]["image"]), (1, &json!("other")));
    assert!(containers[0]["volumeMounts"].is_array());
}

#[tokio::test]
async fn an_apply_owns_what_it_names_and_conflicts_with_other_owners() {
    let s = Server::start().await;
    let config = |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": value}});
    let target = |who: &str| format!("{MAPS}/a?fieldManager={who}");
    let made = s.patch(&target("one"), "apply-patch+yaml", config("1")).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let owner = &made.body["metadata"]["managedFields"][0];
    assert_eq!((&owner["manager"], &owner["operation"]), (&json!("one"), &json!("Apply")));
    assert_eq!(owner["fieldsV1"], json!({"f:data": {"f:k": {}}}));
    let again = s.patch(&target("one"), "apply-patch+yaml", config("1")).await;
    assert_eq!(again.code, 200);
    let version = |answer: &Received| answer.body["metadata"]["resourceVersion"].clone();
    assert_eq!(version(&again), version(&made), "an apply that changes nothing writes nothing");
    let conflict = s.patch(&target("two"), "apply-patch+yaml", config("2")).await;
    assert_eq!(conflict.code, 409);
    assert_eq!(conflict.body["message"], "Apply failed with 1 conflict: conflict with \"one\": .data.k");
    let forced = s.patch(&format!("{}&force=true", target("two")), "apply-patch+yaml", config("2")).await;
    assert_eq!((forced.code, &forced.body["data"]["k"]), (200, &json!("2")));
    let nameless = s.patch(&format!("{MAPS}/a"), "apply-patch+yaml", config("3")).await;
    assert_eq!(nameless.code, 422);
    assert_eq!(
        nameless.body["message"],
        "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch"
    );
    let updated = s.patch(&format!("{MAPS}/a"), "merge-patch+json", json!({"data": {"z": "1"}})).await.body;
    let managers = updated["metadata"]["managedFields"].as_array().unwrap();
    assert!(managers.iter().any(|m| m["manager"] == "test" && m["operation"] == "Update"), "{managers:?}");
}

#[tokio::test]
async fn string_data_is_folded_whichever_way_it_is_written() {
    let s = Server::start().await;
    let secrets = "/api/v1/namespaces/default/secrets";
    let secret = |text: &str| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"a": "YQ=="}, "stringData": {"b": text}});
    let check = |made: &Value, b: &str| {
        assert_eq!(made["data"], json!({"a": "YQ==", "b": b}));
        assert!(made.get("stringData").is_none(), "{made}");
    };
    check(&s.ok("POST", secrets, secret("1")).await, "MQ==");
    check(&s.ok("PUT", &format!("{secrets}/s"), secret("2")).await, "Mg==");
    for (kind, text, b) in [("merge-patch+json", "3", "Mw=="), ("strategic-merge-patch+json", "4", "NA==")] {
        let answer = s.patch(&format!("{secrets}/s"), kind, json!({"stringData": {"b": text}})).await;
        check(&answer.body, b);
    }
    let add = json!([{"op": "add", "path": "/stringData", "value": {"b": "5"}}]);
    check(&s.patch(&format!("{secrets}/s"), "json-patch+json", add).await.body, "NQ==");
    let applied = s.patch(&format!("{secrets}/t?fieldManager=m"), "apply-patch+yaml", json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "t"}, "stringData": {"b": "6"}})).await;
    assert_eq!(applied.body["data"], json!({"b": "Ng=="}));
    assert!(s.get(&format!("{secrets}/s")).await.get("stringData").is_none());
}

#[tokio::test]
async fn a_create_with_a_version_must_not_be_refused_before_admission_has_spoken() {
    let s = Server::start().await;
    let mut claimed = pod("p");
    claimed["metadata"]["resourceVersion"] = json!("7");
    claimed["spec"]["serviceAccountName"] = json!("nobody");
    let (code, text) = s.refused("POST", PODS, claimed.clone()).await;
    assert_eq!(code, 403, "{text}");
    claimed["spec"]["serviceAccountName"] = json!("default");
    claimed["spec"]["restartPolicy"] = json!("Sometimes");
    assert_eq!(s.refused("POST", PODS, claimed.clone()).await.0, 422);
    claimed["spec"]["restartPolicy"] = json!("Always");
    let (code, text) = s.refused("POST", PODS, claimed).await;
    assert_eq!(code, 500);
    assert!(text.contains("resourceVersion should not be set on objects to be created"), "{text}");
}

#[tokio::test]
async fn an_owner_given_twice_must_not_be_kept_twice() {
    let s = Server::start().await;
    let owner = |uid: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": uid});
    let mut map = config_map("a");
    map["metadata"]["ownerReferences"] = json!([owner("1"), owner("2"), owner("1")]);
    let warned = |answer: &Received| {
        answer.headers.get("warning").and_then(|w| w.to_str().ok()).unwrap_or_default().to_owned()
    };
    let made = s.ask("POST", MAPS, map.clone()).await;
    assert_eq!(
        warned(&made),
        "299 - \".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may \
         reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: 1\""
    );
    assert_eq!(made.body["metadata"]["ownerReferences"], json!([owner("1"), owner("2")]));
    let target = format!("{MAPS}/a");
    let put = s.ask("PUT", &target, map).await;
    assert!(warned(&put).contains("duplicate entries; "), "{}", warned(&put));
    assert_eq!(put.body["metadata"]["resourceVersion"], made.body["metadata"]["resourceVersion"]);
    let patch = json!([{"op": "add", "path": "/metadata/ownerReferences/-", "value": owner("2")}]);
    let patched = s.patch(&target, "json-patch+json", patch).await;
    assert!(
        warned(&patched).contains("duplicate entries after mutating admission happens; "),
        "{}",
        warned(&patched)
    );
    assert_eq!(patched.body["metadata"]["ownerReferences"], json!([owner("1"), owner("2")]));
}

#[tokio::test]
async fn a_patch_is_warned_of_what_it_writes() {
    let s = Server::start().await;
    s.ok("POST", PODS, pod("p")).await;
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    let quiet = s.patch(&format!("{PODS}/p"), "merge-patch+json", label).await;
    assert!(quiet.headers.get("warning").is_none());
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let template =
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let spec = json!({"selector": {"matchLabels": {"a": "b"}}, "template": template});
    s.ok("POST", deployments, json!({"metadata": {"name": "d"}, "spec": spec})).await;
    let patch = json!({"spec": {"template": {"spec": {"nodeSelector": {"beta.kubernetes.io/os": "linux"}}}}});
    let warned = s.patch(&format!("{deployments}/d"), "merge-patch+json", patch).await;
    assert!(
        warned.headers["warning"].to_str().unwrap().contains("deprecated since v1.14"),
        "{:?}",
        warned.headers
    );
}

async fn raw(s: &Server, method: &str, target: &str, body: Value, headers: &[(&str, &str)]) -> bytes::Bytes {
    let bytes = if body.is_null() { Vec::new() } else { serde_json::to_vec(&body).unwrap() };
    let response = s.send(method, target, bytes, headers, admin()).await;
    assert!(response.status().is_success(), "{method} {target}: {}", response.status());
    response.into_body().collect().await.unwrap().to_bytes()
}

#[tokio::test]
async fn the_answer_to_a_write_must_not_differ_from_what_is_stored_by_a_byte() {
    let s = Server::start().await;
    let one = format!("{MAPS}/bytes");
    let created = raw(&s, "POST", MAPS, config_map("bytes"), &[]).await;
    assert_eq!(created, raw(&s, "GET", &one, Value::Null, &[]).await);
    let mut object: Value = serde_json::from_slice(&created).unwrap();
    assert_eq!(raw(&s, "PUT", &one, object.clone(), &[]).await, created, "nothing was changed");
    object["data"]["b"] = json!("2");
    let updated = raw(&s, "PUT", &one, object, &[]).await;
    assert_ne!(updated, created);
    assert_eq!(updated, raw(&s, "GET", &one, Value::Null, &[]).await);
    let merge = [("content-type", "application/merge-patch+json")];
    let patched = raw(&s, "PATCH", &one, json!({"data": {"c": "3"}}), &merge).await;
    assert_eq!(patched, raw(&s, "GET", &one, Value::Null, &[]).await);
    let apply = [("content-type", "application/apply-patch+yaml")];
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"d": "4"}});
    let applied = raw(&s, "PATCH", &format!("{one}?fieldManager=m"), config, &apply).await;
    assert_eq!(applied, raw(&s, "GET", &one, Value::Null, &[]).await);
    raw(&s, "POST", PODS, pod("p"), &[]).await;
    let status = format!("{PODS}/p/status");
    let set = raw(&s, "PATCH", &status, json!({"status": {"phase": "Running"}}), &merge).await;
    assert_eq!(set, raw(&s, "GET", &format!("{PODS}/p"), Value::Null, &[]).await);
}

#[tokio::test]
async fn the_answer_to_a_write_must_not_lose_the_form_it_was_asked_in() {
    let s = Server::start().await;
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let answer = raw(&s, "POST", MAPS, config_map("a"), &table).await;
    assert_eq!(serde_json::from_slice::<Value>(&answer).unwrap()["kind"], "Table");
    let answer =
        raw(&s, "POST", MAPS, config_map("b"), &[("accept", "application/vnd.kubernetes.protobuf")]).await;
    assert!(answer.starts_with(machinery::codec::proto::MAGIC));
    let dry = raw(&s, "POST", &format!("{MAPS}?dryRun=All"), config_map("c"), &[]).await;
    assert_eq!(serde_json::from_slice::<Value>(&dry).unwrap()["data"]["a"], "1");
    // What another version's clients get is not what is stored.
    let autoscaler = json!({
        "apiVersion": "autoscaling/v1",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "h"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
            "maxReplicas": 3,
            "targetCPUUtilizationPercentage": 50,
        },
    });
    let path = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
    let answer: Value = serde_json::from_slice(&raw(&s, "POST", path, autoscaler, &[]).await).unwrap();
    assert_eq!(answer["apiVersion"], "autoscaling/v1");
    assert_eq!(answer["spec"]["targetCPUUtilizationPercentage"], 50);
}

#[tokio::test]
async fn the_day_since_which_tokens_are_tracked_must_not_be_missing() {
    let s = Server::start().await;
    let path =
        "/api/v1/namespaces/kube-system/configmaps/kube-apiserver-legacy-service-account-token-tracking";
    let found = || async {
        for _ in 0..100 {
            let answer = s.ask("GET", path, Value::Null).await;
            if answer.body["data"]["since"].as_str().is_some_and(|since| since.len() == 10) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("no day");
    };
    found().await;
    s.patch(path, "merge-patch+json", json!({"data": {"since": "soon"}})).await;
    found().await;
    s.ok("DELETE", path, Value::Null).await;
    found().await;
}

#[tokio::test]
async fn a_put_must_not_be_told_of_a_kind_or_a_version_that_is_not_its_own() {
    let s = Server::start().await;
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    s.ok("POST", leases, json!({"metadata": {"name": "x"}, "spec": {}})).await;
    let unversioned = json!({"metadata": {"name": "x"}, "spec": {}});
    let (code, text) = s.refused("PUT", &format!("{leases}/x"), unversioned).await;
    let why = "leases.coordination.k8s.io \"x\" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update";
    assert_eq!((code, text.as_str()), (422, why));
    let gone = json!({"metadata": {"name": "y", "resourceVersion": "7"}, "spec": {}});
    assert_eq!(
        s.ask("PUT", &format!("{leases}/y"), gone).await.code,
        201,
        "nothing is there to be of a version"
    );
    let (code, text) = s.refused("PUT", &format!("{leases}/x"), json!({"spec": {}})).await;
    let why = "the name of the object (x based on URL) was undeterminable: name must be provided";
    assert_eq!((code, text.as_str()), (400, why));
    s.ok("POST", MAPS, config_map("m")).await;
    let mut going = config_map("m");
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let (code, text) = s.refused("PUT", &format!("{MAPS}/m"), going).await;
    assert_eq!((code, text.contains("metadata.deletionTimestamp: Invalid value")), (422, true), "{text}");
}

#[tokio::test]
async fn labels_a_job_has_of_its_template_must_not_lack_those_the_server_adds() {
    let s = Server::start().await;
    let jobs = "/apis/batch/v1/namespaces/default/jobs";
    let job = |name: &str, own: Value, template: Value| {
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "labels": own}, "spec": {"template": {
            "metadata": {"labels": template},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}})
    };
    let labels = |made: &Value| {
        let all = made["metadata"]["labels"].as_object().cloned().unwrap_or_default();
        all.keys().cloned().collect::<Vec<_>>()
    };
    let (own, template) = (json!({"o": "1"}), json!({"t": "1"}));
    let added =
        ["batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name", "controller-uid", "job-name"];
    let with_added = |name: &'static str| [&added[..], &[name]].concat();
    let shared = s.ok("POST", jobs, job("shared", Value::Null, template.clone())).await;
    assert_eq!(labels(&shared), with_added("t"));
    assert_eq!(shared["spec"]["template"]["metadata"]["labels"], shared["metadata"]["labels"]);
    let neither = s.ok("POST", jobs, job("neither", Value::Null, Value::Null)).await;
    assert_eq!(labels(&neither), added);
    let both = s.ok("POST", jobs, job("both", own.clone(), template.clone())).await;
    assert_eq!(labels(&both), ["o"]);
    assert_eq!(labels(&both["spec"]["template"]), with_added("t"));
    let same = s.ok("POST", jobs, job("same", template.clone(), template.clone())).await;
    assert_eq!(labels(&same), ["t"], "who says it twice has two of it");
    let own = s.ok("POST", jobs, job("own", own, Value::Null)).await;
    assert_eq!(labels(&own), ["o"]);
    let mut manual = job("manual", Value::Null, template);
    manual["spec"]["manualSelector"] = true.into();
    manual["spec"]["selector"] = json!({"matchLabels": {"t": "1"}});
    assert_eq!(labels(&s.ok("POST", jobs, manual).await), ["t"]);
    let applied = job("applied", Value::Null, json!({"t": "1"}));
    let target = format!("{jobs}/applied?fieldManager=me");
    let made = s.patch(&target, "apply-patch+yaml", applied.clone()).await.body;
    assert_eq!(labels(&made), with_added("t"), "{made}");
    assert_eq!(s.patch(&target, "apply-patch+yaml", applied).await.body, made, "the same again was written");
    let bare =
        s.patch(&format!("{jobs}/shared"), "merge-patch+json", json!({"metadata": {"labels": null}})).await;
    assert_eq!(labels(&bare.body), with_added("t"), "an update without labels has the template's");
}

#[tokio::test]
async fn labels_a_job_gets_by_its_template_must_not_be_faults_of_its_own_before_it_has_them() {
    let s = Server::start().await;
    let long = "x".repeat(64);
    let job = |name: &str, own: Value, template: Value| {
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "labels": own}, "spec": {"template": {
            "metadata": {"labels": template},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}})
    };
    let (own, template) = (json!({"o": "1"}), json!({"t": "1"}));
    let (of_job, of_template) = ("metadata.labels", "spec.template.labels");
    // The name is the value of two labels; what is one map to upstream is wrong in both places.
    for (own, template, wrong) in [
        (Value::Null, Value::Null, [of_template; 2].to_vec()),
        (own.clone(), Value::Null, [of_template; 2].to_vec()),
        (own, template.clone(), [of_template; 2].to_vec()),
        (Value::Null, template, vec![of_job, of_job, of_template, of_template]),
    ] {
        let asked = job(&long, own, template);
        let refused = s.ask("POST", "/apis/batch/v1/namespaces/default/jobs", asked).await;
        let causes = refused.body["details"]["causes"].as_array().cloned().unwrap_or_default();
        let fields: Vec<&str> = causes.iter().filter_map(|cause| cause["field"].as_str()).collect();
        assert_eq!((refused.code, fields), (422, wrong), "{}", refused.body);
    }
}

#[tokio::test]
async fn what_a_write_answers_must_not_differ_from_what_is_read_afterwards() {
    let s = Server::start().await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles";
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    for (url, list, object) in [
        (rbac, "/rules", json!({"metadata": {"name": "r"}, "rules": []})),
        (
            slices,
            "/endpoints",
            json!({"metadata": {"name": "s"}, "addressType": "IPv4", "endpoints": [], "ports": []}),
        ),
        (
            "/apis/storage.k8s.io/v1/csinodes",
            "/spec/drivers",
            json!({"metadata": {"name": "n"}, "spec": {"drivers": []}}),
        ),
    ] {
        let tried = s.ok("POST", &format!("{url}?dryRun=All"), object.clone()).await;
        assert_eq!(tried.pointer(list), Some(&Value::Null), "{tried}");
        let made = s.ok("POST", url, object.clone()).await;
        assert_eq!(made.pointer(list), Some(&Value::Null), "{made}");
        let target = format!("{url}/{}", made["metadata"]["name"].as_str().unwrap());
        assert_eq!(s.get(&target).await, made);
        // The same again is no write.
        let mut again = object;
        again["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"].clone();
        assert_eq!(s.ok("PUT", &target, again).await, made);
        let merged =
            s.patch(&target, "merge-patch+json", json!({"metadata": {"labels": {"a": "b"}}})).await.body;
        assert_eq!(
            (merged.pointer(list), s.get(&target).await == merged),
            (Some(&Value::Null), true),
            "{merged}"
        );
    }
}
