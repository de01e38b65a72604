//! A Service's numbers where requests end at any moment, and while the server drains.

use super::gate::{Gate, Next, gated};
use super::*;
use crate::upkeep::Stop;

const SERVICES: &str = "/api/v1/namespaces/default/services";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";
const SPECS: &str = "/registry/services/specs/";
const PATIENCE: Duration = Duration::from_secs(10);

fn node_port(name: &str, ip: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"type": "NodePort", "clusterIP": ip, "ports": [{"port": 80, "nodePort": 30500}]}})
}

impl Server {
    /// Sends a request, and drops it once its write is at the gate; the gate is opened then.
    async fn dropped(&self, gate: &Gate, held: &'static str, method: &str, target: &str, body: Value) {
        *gate.next.lock() = Some(Next::Waits(held));
        tokio::select! {
            answer = self.ask(method, target, body) => panic!("answered: {} {}", answer.code, answer.body),
            reached = tokio::time::timeout(PATIENCE, gate.reached.notified()) => reached.expect("the gate is reached"),
        }
        gate.open.notify_one();
    }

    /// Waits until another Service can have what `node_port` asks for.
    async fn free(&self, ip: &str) {
        let taken = async {
            while self.ask("POST", SERVICES, node_port("next", ip)).await.code != 201 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, taken).await.expect("the numbers are free");
    }
}

#[tokio::test]
async fn a_request_that_ends_while_its_service_is_changed_must_not_keep_what_that_gave_up() {
    let (s, gate) = gated().await;
    s.ok("POST", SERVICES, node_port("s", "10.96.0.50")).await;
    let external = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"type": "ExternalName", "externalName": "example.com"}});
    s.dropped(&gate, SPECS, "PUT", &format!("{SERVICES}/s"), external).await;
    s.free("10.96.0.50").await;
    assert_eq!(s.get(&format!("{SERVICES}/s")).await["spec"]["type"], "ExternalName");
}

#[tokio::test]
async fn a_request_that_ends_while_its_service_is_removed_must_not_keep_its_numbers() {
    let (s, gate) = gated().await;
    s.ok("POST", SERVICES, node_port("s", "10.96.0.50")).await;
    s.dropped(&gate, SPECS, "DELETE", &format!("{SERVICES}/s"), Value::Null).await;
    s.free("10.96.0.50").await;
    assert_eq!(s.ask("GET", &format!("{SERVICES}/s"), Value::Null).await.code, 404);
}

#[tokio::test]
async fn a_request_that_ends_while_its_service_is_made_must_not_lose_or_leak_a_number() {
    // While an address is claimed, while ports are, and while the Service is written.
    for held in ["/registry/ipaddresses/", "/registry/ranges/", SPECS] {
        let (s, gate) = gated().await;
        s.dropped(&gate, held, "POST", SERVICES, node_port("s", "10.96.0.50")).await;
        if held == SPECS {
            // It was under way, and has what it was given.
            let made = async {
                while s.ask("GET", &format!("{SERVICES}/s"), Value::Null).await.code != 200 {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(PATIENCE, made).await.unwrap();
            assert_eq!(s.ask("POST", SERVICES, node_port("next", "10.96.0.50")).await.code, 422);
            s.ok("DELETE", &format!("{SERVICES}/s"), Value::Null).await;
        }
        s.free("10.96.0.50").await;
        assert_eq!(s.ask("GET", &format!("{SERVICES}/s"), Value::Null).await.code, 404, "{held}");
    }
}

#[tokio::test]
async fn a_write_that_the_store_did_not_take_must_not_keep_its_numbers() {
    let (s, gate) = gated().await;
    *gate.next.lock() = Some(Next::Fails(SPECS));
    assert!(s.ask("POST", SERVICES, node_port("s", "10.96.0.50")).await.code >= 500);
    // At once: the answer came after what was given back.
    s.ok("POST", SERVICES, node_port("s", "10.96.0.50")).await;
    let addresses = s.get(ADDRESSES).await;
    assert_eq!(addresses["items"].as_array().unwrap().len(), 2, "with that of the kubernetes Service");
}

#[tokio::test]
async fn writes_and_reads_must_not_hang_while_the_server_drains() {
    let (store, ground) = ground::open().await;
    let registry = Registry::new(store, Config::default());
    registry.attach(Arc::new(hooks::AllowAll));
    let begun = CancellationToken::new();
    let stop = Stop { leaving: begun.clone(), begun, drained: CancellationToken::new() };
    let writer = Writer::new(registry.clone());
    writer.start(stop.clone()).await.unwrap();
    let s = Server { writer, registry, _stop: stop.begun.clone().drop_guard(), _ground: ground };
    stop.begun.cancel();
    let drain = async {
        // What the server does on its own has ended.
        s.registry.tasks_ended().await;
        s.ok("POST", SERVICES, node_port("s", "10.96.0.50")).await;
        // The watch caches still hear of what is written.
        let listed = s.get(SERVICES).await;
        assert!(listed["items"].as_array().unwrap().iter().any(|item| item["metadata"]["name"] == "s"));
        s.ok("DELETE", &format!("{SERVICES}/s"), Value::Null).await;
        s.ok("POST", SERVICES, node_port("next", "10.96.0.50")).await;
    };
    tokio::time::timeout(PATIENCE, drain).await.expect("requests are answered to the end");
    tokio::time::timeout(PATIENCE, s.writer.ended()).await.expect("everything ends");
    // Whoever is late is refused, and does not wait.
    let late = s.ask(
        "POST",
        SERVICES,
        json!({"metadata": {"name": "late"},
        "spec": {"type": "NodePort", "clusterIP": "10.96.0.51", "ports": [{"port": 80}]}}),
    );
    let late = tokio::time::timeout(PATIENCE, late).await.expect("late requests are answered");
    assert_eq!((late.code, late.body["message"].as_str().unwrap()), (503, "the server is shutting down"));
}
