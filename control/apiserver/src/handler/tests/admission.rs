use super::*;

#[tokio::test]
async fn a_pod_gets_its_account_tolerations_and_priority() {
    let s = Server::start().await;
    let made = s.ok("POST", PODS, pod("p")).await;
    let spec = &made["spec"];
    assert_eq!(spec["serviceAccountName"], "default");
    let volume = spec["volumes"][0]["name"].as_str().unwrap();
    assert!(volume.starts_with("kube-api-access-"));
    assert_eq!(
        spec["containers"][0]["volumeMounts"][0]["mountPath"],
        "/var/run/secrets/kubernetes.io/serviceaccount"
    );
    assert_eq!(
        spec["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"],
        3607
    );
    assert_eq!(spec["tolerations"][0]["tolerationSeconds"], 300);
    assert_eq!(spec["tolerations"].as_array().unwrap().len(), 2);
    assert_eq!((&spec["priority"], &spec["preemptionPolicy"]), (&json!(0), &json!("PreemptLowerPriority")));
    let mut critical = pod("c");
    critical["spec"]["priorityClassName"] = json!("system-node-critical");
    assert_eq!(s.ok("POST", PODS, critical.clone()).await["spec"]["priority"], 2_000_001_000);
    critical["metadata"]["name"] = json!("d");
    critical["spec"]["priorityClassName"] = json!("none");
    let (code, text) = s.refused("POST", PODS, critical).await;
    assert_eq!(
        (code, text.as_str()),
        (403, "pods \"d\" is forbidden: no PriorityClass with name none was found")
    );
    let mut other = pod("e");
    other["spec"]["serviceAccountName"] = json!("nobody");
    let (code, text) = s.refused("POST", PODS, other).await;
    assert_eq!(
        (code, text.as_str()),
        (
            403,
            "pods \"e\" is forbidden: error looking up service account default/nobody: serviceaccount \"nobody\" not found"
        )
    );
}

