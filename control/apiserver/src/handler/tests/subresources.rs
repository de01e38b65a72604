use super::*;

#[tokio::test]
async fn scale_reads_and_writes_replicas() {
    let s = Server::start().await;
    let set = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "r"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "Exists"}]},
            "template": {"metadata": {"labels": {"a": "b", "c": ""}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}},
    });
    s.ok("POST", "/apis/apps/v1/namespaces/default/replicasets", set).await;
    let target = "/apis/apps/v1/namespaces/default/replicasets/r/scale";
    let mut scale = s.get(target).await;
    assert_eq!((&scale["kind"], &scale["apiVersion"]), (&json!("Scale"), &json!("autoscaling/v1")));
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]["selector"]), (&json!(2), &json!("a=b,c")));
    let stale = scale.clone();
    scale["spec"]["replicas"] = json!(5);
    assert_eq!(s.ok("PUT", target, scale).await["spec"]["replicas"], 5);
    assert_eq!(s.refused("PUT", target, stale).await.0, 409);
    assert_eq!(
        s.patch(target, "merge-patch+json", json!({"spec": {"replicas": 1}})).await.body["spec"]["replicas"],
        1
    );
    let negative = s.patch(target, "merge-patch+json", json!({"spec": {"replicas": -1}})).await;
    assert_eq!(negative.code, 422);
    let set = s.get("/apis/apps/v1/namespaces/default/replicasets/r").await;
    assert_eq!((&set["spec"]["replicas"], &set["metadata"]["generation"]), (&json!(1), &json!(3)));
}

async fn running(s: &Server, name: &str) {
    s.ok("POST", PODS, pod(name)).await;
    let binding = json!({"metadata": {"name": name}, "target": {"name": "n1"}});
    s.ok("POST", &format!("{PODS}/{name}/binding"), binding).await;
    let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    assert_eq!(s.patch(&format!("{PODS}/{name}/status"), "merge-patch+json", status).await.code, 200);
}

#[tokio::test]
async fn evictions_ask_the_disruption_budget() {
    let s = Server::start().await;
    running(&s, "web").await;
    running(&s, "free").await;
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "b"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}});
    s.ok("POST", budgets, budget).await;
    let eviction =
        |name: &str| json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
    let early = s.ask("POST", &format!("{PODS}/web/eviction"), eviction("web")).await;
    assert_eq!((early.code, &early.headers["retry-after"]), (429, &http::HeaderValue::from_static("10")));
    let status = |allowed: i64| {
        json!({"status": {"observedGeneration": 1, "disruptionsAllowed": allowed, "currentHealthy": 1,
        "desiredHealthy": 1, "expectedPods": 1}})
    };
    s.patch(&format!("{budgets}/b/status"), "merge-patch+json", status(0)).await;
    let refused = s.ask("POST", &format!("{PODS}/web/eviction"), eviction("web")).await;
    assert_eq!(refused.code, 429);
    assert_eq!(refused.body["message"], "Cannot evict pod as it would violate the pod's disruption budget.");
    assert_eq!(
        refused.body["details"]["causes"],
        json!([{"reason": "DisruptionBudget", "message": "The disruption budget b needs 1 healthy pods and has 1 currently"}])
    );
    assert_eq!(s.ask("POST", &format!("{PODS}/free/eviction"), eviction("free")).await.code, 201);
    s.patch(&format!("{budgets}/b/status"), "merge-patch+json", status(1)).await;
    let done = s.ask("POST", &format!("{PODS}/web/eviction"), eviction("web")).await;
    assert_eq!((done.code, &done.body["status"]), (201, &json!("Success")));
    let budget = s.get(&format!("{budgets}/b")).await;
    assert_eq!(budget["status"]["disruptionsAllowed"], 0);
    assert!(budget["status"]["disruptedPods"]["web"].is_string());
    assert!(s.get(&format!("{PODS}/web")).await["metadata"]["deletionTimestamp"].is_string());
}

#[tokio::test]
async fn tokens_are_signed_for_the_account_and_its_pod() {
    let key = Arc::new(pki::service_account::SigningKey::generate().unwrap());
    let s = Server::with(Config { service_account_key: Some(key.clone()), ..Config::default() }).await;
    let made = s.ok("POST", PODS, pod("p")).await;
    let target = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"audiences": ["vault"], "expirationSeconds": 600,
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": made["metadata"]["uid"]}}});
    let answer = s.ok("POST", target, request.clone()).await;
    let token = answer["status"]["token"].as_str().unwrap();
    let claims = token.split('.').nth(1).unwrap();
    let claims = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, claims).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!(claims["sub"], "system:serviceaccount:default:default");
    assert_eq!(claims["aud"], json!(["vault"]));
    assert_eq!(claims["kubernetes.io"]["pod"]["uid"], made["metadata"]["uid"]);
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 600);
    let mut short = request.clone();
    short["spec"]["expirationSeconds"] = json!(5);
    let (code, text) = s.refused("POST", target, short).await;
    assert_eq!(code, 422);
    assert!(text.contains("may not specify a duration less than 10 minutes"), "{text}");
    let mut other = request;
    other["spec"]["boundObjectRef"]["uid"] = json!("other");
    assert_eq!(s.refused("POST", target, other).await.0, 409);
}

