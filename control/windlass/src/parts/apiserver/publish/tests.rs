use super::*;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::client::Body;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

/// Objects by path, with create, get and merge patch of `data`.
type Store = Arc<Mutex<BTreeMap<String, Value>>>;

fn client(store: &Store) -> kube::Client {
    let store = store.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let store = store.clone();
        async move {
            let (parts, body) = request.into_parts();
            let bytes = body.collect().await.unwrap().to_bytes();
            let body: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            let mut store = store.lock().unwrap();
            let path = parts.uri.path().to_owned();
            let (status, answer) = match parts.method {
                Method::POST => {
                    let path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap());
                    let mut stored = false;
                    store.entry(path).or_insert_with(|| {
                        stored = true;
                        body.clone()
                    });
                    if stored {
                        (StatusCode::CREATED, body)
                    } else {
                        failure("AlreadyExists", StatusCode::CONFLICT)
                    }
                }
                Method::GET => match store.get(&path) {
                    Some(found) => (StatusCode::OK, found.clone()),
                    None => match path.rsplit_once('/') {
                        Some((_, plural)) if plural.contains("role") => list(&store, plural),
                        _ => failure("NotFound", StatusCode::NOT_FOUND),
                    },
                },
                Method::PUT => {
                    store.insert(path, body.clone());
                    (StatusCode::OK, body)
                }
                Method::PATCH => {
                    let found = store.get_mut(&path).unwrap();
                    merge(found, &body);
                    (StatusCode::OK, found.clone())
                }
                Method::DELETE => match store.remove(&path) {
                    Some(_) => {
                        (StatusCode::OK, json!({"kind": "Status", "metadata": {}, "status": "Success"}))
                    }
                    None => failure("NotFound", StatusCode::NOT_FOUND),
                },
                other => panic!("unexpected {other} {path}"),
            };
            let bytes = serde_json::to_vec(&answer).unwrap();
            Ok::<_, Infallible>(Response::builder().status(status).body(Body::from(bytes)).unwrap())
        }
    });
    kube::Client::new(service, "default")
}

/// The objects of a kind in every namespace.
fn list(store: &BTreeMap<String, Value>, plural: &str) -> (StatusCode, Value) {
    let of_kind =
        |path: &str| path.rsplit_once('/').is_some_and(|(all, _)| all.ends_with(&format!("/{plural}")));
    let items: Vec<&Value> =
        store.iter().filter(|(path, _)| of_kind(path)).map(|(_, object)| object).collect();
    (
        StatusCode::OK,
        json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items}),
    )
}

/// A merge patch (RFC 7386).
fn merge(into: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *into = patch.clone();
        return;
    };
    for (key, value) in patch {
        if value.is_null() {
            into.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut into[key], value);
        }
    }
}

fn facts(server: &str) -> Facts<'_> {
    const DNS: [IpAddr; 1] = [IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 10))];
    Facts {
        server,
        several: false,
        chosen: false,
        gone: None,
        ca_pem: "CA",
        domain: "cluster.local",
        dns: &DNS,
        pod_ranges: &[],
        service_ranges: &[],
        names: &[],
        etcd: None,
    }
}

fn failure(reason: &str, code: StatusCode) -> (StatusCode, Value) {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": reason, "reason": reason, "code": code.as_u16()});
    (code, status)
}

const INFO_PATH: &str = "/api/v1/namespaces/kube-public/configmaps/cluster-info";

