//! Pods that are to end, or to end sooner, while their worker is in the midst of something.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kubelet::eviction;
use kubelet::node::Reported;
use kubelet::pressure::{Left, Observations, Signal};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::node::{Node, Running, one, pod, within};

/// A second's grace, which is two at least, is over by then, the long ones of these tests are not.
const SOON: Duration = Duration::from_secs(20);
const LONG: i64 = 600;

fn stubborn(node: &Node) {
    node.fake.world.lock().stubborn.insert("a".to_owned());
}

fn stops(node: &Node) -> Vec<i64> {
    node.fake.world.lock().stops.iter().map(|(_, seconds)| *seconds).collect()
}

/// A pod whose container fails its liveness probe at once, and then has a long time to end.
async fn failing(node: &Node) {
    stubborn(node);
    node.fake.world.lock().commands.insert("live".to_owned(), VecDeque::from([1]));
    let mut spec = one("a");
    spec["containers"][0]["livenessProbe"] = json!({
        "exec": {"command": ["live"]}, "periodSeconds": 1, "failureThreshold": 1,
        "terminationGracePeriodSeconds": LONG,
    });
    node.api.put("pods", pod("p", &spec));
    node.until("its container is killed for its probe", || stops(node) == [LONG]).await;
}

/// Deletes the pod with that grace.
fn delete(node: &Node, grace: i64) {
    node.api.delete("p");
    node.api.change("p", |pod| pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace));
}

/// A disk that bears no pod at all: the node's only one is evicted.
async fn under_pressure(kubelet: &Running, during: impl Future<Output = ()>) {
    let mut parts = kubelet.eviction.clone();
    parts.observe = Arc::new(|_: &Path, _: &[std::path::PathBuf]| {
        Observations::from([(Signal::NodefsAvailable, Left { available: 1, capacity: 10_000 })])
    });
    let (reported, _told) = watch::channel(Reported::default());
    let stop = CancellationToken::new();
    let during = async {
        during.await;
        stop.cancel();
    };
    tokio::join!(eviction::watch(parts, &reported, &stop), during);
}

