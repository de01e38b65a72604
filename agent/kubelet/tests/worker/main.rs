//! The real pod worker, and the whole kubelet, on a runtime in memory: whatever call the kubelet dies at, whatever call
//! fails, whenever the pod is deleted, it comes to the same end.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test")]

#[macro_use]
#[path = "../support/refuse.rs"]
mod refuse;

#[path = "../support/api.rs"]
mod api;
mod endings;
mod evictions;
mod life;
mod manager;
mod node;
mod probes;
mod ranges;
#[path = "../support/runtime.rs"]
#[allow(dead_code, reason = "a worker asks for less than the port")]
mod runtime;
mod volumes;
#[path = "../support/world.rs"]
mod world;

use futures::StreamExt;
use life::{Case, Goal, live};
use runtime::Trap;
use serde_json::json;

/// Lives lived at the same time: most of a life is waiting for a pause after a failure.
const TOGETHER: usize = 32;

fn cases() -> Vec<Case> {
    let one = |name: &str| json!({"name": name, "image": format!("example.org/{name}:1")});
    let sidecar = json!({"name": "side", "image": "example.org/side:1", "restartPolicy": "Always"});
    vec![
        Case {
            name: "one container",
            spec: json!({"containers": [one("a")]}),
            exits: &[],
            goal: Goal::Runs(&["a"]),
            started: &["a"],
            restarts: &[("a", 0)],
        },
        Case {
            name: "an init and two containers",
            spec: json!({"initContainers": [one("i")], "containers": [one("a"), one("b")]}),
            exits: &[("i", &[0])],
            goal: Goal::Runs(&["a", "b"]),
            started: &["i", "a", "b"],
            restarts: &[("i", 0), ("a", 0), ("b", 0)],
        },
        Case {
            name: "a sidecar",
            spec: json!({"initContainers": [sidecar], "containers": [one("a")]}),
            exits: &[],
            goal: Goal::Runs(&["a", "side"]),
            started: &["side", "a"],
            restarts: &[("side", 0), ("a", 0)],
        },
        Case {
            name: "a job with a sidecar",
            spec: json!({"restartPolicy": "Never", "initContainers": [sidecar], "containers": [one("a")]}),
            exits: &[("a", &[0])],
            goal: Goal::Ends("Succeeded"),
            started: &["side", "a"],
            restarts: &[("a", 0)],
        },
        Case {
            name: "never restarted",
            spec: json!({"restartPolicy": "Never", "containers": [one("a"), one("b")]}),
            exits: &[("a", &[1]), ("b", &[0])],
            goal: Goal::Ends("Failed"),
            started: &["a", "b"],
            restarts: &[("a", 0), ("b", 0)],
        },
        Case {
            name: "restarted on failure",
            spec: json!({"restartPolicy": "OnFailure", "containers": [one("a")]}),
            exits: &[("a", &[1, 0])],
            goal: Goal::Ends("Succeeded"),
            started: &["a", "a"],
            restarts: &[("a", 1)],
        },
        Case {
            name: "an init container that fails once",
            spec: json!({"initContainers": [one("i")], "containers": [one("a")]}),
            exits: &[("i", &[1, 0])],
            goal: Goal::Runs(&["a"]),
            started: &["i", "i", "a"],
            restarts: &[("i", 1), ("a", 0)],
        },
    ]
}

/// A pod with hooks: one that fails is not as if it had not been there, so it is no case of failures.
fn hooked() -> Case {
    let exec = |command: &str| json!({"exec": {"command": [command]}});
    let lifecycle = json!({"postStart": exec("begin"), "preStop": exec("end")});
    let container = |name: &str| json!({"name": name, "image": "example.org/a:1", "lifecycle": lifecycle});
    let mut side = container("side");
    side["restartPolicy"] = json!("Always");
    Case {
        name: "hooks",
        spec: json!({"initContainers": [side], "containers": [container("a")]}),
        exits: &[],
        goal: Goal::Runs(&["a", "side"]),
        started: &["side", "a"],
        restarts: &[("side", 0), ("a", 0)],
    }
}

/// Lives every case with each of the traps that `traps` makes from its number of acts and looks.
async fn with(cases: Vec<Case>, traps: impl Fn(usize, usize) -> Vec<Trap>) {
    let mut lives = Vec::new();
    for case in cases {
        let (acts, looks) = live(&case, Trap::None).await.unwrap_or_else(|wrong| panic!("{wrong}"));
        lives.extend(traps(acts, looks).into_iter().map(|trap| (case.clone(), trap)));
    }
    let all = lives.len();
    let lives = futures::stream::iter(lives).map(|(case, trap)| async move {
        tokio::spawn(async move { live(&case, trap).await }).await.unwrap()
    });
    let ended: Vec<_> = lives.buffer_unordered(TOGETHER).collect().await;
    let wrong: Vec<String> = ended.into_iter().filter_map(Result::err).collect();
    assert!(wrong.is_empty(), "{} of {all} lives:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kubelet_that_dies_at_any_call_must_not_leave_a_pod_half_made_or_run_anything_twice() {
    with([cases(), vec![hooked()]].concat(), |acts, _| {
        let at = |act| [false, true].map(|done| Trap::Crash { act, done });
        (0..acts).flat_map(at).collect()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kubelet_that_dies_between_any_two_calls_must_not_leave_a_pod_half_made_or_run_anything_twice() {
    with([cases(), vec![hooked()]].concat(), |_, looks| {
        (0..looks).map(|look| Trap::CrashAsking { look }).collect()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_fails_done_or_not_must_not_change_what_becomes_of_a_pod() {
    with(cases(), |acts, _| {
        let at = |act| [false, true].map(|done| Trap::Fail { act, done });
        (0..acts).flat_map(at).collect()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_without_answer_must_not_change_what_becomes_of_a_pod() {
    with(cases(), |_, looks| (0..looks).step_by(2).map(|look| Trap::Blind { look }).collect()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_in_flight_must_not_be_dropped_when_its_pod_is_deleted() {
    let all = [cases(), vec![hooked()]].concat();
    with(all, |acts, _| (0..acts).map(|act| Trap::Delete { act }).collect()).await;
}
