//! What every pod worker works with.

use std::sync::Arc;
use std::time::Duration;

use cri_proto::client::Runtime;
use cri_proto::v1;
use k8s_openapi::api::core::v1::{NodeRuntimeHandlerFeatures, Pod};

use crate::cgroup::Cgroups;
use crate::config::Config;
use crate::eviction::order::Evictions;
use crate::image::Images;
use crate::meters::Meters;
use crate::node::runtime::Health;
use crate::objects::Objects;
use crate::pod::spec::dns::{Resolver, exceeded};
use crate::pod::spec::downward::Facts;
use crate::pod::spec::resources;
use crate::pods::Pods;
use crate::recorder::{Kind, Recorder, Subject};
use crate::runtime_class::RuntimeClasses;
use crate::user_namespace::{self, UserNamespaces};
use crate::{probe, volume};

/// Handles to everything outside a pod: cheap to clone, shared by all workers.
#[derive(Clone)]
pub struct Context {
    /// Shared by all workers.
    pub config: Arc<Config>,
    /// Client of the container runtime.
    pub runtime: Runtime,
    /// The runtime's name, as container ids are prefixed.
    pub runtime_name: Arc<str>,
    /// Images and their pulls.
    pub images: Images,
    /// Where events about pods go.
    pub recorder: Recorder,
    /// ConfigMaps, Secrets and Services.
    pub objects: Objects,
    /// What volumes are made of.
    pub volumes: volume::Handles,
    /// Evictions on their way.
    pub evictions: Evictions,
    /// Handlers and overhead by RuntimeClass.
    pub runtime_classes: RuntimeClasses,
    /// Cgroups of pods and their limits.
    pub cgroups: Cgroups,
    /// The registry of pods.
    pub pods: Pods,
    /// Why pods outside the host's network cannot run, as long as they cannot.
    pub health: tokio::sync::watch::Receiver<Health>,
    /// What probes work with.
    pub probes: probe::Handles,
    /// Capacity, reservations and topology.
    pub machine: crate::machine::Machine,
    /// Which users pods have that do not use the host's.
    pub user_namespaces: UserNamespaces,
    /// What is counted.
    pub meters: Meters,
}

/// How long what the runtime says of itself is waited for, at a start.
const PATIENCE: Duration = Duration::from_secs(10);

/// The pod cannot be made without knowing what its runtime handler can do.
fn needs_features(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    let mut mounts = crate::pod::containers(pod).flat_map(|(_, c)| c.volume_mounts.iter().flatten());
    spec.and_then(|s| s.host_users) == Some(false) || mounts.any(|mount| mount.recursive_read_only.is_some())
}

impl Context {
    /// Waits until it is known what the runtime can do, for a pod that needs to know.
    pub async fn features_known(&self, pod: &Pod) {
        if needs_features(pod) {
            let mut health = self.health.clone();
            let known = health.wait_for(|health| *health != Health::default());
            // What cannot be known is taken for what cannot be done.
            tokio::time::timeout(PATIENCE, known).await.ok();
        }
    }

    /// What the runtime is told of a pod's users.
    pub fn users(&self, pod: &Pod) -> Result<v1::UserNamespace, user_namespace::Error> {
        let class = pod.spec.as_ref().and_then(|s| s.runtime_class_name.as_deref());
        let handler = self.runtime_classes.known(class).unwrap_or_default();
        self.user_namespaces.of(pod, &handler, self.features(pod).user_namespaces == Some(true))
    }

    /// What the runtime handler that runs a pod can do; nothing where the handler is not known.
    pub fn features(&self, pod: &Pod) -> NodeRuntimeHandlerFeatures {
        let class = pod.spec.as_ref().and_then(|s| s.runtime_class_name.as_deref());
        let Some(handler) = self.runtime_classes.known(class) else { return Default::default() };
        let health = self.health.borrow();
        let found = health.handlers.iter().find(|h| h.name.as_deref().unwrap_or_default() == handler);
        found.and_then(|handler| handler.features.clone()).unwrap_or_default()
    }

    /// What the node adds to a container's own numbers.
    pub fn node(&self) -> resources::Node {
        let (config, machine) = (&self.config, &self.machine);
        resources::Node {
            memory_capacity: machine.memory,
            cpu_cfs_quota: config.cpu_cfs_quota,
            cpu_cfs_quota_period: config.cpu_cfs_quota_period,
            group_oom: machine.unified && !config.single_process_oom_kill,
            throttling: config.memory_throttling.filter(|_| machine.unified).map(|factor| {
                resources::Throttling {
                    factor,
                    allocatable: machine.limit.get("memory").map_or(0, crate::quantity::whole),
                }
            }),
            page_sizes: Arc::clone(&machine.page_sizes),
            swap: machine.swap,
        }
    }

    /// Tells on the node what pods will not have of the host's resolver file.
    pub fn check_resolver(&self) {
        let Some(path) = self.config.resolv_conf.as_deref() else { return };
        let read = std::fs::read_to_string(path);
        if let Some(message) = exceeded(path, read.as_deref(), &self.config.cluster_domain) {
            let node = Subject::node(&self.config.node_name);
            self.recorder.record(node, Kind::Warning, "CheckLimitsForResolvConf", message);
        }
    }

    /// The host's resolver file as it is now.
    pub fn resolver(&self) -> Resolver {
        let Some(path) = self.config.resolv_conf.as_deref() else {
            return Resolver::absent(&self.config.node_ips);
        };
        Resolver::parse(&std::fs::read_to_string(path).unwrap_or_default())
    }

    /// The node's addresses as text.
    pub fn host_ips(&self) -> Vec<String> {
        self.config.node_ips.iter().map(ToString::to_string).collect()
    }

    /// What the downward API needs beside the pod.
    pub fn facts(&self, pod_ips: Vec<String>) -> Facts {
        Facts { host_ips: self.host_ips(), pod_ips, allocatable: (*self.machine.allocatable).clone() }
    }
}