#[tokio::test]
async fn signing_requests_say_who_asked_and_are_approved_apart() {
    let s = Server::start().await;
    let csrs = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let key = pki::request::new_key().unwrap();
    let request = pki::request::Subject::node("n1").request(&key).unwrap();
    let request = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, request);
    let csr = json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "c"},
        "spec": {"request": request, "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
            "usages": ["client auth"], "username": "forged", "groups": ["system:masters", "forged"]}});
    let made = s.ok("POST", csrs, csr).await;
    assert_eq!(
        (&made["spec"]["username"], &made["spec"]["groups"]),
        (&json!("admin"), &json!(["system:masters"]))
    );
    let approve = json!({"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "x"}]}});
    let plain = s.patch(&format!("{csrs}/c"), "merge-patch+json", approve.clone()).await.body;
    assert!(plain["status"].get("conditions").is_none());
    let approved = s.patch(&format!("{csrs}/c/approval"), "merge-patch+json", approve).await.body;
    assert_eq!(approved["status"]["conditions"][0]["type"], "Approved");
}

#[tokio::test]
async fn a_part_of_the_control_plane_must_not_be_missing() {
    let s = Server::start().await;
    let list = s.get("/api/v1/componentstatuses").await;
    let names: Vec<&str> =
        list["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(
        (list["kind"].as_str(), names.as_slice()),
        (Some("ComponentStatusList"), ["controller-manager", "etcd-0", "scheduler"].as_slice())
    );
    let one = s.get("/api/v1/componentstatuses/etcd-0").await;
    assert_eq!(one["conditions"], json!([{"type": "Healthy", "status": "True", "message": "ok"}]));
    let table = s
        .call(
            "GET",
            "/api/v1/componentstatuses",
            Value::Null,
            &[("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")],
        )
        .await
        .body;
    assert_eq!(table["rows"][2]["cells"], json!(["scheduler", "Healthy", "ok", ""]));
    let (code, text) = s.refused("GET", "/api/v1/componentstatuses/none", Value::Null).await;
    assert_eq!((code, text.as_str()), (404, "componentstatus \"none\" not found"));
}

#[tokio::test]
async fn a_scale_must_not_be_shown_as_its_workload_nor_be_owned_as_it() {
    let s = Server::start().await;
    let set = json!({"metadata": {"name": "r"}, "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    s.ok("POST", "/apis/apps/v1/namespaces/default/replicasets", set).await;
    let target = "/apis/apps/v1/namespaces/default/replicasets/r/scale";
    let table = s
        .call("GET", target, Value::Null, &[("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")])
        .await
        .body;
    let names: Vec<&str> =
        table["columnDefinitions"].as_array().unwrap().iter().filter_map(|c| c["name"].as_str()).collect();
    assert_eq!(names, ["Name", "Desired", "Available", "Age"]);
    assert_eq!(table["rows"][0]["cells"][1], 2);
    let config = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "r"}, "spec": {"replicas": 4}});
    let refused = s.patch(&format!("{target}?fieldManager=me"), "apply-patch+yaml", config.clone()).await;
    assert_eq!(refused.code, 409, "{}", refused.body);
    let applied = s.patch(&format!("{target}?fieldManager=me&force=true"), "apply-patch+yaml", config).await;
    assert_eq!((applied.code, &applied.body["spec"]["replicas"]), (200, &json!(4)), "{}", applied.body);
    let workload = s.get(target.trim_end_matches("/scale")).await;
    let owners = workload["metadata"]["managedFields"].as_array().unwrap();
    let own = owners.iter().find(|o| o["manager"] == "me").unwrap();
    assert_eq!((&own["subresource"], &own["operation"]), (&json!("scale"), &json!("Apply")));
    assert_eq!(own["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
}

#[tokio::test]
async fn a_token_must_not_be_asked_for_in_the_name_of_another_account() {
    let key = Arc::new(pki::service_account::SigningKey::generate().unwrap());
    let config = Config { service_account_key: Some(key), max_token_seconds: 3600, ..Config::default() };
    let s = Server::with(config).await;
    let target = "/api/v1/namespaces/default/serviceaccounts/default/token";
    for (metadata, code, why) in [
        (json!({"name": "other"}), 422, "must match the service account name if specified"),
        (json!({"namespace": "other"}), 422, "must match the service account namespace if specified"),
        (
            json!({"uid": "other"}),
            409,
            "the UID in the token request (other) does not match the UID of the service account",
        ),
    ] {
        let (found, text) = s.refused("POST", target, json!({"metadata": metadata, "spec": {}})).await;
        assert!(found == code && text.contains(why), "{found} {text}");
    }
    let answer = s.ask("POST", target, json!({"spec": {"expirationSeconds": 7200}})).await;
    assert_eq!((answer.code, &answer.body["spec"]["expirationSeconds"]), (201, &json!(3600)));
    let warned = answer.headers["warning"].to_str().unwrap();
    assert!(warned.contains("requested expiration of 7200 seconds shortened to 3600 seconds"), "{warned}");
}
