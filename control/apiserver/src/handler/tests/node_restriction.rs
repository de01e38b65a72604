use super::granting::Granting;
use super::*;
use base64::Engine as _;
use pki::request::{Subject, new_key};
use pki::service_account::SigningKey;

/// No role lets anybody ask for an audience, but for the default one of the vault.
fn audiences() -> Arc<Granting> {
    Granting::by(|_, info| {
        let asked = info.verb == "request-serviceaccounts-token-audience";
        !asked || info.resource == "vault" && info.name == "default"
    })
}

async fn server() -> Server {
    let key = Some(Arc::new(SigningKey::generate().unwrap()));
    Server::with_hooks(Config { service_account_key: key, ..Config::default() }, audiences()).await
}

/// What `n1` is told.
async fn kubelet(s: &Server, method: &str, target: &str, body: Value) -> (u16, String) {
    let user = User { name: "system:node:n1".into(), groups: vec!["system:nodes".into()], ..User::default() };
    let headers = [("content-type", if method == "PATCH" { "application/merge-patch+json" } else { "" })];
    let sent = s.send(method, target, serde_json::to_vec(&body).unwrap(), &headers, user).await;
    let answer = answer(sent).await;
    (answer.code, answer.body["message"].as_str().unwrap_or_default().to_owned())
}

/// A pod on a node; its uid.
async fn placed(s: &Server, mut pod: Value, node: &str) -> String {
    pod["spec"]["nodeName"] = node.into();
    let made = s.ok("POST", PODS, pod).await;
    made["metadata"]["uid"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_node_must_not_get_tokens_but_for_its_own_pods_and_those_they_speak_to() {
    let s = server().await;
    let mut speaking = pod("speaking");
    speaking["spec"]["volumes"] = json!([{"name": "t", "projected": {"sources": [
        {"serviceAccountToken": {"path": "token", "audience": "sts"}}]}}]);
    let uid = placed(&s, speaking, "n1").await;
    let other = placed(&s, pod("other"), "n2").await;
    let target = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let bound = |name: &str, uid: &str| json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid});
    let ask = |reference: Value, audiences: Value| {
        let s = &s;
        async move {
            let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
                "spec": {"boundObjectRef": reference, "audiences": audiences}});
            kubelet(s, "POST", target, body).await
        }
    };
    let unbound = "node requested token not bound to a pod";
    let node = json!({"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u"});
    for (reference, audiences, why) in [
        (Value::Null, json!([]), unbound),
        (node, json!([]), unbound),
        (bound("speaking", ""), json!([]), "node requested token with a pod binding without a uid"),
        (
            bound("speaking", "x"),
            json!([]),
            "the UID in the bound object reference (x) does not match the UID in record. The object might have been deleted and then recreated",
        ),
        (
            bound("other", &other),
            json!([]),
            "node requested token bound to a pod scheduled on a different node",
        ),
        (bound("speaking", &uid), json!(["sts", "vault"]), "node may only request 0 or 1 audiences"),
        (
            bound("speaking", &uid),
            json!(["somebody"]),
            "audience \"somebody\" not found in pod spec volume, system:node:n1 is not authorized to request tokens for this audience",
        ),
    ] {
        let (code, text) = ask(reference.clone(), audiences).await;
        let wanted = format!("serviceaccounts \"default\" is forbidden: {why}");
        assert_eq!((code, text), (403, wanted), "{reference}");
    }
    assert_eq!(ask(bound("gone", "x"), json!([])).await.0, 404);
    // that its own token's projection asks for the API server's audience, admission saw to
    for audience in [json!([]), json!(["sts"]), json!(["vault"])] {
        assert_eq!(ask(bound("speaking", &uid), audience.clone()).await.0, 201, "{audience}");
    }
}

#[tokio::test]
async fn a_node_gets_tokens_its_pods_csi_drivers_want() {
    let s = server().await;
    let driver =
        json!({"metadata": {"name": "d.example"}, "spec": {"tokenRequests": [{"audience": "cloud"}]}});
    s.ok("POST", "/apis/storage.k8s.io/v1/csidrivers", driver).await;
    let mut mounting = pod("mounting");
    mounting["spec"]["volumes"] = json!([{"name": "v", "csi": {"driver": "d.example"}}]);
    let uid = placed(&s, mounting, "n1").await;
    let target = "/api/v1/namespaces/default/serviceaccounts/default/token";
    for (audience, code) in [("cloud", 201), ("sky", 403)] {
        let body = json!({"spec": {"audiences": [audience],
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "mounting", "uid": uid}}});
        assert_eq!(kubelet(&s, "POST", target, body).await.0, code, "{audience}");
    }
}

