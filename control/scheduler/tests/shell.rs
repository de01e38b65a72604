//! The whole scheduler against an API server made of a few maps: what it writes, and what wakes it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail by panic")]
#![allow(clippy::disallowed_methods, reason = "a test sees how what it spawns ends")]

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use kube::client::Body;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use supervise::Supervisor;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;

/// Something the scheduler wrote: verb, path, body.
type Written = (String, String, Value);

type Reply = UnsyncBoxBody<Bytes, Infallible>;

#[derive(Default)]
struct State {
    pods: Vec<Value>,
    nodes: Vec<Value>,
    /// Open watches, by path.
    watches: Vec<(String, UnboundedSender<Value>)>,
    /// What else there is, by the path of its list.
    others: Vec<(&'static str, Value)>,
    /// How many bindings are refused before one is taken.
    refuse_bindings: usize,
    /// Claims are not written.
    refuse_claims: bool,
}

struct Rig {
    state: Arc<Mutex<State>>,
    written: UnboundedReceiver<Written>,
    /// What came before something that was waited for: events are written beside the rest.
    passed: Vec<Written>,
    shutdown: CancellationToken,
    scheduler: tokio::task::JoinHandle<Result<(), scheduler::Error>>,
}

fn pod(name: &str, cpu: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "ns", "uid": name, "resourceVersion": "5", "generation": 1},
        "spec": {"schedulerName": "default-scheduler", "containers": [
            {"name": "c", "resources": {"requests": {"cpu": cpu}}}]},
        "status": {"phase": "Pending"},
    })
}

fn node(name: &str, cpu: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "resourceVersion": "5"},
        "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "10"}},
    })
}

async fn start(state: State) -> Rig {
    start_with(state, scheduler::Config::default()).await
}

async fn start_with(state: State, config: scheduler::Config) -> Rig {
    let state = Arc::new(Mutex::new(state));
    let (write, written) = unbounded_channel();
    let shared = state.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let (state, write) = (shared.clone(), write.clone());
        async move { Ok::<_, Infallible>(answer(&state, &write, request).await) }
    });
    let client = kube::Client::new(service, "default");
    let shutdown = CancellationToken::new();
    let scheduler = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { scheduler::run(client, Arc::new(config), &Supervisor::default(), shutdown).await }
    });
    Rig { state, written, passed: Vec::new(), shutdown, scheduler }
}

async fn answer(
    state: &Mutex<State>,
    write: &UnboundedSender<Written>,
    request: Request<Body>,
) -> Response<Reply> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let body: Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap_or_default();
    let ok = |value: &Value| Response::new(Full::from(serde_json::to_vec(value).unwrap()).boxed_unsync());
    if parts.method == Method::GET {
        let mut state = state.lock().unwrap();
        if parts.uri.query().is_some_and(|q| q.contains("watch=true")) {
            let (sender, receiver) = unbounded_channel();
            state.watches.push((path, sender));
            let lines = futures::stream::unfold(receiver, |mut r: UnboundedReceiver<Value>| async {
                let line = format!("{}\n", r.recv().await?);
                Some((Ok::<_, Infallible>(http_body::Frame::data(Bytes::from(line))), r))
            });
            return Response::new(UnsyncBoxBody::new(StreamBody::new(lines.boxed())));
        }
        let items = match path.as_str() {
            "/api/v1/pods" => state.pods.clone(),
            "/api/v1/nodes" => state.nodes.clone(),
            path => state.others.iter().filter(|(list, _)| *list == path).map(|(_, o)| o.clone()).collect(),
        };
        return ok(
            &json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "9"}, "items": items}),
        );
    }
    let mut refused = false;
    if path.contains("/persistentvolumeclaims/") {
        refused = state.lock().unwrap().refuse_claims;
    }
    if path.ends_with("/binding") {
        let mut state = state.lock().unwrap();
        refused = state.refuse_bindings > 0;
        state.refuse_bindings = state.refuse_bindings.saturating_sub(1);
    }
    write.send((parts.method.to_string(), path, body.clone())).unwrap();
    if refused {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 500,
            "reason": "InternalError", "message": "no luck"});
        let mut response = ok(&status);
        *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
        return response;
    }
    if parts.uri.path().contains("/pods/") && parts.method == Method::PATCH {
        return ok(&pod("patched", "1"));
    }
    ok(&body)
}