#[tokio::test]
async fn publishing_twice_changes_nothing_and_a_moved_server_is_told() {
    let store = Store::default();
    let client = client(&store);
    let token: BootstrapToken = "abcdef.0123456789abcdef".parse().unwrap();
    publish(&client, facts("https://192.0.2.1:6443"), Some(&token)).await.unwrap();
    let first = store.lock().unwrap().clone();
    publish(&client, facts("https://192.0.2.1:6443"), Some(&token)).await.unwrap();
    assert_eq!(*store.lock().unwrap(), first);
    let info = &first[INFO_PATH]["data"];
    let text = info["kubeconfig"].as_str().unwrap();
    assert_eq!(Kubeconfig::parse(text).unwrap().cluster().unwrap().server, "https://192.0.2.1:6443");
    assert!(token.verify(text, info["jws-kubeconfig-abcdef"].as_str().unwrap()));
    let secret = &first["/api/v1/namespaces/kube-system/secrets/bootstrap-token-abcdef"];
    assert_eq!(secret["data"]["token-secret"], "MDEyMzQ1Njc4OWFiY2RlZg==");
    assert_eq!(secret["type"], "bootstrap.kubernetes.io/token");

    // Another server of the same cluster is as good an address.
    publish(&client, Facts { several: true, ..facts("https://192.0.2.2:6443") }, None).await.unwrap();
    assert_eq!(store.lock().unwrap()[INFO_PATH]["data"], *info);

    // Without the token the old signature would vouch for a text it was not made of.
    publish(&client, facts("https://192.0.2.2:6443"), None).await.unwrap();
    let moved = store.lock().unwrap()[INFO_PATH]["data"].clone();
    assert!(moved["kubeconfig"].as_str().unwrap().contains("192.0.2.2"));
    assert!(moved.get("jws-kubeconfig-abcdef").is_none());
}

const BINDINGS_PATH: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
const SYSTEM_MAPS: &str = "/api/v1/namespaces/kube-system/configmaps";

#[tokio::test]
async fn what_earlier_versions_gave_nodes_must_not_stay() {
    let store = Store::default();
    let path = format!("{BINDINGS_PATH}/windlass:node-proxier");
    store.lock().unwrap().insert(path.clone(), json!({"metadata": {"name": "windlass:node-proxier"}}));
    publish(&client(&store), facts("https://192.0.2.1:6443"), None).await.unwrap();
    assert!(!store.lock().unwrap().contains_key(&path));
}

#[tokio::test]
async fn a_configuration_somebody_changed_must_not_be_overwritten() {
    let store = Store::default();
    let client = client(&store);
    publish(&client, facts("https://192.0.2.1:6443"), None).await.unwrap();
    let text = |map: &str, key: &str| {
        store.lock().unwrap()[&format!("{SYSTEM_MAPS}/{map}")]["data"][key].as_str().unwrap().to_owned()
    };
    assert!(text("kubeadm-config", "ClusterConfiguration").contains("192.0.2.1:6443"));
    assert!(text("kube-proxy", "kubeconfig.conf").contains("https://192.0.2.1:6443"));
    let own = "kind: KubeletConfiguration\n";
    store.lock().unwrap().get_mut(&format!("{SYSTEM_MAPS}/kubelet-config")).unwrap()["data"]["kubelet"] =
        own.into();
    publish(&client, facts("https://192.0.2.2:6443"), None).await.unwrap();
    assert!(text("kubeadm-config", "ClusterConfiguration").contains("192.0.2.2:6443"));
    assert!(text("kube-proxy", "kubeconfig.conf").contains("https://192.0.2.2:6443"));
    assert_eq!(text("kubelet-config", "kubelet"), own);
}

