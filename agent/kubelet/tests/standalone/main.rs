//! The kubelet without any API server: manifests in, calls of a runtime out, over a real socket.

#![allow(missing_docs, clippy::unwrap_used)]

mod runtime;

use std::path::Path;
use std::time::Duration;

use kubelet::{Config, Kubelet};
use runtime::Runtime;
use tokio_util::sync::CancellationToken;

struct Node {
    dir: tempfile::TempDir,
    runtime: Runtime,
}

struct Running {
    pods: kubelet::pods::Pods,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("manifests")).unwrap();
        let runtime = Runtime::default();
        runtime.serve(&dir.path().join("cri.sock"));
        Self { dir, runtime }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    async fn start(&self) -> Running {
        let mut config = Config::new("node1", vec!["10.0.0.1".parse().unwrap()]);
        config.root_dir = self.path("kubelet");
        config.pod_logs_dir = self.path("logs");
        config.static_pod_path = Some(self.path("manifests"));
        config.container_runtime_endpoint = format!("unix://{}", self.path("cri.sock").display());
        config.cgroups_per_qos = false;
        let kubelet = Kubelet::prepare(config, None).await.unwrap();
        let (pods, stop) = (kubelet.pods(), CancellationToken::new());
        let task = tokio::spawn(kubelet.run(stop.clone()));
        Running { pods, stop, task }
    }

    fn manifest(&self, name: &str, spec: &str) {
        let text = format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {spec}\n");
        std::fs::write(self.path("manifests").join(format!("{name}.yaml")), text).unwrap();
    }

    async fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let wait = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(15), wait).await;
        assert!(waited.is_ok(), "{what}: running {:?}, {:?}", self.runtime.running(), self.runtime.count());
    }
}

impl Running {
    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }

    fn phase(&self, name: &str) -> Option<String> {
        self.pods.by_name("default", name)?.status.phase.clone()
    }

    fn waiting(&self, name: &str) -> Option<String> {
        let view = self.pods.by_name("default", name)?;
        let status = view.status.container_statuses.as_ref()?.first()?.clone();
        status.state?.waiting?.reason
    }
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).map_or(true, |mut entries| entries.next().is_none())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_pod_lives_survives_the_kubelet_and_goes_without_a_trace() {
    let node = Node::new();
    node.manifest("web", "{containers: [{name: a, image: 'x:1'}, {name: b, image: 'x:1'}], volumes: [{name: e, emptyDir: {}}]}");
    let first = node.start().await;
    node.until("starts", || node.runtime.running() == ["a/0", "b/0"]).await;
    node.until("runs", || first.phase("web-node1").as_deref() == Some("Running")).await;
    first.stop().await;

    // While nobody looks, one container ends; the next kubelet adopts the other.
    node.runtime.exit("b", 1);
    let second = node.start().await;
    node.until("adopts", || node.runtime.running() == ["a/0", "b/1"]).await;
    node.runtime.exit("b", 1);
    node.until("backs off", || {
        let view = second.pods.by_name("default", "web-node1");
        let status = view.and_then(|v| v.status.container_statuses.clone());
        let b = status.and_then(|all| all.into_iter().find(|c| c.name == "b"));
        let reason = b.and_then(|b| b.state?.waiting?.reason);
        reason.as_deref() == Some("CrashLoopBackOff")
    })
    .await;

    std::fs::remove_file(node.path("manifests").join("web.yaml")).unwrap();
    node.until("is gone", || node.runtime.count() == (0, 0)).await;
    node.until("leaves no files", || is_empty(&node.path("kubelet/pods")) && is_empty(&node.path("logs")))
        .await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_deleted_while_the_kubelet_was_away_are_ended() {
    let node = Node::new();
    node.manifest("web", "{containers: [{name: a, image: 'x:1'}]}");
    let first = node.start().await;
    node.until("starts", || node.runtime.running() == ["a/0"]).await;
    first.stop().await;
    std::fs::remove_file(node.path("manifests").join("web.yaml")).unwrap();
    let second = node.start().await;
    node.until("is gone", || node.runtime.count() == (0, 0)).await;
    node.until("leaves no files", || is_empty(&node.path("kubelet/pods"))).await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_restarts_in_its_own_sandbox() {
    let node = Node::new();
    node.manifest("web", "{containers: [{name: a, image: 'x:1'}]}");
    let first = node.start().await;
    node.until("starts", || node.runtime.running() == ["a/0"]).await;
    first.stop().await;
    node.runtime.exit("a", 0);
    let (sandboxes, _) = node.runtime.count();
    let second = node.start().await;
    node.until("restarts in its sandbox", || node.runtime.running() == ["a/1"]).await;
    assert_eq!(node.runtime.count().0, sandboxes);
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_neighbours_disturb_nobody() {
    let node = Node::new();
    node.manifest("good", "{containers: [{name: a, image: 'x:1'}]}");
    node.manifest("pull", "{containers: [{name: p, image: 'absent:1'}]}");
    node.manifest("env", "{containers: [{name: e, image: 'x:1', env: [{name: V, valueFrom: {configMapKeyRef: {name: m, key: k}}}]}]}");
    std::fs::write(node.path("manifests/bad.yaml"), "kind: [").unwrap();
    let kubelet = node.start().await;
    node.until("the good one runs", || kubelet.phase("good-node1").as_deref() == Some("Running")).await;
    node.until("the image is missed", || {
        matches!(kubelet.waiting("pull-node1").as_deref(), Some("ErrImagePull" | "ImagePullBackOff"))
    })
    .await;
    node.until("the reference is missed", || {
        kubelet.waiting("env-node1").as_deref() == Some("CreateContainerConfigError")
    })
    .await;
    assert_eq!(node.runtime.running(), ["a/0"]);
    kubelet.stop().await;
}
