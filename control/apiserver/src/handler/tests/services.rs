use super::*;
use store::embedded::{Options, Store};

const SERVICES: &str = "/api/v1/namespaces/default/services";

fn service(name: &str, spec: Value) -> Value {
    let mut object = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]}});
    for (k, v) in spec.as_object().unwrap() {
        object["spec"][k] = v.clone();
    }
    object
}

#[tokio::test]
async fn addresses_are_granted_once_and_given_back() {
    let s = Server::start().await;
    let made = s.ok("POST", SERVICES, service("a", json!({}))).await;
    let ip = made["spec"]["clusterIP"].as_str().unwrap().to_owned();
    assert_eq!(made["spec"]["clusterIPs"], json!([ip]));
    assert_eq!(made["spec"]["ipFamilies"], json!(["IPv4"]));
    assert_eq!(made["spec"]["ipFamilyPolicy"], "SingleStack");
    let (code, text) = s.refused("POST", SERVICES, service("b", json!({"clusterIP": ip}))).await;
    assert_eq!(code, 422);
    assert!(
        text.contains(&format!("failed to allocate IP {ip}: provided IP is already allocated")),
        "{text}"
    );
    s.ok("DELETE", &format!("{SERVICES}/a"), Value::Null).await;
    s.ok("POST", SERVICES, service("b", json!({"clusterIP": ip}))).await;
    let (code, text) = s.refused("POST", SERVICES, service("c", json!({"clusterIP": "192.0.2.1"}))).await;
    assert_eq!(code, 422);
    assert!(
        text.contains(
            "failed to allocate IP 192.0.2.1: the provided network does not match the current range"
        ),
        "{text}"
    );
    let headless = s.ok("POST", SERVICES, service("h", json!({"clusterIP": "None"}))).await;
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
}

#[tokio::test]
async fn a_dry_run_or_a_failed_create_keeps_nothing() {
    let s = Server::start().await;
    let fixed =
        json!({"clusterIP": "10.96.0.77", "type": "NodePort", "ports": [{"port": 80, "nodePort": 30077}]});
    s.ok("POST", &format!("{SERVICES}?dryRun=All"), service("a", fixed.clone())).await;
    s.ok("POST", SERVICES, service("other", json!({}))).await;
    assert_eq!(s.refused("POST", SERVICES, service("other", fixed.clone())).await.0, 409);
    let made = s.ok("POST", SERVICES, service("a", fixed)).await;
    assert_eq!(made["spec"]["clusterIP"], "10.96.0.77");
}

#[tokio::test]
async fn node_ports_follow_the_type() {
    let s = Server::start().await;
    let made = s.ok("POST", SERVICES, service("a", json!({"type": "NodePort"}))).await;
    let port = made["spec"]["ports"][0]["nodePort"].as_u64().unwrap();
    assert!((30000..=32767).contains(&port));
    let taken = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]});
    let (code, text) = s.refused("POST", SERVICES, service("b", taken.clone())).await;
    assert_eq!(code, 422);
    assert!(
        text.contains(&format!(
            "spec.ports[0].nodePort: Invalid value: {port}: provided port is already allocated"
        )),
        "{text}"
    );
    let changed =
        s.patch(&format!("{SERVICES}/a"), "merge-patch+json", json!({"spec": {"type": "ClusterIP"}})).await;
    assert_eq!(changed.code, 200, "{}", changed.body);
    assert!(changed.body["spec"]["ports"][0].get("nodePort").is_none());
    assert_eq!(changed.body["spec"]["clusterIP"], made["spec"]["clusterIP"]);
    s.ok("POST", SERVICES, service("b", taken)).await;
    let (code, text) = s
        .refused(
            "POST",
            SERVICES,
            service("c", json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]})),
        )
        .await;
    assert_eq!(code, 422);
    assert!(
        text.contains("provided port is not in the valid range. The range of valid ports is 30000-32767"),
        "{text}"
    );
    let both = json!({"type": "NodePort", "ports": [{"name": "t", "port": 53, "protocol": "TCP"}, {"name": "u", "port": 53, "protocol": "UDP"}]});
    let both = s.ok("POST", SERVICES, service("d", both)).await;
    assert_eq!(both["spec"]["ports"][0]["nodePort"], both["spec"]["ports"][1]["nodePort"]);
}

