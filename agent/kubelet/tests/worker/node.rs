//! A whole kubelet between a runtime and an API server in memory, which can be killed and started again.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kubelet::eviction::Parts;
use kubelet::node::Health;
use kubelet::{Config, Kubelet};
use serde_json::{Value, json};
use supervise::{Scope, Supervisor};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api::Api;
use crate::runtime::{Fake, Trap};
use crate::world::World;

/// Nothing that is waited for takes longer, on however busy a machine.
const LONGEST: Duration = Duration::from_secs(60);

pub struct Node {
    pub dir: tempfile::TempDir,
    pub fake: Fake,
    pub api: Api,
    runtime: JoinHandle<()>,
}

/// A kubelet that runs.
pub struct Running {
    pub eviction: Parts,
    health: watch::Receiver<Health>,
    scope: Arc<Scope>,
    run: JoinHandle<()>,
}

impl Node {
    pub fn new() -> Self {
        Self::with(Trap::None)
    }

    pub fn with(trap: Trap) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fake = Fake::new(World::default(), trap);
        let listener = UnixListener::bind(dir.path().join("socket")).unwrap();
        let runtime = tokio::spawn(fake.clone().serve(listener));
        let api = Api::default();
        api.put(
            "nodes",
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node", "uid": "node"}}),
        );
        std::fs::create_dir(dir.path().join("manifests")).unwrap();
        Self { dir, fake, api, runtime }
    }

    pub fn config(&self) -> Config {
        let mut config = Config::new("node", vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]);
        config.root_dir = self.path("root");
        config.pod_logs_dir = self.path("logs");
        config.container_logs_dir = self.path("links");
        config.static_pod_path = Some(self.path("manifests"));
        config.cgroups_per_qos = false;
        // What is late is not to be found by a period.
        config.sync_frequency = Duration::from_secs(600);
        config.container_runtime_endpoint = format!("unix://{}", self.path("socket").display());
        config
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    pub async fn start(&self) -> Running {
        self.start_with(self.config()).await
    }

    pub async fn start_with(&self, config: Config) -> Running {
        let scope = Arc::new(Scope::new(&Supervisor::default(), "kubelet/", &CancellationToken::new()));
        let kubelet = Kubelet::prepare(config, Some(self.api.client()), Arc::clone(&scope)).await.unwrap();
        let (eviction, health) = (kubelet.eviction(), kubelet.health());
        Running { eviction, health, scope, run: tokio::spawn(kubelet.run()) }
    }

    /// The names of the containers that run, sorted.
    pub fn running(&self) -> Vec<String> {
        self.fake.world.lock().running().into_iter().map(str::to_owned).collect()
    }

    /// The names of the containers that were started, in order.
    pub fn started(&self) -> Vec<String> {
        self.fake.world.lock().started.clone()
    }

    /// Neither the runtime nor the disk has anything of a pod.
    pub fn is_empty(&self) -> bool {
        let left =
            |below: &str| std::fs::read_dir(self.path(below)).is_ok_and(|mut all| all.next().is_some());
        self.fake.world.lock().is_empty() && !left("root/pods") && !left("logs")
    }

    /// Nothing wrong was done to the runtime.
    pub fn judge(&self) {
        let wrongs = self.fake.world.lock().wrongs.clone();
        assert!(wrongs.is_empty(), "{wrongs:?} after {:?}", self.fake.log());
    }

    /// Waits until a condition holds.
    pub async fn until(&self, what: &str, done: impl FnMut() -> bool) {
        assert!(
            within(LONGEST, done).await,
            "{what}; calls: {:?}; runs: {:?}",
            self.fake.log(),
            self.running()
        );
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.runtime.abort();
    }
}

impl Running {
    /// What the runtime says of itself.
    pub fn health(&self) -> Health {
        self.health.borrow().clone()
    }

    /// Kills the kubelet: whatever it was about to do is not done.
    pub async fn kill(self) {
        self.scope.stop().cancel();
        tokio::time::timeout(LONGEST, self.run).await.unwrap().unwrap();
    }
}

/// Whether something becomes so within a time.
pub async fn within(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let look = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(limit, look).await.is_ok()
}

/// A pod of namespace `n` on this node, with the UID `uid-NAME`.
pub fn pod(name: &str, spec: &Value) -> Value {
    let mut spec = spec.clone();
    spec["nodeName"] = json!("node");
    json!({
        "apiVersion": "v1", "kind": "Pod", "spec": spec, "status": {"phase": "Pending"},
        "metadata": {
            "name": name, "namespace": "n", "uid": format!("uid-{name}"), "generation": 1,
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
    })
}

/// The spec of a pod with one container.
pub fn one(container: &str) -> Value {
    json!({"containers": [{"name": container, "image": "example.org/image:1"}]})
}