impl Rig {
    fn send(&self, path: &str, type_: &str, object: &Value) {
        let state = self.state.lock().unwrap();
        let watches: Vec<_> = state.watches.iter().filter(|(p, _)| p == path).collect();
        assert!(!watches.is_empty(), "nobody watches {path}");
        for (_, watch) in watches {
            let _ = watch.send(json!({"type": type_, "object": object}));
        }
    }

    async fn next(&mut self, want: &str) -> Value {
        let wanted = |(verb, path, _): &Written| format!("{verb} {path}").contains(want);
        if let Some(at) = self.passed.iter().position(wanted) {
            return self.passed.remove(at).2;
        }
        let next = async {
            loop {
                let written = self.written.recv().await.expect("the scheduler lives");
                if wanted(&written) {
                    return written.2;
                }
                self.passed.push(written);
            }
        };
        tokio::time::timeout(Duration::from_secs(20), next)
            .await
            .unwrap_or_else(|_| panic!("no {want} in 20 s"))
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.scheduler.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_pod_is_bound_and_its_event_says_where() {
    let mut gated = pod("gated", "1");
    gated["spec"]["schedulingGates"] = json!([{"name": "wait"}]);
    let mut other = pod("other", "1");
    other["spec"]["schedulerName"] = json!("somebody-else");
    let mut rig = start(State {
        pods: vec![gated, other, pod("web", "1")],
        nodes: vec![node("small", "500m"), node("big", "4")],
        ..State::default()
    })
    .await;
    let binding = rig.next("POST /api/v1/namespaces/ns/pods/").await;
    assert_eq!(binding["metadata"], json!({"name": "web", "namespace": "ns", "uid": "web"}));
    assert_eq!(binding["target"], json!({"kind": "Node", "name": "big"}));
    let event = rig.next("/events").await;
    assert_eq!(event["note"], "Successfully assigned ns/web to big");
    assert_eq!(
        (&event["reason"], &event["type"], &event["action"]),
        (&json!("Scheduled"), &json!("Normal"), &json!("Binding"))
    );
    assert_eq!(event["reportingController"], "default-scheduler");
    rig.stop().await;
}

#[tokio::test]
async fn a_pod_that_fits_nowhere_says_why_and_is_placed_when_a_node_comes() {
    let mut rig =
        start(State { pods: vec![pod("web", "1")], nodes: vec![node("small", "500m")], ..State::default() })
            .await;
    let why = "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: \
               0/1 nodes are available: 1 Preemption is not helpful for scheduling.";
    let event = rig.next("/events").await;
    assert_eq!((&event["reason"], &event["type"]), (&json!("FailedScheduling"), &json!("Warning")));
    assert_eq!(event["note"], why);
    let patch = rig.next("PATCH /api/v1/namespaces/ns/pods/web/status").await;
    let condition = &patch["status"]["conditions"][0];
    assert_eq!(condition["type"], "PodScheduled");
    assert_eq!((&condition["status"], &condition["reason"]), (&json!("False"), &json!("Unschedulable")));
    assert_eq!(condition["message"], why);
    rig.send("/api/v1/nodes", "ADDED", &node("big", "2"));
    assert_eq!(rig.next("/binding").await["target"]["name"], "big");
    rig.stop().await;
}

#[tokio::test]
async fn a_binding_that_fails_is_taken_back_and_tried_again() {
    let mut rig = start(State {
        pods: vec![pod("web", "1")],
        nodes: vec![node("only", "1")],
        refuse_bindings: 1,
        ..State::default()
    })
    .await;
    rig.next("/binding").await;
    let event = rig.next("/events").await;
    assert_eq!(event["reason"], "FailedScheduling");
    assert_eq!(event["note"], "running Bind plugin \"DefaultBinder\": no luck");
    // The node has room for one only: it must have been given back.
    assert_eq!(rig.next("/binding").await["target"]["name"], "only");
    rig.stop().await;
}

#[tokio::test]
async fn a_pod_whose_volumes_failed_must_not_stay_nominated() {
    let mut web = pod("web", "1");
    web["spec"]["volumes"] = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]);
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "namespace": "ns", "uid": "c", "resourceVersion": "5"},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "late",
            "resources": {"requests": {"storage": "1Gi"}}},
        "status": {"phase": "Pending"},
    });
    let class = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "p.io",
        "metadata": {"name": "late", "resourceVersion": "5"}, "volumeBindingMode": "WaitForFirstConsumer",
    });
    let mut rig = start(State {
        pods: vec![web],
        nodes: vec![node("only", "2")],
        others: vec![
            ("/api/v1/persistentvolumeclaims", claim),
            ("/apis/storage.k8s.io/v1/storageclasses", class),
        ],
        refuse_claims: true,
        ..State::default()
    })
    .await;
    let patch = rig.next("PATCH /api/v1/namespaces/ns/pods/web/status").await;
    assert_eq!(patch["status"], json!({"nominatedNodeName": "only"}), "before its volumes are made");
    rig.next("PATCH /api/v1/namespaces/ns/persistentvolumeclaims/data").await;
    let patch = rig.next("PATCH /api/v1/namespaces/ns/pods/web/status").await;
    assert_eq!(
        patch["status"]["conditions"][0]["message"],
        "running PreBind plugin \"VolumeBinding\": no luck"
    );
    assert!(patch["status"].as_object().unwrap().contains_key("nominatedNodeName"), "it is taken back");
    assert_eq!(patch["status"]["nominatedNodeName"], Value::Null);
    rig.stop().await;
}