#[tokio::test]
async fn a_role_of_an_earlier_version_must_not_stay_without_what_it_lacks() {
    let store = Store::default();
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    let more = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]});
    let approver = format!("{roles}/windlass:node-part-approver");
    let (kept, binding) =
        (format!("{roles}/kubeadm:get-nodes"), format!("{BINDINGS_PATH}/kubeadm:node-autoapprove-bootstrap"));
    let old = json!({"metadata": {"name": "windlass:node-part-approver"}, "rules": [more.clone()]});
    let off = |name: &str| json!({"name": name, "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "false"}});
    let emptied = json!({"metadata": off("kubeadm:get-nodes"), "rules": []});
    let unbound = json!({
        "metadata": off("kubeadm:node-autoapprove-bootstrap"), "subjects": [],
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "system:certificates.k8s.io:certificatesigningrequests:nodeclient"},
    });
    for (path, object) in [(&approver, &old), (&kept, &emptied), (&binding, &unbound)] {
        store.lock().unwrap().insert(path.clone(), object.clone());
    }
    publish(&client(&store), facts("https://192.0.2.1:6443"), None).await.unwrap();
    let store = store.lock().unwrap();
    let rules = store[&approver]["rules"].as_array().unwrap();
    assert_eq!((rules.len(), &rules[0]), (3, &more), "what was added stays, what was missing is there");
    assert_eq!(store[&kept]["rules"], json!([]));
    assert_eq!(store[&binding]["subjects"], json!([]));
}

#[tokio::test]
async fn servers_that_start_one_after_the_other_must_not_each_name_their_own_endpoint() {
    let store = Store::default();
    let client = client(&store);
    for server in ["https://192.0.2.1:6443", "https://192.0.2.2:6443"] {
        publish(&client, Facts { several: true, ..facts(server) }, None).await.unwrap();
        let store = store.lock().unwrap();
        let text = |map: &str, key: &str| {
            store[&format!("{SYSTEM_MAPS}/{map}")]["data"][key].as_str().unwrap().to_owned()
        };
        assert!(text("kubeadm-config", "ClusterConfiguration").contains("192.0.2.1:6443"), "{server}");
        assert!(text("kube-proxy", "kubeconfig.conf").contains("https://192.0.2.1:6443"), "{server}");
    }
}

/// The ClusterConfiguration there is now.
fn configuration(store: &Store) -> Value {
    let map = store.lock().unwrap()[&format!("{SYSTEM_MAPS}/kubeadm-config")].clone();
    serde_saphyr::from_str(map["data"]["ClusterConfiguration"].as_str().unwrap()).unwrap()
}

fn shared_etcd() -> SharedEtcd {
    SharedEtcd {
        endpoints: vec!["https://192.0.2.1:2379".into()],
        authority: true,
        client: true,
        prefix: "/registry".into(),
        encrypted: false,
    }
}

#[tokio::test]
async fn a_control_plane_of_kubeadms_must_not_begin_an_etcd_of_its_own() {
    let (store, etcd) = (Store::default(), shared_etcd());
    let client = client(&store);
    publish(&client, facts("https://192.0.2.1:6443"), None).await.unwrap();
    // Nobody else can get at an embedded store.
    assert!(configuration(&store).get("etcd").is_none() && configuration(&store).get("apiServer").is_none());
    let facts = Facts { several: true, etcd: Some(&etcd), ..facts("https://192.0.2.1:6443") };
    publish(&client, facts, None).await.unwrap();
    let external = json!({
        "endpoints": ["https://192.0.2.1:2379"],
        "caFile": "/etc/kubernetes/pki/etcd/ca.crt",
        "certFile": "/etc/kubernetes/pki/apiserver-etcd-client.crt",
        "keyFile": "/etc/kubernetes/pki/apiserver-etcd-client.key",
    });
    assert_eq!(configuration(&store)["etcd"], json!({ "external": external }));
    assert!(configuration(&store).get("apiServer").is_none());
    // kubeadm takes none of these files where etcd asks for none.
    let plain = SharedEtcd { authority: false, client: false, ..etcd.clone() };
    publish(&client, Facts { etcd: Some(&plain), ..facts }, None).await.unwrap();
    let external = configuration(&store)["etcd"]["external"].clone();
    assert_eq!([&external["caFile"], &external["certFile"], &external["keyFile"]], ["", "", ""]);
    // Whoever read or wrote other keys, or in the open, would be no server of this cluster.
    let other = SharedEtcd { prefix: "/ours".into(), encrypted: true, ..etcd.clone() };
    let names = ["api.example".to_owned()];
    publish(&client, Facts { etcd: Some(&other), names: &names, ..facts }, None).await.unwrap();
    let server = configuration(&store)["apiServer"].clone();
    assert_eq!(server["certSANs"], json!(["api.example"]));
    let file = "/etc/kubernetes/encryption-provider-config.yaml";
    let arguments = [("etcd-prefix", "/ours"), ("encryption-provider-config", file)];
    assert_eq!(
        server["extraArgs"],
        json!(arguments.map(|(name, value)| json!({"name": name, "value": value})))
    );
    assert_eq!(
        (&server["extraVolumes"][0]["hostPath"], &server["extraVolumes"][0]["pathType"]),
        (&json!(file), &json!("File"))
    );
}