#[tokio::test]
async fn a_service_keeps_its_address_when_others_write_it_without() {
    let s = Server::start().await;
    let made = s.ok("POST", SERVICES, service("a", json!({}))).await;
    let put = s.ok("PUT", &format!("{SERVICES}/a"), service("a", json!({"ports": [{"port": 81}]}))).await;
    assert_eq!(put["spec"]["clusterIP"], made["spec"]["clusterIP"]);
    let external = json!({"spec": {"type": "ExternalName", "externalName": "example.com"}});
    let external = s.patch(&format!("{SERVICES}/a"), "merge-patch+json", external).await;
    assert_eq!(external.code, 200, "{}", external.body);
    assert!(external.body["spec"].get("clusterIP").is_none());
    let ip = made["spec"]["clusterIP"].clone();
    s.ok("POST", SERVICES, service("b", json!({"clusterIP": ip}))).await;
}

#[tokio::test]
async fn dual_stack_follows_the_policy() {
    let cidrs = vec!["10.96.0.0/16".parse().unwrap(), "fd00:10:96::/112".parse().unwrap()];
    let s = Server::with(Config { service_cidrs: cidrs, ..Config::default() }).await;
    let single = s.ok("POST", SERVICES, service("a", json!({}))).await;
    assert_eq!(single["spec"]["ipFamilies"], json!(["IPv4"]));
    let dual = s.ok("POST", SERVICES, service("b", json!({"ipFamilyPolicy": "PreferDualStack"}))).await;
    assert_eq!(dual["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
    assert!(dual["spec"]["clusterIPs"][1].as_str().unwrap().starts_with("fd00:10:96::"));
    let upgraded = s
        .patch(
            &format!("{SERVICES}/a"),
            "merge-patch+json",
            json!({"spec": {"ipFamilyPolicy": "RequireDualStack"}}),
        )
        .await
        .body;
    assert_eq!(upgraded["spec"]["clusterIPs"].as_array().unwrap().len(), 2);
    assert_eq!(upgraded["spec"]["clusterIPs"][0], single["spec"]["clusterIP"]);
    let one = Server::start().await;
    let (code, text) =
        one.refused("POST", SERVICES, service("b", json!({"ipFamilyPolicy": "RequireDualStack"}))).await;
    assert_eq!(code, 422);
    assert!(text.contains("this cluster is not configured for dual-stack services"), "{text}");
}

#[tokio::test]
async fn what_stored_services_hold_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let start = || async {
        let store = Store::open(dir.path().join("store"), Options::default()).unwrap();
        let registry = Registry::new(Arc::new(store), Config::default());
        registry.attach(Arc::new(hooks::AllowAll));
        let stop = CancellationToken::new();
        let writer = Writer::new(registry.clone());
        writer.start(stop.clone()).await.unwrap();
        Server { writer, registry, _stop: stop.drop_guard(), _ground: Box::new(()) }
    };
    let s = start().await;
    let made = s.ok("POST", SERVICES, service("a", json!({"type": "NodePort"}))).await;
    let stopped = Arc::downgrade(&s.registry);
    drop(s);
    // The store closes with its last user.
    while stopped.strong_count() > 0 {
        tokio::task::yield_now().await;
    }
    let s = loop {
        if Store::open(dir.path().join("store"), Options::default()).is_ok() {
            break start().await;
        }
        tokio::task::yield_now().await;
    };
    let again = json!({"clusterIP": made["spec"]["clusterIP"]});
    assert_eq!(s.refused("POST", SERVICES, service("b", again)).await.0, 422);
    let again =
        json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": made["spec"]["ports"][0]["nodePort"]}]});
    assert_eq!(s.refused("POST", SERVICES, service("b", again)).await.0, 422);
}