#[tokio::test]
async fn pods_that_wait_share_a_node_without_overfilling_it() {
    let pods = (0..6).map(|n| pod(&format!("p{n}"), "1")).collect();
    let mut rig =
        start(State { pods, nodes: vec![node("a", "3"), node("b", "2")], ..State::default() }).await;
    let mut bound: Vec<String> = Vec::new();
    while bound.len() < 5 {
        let binding = rig.next("/binding").await;
        bound.push(binding["target"]["name"].as_str().unwrap().to_owned());
    }
    bound.sort();
    assert_eq!(bound, ["a", "a", "a", "b", "b"]);
    let patch = rig.next("PATCH").await;
    assert!(
        patch["status"]["conditions"][0]["message"]
            .as_str()
            .unwrap()
            .starts_with("0/2 nodes are available: 2 Insufficient cpu.")
    );
    rig.stop().await;
}

#[tokio::test]
async fn a_more_important_pod_evicts_and_takes_the_place() {
    let mut low = pod("low", "1");
    low["spec"]["nodeName"] = json!("only");
    let mut high = pod("high", "1");
    high["spec"]["priority"] = json!(1000);
    let mut rig =
        start(State { pods: vec![low.clone(), high], nodes: vec![node("only", "1")], ..State::default() })
            .await;
    let patch = rig.next("PATCH /api/v1/namespaces/ns/pods/low/status").await;
    let condition = &patch["status"]["conditions"][0];
    assert_eq!(
        (&condition["type"], &condition["reason"]),
        (&json!("DisruptionTarget"), &json!("PreemptionByScheduler"))
    );
    assert_eq!(condition["message"], "default-scheduler: preempting to accommodate a higher priority pod");
    let delete = rig.next("DELETE /api/v1/namespaces/ns/pods/low").await;
    assert_eq!(delete["preconditions"]["uid"], "low");
    let event = rig.next("/events").await;
    assert_eq!(event["note"], "Preempted by pod high on node only");
    let patch = rig.next("PATCH /api/v1/namespaces/ns/pods/high/status").await;
    assert_eq!(patch["status"]["nominatedNodeName"], "only");
    assert_eq!(patch["status"]["conditions"][0]["message"], "0/1 nodes are available: 1 Insufficient cpu.");
    rig.send("/api/v1/pods", "DELETED", &low);
    assert_eq!(rig.next("/high/binding").await["target"]["name"], "only");
    rig.stop().await;
}

