//! Pods that come, change and go, while kubelets do.

use std::time::Duration;

use futures::StreamExt;
use http::Method;
use serde_json::json;

use crate::TOGETHER;
use crate::node::{Node, one, pod, within};
use crate::runtime::Trap;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_is_deleted_must_not_leave_anything() {
    let node = Node::new();
    let kubelet = node.start().await;
    node.api.put("pods", pod("p", &one("a")));
    node.until("it is ready", || node.api.is_ready("p")).await;
    node.api.delete("p");
    node.until("it is gone", || node.api.pod("p").is_none() && node.is_empty()).await;
    assert_eq!(node.started(), ["a"]);
    node.judge();
    kubelet.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_taken_away_at_once_must_be_ended() {
    let node = Node::new();
    let kubelet = node.start().await;
    node.api.put("pods", pod("p", &one("a")));
    node.until("it is ready", || node.api.is_ready("p")).await;
    node.api.remove("p");
    node.until("nothing is left", || node.is_empty()).await;
    node.judge();
    kubelet.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kubelet_that_starts_again_must_not_restart_what_runs_and_must_end_what_was_deleted() {
    let node = Node::new();
    let kubelet = node.start().await;
    node.api.put("pods", pod("p", &one("a")));
    node.api.put("pods", pod("gone", &one("b")));
    node.until("both are ready", || node.api.is_ready("p") && node.api.is_ready("gone")).await;
    kubelet.kill().await;
    node.api.remove("gone");
    std::fs::create_dir_all(node.path("root/pods/uid-nobody/volumes")).unwrap();
    std::fs::create_dir_all(node.path("logs/n_lost_uid-lost/c")).unwrap();
    std::fs::create_dir_all(node.path("logs/others")).unwrap();
    let kubelet = node.start().await;
    node.until("the orphans are gone", || {
        let left: Vec<_> = std::fs::read_dir(node.path("root/pods")).unwrap().flatten().collect();
        let mut logs: Vec<_> = std::fs::read_dir(node.path("logs")).unwrap().flatten().collect();
        logs.sort_by_key(|entry| entry.file_name());
        let logs: Vec<_> = logs.iter().map(|entry| entry.file_name().into_string().unwrap()).collect();
        node.running() == ["a"]
            && left.len() == 1
            && node.fake.world.lock().containers.len() == 1
            && logs == ["n_p_uid-p", "others"]
    })
    .await;
    node.api.put("pods", pod("q", &one("c")));
    node.until("a new pod is ready", || node.api.is_ready("q")).await;
    assert!(node.api.is_ready("p"));
    assert_eq!(node.started().iter().filter(|name| *name == "a").count(), 1);
    node.judge();
    kubelet.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_is_away_must_not_end_its_pods() {
    let node = Node::new();
    let kubelet = node.start().await;
    node.api.put("pods", pod("p", &one("a")));
    node.until("it is ready", || node.api.is_ready("p")).await;
    kubelet.kill().await;
    node.api.go_away(true);
    node.api.remove("p");
    let before = node.api.asked(&Method::GET, "/pods").len();
    let kubelet = node.start().await;
    node.until("the API was asked in vain", || node.api.asked(&Method::GET, "/pods").len() > before + 2)
        .await;
    assert_eq!(node.running(), ["a"]);
    node.api.go_away(false);
    node.until("the pod is ended once the API says so", || node.is_empty()).await;
    node.judge();
    kubelet.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_static_pod_that_changes_must_not_run_beside_what_it_was() {
    let node = Node::new();
    let kubelet = node.start().await;
    let write = |container: &str| {
        let manifest = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "s", "namespace": "n"}, "spec": one(container)});
        std::fs::write(node.path("manifests/s.yaml"), manifest.to_string()).unwrap();
    };
    write("a");
    let mirror = || node.api.pod("s-node").map(|pod| pod["spec"]["containers"][0]["name"].clone());
    node.until("its mirror is ready", || node.running() == ["a"] && node.api.is_ready("s-node")).await;
    write("b");
    node.until("the new one runs", || node.running() == ["b"] && mirror() == Some(json!("b"))).await;
    let log = node.fake.log();
    let at = |call: &str| log.iter().rposition(|done| done == call).unwrap();
    assert!(at("remove sandbox1") < at("run sandbox"), "the old one is ended first: {log:?}");
    node.until("the new mirror is ready", || node.api.is_ready("s-node")).await;
    node.api.remove("s-node");
    node.until("the mirror comes back", || node.api.is_ready("s-node")).await;
    assert_eq!(node.started(), ["a", "b"], "deleting a mirror ends nothing");
    std::fs::remove_file(node.path("manifests/s.yaml")).unwrap();
    node.until("nothing is left", || node.is_empty() && node.api.pod("s-node").is_none()).await;
    node.judge();
    kubelet.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_is_refused_must_be_told_why_and_leave_nothing() {
    let node = Node::new();
    let kubelet = node.start().await;
    let with = |field: &str, value: serde_json::Value| {
        let mut spec = one("a");
        spec[field] = value;
        spec
    };
    let mut greedy = one("a");
    greedy["containers"][0]["resources"] = json!({"requests": {"cpu": "100000"}});
    let sysctls = json!({"sysctls": [{"name": "kernel.msgmax", "value": "1"}]});
    let cases = [
        (
            "cpu",
            greedy,
            "OutOfcpu",
            "Node didn't have enough resource: cpu, requested: 100000000, used: 0, capacity: ",
        ),
        (
            "labels",
            with("nodeSelector", json!({"x": "y"})),
            "NodeAffinity",
            "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
        ),
        (
            "windows",
            with("os", json!({"name": "windows"})),
            "PodOSNotSupported",
            "Failed to admit pod as the OS field doesn't match node OS",
        ),
        (
            "sysctl",
            with("securityContext", sysctls),
            "SysctlForbidden",
            "forbidden sysctl: \"kernel.msgmax\" not allowlisted",
        ),
    ];
    for (name, spec, ..) in &cases {
        node.api.put("pods", pod(name, spec));
    }
    for (name, _, reason, text) in cases {
        node.until("it has failed", || node.api.phase(name) == "Failed").await;
        let status = node.api.pod(name).unwrap()["status"].clone();
        assert_eq!(status["reason"], reason);
        let message = status["message"].as_str().unwrap();
        assert!(message.starts_with(&format!("Pod was rejected: {text}")), "{message}");
        assert!(status.get("containerStatuses").is_none(), "{status}");
        node.until("an event says it, too", || node.api.events(reason).len() == 1).await;
        assert!(node.api.events(reason)[0].0.starts_with(text));
        node.api.delete(name);
        node.until("it is gone", || node.api.pod(name).is_none()).await;
    }
    node.until("nothing is left", || node.is_empty()).await;
    assert!(node.started().is_empty());
    kubelet.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_that_is_refused_must_not_hold_up_another_pods() {
    let node = Node::new();
    let kubelet = node.start().await;
    node.api.refuse("p", true);
    node.api.put("pods", pod("p", &one("a")));
    let tries = || node.api.asked(&Method::PATCH, "/pods/p/status").len();
    node.until("it is refused again and again", || tries() > 2).await;
    node.api.put("pods", pod("q", &one("b")));
    node.until("the other is ready", || node.api.is_ready("q")).await;
    assert_eq!(node.api.phase("p"), "Pending");
    node.api.refuse("p", false);
    node.until("it is written in the end", || node.api.is_ready("p")).await;
    kubelet.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_failed_must_not_sleep_through_its_pods_deletion() {
    let node = Node::new();
    let kubelet = node.start().await;
    node.api.put("pods", pod("p", &one("a")));
    node.until("it is ready", || node.api.is_ready("p")).await;
    node.fake.change(|world| {
        world.silent = true;
        world.exit("a", 1);
    });
    node.api.change("p", |pod| pod["metadata"]["annotations"] = json!({"changed": "now"}));
    // Half a second, one, two and four have passed by then: the next pause is eight seconds.
    node.until("it has asked in vain", || node.fake.unanswered() > 4).await;
    node.fake.change(|world| world.silent = false);
    node.api.delete("p");
    assert!(within(Duration::from_secs(5), || node.api.pod("p").is_none()).await, "{:?}", node.fake.log());
    node.judge();
    kubelet.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_waits_for_the_network_must_start_when_it_is_there() {
    let node = Node::new();
    node.fake.world.lock().network_error = Some("no plugin".to_owned());
    let kubelet = node.start().await;
    node.until("the node knows", || kubelet.health().network_error.is_some()).await;
    node.api.put("pods", pod("p", &one("a")));
    let told = || node.api.events("NetworkNotReady").iter().map(|(_, count)| count).sum::<u64>();
    node.until("it is tried again and again", || told() > 3).await;
    let text = "network is not ready: container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:no plugin";
    assert_eq!(node.api.events("NetworkNotReady")[0].0, text);
    assert!(node.started().is_empty());
    node.fake.world.lock().network_error = None;
    // The next try would be eight seconds after the last.
    assert!(within(Duration::from_secs(5), || node.running() == ["a"]).await);
    kubelet.kill().await;
}

/// A pod that stays, one that is deleted while no kubelet runs, and the end of both. Answers how many calls changed
/// something, or what went wrong.
async fn lives(trap: Trap) -> Result<usize, String> {
    let node = Node::with(trap);
    let mut kubelet = node.start().await;
    for phase in 0..3 {
        match phase {
            0 => {
                node.api.put("pods", pod("p", &one("a")));
                node.api.put("pods", pod("o", &one("b")));
            }
            1 => {
                kubelet.kill().await;
                node.api.remove("o");
                kubelet = node.start().await;
            }
            _ => node.api.delete("p"),
        }
        let there = || match phase {
            0 => node.api.is_ready("p") && node.api.is_ready("o"),
            1 => node.running() == ["a"] && node.fake.world.lock().containers.len() == 1,
            _ => node.api.pod("p").is_none() && node.is_empty(),
        };
        loop {
            let sprung = tokio::select! {
                there = within(Duration::from_secs(60), there) => match there {
                    true => break,
                    false => false,
                },
                () = node.fake.sprung.notified() => true,
            };
            if !sprung {
                return Err(format!("{trap:?}: phase {phase} does not end: {:?}", node.fake.log()));
            }
            kubelet.kill().await;
            kubelet = node.start().await;
        }
    }
    kubelet.kill().await;
    let mut started = node.started();
    started.sort();
    let wrongs = node.fake.world.lock().wrongs.clone();
    match wrongs.is_empty() && started == ["a", "b"] {
        true => Ok(node.fake.calls().0),
        false => Err(format!("{trap:?}: {wrongs:?}, started {started:?} after {:?}", node.fake.log())),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kubelet_that_dies_at_any_call_must_not_lose_or_leak_a_pod() {
    let acts = lives(Trap::None).await.unwrap();
    assert!(acts > 12, "{acts}");
    let traps = (0..acts).flat_map(|act| [false, true].map(|done| Trap::Crash { act, done }));
    let all: Vec<_> = futures::stream::iter(traps)
        .map(|trap| tokio::spawn(lives(trap)))
        .buffer_unordered(TOGETHER)
        .collect()
        .await;
    let wrong: Vec<String> = all.into_iter().filter_map(|life| life.unwrap().err()).collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), 2 * acts, wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_critical_pod_must_not_be_refused_while_others_may_make_room() {
    let node = Node::new();
    let mut config = node.config();
    config.max_pods = 1;
    let kubelet = node.start_with(config).await;
    node.api.put("pods", pod("plain", &one("a")));
    node.until("it is ready", || node.api.is_ready("plain")).await;
    let mut spec = one("b");
    spec["priority"] = json!(2_000_000_000);
    node.api.put("pods", pod("critical", &spec));
    node.until("it runs", || node.api.is_ready("critical")).await;
    let status = node.api.pod("plain").unwrap()["status"].clone();
    assert_eq!((&status["phase"], &status["reason"]), (&json!("Failed"), &json!("Preempting")));
    assert_eq!(status["message"], "Preempted in order to admit critical pod");
    let conditions = status["conditions"].as_array().unwrap();
    let told = conditions.iter().find(|c| c["type"] == "DisruptionTarget").unwrap();
    assert_eq!(told["reason"], "TerminationByKubelet");
    assert_eq!(told["message"], "Pod was preempted by Kubelet to accommodate a critical pod.");
    node.until("it is told", || node.api.events("Preempting").len() == 1).await;
    // another one finds nobody less important
    node.api.put("pods", pod("second", &spec));
    node.until("it is refused", || node.api.phase("second") == "Failed").await;
    assert_eq!(node.running(), ["b"]);
    node.judge();
    kubelet.kill().await;
}
