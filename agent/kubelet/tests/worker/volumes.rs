//! Volumes: made before containers, renewed while they run, waited for, and gone after them.

use std::path::PathBuf;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::node::{Node, one, pod, within};

/// A pod whose container mounts these volumes.
fn with(name: &str, volumes: Value) -> Value {
    let mut spec = one("a");
    let names = volumes.as_array().unwrap().iter().map(|v| v["name"].clone());
    let mounts = names.map(|name| json!({"mountPath": format!("/{}", name.as_str().unwrap()), "name": name}));
    spec["containers"][0]["volumeMounts"] = mounts.collect();
    spec["volumes"] = volumes;
    pod(name, &spec)
}

fn config_map(value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "namespace": "n"}, "data": {"k": value}})
}

fn volume(node: &Node, kind: &str) -> PathBuf {
    node.path(&format!("root/pods/uid-p/volumes/kubernetes.io~{kind}/v"))
}

fn mounts_below(path: PathBuf) -> usize {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().filter(|line| line.contains(&*path.to_string_lossy())).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_config_map_must_reach_the_files_and_restart_nothing() {
    let node = Node::new();
    node.api.put("configmaps", config_map("one"));
    let kubelet = node.start().await;
    node.api.put("pods", with("p", json!([{"name": "v", "configMap": {"name": "m"}}])));
    node.until("it is ready", || node.api.is_ready("p")).await;
    let file = volume(&node, "configmap").join("k");
    let holds = |text: &str| std::fs::read_to_string(&file).is_ok_and(|found| found == text);
    assert!(holds("one"));
    node.api.put("configmaps", config_map("two"));
    node.until("the file follows", || holds("two")).await;
    node.api.put("configmaps", config_map("three"));
    node.until("the file follows again", || holds("three")).await;
    assert_eq!(node.started(), ["a"]);
    node.api.delete("p");
    node.until("nothing is left", || node.api.pod("p").is_none() && node.is_empty()).await;
    kubelet.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_must_survive_a_kubelet_and_not_its_pod() {
    let node = Node::new();
    let kubelet = node.start().await;
    let volumes = json!([
        {"name": "v", "emptyDir": {}},
        {"name": "w", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
    ]);
    node.api.put("pods", with("p", volumes));
    node.until("it is ready", || node.api.is_ready("p")).await;
    let data = volume(&node, "empty-dir").join("data");
    std::fs::write(&data, "kept").unwrap();
    let labels = volume(&node, "downward-api").with_file_name("w").join("labels");
    let mounted = mounts_below(node.path("root"));
    assert!(mounted > 0, "what the downward API says is kept in memory");
    kubelet.kill().await;
    let kubelet = node.start().await;
    node.api.change("p", |pod| pod["metadata"]["labels"] = json!({"new": "label"}));
    let follows = || std::fs::read_to_string(&labels).is_ok_and(|text| text.contains("new=\"label\""));
    node.until("a label reaches its file", follows).await;
    assert_eq!(std::fs::read_to_string(&data).unwrap(), "kept");
    assert_eq!(mounts_below(node.path("root")), mounted, "nothing is mounted twice");
    assert_eq!(node.started(), ["a"]);
    node.api.delete("p");
    node.until("nothing is left", || node.api.pod("p").is_none() && node.is_empty()).await;
    assert_eq!(mounts_below(node.path("root")), 0);
    node.judge();
    kubelet.kill().await;
}

/// Waits in vain for an object for so long that the next try is more than three seconds away (the pauses are 0.5, 1, 2 and
/// 4 seconds), then gives it.
async fn must_start_when_there(node: &Node, volume: Value, text: &str, resource: &str, object: Value) {
    let kubelet = node.start().await;
    node.api.put("pods", with("p", json!([volume])));
    node.until("the failure is told", || !node.api.events("FailedMount").is_empty()).await;
    assert_eq!(node.api.events("FailedMount")[0].0, text);
    tokio::time::sleep(Duration::from_millis(3800)).await;
    assert!(node.started().is_empty());
    node.api.put(resource, object);
    assert!(within(Duration::from_secs(2), || node.running() == ["a"]).await, "{:?}", node.fake.log());
    kubelet.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_waits_for_a_config_map_must_start_when_it_is_there() {
    let text = "MountVolume.SetUp failed for volume \"v\" : configmap \"m\" not found";
    let volume = json!({"name": "v", "configMap": {"name": "m"}});
    must_start_when_there(&Node::new(), volume, text, "configmaps", config_map("one")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_waits_for_a_secret_must_start_when_it_is_there() {
    let text = "MountVolume.SetUp failed for volume \"v\" : secret \"s\" not found";
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "n"}, "data": {"k": "eA=="}});
    let volume = json!({"name": "v", "secret": {"secretName": "s"}});
    must_start_when_there(&Node::new(), volume, text, "secrets", secret).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_waits_for_its_claim_must_ask_with_pauses_and_end_when_deleted() {
    let node = Node::new();
    let kubelet = node.start().await;
    let path = "/namespaces/n/persistentvolumeclaims/c";
    let claim = |phase: &str| {
        json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "status": {"phase": phase},
            "metadata": {"name": "c", "namespace": "n", "uid": "claim"}, "spec": {"volumeName": "pv"},
        })
    };
    node.api.put("persistentvolumeclaims", claim("Pending"));
    let host = node.path("host");
    std::fs::create_dir(&host).unwrap();
    node.api.put(
        "persistentvolumes",
        json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv"},
            "spec": {"hostPath": {"path": host}, "claimRef": {"name": "c", "namespace": "n", "uid": "claim"}},
        }),
    );
    let volumes = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]);
    node.api.put("pods", with("p", volumes.clone()));
    let asked = || node.api.asked(&Method::GET, path);
    node.until("it is asked for again", || asked().len() > 2).await;
    let pauses: Vec<Duration> = asked().windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses.iter().skip(1).all(|pause| *pause > Duration::from_millis(1500)), "{pauses:?}");
    let text = "Unable to attach or mount volumes: unmounted volumes=[v], unattached volumes=[], \
                failed to process volumes=[v]: error processing PVC n/c: PVC is not bound";
    assert_eq!(node.api.events("FailedMount")[0].0, text);
    node.api.delete("p");
    node.until("it ends though it never ran", || node.api.pod("p").is_none() && node.is_empty()).await;
    node.api.put("pods", with("q", volumes));
    node.until("the next waits, too", || asked().len() > 4).await;
    node.api.put("persistentvolumeclaims", claim("Bound"));
    node.until("it runs", || node.running() == ["a"]).await;
    assert!(host.exists());
    kubelet.kill().await;
}
