use super::*;
use crate::fake::Fake;
use serde_json::json;
use supervise::{Scope, Supervisor};
use tokio_util::sync::CancellationToken;

const SERVICES: &str = "/api/v1/namespaces/default/services/";

fn service(name: &str, version: u32, spec: Value) -> Value {
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": name, "namespace": "default", "uid": name, "resourceVersion": version.to_string(),
            "creationTimestamp": format!("2026-01-01T00:00:{:02}Z", version % 60),
        },
        "spec": { "type": "LoadBalancer", "ipFamilies": ["IPv4"], "ports": [{ "port": 80, "protocol": "TCP" }] },
        "status": { "loadBalancer": {} },
    });
    for (name, value) in spec.as_object().unwrap() {
        service["spec"][name] = value.clone();
    }
    service
}

fn holding(name: &str, version: u32, address: &str) -> Value {
    let mut service = service(name, version, json!({}));
    service["metadata"]["annotations"] = json!({ MODE: ANNOUNCED });
    service["metadata"]["finalizers"] = json!([FINALIZER, "example.com/other"]);
    service["status"]["loadBalancer"]["ingress"] = json!([{ "ip": address, "ipMode": "VIP" }]);
    service
}

struct Run {
    fake: Fake,
    controller: ServiceBalancers,
    _scope: Scope,
}

impl Run {
    /// A controller that knows these Services and has this pool.
    async fn with(services: Vec<Value>, pools: Vec<Pool>) -> Self {
        Self::set(services, LoadBalancing { pools, external: false }).await
    }

    async fn set(services: Vec<Value>, options: LoadBalancing) -> Self {
        let (fake, cluster, queue) = (Fake::default(), Cluster::default(), Arc::new(Queue::default()));
        fake.count_versions();
        let scope = Scope::new(&Supervisor::default(), "", &CancellationToken::new());
        let (recorder, _writer) = Recorder::new(None, None);
        let controller = ServiceBalancers::new(&cluster, fake.client(), recorder, options, &queue);
        for service in &services {
            fake.put(
                &format!("{SERVICES}{}", service["metadata"]["name"].as_str().unwrap()),
                service.clone(),
            );
        }
        fake.shown(&scope, &cluster.services, services).await;
        fake.shown(&scope, &cluster.nodes, Vec::new()).await;
        Self { fake, controller, _scope: scope }
    }

    async fn reconcile(&self, name: &str) {
        self.controller.reconcile(&Key::new("default", name)).await.unwrap();
    }

    fn stored(&self, name: &str) -> Value {
        self.fake.get(&format!("{SERVICES}{name}")).unwrap()
    }

    fn addresses(&self, name: &str) -> Vec<String> {
        let ingress = self.stored(name)["status"]["loadBalancer"]["ingress"].clone();
        let each = ingress.as_array().into_iter().flatten();
        each.map(|point| point["ip"].as_str().unwrap().to_owned()).collect()
    }
}

fn pool() -> Vec<Pool> {
    vec![Pool::of_ranges("default", &["192.0.2.1-192.0.2.2".to_owned()]).unwrap()]
}

#[tokio::test]
async fn two_new_services_must_not_get_one_address_before_the_first_write_is_seen() {
    let services = vec![service("a", 1, json!({})), service("b", 2, json!({})), service("c", 3, json!({}))];
    let run = Run::with(services, pool()).await;
    for name in ["a", "b", "c"] {
        run.reconcile(name).await;
    }
    let addresses = ["a", "b", "c"].map(|name| run.addresses(name));
    assert_eq!(
        addresses,
        [vec!["192.0.2.1".to_owned()], vec!["192.0.2.2".to_owned()], vec![]],
        "the pool is empty"
    );
    run.reconcile("a").await;
    assert_eq!(run.fake.writes().len(), 2, "what was written is waited for");
    let stored = run.stored("a");
    assert_eq!(stored["metadata"]["finalizers"], json!([FINALIZER]));
    assert_eq!(stored["metadata"]["annotations"][MODE], ANNOUNCED);
    assert_eq!(stored["status"]["loadBalancer"]["ingress"][0]["ipMode"], "VIP");
}