/// kubeadm writes `+` as `_` in an image's tag, and nobody has images of a version that is only ours.
#[tokio::test]
async fn a_control_plane_of_kubeadms_must_not_ask_for_images_that_nobody_has() {
    let store = Store::default();
    publish(&client(&store), facts("https://192.0.2.1:6443"), None).await.unwrap();
    let version = configuration(&store)["kubernetesVersion"].clone();
    let release = version.as_str().and_then(|version| version.strip_prefix("v1.36.")).unwrap();
    release.parse::<u32>().unwrap();
}

#[tokio::test]
async fn a_control_plane_of_kubeadms_must_not_be_sent_to_members_that_are_gone() {
    let (store, etcd) = (Store::default(), shared_etcd());
    let client = client(&store);
    let now = ["https://192.0.2.2:2379".to_owned(), "https://192.0.2.3:2379".to_owned()];
    kubeadm::follow_etcd(&client, &now).await.unwrap();
    assert!(store.lock().unwrap().is_empty(), "what nobody has published yet");
    let facts = Facts { several: true, etcd: Some(&etcd), ..facts("https://192.0.2.1:6443") };
    publish(&client, facts, None).await.unwrap();
    kubeadm::follow_etcd(&client, &now).await.unwrap();
    assert_eq!(configuration(&store)["etcd"]["external"]["endpoints"], json!(now));
    // It is ours still, and not what somebody changed.
    publish(&client, facts, None).await.unwrap();
    assert_eq!(configuration(&store)["etcd"]["external"]["endpoints"], json!(etcd.endpoints));
    let path = format!("{SYSTEM_MAPS}/kubeadm-config");
    let own = "etcd: {external: {endpoints: [https://balancer.example:2379]}}\n";
    store.lock().unwrap().get_mut(&path).unwrap()["data"]["ClusterConfiguration"] = own.into();
    kubeadm::follow_etcd(&client, &now).await.unwrap();
    assert_eq!(store.lock().unwrap()[&path]["data"]["ClusterConfiguration"], own);
}

#[tokio::test]
async fn what_the_operator_chose_must_not_give_way_to_a_servers_own_address() {
    let store = Store::default();
    let client = client(&store);
    let (own, chosen, other) =
        ("https://192.0.2.1:6443", "https://192.0.2.100:6443", "https://lb.example:443");
    let several = |server: &'static str| Facts { several: true, ..facts(server) };
    let named = || {
        let store = store.lock().unwrap();
        let text = store[INFO_PATH]["data"]["kubeconfig"].as_str().unwrap();
        let info = Kubeconfig::parse(text).unwrap();
        let config = store[&format!("{SYSTEM_MAPS}/kubeadm-config")]["data"]["ClusterConfiguration"]
            .as_str()
            .unwrap()
            .to_owned();
        (info.cluster().unwrap().server.clone(), info.cluster().unwrap().authority_pem().unwrap(), config)
    };
    publish(&client, several(own), None).await.unwrap();
    assert_eq!(told(&client).await.unwrap().as_deref(), Some(own));
    publish(&client, Facts { chosen: true, ..several(chosen) }, None).await.unwrap();
    assert_eq!(told(&client).await.unwrap(), None, "nobody looks whether it is there");
    // a server that says nothing of it, before and after a rotation of the authority
    for pem in ["CA", "CA2"] {
        publish(&client, Facts { ca_pem: pem, ..several(own) }, None).await.unwrap();
        let (server, authority, config) = named();
        assert_eq!((server.as_str(), authority.as_str()), (chosen, pem));
        assert!(config.contains("192.0.2.100:6443") && !config.contains("192.0.2.1:"), "{config}");
    }
    // another choice, and none any more where there is one server
    publish(&client, Facts { chosen: true, ..several(other) }, None).await.unwrap();
    assert_eq!(named().0, other);
    publish(&client, facts(own), None).await.unwrap();
    assert_eq!((named().0.as_str(), told(&client).await.unwrap().as_deref()), (own, Some(own)));
}

