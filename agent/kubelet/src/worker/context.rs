//! What every pod worker works with.

use std::sync::Arc;

use cri_proto::client::Runtime;
use cri_proto::v1;
use k8s_openapi::api::core::v1::{NodeRuntimeHandlerFeatures, Pod};

use crate::cgroup::Cgroups;
use crate::config::Config;
use crate::eviction::order::Evictions;
use crate::image::Images;
use crate::objects::Objects;
use crate::pod::spec::dns::Resolver;
use crate::pod::spec::downward::Facts;
use crate::pods::Pods;
use crate::recorder::Recorder;
use crate::runtime_class::RuntimeClasses;
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
    pub health: tokio::sync::watch::Receiver<crate::node::runtime::Health>,
    /// What probes work with.
    pub probes: probe::Handles,
    /// Capacity, reservations and topology.
    pub machine: crate::machine::Machine,
}

impl Context {
    /// The host's resolver file as it is now.
    pub fn resolver(&self) -> Resolver {
        let path = self.config.resolv_conf.as_deref();
        let text = path.and_then(|path| std::fs::read_to_string(path).ok());
        Resolver::parse(&text.unwrap_or_default())
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
