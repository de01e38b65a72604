//! From what the machine has left to the pod that goes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kubelet::Config;
use kubelet::eviction;
use kubelet::node::Reported;
use kubelet::pressure::{Left, Observations, Policy, Signal, Thresholds};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::node::{Node, one, pod};

pub fn thresholds(signal: &str, value: &str) -> Thresholds {
    Thresholds::parse(&BTreeMap::from([(signal.to_owned(), value.to_owned())])).unwrap()
}

/// The configuration of a node that evicts when less than 100 bytes are left.
pub fn bearing(node: &Node) -> Config {
    let mut config = node.config();
    config.eviction = Policy::hard(thresholds("nodefs.available", "100"), Duration::ZERO);
    config
}

/// Three pods, of which the disk bears one: 100 bytes are the least, and 150 what is to be left once one has gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_must_not_stay_until_the_minimum_is_reclaimed_nor_go_after_it() {
    let node = Node::new();
    let mut config = bearing(&node);
    config.eviction.minimum_reclaim = thresholds("nodefs.available", "50");
    let layers = [("small", 1000), ("large", 3000), ("middle", 2000)];
    node.fake.world.lock().layers = layers.map(|(name, bytes)| (name.to_owned(), bytes)).into();
    let kubelet = node.start_with(config).await;
    for (name, _) in layers {
        node.api.put("pods", pod(name, &one(name)));
    }
    node.until("all are ready", || layers.iter().all(|(name, _)| node.api.is_ready(name))).await;
    let world = Arc::clone(&node.fake.world);
    let mut parts = kubelet.eviction.clone();
    parts.observe = Arc::new(move |_, _| {
        let available = match world.lock().running().len() {
            3.. => 90,
            2 => 120,
            _ => 150,
        };
        Observations::from([(Signal::NodefsAvailable, Left { available, capacity: 10_000 })])
    });
    let (reported, told) = watch::channel(Reported::default());
    let stop = CancellationToken::new();
    let pressed = async {
        let mut told = told.clone();
        told.wait_for(|reported| reported.disk_pressure).await.unwrap();
        // New pods are refused from now on; what is there is not.
        node.api.put("pods", pod("new", &one("new")));
        node.until("a new pod is refused", || node.api.phase("new") == "Failed").await;
        node.until("two go", || node.running() == ["small"]).await;
        told.wait_for(|reported| !reported.disk_pressure).await.unwrap();
        stop.cancel();
    };
    tokio::join!(eviction::watch(parts, &reported, &stop), pressed);
    assert_eq!(node.running(), ["small"]);
    let status = |name: &str| node.api.pod(name).unwrap()["status"].clone();
    for name in ["large", "middle"] {
        node.until("its end is told", || node.api.phase(name) == "Failed").await;
        let status = status(name);
        assert_eq!(status["reason"], "Evicted");
        let message = status["message"].as_str().unwrap();
        assert!(message.starts_with("The node was low on resource: ephemeral-storage."), "{message}");
        let disrupted =
            status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "DisruptionTarget");
        assert_eq!(disrupted.unwrap()["reason"], "TerminationByKubelet", "{status}");
    }
    let new = status("new");
    assert_eq!(
        (&new["reason"], &new["message"]),
        (&json!("Evicted"), &json!("Pod was rejected: The node had condition: [DiskPressure]. "))
    );
    let gone: Vec<String> =
        node.fake.log().into_iter().filter(|call| call.starts_with("stop container")).collect();
    assert_eq!(gone.len(), 2, "{gone:?}");
    let ids = ["large", "middle"].map(|name| {
        let world = node.fake.world.lock();
        let (id, _) = world.containers.iter().find(|(_, c)| c.name() == name).unwrap();
        format!("stop {id}")
    });
    assert_eq!(gone, ids, "the largest goes first");
    assert!(!node.api.events("EvictionThresholdMet").is_empty());
    node.judge();
    kubelet.kill().await;
}