#[tokio::test]
async fn a_node_must_not_report_more_of_a_pod_than_how_it_is() {
    let s = server().await;
    placed(&s, pod("p"), "n1").await;
    placed(&s, pod("q"), "n2").await;
    let status = |name: &str| format!("{PODS}/{name}/status");
    let says = |phase: Value| json!({ "status": phase });
    assert_eq!(kubelet(&s, "PATCH", &status("p"), says(json!({"phase": "Running"}))).await.0, 200);
    for (name, body, why) in [
        (
            "q",
            says(json!({"phase": "Failed"})),
            "node \"n1\" can only update pod status for pods with spec.nodeName set to itself",
        ),
        (
            "p",
            says(json!({"resourceClaimStatuses": [{"name": "c", "resourceClaimName": "somebodys"}]})),
            "node \"n1\" cannot update resource claim statues",
        ),
        (
            "p",
            says(json!({"extendedResourceClaimStatus": {"resourceClaimName": "somebodys",
                "requestMappings": [{"containerName": "c", "resourceName": "r", "requestName": "q"}]}})),
            "node \"n1\" cannot update extended resource claim status",
        ),
    ] {
        let (code, text) = kubelet(&s, "PATCH", &status(name), body).await;
        assert_eq!((code, text), (403, format!("pods \"{name}\" is forbidden: {why}")));
    }
    let evict =
        |name: &str| json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
    let (code, text) = kubelet(&s, "POST", &format!("{PODS}/q/eviction"), evict("q")).await;
    let wanted = "pods \"q\" is forbidden: node n1 can only evict pods with spec.nodeName set to itself";
    assert_eq!((code, text.as_str()), (403, wanted));
    assert_eq!(kubelet(&s, "POST", &format!("{PODS}/p/eviction"), evict("p")).await.0, 201);
}

#[tokio::test]
async fn a_node_must_not_change_what_steers_workloads_to_it() {
    let s = server().await;
    let node = "/api/v1/nodes/n1";
    let (code, text) = kubelet(
        &s,
        "POST",
        "/api/v1/nodes",
        json!({"metadata": {"name": "n1",
        "labels": {"node-restriction.kubernetes.io/a": "b", "good": "c", "node-role.kubernetes.io/x": ""}}}),
    )
    .await;
    let wanted = "nodes \"n1\" is forbidden: node \"n1\" is not allowed to set the following labels: \
                  node-restriction.kubernetes.io/a, node-role.kubernetes.io/x";
    assert_eq!((code, text.as_str()), (403, wanted));
    let made = json!({"metadata": {"name": "n1", "ownerReferences":
        [{"apiVersion": "v1", "kind": "ConfigMap", "name": "m", "uid": "u"}]}});
    s.ok("POST", "/api/v1/nodes", made).await;
    for (change, why) in [
        (json!({"spec": {"taints": null}}), "node \"n1\" is not allowed to modify taints"),
        (
            json!({"metadata": {"ownerReferences": null}}),
            "node \"n1\" is not allowed to modify ownerReferences",
        ),
        (
            json!({"metadata": {"labels": {"kubernetes.io/b": "", "a.k8s.io/a": "", "good": ""}}}),
            "is not allowed to modify labels: a.k8s.io/a, kubernetes.io/b",
        ),
    ] {
        let (code, text) = kubelet(&s, "PATCH", node, change).await;
        assert_eq!((code, text), (403, format!("nodes \"n1\" is forbidden: {why}")));
    }
    let allowed = json!({"metadata": {"labels": {"good": "", "kubernetes.io/arch": "amd64"}}});
    assert_eq!(kubelet(&s, "PATCH", node, allowed).await.0, 200);
}

#[tokio::test]
async fn a_node_must_not_change_a_claim_but_for_its_size() {
    let s = server().await;
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}});
    s.ok("POST", claims, claim).await;
    let target = format!("{claims}/c/status");
    let larger = json!({"status": {"capacity": {"storage": "2Gi"}, "conditions": []}});
    assert_eq!(kubelet(&s, "PATCH", &target, larger).await, (200, String::new()));
    for change in [
        json!({"status": {"phase": "Bound"}}),
        json!({"metadata": {"finalizers": null}}),
        json!({"metadata": {"labels": {"a": "b"}}}),
    ] {
        let (code, text) = kubelet(&s, "PATCH", &target, change.clone()).await;
        assert_eq!(code, 403, "{change}");
        assert!(text.contains("is not allowed to update fields other than status.quantity"), "{text}");
    }
    let (code, text) = kubelet(&s, "PATCH", &format!("{claims}/c"), json!({})).await;
    assert_eq!(
        (code, text.as_str()),
        (403, "persistentvolumeclaims \"c\" is forbidden: may only update PVC status")
    );
}

#[tokio::test]
async fn a_node_must_not_ask_for_another_nodes_certificate() {
    let s = server().await;
    let ask = |name: &'static str, signer: &'static str, node: &'static str| {
        let s = &s;
        async move {
            let pem = Subject::node(node).request(&new_key().unwrap()).unwrap();
            let request = base64::engine::general_purpose::STANDARD.encode(pem);
            let body = json!({"metadata": {"name": name}, "spec": {"request": request, "signerName": signer,
                "usages": ["digital signature", "client auth"]}});
            kubelet(s, "POST", "/apis/certificates.k8s.io/v1/certificatesigningrequests", body).await
        }
    };
    let client = "kubernetes.io/kube-apiserver-client-kubelet";
    assert_eq!(ask("a", client, "n1").await.0, 201);
    for (name, signer) in [("b", client), ("c", "kubernetes.io/kubelet-serving")] {
        let (code, text) = ask(name, signer, "n2").await;
        let wanted = format!(
            "certificatesigningrequests.certificates.k8s.io \"{name}\" is forbidden: \
             can only create a node CSR with CN=system:node:n1"
        );
        assert_eq!((code, text), (403, wanted));
    }
    assert_eq!(
        ask("d", "kubernetes.io/kube-apiserver-client", "n2").await.0,
        201,
        "that signer's approver decides"
    );
}