#[tokio::test]
async fn an_unreadable_pod_or_node_must_not_hide_another() {
    let mut odd = pod("odd", "1");
    odd["spec"]["containers"][0]["ports"] = json!([{"containerPort": "eighty"}]);
    let mut odd_node = node("odd", "4");
    odd_node["status"]["conditions"] = json!("none");
    let mut null = node("null", "2");
    null["status"]["conditions"] =
        json!([{"type": "Ready", "status": "True", "lastTransitionTime": null}, null]);
    let mut rig = start(State {
        pods: vec![odd.clone(), pod("web", "1")],
        nodes: vec![odd_node, null],
        ..State::default()
    })
    .await;
    let binding = rig.next("POST /api/v1/namespaces/ns/pods/").await;
    assert_eq!((&binding["metadata"]["name"], &binding["target"]["name"]), (&json!("web"), &json!("null")));
    // It goes, and another takes its name.
    rig.send("/api/v1/pods", "DELETED", &odd);
    rig.send("/api/v1/pods", "ADDED", &pod("odd", "500m"));
    assert_eq!(rig.next("/binding").await["metadata"]["name"], "odd");
    rig.stop().await;
}

/// A pod that an extender is asked about.
fn managed(name: &str) -> Value {
    let mut pod = pod(name, "1");
    pod["spec"]["containers"][0]["resources"]["requests"]["example.com/x"] = json!("1");
    pod
}

/// A scheduler with an extender that takes questions and does not answer; it waits `timeout` for that.
async fn with_mute_extender(
    state: State,
    timeout: Duration,
    ignorable: bool,
) -> (Rig, tokio::net::TcpListener) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let resource = std::collections::BTreeSet::from(["example.com/x".to_owned()]);
    let extender = scheduler::extender::Config {
        url: format!("http://{}", listener.local_addr().unwrap()),
        filter: "filter".into(),
        managed: resource.clone(),
        ignored: resource,
        ignorable,
        timeout,
        ..Default::default()
    };
    let config = scheduler::Config { extenders: vec![extender], ..Default::default() };
    (start_with(state, config).await, listener)
}

#[tokio::test]
async fn an_extender_that_does_not_answer_must_not_stop_pods_that_come_after() {
    let pods = vec![managed("asked"), pod("web", "1")];
    let nodes = vec![node("big", "4")];
    let timeout = Duration::from_millis(300);
    let (mut rig, _mute) =
        with_mute_extender(State { pods, nodes, ..State::default() }, timeout, false).await;
    assert_eq!(rig.next("/binding").await["metadata"]["name"], "web");
    let patch = rig.next("PATCH /api/v1/namespaces/ns/pods/asked/status").await;
    let condition = &patch["status"]["conditions"][0];
    assert_eq!(condition["reason"], "SchedulerError");
    assert!(condition["message"].as_str().unwrap().ends_with("context deadline exceeded"), "{condition}");
    rig.stop().await;
}

#[tokio::test]
async fn an_ignorable_extender_that_does_not_answer_must_not_stop_its_own_pods() {
    let (pods, nodes) = (vec![managed("asked")], vec![node("big", "4")]);
    let timeout = Duration::from_millis(300);
    let (mut rig, _mute) = with_mute_extender(State { pods, nodes, ..State::default() }, timeout, true).await;
    assert_eq!(rig.next("/binding").await["metadata"]["name"], "asked");
    rig.stop().await;
}

#[tokio::test]
async fn a_question_that_waits_must_not_hold_up_what_is_seen_meanwhile() {
    let (pods, nodes) = (vec![managed("asked")], vec![node("big", "4")]);
    let minute = Duration::from_secs(60);
    let (rig, mute) = with_mute_extender(State { pods, nodes, ..State::default() }, minute, false).await;
    let (mut question, _) =
        tokio::time::timeout(Duration::from_secs(20), mute.accept()).await.unwrap().unwrap();
    let mut head = [0; 5];
    tokio::io::AsyncReadExt::read_exact(&mut question, &mut head).await.unwrap();
    assert_eq!(&head, b"POST ");
    // The end is seen, too: it does not wait for the answer.
    tokio::time::timeout(Duration::from_secs(20), rig.stop()).await.expect("the loop waits for the extender");
}
