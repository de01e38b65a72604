//! What a server's settings change, one by one.

use super::*;
use crate::Stop;
use crate::registry::Served;

fn served(pairs: &[(&str, &str)]) -> Served {
    let owned: Vec<(String, String)> =
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Served::of(&owned).unwrap()
}

#[tokio::test]
async fn what_is_switched_off_must_not_be_served() {
    let off = served(&[("apps/v1", "false"), ("v1/configmaps", "false")]);
    let s = Server::with(Config { served: off.clone(), ..Config::default() }).await;
    for target in ["/apis/apps/v1/deployments", "/api/v1/namespaces/default/configmaps"] {
        let (code, text) = s.refused("GET", target, Value::Null).await;
        assert_eq!((code, text.as_str()), (404, "the server could not find the requested resource"));
    }
    s.get("/api/v1/namespaces/default/secrets").await;
    let catalog = crate::discovery::Catalog::default().serving(&off);
    let groups = catalog.groups();
    assert!(!groups.iter().any(|group| group.name == "apps"));
    let core = groups.iter().find(|group| group.name.is_empty()).unwrap();
    let has = |plural: &str| core.versions[0].resources.iter().any(|r| r.plural == plural);
    assert!(has("secrets") && !has("configmaps"));
    let services = async || {
        let list = s.get("/apis/apiregistration.k8s.io/v1/apiservices").await;
        list["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].clone()).collect::<Vec<_>>()
    };
    let made = async {
        while !services().await.contains(&json!("v1.batch")) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), made).await.expect("APIServices in time");
    assert!(!services().await.contains(&json!("v1.apps")));
}

#[tokio::test]
async fn privileged_containers_are_refused_where_they_are_not_allowed() {
    let mut privileged = pod("p");
    privileged["spec"]["containers"][0]["securityContext"] = json!({"privileged": true});
    let allowed = Server::start().await;
    allowed.ok("POST", PODS, privileged.clone()).await;
    let s = Server::with(Config { privileged: false, ..Config::default() }).await;
    let (code, text) = s.refused("POST", PODS, privileged).await;
    assert_eq!(code, 422);
    assert_eq!(
        text,
        "Pod \"p\" is invalid: spec.containers[0].securityContext.privileged: Forbidden: disallowed by cluster policy"
    );
    s.ok("POST", PODS, pod("p")).await;
}

#[tokio::test]
async fn a_new_pod_tolerates_for_as_long_as_it_is_told() {
    let s = Server::with(Config { toleration_seconds: (7, 9), ..Config::default() }).await;
    let made = s.ok("POST", PODS, pod("p")).await;
    let seconds = |key: &str| {
        let all = made["spec"]["tolerations"].as_array().unwrap();
        all.iter().find(|t| t["key"] == key).unwrap()["tolerationSeconds"].clone()
    };
    assert_eq!(seconds("node.kubernetes.io/not-ready"), json!(7));
    assert_eq!(seconds("node.kubernetes.io/unreachable"), json!(9));
}

#[tokio::test]
async fn without_a_collector_nothing_waits_for_one() {
    let orphan = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Orphan"});
    let s = Server::with(Config { garbage_collection: false, ..Config::default() }).await;
    s.ok("POST", MAPS, config_map("a")).await;
    s.ok("DELETE", &format!("{MAPS}/a"), orphan.clone()).await;
    assert_eq!(s.refused("GET", &format!("{MAPS}/a"), Value::Null).await.0, 404);
    let collected = Server::start().await;
    collected.ok("POST", MAPS, config_map("a")).await;
    collected.ok("DELETE", &format!("{MAPS}/a"), orphan).await;
    assert_eq!(collected.get(&format!("{MAPS}/a")).await["metadata"]["finalizers"], json!(["orphan"]));
}

#[tokio::test]
async fn a_collection_is_deleted_whole_however_many_at_once() {
    for workers in [0, 1, 3] {
        let s = Server::with(Config { delete_workers: workers, ..Config::default() }).await;
        for index in 0..7 {
            s.ok("POST", MAPS, config_map(&format!("m{index}"))).await;
        }
        let gone = s.ok("DELETE", MAPS, Value::Null).await;
        assert_eq!(gone["items"].as_array().unwrap().len(), 7, "{workers}");
        assert!(s.get(MAPS).await["items"].as_array().unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_watch_lasts_between_its_time_and_twice_that() {
    let s = Server::with(Config { watch_time: Duration::from_millis(200), ..Config::default() }).await;
    let begun = std::time::Instant::now();
    let response = s.send("GET", &format!("{MAPS}?watch=1"), "", &[], admin()).await;
    let ended = tokio::time::timeout(Duration::from_secs(10), response.into_body().collect()).await;
    assert!(ended.is_ok() && begun.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn the_service_of_the_api_has_a_node_port_where_one_is_set() {
    let s = Server::with(Config { service_node_port: Some(30443), ..Config::default() }).await;
    let service = s.get("/api/v1/namespaces/default/services/kubernetes").await;
    assert_eq!(
        (&service["spec"]["type"], &service["spec"]["ports"][0]["nodePort"]),
        (&json!("NodePort"), &json!(30443))
    );
    let plain = Server::start().await.get("/api/v1/namespaces/default/services/kubernetes").await;
    assert_eq!(plain["spec"]["type"], "ClusterIP");
}

#[tokio::test]
async fn a_server_that_goes_must_not_stay_listed_while_it_serves_on() {
    let (store, ground) = ground::open().await;
    let address = Some("192.0.2.1".parse().unwrap());
    let registry = Registry::new(store, Config { advertise_address: address, ..Config::default() });
    registry.attach(Arc::new(hooks::AllowAll));
    let (leaving, begun) = (CancellationToken::new(), CancellationToken::new());
    let stop = Stop { leaving: leaving.clone(), begun: begun.clone(), drained: CancellationToken::new() };
    let writer = Writer::new(registry.clone());
    writer.start(stop).await.unwrap();
    let s = Server { writer, registry, _stop: begun.drop_guard(), _ground: ground };
    let listed = async || {
        let slice = s.get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes").await;
        slice["endpoints"].as_array().map_or(0, Vec::len)
    };
    assert_eq!(listed().await, 1);
    leaving.cancel();
    let gone = async {
        while listed().await != 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("off the list in time");
    s.ok("POST", MAPS, config_map("a")).await;
}