#[tokio::test]
async fn those_who_join_must_not_be_sent_to_a_server_that_is_gone() {
    let store = Store::default();
    let client = client(&store);
    let (first, second) = ("https://192.0.2.1:6443", "https://192.0.2.2:6443");
    publish(&client, Facts { several: true, ..facts(first) }, None).await.unwrap();
    assert_eq!(told(&client).await.unwrap().as_deref(), Some(first));
    let moved = Facts { several: true, gone: Some(first), ..facts(second) };
    for server in [second, "https://192.0.2.3:6443"] {
        // The second to notice leaves what the first has written.
        endpoint(&client, Facts { server, ..moved }).await.unwrap();
        assert_eq!(told(&client).await.unwrap().as_deref(), Some(second));
    }
    let store = store.lock().unwrap();
    for (map, key) in [("kubeadm-config", "ClusterConfiguration"), ("kube-proxy", "kubeconfig.conf")] {
        let text = store[&format!("{SYSTEM_MAPS}/{map}")]["data"][key].as_str().unwrap();
        assert!(text.contains("192.0.2.2:6443") && !text.contains("192.0.2.1"), "{text}");
    }
}

#[test]
fn a_balancer_must_not_pass_for_a_server_that_is_gone() {
    let living: Vec<SocketAddr> = ["192.0.2.2:6443", "[2001:db8::2]:6443"].map(|a| a.parse().unwrap()).into();
    let own: [IpAddr; 2] = ["192.0.2.3", "192.0.2.100"].map(|ip| ip.parse().unwrap());
    for (server, there) in [
        ("https://192.0.2.1:6443", false),
        ("https://192.0.2.2:6443", true),
        ("https://192.0.2.2:443", false),
        ("https://[2001:db8::2]:6443", true),
        ("https://192.0.2.3:6443", true),
        // By --tls-san.
        ("https://192.0.2.100:443", true),
        ("https://api.example:6443", true),
        ("nonsense and more", false),
    ] {
        assert_eq!(is_there(server, &living, &own), there, "{server}");
    }
    assert!(is_there("https://127.0.5.1:6443", &[], &own), "nobody says which there are");
}

#[tokio::test]
async fn kubeadm_finds_the_roles_it_knows() {
    let store = Store::default();
    publish(&client(&store), facts("https://192.0.2.1:6443"), None).await.unwrap();
    let store = store.lock().unwrap();
    for name in [
        "cluster-admins",
        "apiserver-kubelet-client",
        "kubelet-bootstrap",
        "node-autoapprove-bootstrap",
        "node-autoapprove-certificate-rotation",
        "get-nodes",
        "node-proxier",
    ] {
        assert!(store.contains_key(&format!("{BINDINGS_PATH}/kubeadm:{name}")), "{name}");
    }
    for name in ["kubeadm:nodes-kubeadm-config", "kubeadm:kubelet-config", "kube-proxy"] {
        for kind in ["roles", "rolebindings"] {
            let path = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system/{kind}/{name}");
            assert!(store.contains_key(&path), "{path}");
        }
    }
}
