use super::*;
use store::embedded::{Options, Store};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";

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

#[tokio::test]
async fn an_address_is_taken_by_its_ip_address() {
    let s = Server::start().await;
    let made = s.ok("POST", SERVICES, service("a", json!({}))).await;
    let path = format!("{ADDRESSES}/{}", made["spec"]["clusterIP"].as_str().unwrap());
    let address = s.get(&path).await;
    assert_eq!(
        address["metadata"]["labels"],
        json!({"ipaddress.kubernetes.io/ip-family": "IPv4", "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"})
    );
    assert_eq!(
        address["spec"]["parentRef"],
        json!({"resource": "services", "namespace": "default", "name": "a"})
    );
    let external = json!({"spec": {"type": "ExternalName", "externalName": "example.com"}});
    assert_eq!(s.patch(&format!("{SERVICES}/a"), "merge-patch+json", external).await.code, 200);
    assert_eq!(s.ask("GET", &path, Value::Null).await.code, 404);
}

#[tokio::test]
async fn an_address_somebody_else_has_must_not_be_given() {
    let s = Server::start().await;
    let gateway = json!({"metadata": {"name": "10.96.0.9"}, "spec": {"parentRef":
        {"group": "gateway.networking.k8s.io", "resource": "gateways", "namespace": "default", "name": "g"}}});
    s.ok("POST", ADDRESSES, gateway).await;
    let (code, text) = s.refused("POST", SERVICES, service("a", json!({"clusterIP": "10.96.0.9"}))).await;
    assert_eq!(code, 422);
    assert!(text.contains("failed to allocate IP 10.96.0.9: provided IP is already allocated"), "{text}");
    // Nor is it given back with a Service that never had it.
    s.ok("POST", SERVICES, service("a", json!({}))).await;
    s.ok("DELETE", &format!("{SERVICES}/a"), Value::Null).await;
    s.get(&format!("{ADDRESSES}/10.96.0.9")).await;
}

#[tokio::test]
async fn a_dry_run_takes_nothing_and_names_numbers_nobody_has() {
    let s = Server::start().await;
    let before = s.get(ADDRESSES).await["items"].as_array().unwrap().len();
    let dry =
        s.ok("POST", &format!("{SERVICES}?dryRun=All"), service("a", json!({"type": "NodePort"}))).await;
    assert_eq!(dry["spec"]["clusterIP"], "10.96.0.0");
    assert_eq!(dry["spec"]["ports"][0]["nodePort"], 32769);
    assert_eq!(s.get(ADDRESSES).await["items"].as_array().unwrap().len(), before);
}

#[tokio::test]
async fn more_ranges_are_given_from_once_they_are_there() {
    let config = Config { service_cidrs: vec!["10.96.0.0/30".parse().unwrap()], ..Config::default() };
    let s = Server::with(config).await;
    // Two addresses, one of which the kubernetes Service has.
    s.ok("POST", SERVICES, service("a", json!({}))).await;
    let (code, text) = s.refused("POST", SERVICES, service("b", json!({}))).await;
    assert_eq!(code, 500);
    assert!(text.contains("failed to allocate a serviceIP for Service \"b\": range is full"), "{text}");
    let more = json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["10.97.0.0/24"]}});
    s.ok("POST", "/apis/networking.k8s.io/v1/servicecidrs", more).await;
    let made = loop {
        // The server hears of the range a moment later.
        let made = s.ask("POST", SERVICES, service("b", json!({}))).await;
        if made.code == 201 {
            break made.body;
        }
        tokio::task::yield_now().await;
    };
    assert!(made["spec"]["clusterIP"].as_str().unwrap().starts_with("10.97.0."), "{made}");
}
