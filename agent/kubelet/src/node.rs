//! The machine as the cluster sees it: its Node object and its Lease.
//!
//! - [`machine`]: what the kernel says about the machine; [`runtime`]: what the container runtime says about itself
//! - [`resources`]: capacity and allocatable; [`condition`]: the four conditions; [`status`]: the whole `status`, pure
//! - [`register`]: creates the object or reconciles the one that is there; [`report`]: keeps its status true
//! - [`patch`]: the smallest strategic merge patch between two statuses
//! - [`lease`]: the heartbeat; [`trouble`]: which of the kubelet's tasks keep failing
//!
//! [`keep`] puts them together for a node that has an API server. A stand-alone node needs [`runtime::observe`] alone.

pub(crate) mod condition;
pub(crate) mod lease;
pub(crate) mod machine;
pub(crate) mod patch;
pub(crate) mod register;
mod report;
pub(crate) mod resources;
pub(crate) mod runtime;
pub(crate) mod status;
pub mod trouble;

pub use report::Sources;
pub use resources::Reservation;
pub use runtime::Health;

use k8s_openapi::api::core::v1::Taint;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use supervise::{Scope, Task};
use tokio::sync::watch;

/// `nodeInfo.kubeletVersion`: the Kubernetes version we behave as, and which build of ours it is.
pub const KUBELET_VERSION: &str = machinery::release::GIT_VERSION;

/// How the node presents itself.
#[derive(Clone, Debug)]
pub struct Config {
    /// `metadata.name`.
    pub name: String,
    /// The `Hostname` address and the label `kubernetes.io/hostname`.
    pub hostname: String,
    /// `InternalIP` addresses, the primary one first.
    pub ips: Vec<IpAddr>,
    /// Labels at registration, over the built-in ones.
    pub labels: BTreeMap<String, String>,
    /// Taints at registration (`registerWithTaints`).
    pub taints: Vec<Taint>,
    /// `spec.providerID` at registration (`providerID`).
    pub provider_id: Option<String>,
    /// Create the Node object when it is missing (`registerNode`).
    pub register: bool,
    /// Port of the kubelet's HTTPS server.
    pub port: u16,
    /// The kubelet's root; its filesystem is the node's ephemeral storage.
    pub root_dir: PathBuf,
    /// Most pods (`maxPods`).
    pub max_pods: u32,
    /// Most pods a core, 0 for no such limit (`podsPerCore`).
    pub pods_per_core: u32,
    /// What is kept from pods.
    pub reservation: Reservation,
    /// How often the machine is looked at (`nodeStatusUpdateFrequency`).
    pub check_period: Duration,
    /// How often an unchanged status is reported (`nodeStatusReportFrequency`).
    pub report_period: Duration,
    /// `nodeLeaseDurationSeconds`; the lease is renewed at a quarter of it.
    pub lease_duration: Duration,
    /// Most images in the status, -1 for all (`nodeStatusMaxImages`).
    pub max_images: i32,
    /// The filesystem of the root is shown as the node's ephemeral storage (`localStorageCapacityIsolation`).
    pub local_storage: bool,
    /// Files that hold the machine's id; the usual ones where none is there.
    pub machine_id_files: Vec<PathBuf>,
    /// The same for the id of its boot.
    pub boot_id_files: Vec<PathBuf>,
    /// Another program prepares the node (`--cloud-provider=external`).
    pub cloud: Option<Cloud>,
}

/// A node that a cloud's own program prepares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cloud {
    /// The node's addresses were given to the kubelet, not found by it: they are a hint to that program.
    pub ips_given: bool,
}

impl Config {
    /// Upstream's defaults for a node of this name.
    #[must_use]
    pub fn new(name: &str, ips: Vec<IpAddr>, root_dir: PathBuf) -> Self {
        Self {
            name: name.to_owned(),
            hostname: name.to_owned(),
            ips,
            labels: BTreeMap::new(),
            taints: Vec::new(),
            provider_id: None,
            register: true,
            port: 10250,
            root_dir,
            max_pods: 110,
            pods_per_core: 0,
            reservation: Reservation::default(),
            check_period: Duration::from_secs(10),
            report_period: Duration::from_secs(5 * 60),
            lease_duration: Duration::from_secs(40),
            max_images: 50,
            local_storage: true,
            machine_id_files: Vec::new(),
            boot_id_files: Vec::new(),
            cloud: None,
        }
    }
}

/// What the rest of the kubelet tells about the node. The kubelet owns the sender; every change is reported at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reported {
    /// The eviction manager's verdict on memory.
    pub memory_pressure: bool,
    /// The eviction manager's verdict on disk.
    pub disk_pressure: bool,
    /// The eviction manager's verdict on process ids.
    pub pid_pressure: bool,
    /// `status.volumesInUse`.
    pub volumes_in_use: Vec<String>,
    /// The cgroup of all pods is limited to what is allocatable.
    pub allocatable_enforced: bool,
    /// The machine is to shut down.
    pub shutting_down: bool,
    /// Why the kubelet is not ready, apart from the runtime, such as `PLEG is not healthy: ...`.
    pub errors: Vec<String>,
}

/// Registers the node and keeps its status, and renews its lease, as tasks of `scope`. `registered` is told the object's uid once it is in the
/// API server.
pub fn keep(
    scope: &Scope,
    config: Config,
    client: kube::Client,
    sources: Sources,
    registered: watch::Sender<Option<String>>,
) {
    let config = Arc::new(config);
    let uid = registered.subscribe();
    let (of, node) = (client.clone(), config.clone());
    scope.keep(Task::new("node-status", move |stop| {
        let (config, registered) = (node.clone(), registered.clone());
        let mut reporter = report::Reporter::new(config, of.clone(), sources.clone());
        async move {
            while let Some(node) = Box::pin(register::until_registered(&mut reporter, &stop)).await {
                registered.send_replace(Some(node.metadata.uid.unwrap_or_default()));
                Box::pin(reporter.run(&stop)).await;
                if stop.is_cancelled() {
                    break;
                }
            }
            Ok(())
        }
    }));
    scope.keep(Task::new("node-lease", move |stop| {
        let (client, config, uid) = (client.clone(), config.clone(), uid.clone());
        async move {
            Box::pin(lease::keep(client, &config.name, uid, config.lease_duration, &stop)).await;
            Ok(())
        }
    }));
}