#[tokio::test]
async fn a_restart_must_not_move_or_give_again_what_services_have() {
    let services =
        vec![service("new", 1, json!({})), holding("old", 2, "192.0.2.1"), holding("odd", 3, "203.0.113.9")];
    let run = Run::with(services, pool()).await;
    for name in ["new", "old", "odd"] {
        run.reconcile(name).await;
    }
    assert_eq!(run.addresses("new"), ["192.0.2.2"]);
    assert_eq!(
        run.fake.writes(),
        [format!("PATCH {SERVICES}new/status")],
        "the others are as they should be"
    );
}

#[tokio::test]
async fn what_is_another_providers_must_not_be_touched() {
    let mut foreign = service("a", 1, json!({ "loadBalancerClass": "example.com/lb" }));
    foreign["metadata"]["finalizers"] = json!([FINALIZER]);
    let run = Run::with(vec![foreign], pool()).await;
    run.reconcile("a").await;
    assert!(run.fake.writes().is_empty());
    let without = Run::with(vec![service("b", 1, json!({}))], Vec::new()).await;
    without.reconcile("b").await;
    assert!(without.fake.writes().is_empty(), "pending, as without a cloud");
}

#[tokio::test]
async fn a_clouds_own_program_must_find_everything_but_the_word_that_it_is_ours() {
    let external = LoadBalancing { pools: pool(), external: true };
    let run = Run::set(vec![holding("a", 1, "192.0.2.1"), service("b", 2, json!({}))], external).await;
    run.reconcile("a").await;
    run.reconcile("b").await;
    assert_eq!(run.addresses("a"), ["192.0.2.1"]);
    assert_eq!(run.stored("a")["metadata"]["annotations"], json!({}));
    assert_eq!(run.stored("a")["metadata"]["finalizers"], json!([FINALIZER, "example.com/other"]));
    assert_eq!(run.fake.writes().len(), 1);
}

#[tokio::test]
async fn an_address_must_not_be_free_before_it_was_given_back() {
    let mut changed = holding("a", 1, "192.0.2.1");
    changed["spec"]["type"] = json!("ClusterIP");
    let run = Run::with(vec![changed, service("b", 2, json!({}))], pool()).await;
    run.reconcile("b").await;
    assert_eq!(run.addresses("b"), ["192.0.2.2"]);
}

#[tokio::test]
async fn a_service_that_ends_or_changes_its_type_gives_everything_back() {
    let mut ending = holding("a", 1, "192.0.2.1");
    ending["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let mut changed = holding("b", 2, "192.0.2.2");
    changed["spec"]["type"] = json!("ClusterIP");
    let run = Run::with(vec![ending, changed], pool()).await;
    for name in ["a", "b"] {
        run.reconcile(name).await;
        let stored = run.stored(name);
        assert_eq!(stored["metadata"]["finalizers"], json!(["example.com/other"]), "{name}");
        assert_eq!(stored["metadata"]["annotations"], json!({}), "{name}");
        assert_eq!(stored["status"]["loadBalancer"], json!({}), "{name}");
    }
}

#[tokio::test]
async fn of_two_with_one_address_the_younger_loses_it_even_if_nothing_else_is_free() {
    let single = vec![Pool::of_ranges("default", &["192.0.2.1".to_owned()]).unwrap()];
    let run = Run::with(vec![holding("a", 1, "192.0.2.1"), holding("b", 2, "192.0.2.1")], single).await;
    run.reconcile("a").await;
    run.reconcile("b").await;
    assert_eq!((run.addresses("a"), run.addresses("b")), (vec!["192.0.2.1".to_owned()], vec![]));
}
