//! The node's tasks against an API server of three routes.

use super::Sources;
use crate::node::{self, Config, Reported, runtime};
use crate::recorder::Recorder;
use cri_proto::client::{Deadlines, Runtime};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use supervise::{Scope, Supervisor};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

mod returning;

/// What the fake server was asked to write, and the node it holds.
#[derive(Default)]
struct Server {
    node: Option<Value>,
    lease: Option<Value>,
    writes: Vec<(String, Value)>,
    /// How often the node was asked for.
    reads: usize,
    /// So many nodes were made.
    made: usize,
    /// It has no answer,
    away: bool,
    /// and had none so often when it was asked for the node.
    unheard: usize,
}

impl Server {
    fn answer(&mut self, method: &Method, path: &str, body: Value) -> (StatusCode, Value) {
        if self.away {
            self.unheard += usize::from(path == "/api/v1/nodes/n1");
            return (StatusCode::SERVICE_UNAVAILABLE, failure("ServiceUnavailable", 503));
        }
        match method == Method::GET {
            true => self.reads += usize::from(path == "/api/v1/nodes/n1"),
            false => self.writes.push((format!("{method} {path}"), body.clone())),
        }
        let is_lease = path.contains("/leases");
        let slot = if is_lease { &mut self.lease } else { &mut self.node };
        match (method.as_str(), path) {
            ("POST", "/api/v1/namespaces/default/events") => (StatusCode::CREATED, body),
            ("PATCH", path) if path.starts_with("/api/v1/namespaces/default/events/") => {
                (StatusCode::OK, body)
            }
            ("POST", _) if slot.is_some() => (StatusCode::CONFLICT, failure("AlreadyExists", 409)),
            ("POST", _) => {
                let mut stored = body;
                self.made += usize::from(!is_lease);
                let uid =
                    if self.made == 1 { "uid-of-n1".to_owned() } else { format!("uid-{}-of-n1", self.made) };
                stored["metadata"]["uid"] = json!(uid);
                stored["metadata"]["resourceVersion"] = json!("1");
                *slot = Some(stored.clone());
                (StatusCode::CREATED, stored)
            }
            ("GET", _) => match slot {
                Some(found) => (StatusCode::OK, found.clone()),
                None => (StatusCode::NOT_FOUND, failure("NotFound", 404)),
            },
            ("PUT", _) => {
                *slot = Some(body.clone());
                (StatusCode::OK, body)
            }
            // Enough of a strategic merge for the fields of a node status.
            ("PATCH", "/api/v1/nodes/n1/status") => {
                let Some(node) = slot else { return (StatusCode::NOT_FOUND, failure("NotFound", 404)) };
                for (name, value) in body["status"].as_object().unwrap() {
                    if name == "conditions" {
                        let list = node["status"]["conditions"].as_array_mut().unwrap();
                        for new in value.as_array().unwrap() {
                            list.retain(|old| old["type"] != new["type"]);
                            list.push(new.clone());
                        }
                    } else {
                        merge(&mut node["status"][name], value);
                    }
                }
                (StatusCode::OK, node.clone())
            }
            ("PATCH", "/api/v1/nodes/n1") => {
                let Some(node) = slot else { return (StatusCode::NOT_FOUND, failure("NotFound", 404)) };
                merge(&mut node["metadata"], &body["metadata"]);
                (StatusCode::OK, node.clone())
            }
            other => panic!("unexpected request {other:?}"),
        }
    }
}

/// Enough of a strategic merge for objects, and for lists that are replaced.
fn merge(into: &mut Value, patch: &Value) {
    match patch {
        Value::Object(fields) if into.is_object() => {
            for (name, value) in fields {
                match value {
                    Value::Null => drop(into.as_object_mut().unwrap().remove(name)),
                    value => merge(&mut into[name], value),
                }
            }
        }
        Value::Array(list) => {
            *into = list.iter().filter(|one| one.get("$patch").is_none()).cloned().collect();
        }
        value => *into = value.clone(),
    }
}

fn failure(reason: &str, code: u16) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": reason,
        "reason": reason, "code": code})
}

fn client(server: &Arc<Mutex<Server>>) -> kube::Client {
    let server = server.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let server = server.clone();
        async move {
            let (parts, body) = request.into_parts();
            let bytes = body.collect().await.unwrap().to_bytes();
            let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            let (status, answer) = server.lock().unwrap().answer(&parts.method, parts.uri.path(), body);
            let bytes = serde_json::to_vec(&answer).unwrap();
            Ok::<_, Infallible>(Response::builder().status(status).body(Body::from(bytes)).unwrap())
        }
    });
    kube::Client::new(service, "default")
}

fn config() -> Config {
    Config {
        check_period: Duration::from_millis(20),
        // What every machine has.
        machine_id_files: vec!["/proc/sys/kernel/random/boot_id".into()],
        lease_duration: Duration::from_millis(200),
        ..Config::new("n1", vec!["192.0.2.1".parse().unwrap()], "/".into())
    }
}