#[tokio::test]
async fn a_new_node_is_tainted_and_claims_are_protected() {
    let s = Server::start().await;
    let node = s.ok("POST", "/api/v1/nodes", json!({"metadata": {"name": "n1"}})).await;
    assert_eq!(
        node["spec"]["taints"],
        json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}])
    );
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "x",
        "metadata": {"name": "fast", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}});
    s.ok("POST", "/apis/storage.k8s.io/v1/storageclasses", class).await;
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let claim = s.ok("POST", "/api/v1/namespaces/default/persistentvolumeclaims", claim).await;
    assert_eq!(claim["spec"]["storageClassName"], "fast");
    assert_eq!(claim["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
    let class = json!({"metadata": {"name": "gold"}, "driverName": "d", "parameters": {"iops": "9"}});
    let class = s.ok("POST", "/apis/storage.k8s.io/v1/volumeattributesclasses", class).await;
    assert_eq!(class["metadata"]["finalizers"], json!(["kubernetes.io/vac-protection"]));
}

#[tokio::test]
async fn limit_ranges_fill_in_and_bound() {
    let s = Server::start().await;
    let range = json!({"metadata": {"name": "l"}, "spec": {"limits": [{"type": "Container",
        "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"}, "max": {"cpu": "1"}}]}});
    s.ok("POST", "/api/v1/namespaces/default/limitranges", range).await;

    let made = s.ok("POST", PODS, pod("p")).await;
    assert_eq!(
        made["spec"]["containers"][0]["resources"],
        json!({"limits": {"cpu": "500m"}, "requests": {"cpu": "100m"}})
    );
    let mut large = pod("q");
    large["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "2"}});
    let (code, text) = s.refused("POST", PODS, large).await;
    assert_eq!(
        (code, text.as_str()),
        (403, "pods \"q\" is forbidden: maximum cpu usage per Container is 1, but limit is 2")
    );
}

#[tokio::test]
async fn quotas_are_charged_once_each_and_never_passed() {
    let s = Server::start().await;
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    s.ok("POST", quotas, json!({"metadata": {"name": "q"}, "spec": {"hard": {"configmaps": "3"}}})).await;
    let status = json!({"status": {"hard": {"configmaps": "3"}, "used": {"configmaps": "0"}}});
    assert_eq!(s.patch(&format!("{quotas}/q/status"), "merge-patch+json", status).await.code, 200);

    let all = (0..6).map(|i| {
        let s = &s;
        async move { s.ask("POST", MAPS, config_map(&format!("m{i}"))).await }
    });
    let answers = futures::future::join_all(all).await;
    let made = answers.iter().filter(|a| a.code == 201).count();
    assert!(made <= 3, "{made} were made");
    while s.ask("POST", MAPS, json!({"metadata": {"generateName": "g-"}})).await.code == 201 {}
    assert_eq!(s.get(&format!("{quotas}/q")).await["status"]["used"]["configmaps"], "3");
    assert_eq!(s.get(MAPS).await["items"].as_array().unwrap().len(), 3);
    let (code, text) = s.refused("POST", MAPS, config_map("more")).await;
    assert_eq!(
        (code, text.as_str()),
        (
            403,
            "configmaps \"more\" is forbidden: exceeded quota: q, requested: configmaps=1, used: configmaps=3, limited: configmaps=3"
        )
    );
}

#[tokio::test]
async fn a_kubelet_writes_only_its_own() {
    let s = Server::start().await;
    let kubelet =
        || User { name: "system:node:n1".into(), groups: vec!["system:nodes".into()], ..User::default() };
    let send = |method: &'static str, target: &'static str, body: Value| {
        let s = &s;
        async move {
            answer(s.send(method, target, serde_json::to_vec(&body).unwrap(), &[], kubelet()).await).await
        }
    };
    assert_eq!(send("POST", "/api/v1/nodes", json!({"metadata": {"name": "n1"}})).await.code, 201);
    let other = send("POST", "/api/v1/nodes", json!({"metadata": {"name": "n2"}})).await;
    assert_eq!(
        other.body["message"],
        "nodes \"n2\" is forbidden: node \"n1\" is not allowed to modify node \"n2\""
    );
    let plain = send("POST", PODS, pod("p")).await;
    assert_eq!(plain.code, 403);
    assert!(plain.body["message"].as_str().unwrap().contains("can only create mirror pods"));
    let lease = json!({"metadata": {"name": "n1"}, "spec": {}});
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    assert_eq!(send("POST", leases, lease).await.code, 201);
    assert_eq!(send("POST", leases, json!({"metadata": {"name": "n2"}, "spec": {}})).await.code, 403);
}

#[tokio::test]
async fn a_runtime_class_gives_its_pods_overhead_and_a_place() {
    let s = Server::start().await;
    let class = json!({"metadata": {"name": "sandboxed"}, "handler": "h", "overhead": {"podFixed": {"cpu": "250m"}},
        "scheduling": {"nodeSelector": {"disk": "ssd"}, "tolerations": [{"key": "k", "operator": "Exists"}]}});
    s.ok("POST", "/apis/node.k8s.io/v1/runtimeclasses", class).await;
    let mut sandboxed = pod("p");
    sandboxed["spec"]["runtimeClassName"] = json!("sandboxed");
    let made = s.ok("POST", PODS, sandboxed.clone()).await;
    assert_eq!(made["spec"]["overhead"], json!({"cpu": "250m"}));
    assert_eq!(made["spec"]["nodeSelector"], json!({"disk": "ssd"}));
    assert!(made["spec"]["tolerations"].as_array().unwrap().iter().any(|t| t["key"] == "k"));

    sandboxed["metadata"]["name"] = json!("q");
    sandboxed["spec"]["nodeSelector"] = json!({"disk": "hdd"});
    let (_, text) = s.refused("POST", PODS, sandboxed.clone()).await;
    assert_eq!(
        text,
        "pods \"q\" is forbidden: conflict: runtimeClass.scheduling.nodeSelector[disk] = ssd; pod.spec.nodeSelector[disk] = hdd"
    );
    sandboxed["spec"]["runtimeClassName"] = json!("none");
    let (_, text) = s.refused("POST", PODS, sandboxed).await;
    assert_eq!(text, "pods \"q\" is forbidden: pod rejected: RuntimeClass \"none\" not found");
    let mut heavy = pod("q");
    heavy["spec"]["overhead"] = json!({"cpu": "1"});
    let (_, text) = s.refused("POST", PODS, heavy).await;
    assert_eq!(
        text,
        "pods \"q\" is forbidden: pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"
    );
}

#[tokio::test]
async fn an_ingress_that_names_no_class_must_not_be_left_without_the_default_one() {
    let s = Server::start().await;
    let classes = "/apis/networking.k8s.io/v1/ingressclasses";
    let class = json!({"metadata": {"name": "front", "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}},
        "spec": {"controller": "example.com/front"}});
    s.ok("POST", classes, class).await;
    let ingresses = "/apis/networking.k8s.io/v1/namespaces/default/ingresses";
    let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
    let made = s
        .ok("POST", ingresses, json!({"metadata": {"name": "a"}, "spec": {"defaultBackend": backend}}))
        .await;
    assert_eq!(made["spec"]["ingressClassName"], "front");
}

#[tokio::test]
async fn a_bound_pod_must_not_lack_the_zone_of_its_node_nor_keep_its_nomination() {
    let s = Server::start().await;
    let labels = json!({"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r"});
    s.ok("POST", "/api/v1/nodes", json!({"metadata": {"name": "n1", "labels": labels}})).await;
    s.ok("POST", PODS, pod("p")).await;
    let nominated = json!({"status": {"nominatedNodeName": "n2"}});
    assert_eq!(s.patch(&format!("{PODS}/p/status"), "merge-patch+json", nominated).await.code, 200);
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    s.ok("POST", &format!("{PODS}/p/binding"), binding).await;
    let bound = s.get(&format!("{PODS}/p")).await;
    assert_eq!(bound["metadata"]["labels"]["topology.kubernetes.io/zone"], "z");
    assert_eq!(bound["metadata"]["labels"]["topology.kubernetes.io/region"], "r");
    assert!(bound["status"].get("nominatedNodeName").is_none(), "{bound}");
    let mut placed = pod("q");
    placed["spec"]["nodeName"] = json!("n1");
    let placed = s.ok("POST", PODS, placed).await;
    assert_eq!(placed["metadata"]["labels"]["topology.kubernetes.io/zone"], "z");
}