fn is_evicted(node: &Node) -> bool {
    let status = node.api.pod("p").unwrap()["status"].clone();
    status["phase"] == "Failed" && status["reason"] == "Evicted"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_for_a_probe_must_not_outlast_its_pods_deletion() {
    let node = Node::new();
    let kubelet = node.start().await;
    failing(&node).await;
    delete(&node, 1);
    assert!(within(SOON, || node.api.pod("p").is_none() && node.is_empty()).await, "{:?}", stops(&node));
    assert_eq!(stops(&node)[..2], [LONG, 2]);
    assert!(node.fake.dropped().is_empty(), "{:?}", node.fake.dropped());
    node.judge();
    kubelet.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_with_less_grace_must_not_wait_for_the_one_before_it() {
    let node = Node::new();
    let kubelet = node.start().await;
    stubborn(&node);
    node.api.put("pods", pod("p", &one("a")));
    node.until("it is ready", || node.api.is_ready("p")).await;
    delete(&node, LONG);
    node.until("its container is asked to stop", || !stops(&node).is_empty()).await;
    delete(&node, 1);
    assert!(within(SOON, || node.api.pod("p").is_none() && node.is_empty()).await, "{:?}", stops(&node));
    assert!(node.fake.dropped().is_empty(), "{:?}", node.fake.dropped());
    kubelet.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_soft_eviction_must_not_outlast_a_hard_threshold() {
    let node = Node::new();
    let mut config = crate::evictions::bearing(&node);
    config.eviction.soft = crate::evictions::thresholds("nodefs.available", "200");
    config.eviction.longest_grace = LONG;
    let kubelet = node.start_with(config).await;
    stubborn(&node);
    let mut spec = one("a");
    spec["terminationGracePeriodSeconds"] = json!(LONG);
    node.api.put("pods", pod("p", &spec));
    node.until("it is ready", || node.api.is_ready("p")).await;
    let mut parts = kubelet.eviction.clone();
    let world = Arc::clone(&node.fake.world);
    parts.observe = Arc::new(move |_: &Path, _: &[std::path::PathBuf]| {
        // Between the thresholds, and below both once the pod was asked to end.
        let available = if world.lock().stops.is_empty() { 150 } else { 50 };
        Observations::from([(Signal::NodefsAvailable, Left { available, capacity: 10_000 })])
    });
    let (reported, _told) = watch::channel(Reported::default());
    let stop = CancellationToken::new();
    let during = async {
        let ended = || stops(&node) == [LONG, 2] && is_evicted(&node);
        assert!(within(SOON * 2, ended).await, "{:?}", stops(&node));
        stop.cancel();
    };
    tokio::join!(eviction::watch(parts, &reported, &stop), during);
    assert!(node.fake.dropped().is_empty(), "{:?}", node.fake.dropped());
    node.judge();
    kubelet.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_eviction_must_not_wait_for_a_pull() {
    let node = Node::new();
    let kubelet = node.start_with(crate::evictions::bearing(&node)).await;
    let mut spec = one("a");
    let slow = json!({"name": "b", "image": "example.org/slow:1", "imagePullPolicy": "Always"});
    spec["containers"].as_array_mut().unwrap().push(slow);
    node.api.put("pods", pod("p", &spec));
    node.until("it is ready", || node.api.is_ready("p")).await;
    node.fake.hanging.send_replace("example.org/slow:1");
    node.fake.change(|world| world.exit("b", 1));
    node.until("the image is asked for again", || asked_for(&node) == 3).await;
    let evicted = async { assert!(within(SOON, || is_evicted(&node)).await, "{:?}", node.fake.log()) };
    under_pressure(&kubelet, evicted).await;
    assert_eq!(node.started(), ["a", "b"]);
    kubelet.kill().await;
}

fn asked_for(node: &Node) -> usize {
    node.fake.log().iter().filter(|call| call.starts_with("asked for")).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_eviction_must_not_wait_for_a_long_grace() {
    for how in ["a probe", "a deletion"] {
        let node = Node::new();
        let kubelet = node.start_with(crate::evictions::bearing(&node)).await;
        if how == "a probe" {
            failing(&node).await;
        } else {
            stubborn(&node);
            node.api.put("pods", pod("p", &one("a")));
            node.until("it is ready", || node.api.is_ready("p")).await;
            delete(&node, LONG);
            node.until("its container is asked to stop", || !stops(&node).is_empty()).await;
        }
        let gone = async { assert!(within(SOON, || node.running().is_empty()).await, "{how}") };
        under_pressure(&kubelet, gone).await;
        assert_eq!(stops(&node)[..2], [LONG, 2], "{how}");
        assert!(node.fake.dropped().is_empty(), "{how}: {:?}", node.fake.dropped());
        kubelet.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runtime_slow_to_tell_must_not_hold_up_the_stop_that_is_under_way() {
    let node = Node::new();
    let kubelet = node.start().await;
    let mut spec = one("a");
    spec["containers"][0]["lifecycle"] = json!({"preStop": {"sleep": {"seconds": 1}}});
    let more = one("b")["containers"][0].clone();
    spec["containers"].as_array_mut().unwrap().push(more);
    node.fake.world.lock().stubborn.insert("b".to_owned());
    node.api.put("pods", pod("p", &spec));
    node.until("it is ready", || node.api.is_ready("p")).await;
    delete(&node, LONG);
    node.until("the other is asked to stop", || !stops(&node).is_empty()).await;
    node.fake.looks_hang.send_replace(true);
    // Its worker looks, in vain, while the hook of the first goes on.
    node.fake.change(|world| world.exit("b", 0));
    node.until("it is stopped all the same", || stops(&node).len() == 2).await;
    node.fake.looks_hang.send_replace(false);
    node.until("nothing is left", || node.api.pod("p").is_none() && node.is_empty()).await;
    kubelet.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_that_fails_between_two_starts_must_not_be_tried_without_a_pause() {
    let node = Node::new();
    let kubelet = node.start().await;
    node.fake.hanging.send_replace("example.org/image:1");
    let (host, aside) = (node.path("host"), node.path("aside"));
    std::fs::create_dir(&host).unwrap();
    let container = |name: &str| -> Value {
        let mut container = one(name)["containers"][0].clone();
        container["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
        container
    };
    let volume = json!({"name": "v", "hostPath": {"path": host, "type": "Directory"}});
    let spec = json!({"containers": [container("a"), container("b")], "volumes": [volume]});
    node.api.put("pods", pod("p", &spec));
    node.until("the first image is asked for", || asked_for(&node) > 0).await;
    std::fs::rename(&host, &aside).unwrap();
    node.fake.hanging.send_replace("");
    node.until("the failure is told", || !node.api.events("FailedMount").is_empty()).await;
    // The next tries are after half a second, and after one more.
    assert!(!within(Duration::from_millis(1200), || node.started() == ["a", "b"]).await);
    let looks = node.fake.calls().1;
    assert!(looks < 50, "it has looked {looks} times");
    std::fs::rename(&aside, &host).unwrap();
    node.until("it starts", || node.started() == ["a", "b"]).await;
    kubelet.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_is_deleted_must_not_be_waited_for_until_its_objects_are_there() {
    let node = Node::new();
    let kubelet = node.start().await;
    // Any other answer comes at once; this one never.
    node.api.withhold("secrets");
    let mut spec = one("a");
    spec["containers"][0]["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
    spec["volumes"] = json!([{"name": "v", "secret": {"secretName": "s"}}]);
    node.api.put("pods", pod("p", &spec));
    node.until("its secret is asked for", || !node.api.asked(&http::Method::GET, "/secrets").is_empty())
        .await;
    node.api.delete("p");
    // A pod waits ten seconds for an object.
    assert!(within(Duration::from_secs(5), || node.api.pod("p").is_none()).await);
    kubelet.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_must_not_get_a_grace_of_its_own_after_that_of_the_others() {
    let node = Node::new();
    let kubelet = node.start().await;
    let mut side = one("side")["containers"][0].clone();
    side["restartPolicy"] = json!("Always");
    side["lifecycle"] = json!({"preStop": {"sleep": {"seconds": 1}}});
    let mut spec = one("a");
    spec["initContainers"] = json!([side]);
    node.fake.world.lock().stubborn.extend(["a".to_owned(), "side".to_owned()]);
    node.api.put("pods", pod("p", &spec));
    node.until("it is ready", || node.api.is_ready("p")).await;
    delete(&node, 5);
    node.until("both are told that they end", || {
        node.api.events("Killing").len() == 2 && stops(&node).len() == 1
    })
    .await;
    // Five seconds for one, then the least for the other.
    assert!(within(SOON, || node.api.pod("p").is_none() && node.is_empty()).await, "{:?}", stops(&node));
    assert_eq!(stops(&node), [5, 2]);
    node.judge();
    kubelet.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_must_not_wait_out_a_grace_that_the_others_do_not_need() {
    let node = Node::new();
    let kubelet = node.start().await;
    let mut side = one("side")["containers"][0].clone();
    side["restartPolicy"] = json!("Always");
    let mut spec = one("a");
    spec["initContainers"] = json!([side]);
    node.api.put("pods", pod("p", &spec));
    node.until("it is ready", || node.api.is_ready("p")).await;
    delete(&node, LONG);
    assert!(within(SOON, || node.api.pod("p").is_none() && node.is_empty()).await, "{:?}", stops(&node));
    assert_eq!(stops(&node), [LONG, LONG]);
    node.judge();
    kubelet.kill().await;
}