/// Runs the node's tasks while `during` looks on.
async fn with_node<F: Future<Output = ()>>(
    server: &Arc<Mutex<Server>>,
    during: impl FnOnce(watch::Sender<runtime::Health>, watch::Sender<Reported>) -> F,
) {
    let (health, health_seen) = watch::channel(runtime::Health { errors: vec![], ..Default::default() });
    let (reported, reported_seen) = watch::channel(Reported::default());
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("nobody.sock");
    let runtime = Runtime::connect(&socket.to_string_lossy(), Deadlines::default()).unwrap();
    let shutdown = CancellationToken::new();
    let scope = Scope::new(&Supervisor::default(), "kubelet/", &shutdown);
    let (events, writer) = Recorder::new(Some(client(server)), "n1");
    scope.keep(writer.task("events"));
    let sources = Sources { runtime, health: health_seen, reported: reported_seen, events };
    node::keep(&scope, config(), client(server), sources, watch::Sender::new(None));
    let look = Box::pin(during(health, reported));
    let look = async {
        look.await;
        shutdown.cancel();
        scope.ended().await;
    };
    tokio::time::timeout(Duration::from_secs(20), look).await.unwrap();
}

/// Waits until the server's state satisfies `done`.
async fn until(server: &Arc<Mutex<Server>>, done: impl Fn(&Server) -> bool) {
    while !done(&server.lock().unwrap()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn ready(server: &Server) -> Option<(String, String)> {
    let conditions = server.node.as_ref()?["status"]["conditions"].as_array()?;
    let ready = conditions.iter().find(|c| c["type"] == "Ready")?;
    Some((ready["status"].as_str()?.to_owned(), ready["message"].as_str()?.to_owned()))
}

fn status_patches(server: &Server) -> usize {
    server.writes.iter().filter(|(what, _)| what == "PATCH /api/v1/nodes/n1/status").count()
}

#[tokio::test]
async fn a_node_registers_reports_a_change_at_once_and_renews_its_lease() {
    let server = Arc::new(Mutex::new(Server::default()));
    with_node(&server, |health, reported| {
        let server = server.clone();
        async move {
            until(&server, |s| ready(s).is_some_and(|(status, _)| status == "True")).await;
            until(&server, |s| s.lease.is_some()).await;
            let first = server.lock().unwrap().lease.as_ref().unwrap()["spec"]["renewTime"].clone();
            until(&server, |s| s.lease.as_ref().unwrap()["spec"]["renewTime"] != first).await;
            let owner =
                server.lock().unwrap().lease.as_ref().unwrap()["metadata"]["ownerReferences"][0].clone();
            assert_eq!(owner, json!({"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "uid-of-n1"}));

            health.send_modify(|h| h.errors = vec!["container runtime is down".into()]);
            until(&server, |s| ready(s) == Some(("False".into(), "container runtime is down".into()))).await;
            reported.send_modify(|r| {
                r.disk_pressure = true;
                r.allocatable_enforced = true;
            });
            let has_event =
                |s: &Server, reason: &str| s.writes.iter().any(|(_, body)| body["reason"] == reason);
            for reason in ["NodeNotReady", "NodeHasDiskPressure", "NodeAllocatableEnforced"] {
                until(&server, |s| has_event(s, reason)).await;
            }
        }
    })
    .await;
    let server = server.lock().unwrap();
    let (what, created) = &server.writes.iter().find(|(what, _)| what.ends_with("/nodes")).unwrap();
    assert_eq!(what, "POST /api/v1/nodes");
    assert_eq!(created["metadata"]["labels"]["kubernetes.io/hostname"], "n1");
    let event = server.writes.iter().find(|(_, body)| body["reason"] == "NodeNotReady").unwrap();
    assert_eq!(event.1["message"], "Node n1 status is now: NodeNotReady");
    assert_eq!(event.1["involvedObject"], json!({"kind": "Node", "name": "n1", "uid": "n1"}));
}

#[tokio::test]
async fn an_unchanged_status_must_not_be_written_again() {
    let server = Arc::new(Mutex::new(Server::default()));
    with_node(&server, |_health, _reported| {
        let server = server.clone();
        async move {
            until(&server, |s| s.lease.is_some()).await;
            // A dozen checks later.
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    })
    .await;
    // The first report may find another heartbeat second than the creation wrote.
    let patches = status_patches(&server.lock().unwrap());
    assert!(patches <= 1, "{patches}");
}

#[tokio::test]
async fn a_status_spoilt_by_others_is_put_right() {
    let server = Arc::new(Mutex::new(Server::default()));
    with_node(&server, |_health, _reported| {
        let server = server.clone();
        async move {
            until(&server, |s| s.lease.is_some()).await;
            {
                // As the node life cycle controller does to a node it has not heard from.
                let mut server = server.lock().unwrap();
                let list = server.node.as_mut().unwrap()["status"]["conditions"].as_array_mut().unwrap();
                list.iter_mut().for_each(|c| c["status"] = json!("Unknown"));
            }
            until(&server, |s| ready(s).is_some_and(|(status, _)| status == "True")).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_node_the_scheduler_is_kept_from_must_not_be_so_in_silence() {
    let server = Arc::new(Mutex::new(Server::default()));
    let told = |s: &Server, reason: &str| -> Vec<String> {
        let events = s.writes.iter().filter(|(_, body)| body["reason"] == reason);
        events.map(|(_, body)| body["message"].as_str().unwrap_or_default().to_owned()).collect()
    };
    with_node(&server, |_health, _reported| {
        let server = server.clone();
        async move {
            until(&server, |s| s.lease.is_some()).await;
            for (cordoned, reason) in [(true, "NodeNotSchedulable"), (false, "NodeSchedulable")] {
                server.lock().unwrap().node.as_mut().unwrap()["spec"]["unschedulable"] = json!(cordoned);
                until(&server, |s| !told(s, reason).is_empty()).await;
                let text = format!("Node n1 status is now: {reason}");
                assert_eq!(told(&server.lock().unwrap(), reason), [text]);
            }
        }
    })
    .await;
}
