//! Probes: how many answers in a row count, what waits for what, and what a restart forgets.

use std::collections::VecDeque;
use std::sync::Arc;

use cri_proto::client::{Deadlines, Runtime};
use k8s_openapi::api::core::v1::Container;
use kubelet::Recorder;
use kubelet::probe::{Handles, Target, Verdict, Verdicts, drive};
use serde_json::{Value, json};
use supervise::{Scope, Supervisor};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::node::{Node, one, pod};

fn probe(command: &str, successes: i32, failures: i32) -> Value {
    json!({
        "exec": {"command": [command]}, "periodSeconds": 1,
        "successThreshold": successes, "failureThreshold": failures,
    })
}

fn answer(node: &Node, command: &str, codes: &[i32]) {
    node.fake.world.lock().commands.insert(command.to_owned(), VecDeque::from(codes.to_vec()));
}

fn executed(node: &Node) -> Vec<String> {
    node.fake.world.lock().executed.iter().map(|(_, command)| command.clone()).collect()
}

/// Drives the probes of a container, and notes after how many commands the verdict changed to what; until `changes` are
/// seen.
async fn changes(node: &Node, container: Value, changes: usize) -> Vec<(usize, Verdict)> {
    let container: Container = serde_json::from_value(container).unwrap();
    let scope = Scope::new(&Supervisor::default(), "kubelet/", &CancellationToken::new());
    let handles = Handles {
        runtime: Runtime::connect(&node.config().container_runtime_endpoint, Deadlines::default()).unwrap(),
        recorder: Recorder::new(None, "node").0,
        work: scope.vital("probes"),
    };
    let verdicts = Verdicts::default();
    verdicts.begin(&container, "c", None);
    let target = Arc::new(Target {
        pod: Arc::new(serde_json::from_value(pod("p", &one("c"))).unwrap()),
        container,
        id: "c".to_owned(),
        ips: Vec::new(),
        started_at: None,
        ending: false,
    });
    let (_targets, told) = watch::channel(vec![target]);
    let wake = Arc::new(Notify::new());
    let seen = async {
        let mut seen = Vec::new();
        while seen.len() < changes {
            wake.notified().await;
            seen.push((executed(node).len(), verdicts.all()["c"].clone()));
        }
        seen
    };
    tokio::select! {
        () = drive(handles, told, verdicts.clone(), Arc::clone(&wake)) => unreachable!("probes never end"),
        seen = seen => seen,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fewer_answers_in_a_row_than_the_threshold_must_not_count() {
    let node = Node::new();
    answer(&node, "ready", &[0, 1, 0, 0, 1, 1, 0, 1, 1, 1, 0, 0]);
    let container = json!({"name": "c", "readinessProbe": probe("ready", 2, 3)});
    let seen = changes(&node, container, 3).await;
    let ready: Vec<(usize, bool)> = seen.into_iter().map(|(count, verdict)| (count, verdict.ready)).collect();
    assert_eq!(ready, [(4, true), (10, false), (12, true)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_must_not_be_asked_anything_else_before_it_has_started() {
    let node = Node::new();
    answer(&node, "started", &[1, 1, 0]);
    answer(&node, "live", &[1]);
    let container = json!({
        "name": "c", "startupProbe": probe("started", 1, 5), "livenessProbe": probe("live", 1, 2),
        "readinessProbe": probe("ready", 1, 1),
    });
    let seen = changes(&node, container, 3).await;
    let (count, first) = &seen[0];
    assert_eq!((*count, first.started, first.ready), (3, true, false));
    let all = executed(&node);
    assert_eq!(all[..3], ["started", "started", "started"]);
    assert!(!all[3..].contains(&"started".to_owned()), "{all:?}");
    let last = &seen[2].1;
    assert_eq!((last.ready, last.failed.clone()), (true, Some(("failed liveness probe".to_owned(), None))));
    assert_eq!(all.iter().filter(|command| *command == "live").count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_startup_probe_that_fails_for_good_must_not_leave_the_container() {
    let node = Node::new();
    answer(&node, "started", &[1]);
    let seen = changes(&node, json!({"name": "c", "startupProbe": probe("started", 1, 2)}), 1).await;
    assert_eq!(seen[0].0, 2);
    assert_eq!(seen[0].1.failed, Some(("failed startup probe".to_owned(), None)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_before_a_restart_must_not_count_after_it() {
    let node = Node::new();
    // Two failures restart; after that, one alone does not.
    answer(&node, "live", &[0, 1, 1, 1, 0]);
    let kubelet = node.start().await;
    let mut spec = one("a");
    spec["containers"][0]["livenessProbe"] = probe("live", 1, 2);
    node.api.put("pods", pod("p", &spec));
    node.until("it is asked on", || executed(&node).len() > 6).await;
    assert_eq!(node.started(), ["a", "a"]);
    let pod = node.api.pod("p").unwrap();
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 1);
    let told: Vec<String> = node.api.events("Killing").into_iter().map(|(text, _)| text).collect();
    assert_eq!(told, ["Container a failed liveness probe, will be restarted"]);
    node.judge();
    kubelet.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_is_not_ready_must_not_be_shown_ready() {
    let node = Node::new();
    answer(&node, "ready", &[1]);
    let kubelet = node.start().await;
    let mut spec = one("a");
    spec["containers"][0]["readinessProbe"] = probe("ready", 1, 1);
    node.api.put("pods", pod("p", &spec));
    node.until("it is asked", || executed(&node).len() > 1).await;
    assert_eq!((node.api.phase("p").as_str(), node.api.is_ready("p")), ("Running", false));
    answer(&node, "ready", &[0]);
    node.until("it is ready", || node.api.is_ready("p")).await;
    answer(&node, "ready", &[1]);
    node.until("it is unready again", || !node.api.is_ready("p")).await;
    kubelet.kill().await;
}
