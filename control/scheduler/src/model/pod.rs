//! A pod as scheduling sees it.

use super::resources::{Resources, pod_requests, pod_requests_scored};
use super::terms::{Labels, PodTerm, Spread};
use k8s_openapi::api::core::v1 as api;
use machinery::node_terms::NodeTerm;
use machinery::taints::any_tolerates;

/// A port a pod takes on its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// The address, `0.0.0.0` for all.
    pub ip: String,
    /// TCP, UDP or SCTP.
    pub protocol: String,
    /// `hostPort`, 1 to 65535.
    pub port: i32,
}

impl HostPort {
    /// Whether both cannot be on one host.
    pub fn conflicts(&self, other: &Self) -> bool {
        let any = |ip: &str| ip == "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || any(&self.ip) || any(&other.ip))
    }
}

/// A claim a pod mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimUse {
    /// Name of the PersistentVolumeClaim.
    pub name: String,
    /// It is made for the pod's generic ephemeral volume.
    pub ephemeral: bool,
}

/// A pod, parsed once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pod {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// `metadata.labels`.
    pub labels: Labels,
    /// The controller that made it: kind and name.
    pub owner: Option<(String, String)>,
    /// `spec.nodeName`.
    pub node: Option<String>,
    /// `status.nominatedNodeName`.
    pub nominated: Option<String>,
    /// `spec.schedulerName`.
    pub scheduler: String,
    /// `spec.priority`.
    pub priority: i32,
    /// `spec.preemptionPolicy` is `Never`.
    pub never_preempts: bool,
    /// It has scheduling gates left.
    pub gated: bool,
    /// It is being deleted.
    pub terminating: bool,
    /// A scheduler is having it deleted to make room.
    pub preempted: bool,
    /// Creation, in milliseconds since the epoch.
    pub created: i64,
    /// Start on its node, in milliseconds since the epoch; 0: not started.
    pub started: i64,
    /// What it asks for.
    pub requests: Resources,
    /// What scores take it to ask for.
    pub scored: Resources,
    /// `spec.tolerations`.
    pub tolerations: Vec<api::Toleration>,
    /// `spec.nodeSelector`.
    pub node_selector: Labels,
    /// Required node affinity: one of the terms must match. `None`: any node.
    pub required_nodes: Option<Vec<NodeTerm>>,
    /// Preferred node affinity: weight and term.
    pub preferred_nodes: Vec<(i64, NodeTerm)>,
    /// Required pod affinity: every term must match.
    pub affinity: Vec<PodTerm>,
    /// Required pod anti-affinity: no term may match.
    pub anti_affinity: Vec<PodTerm>,
    /// Preferred pod affinity, and anti-affinity with its weights below zero.
    pub preferred_pods: Vec<(i64, PodTerm)>,
    /// `spec.topologySpreadConstraints`.
    pub spread: Vec<Spread>,
    /// Ports taken on the host.
    pub ports: Vec<HostPort>,
    /// Images of its containers, init containers included.
    pub images: Vec<String>,
    /// Images it mounts as volumes.
    pub image_volumes: Vec<String>,
    /// PersistentVolumeClaims it mounts.
    pub claims: Vec<ClaimUse>,
    /// The message of its condition `PodScheduled`, where that is false.
    pub unschedulable: Option<String>,
}

impl Pod {
    /// Parses a pod. Everything absent has the API's default.
    pub fn new(pod: &api::Pod) -> Self {
        let meta = &pod.metadata;
        let namespace = meta.namespace.clone().unwrap_or_default();
        let labels = meta.labels.clone().unwrap_or_default();
        let mut out = Self {
            owner: meta
                .owner_references
                .iter()
                .flatten()
                .find(|o| o.controller == Some(true))
                .map(|o| (o.kind.clone(), o.name.clone())),
            generation: meta.generation.unwrap_or(0),
            terminating: meta.deletion_timestamp.is_some(),
            created: meta.creation_timestamp.as_ref().map_or(0, |t| t.0.as_millisecond()),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            namespace,
            labels,
            ..Self::default()
        };
        if let Some(status) = &pod.status {
            out.nominated = status.nominated_node_name.clone().filter(|n| !n.is_empty());
            out.started = status.start_time.as_ref().map_or(0, |t| t.0.as_millisecond());
            let disrupted = status.conditions.iter().flatten().find(|c| c.type_ == "DisruptionTarget");
            out.preempted = out.terminating
                && disrupted.is_some_and(|c| {
                    c.status == "True" && c.reason.as_deref() == Some("PreemptionByScheduler")
                });
            let scheduled = status.conditions.iter().flatten().find(|c| c.type_ == "PodScheduled");
            out.unschedulable = scheduled
                .filter(|c| c.status == "False" && c.reason.as_deref() == Some("Unschedulable"))
                .and_then(|c| c.message.clone());
        }
        if let Some(spec) = &pod.spec {
            out.requests = pod_requests(pod);
            out.scored = pod_requests_scored(pod);
            out.read_spec(spec);
        }
        out
    }

    fn read_spec(&mut self, spec: &api::PodSpec) {
        self.node = spec.node_name.clone().filter(|n| !n.is_empty());
        self.scheduler = spec.scheduler_name.clone().unwrap_or_else(|| "default-scheduler".to_owned());
        self.priority = spec.priority.unwrap_or(0);
        self.never_preempts = spec.preemption_policy.as_deref() == Some("Never");
        self.gated = spec.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty());
        self.tolerations = spec.tolerations.clone().unwrap_or_default();
        self.node_selector = spec.node_selector.clone().unwrap_or_default();
        if let Some(affinity) = &spec.affinity {
            self.read_affinity(affinity);
        }
        let constraints = spec.topology_spread_constraints.iter().flatten();
        self.spread = constraints.map(|c| Spread::new(c, &self.labels)).collect();
        let containers = || spec.init_containers.iter().flatten().chain(&spec.containers);
        self.images = containers().filter_map(|c| c.image.clone()).collect();
        let mounted = spec.volumes.iter().flatten().filter_map(|v| v.image.as_ref()?.reference.clone());
        self.image_volumes = mounted.collect();
        // Init containers hold their ports only while they run, unless they run on.
        let holding = containers().filter(|c| {
            c.restart_policy.as_deref() == Some("Always")
                || !spec.init_containers.iter().flatten().any(|i| i.name == c.name)
        });
        for port in holding.flat_map(|c| c.ports.iter().flatten()) {
            let host_port = port.host_port.filter(|&p| p > 0);
            let host_port = host_port.or(spec.host_network.filter(|h| *h).map(|_| port.container_port));
            if let Some(number) = host_port {
                self.ports.push(HostPort {
                    ip: port
                        .host_ip
                        .clone()
                        .filter(|i| !i.is_empty())
                        .unwrap_or_else(|| "0.0.0.0".to_owned()),
                    protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                    port: number,
                });
            }
        }
        for volume in spec.volumes.iter().flatten() {
            if let Some(claim) = &volume.persistent_volume_claim {
                self.claims.push(ClaimUse { name: claim.claim_name.clone(), ephemeral: false });
            } else if volume.ephemeral.is_some() {
                let name = format!("{}-{}", self.name, volume.name);
                self.claims.push(ClaimUse { name, ephemeral: true });
            }
        }
    }

    fn read_affinity(&mut self, affinity: &api::Affinity) {
        if let Some(nodes) = &affinity.node_affinity {
            self.required_nodes = nodes
                .required_during_scheduling_ignored_during_execution
                .as_ref()
                .map(|r| r.node_selector_terms.iter().map(NodeTerm::new).collect());
            let preferred = nodes.preferred_during_scheduling_ignored_during_execution.iter().flatten();
            self.preferred_nodes =
                preferred.map(|p| (p.weight.into(), NodeTerm::new(&p.preference))).collect();
        }
        let compile = |t: &api::PodAffinityTerm| PodTerm::new(t, &self.namespace, &self.labels);
        let mut preferred = Vec::new();
        if let Some(pods) = &affinity.pod_affinity {
            self.affinity = pods
                .required_during_scheduling_ignored_during_execution
                .iter()
                .flatten()
                .map(compile)
                .collect();
            let terms = pods.preferred_during_scheduling_ignored_during_execution.iter().flatten();
            preferred.extend(terms.map(|p| (i64::from(p.weight), compile(&p.pod_affinity_term))));
        }
        if let Some(pods) = &affinity.pod_anti_affinity {
            self.anti_affinity = pods
                .required_during_scheduling_ignored_during_execution
                .iter()
                .flatten()
                .map(compile)
                .collect();
            let terms = pods.preferred_during_scheduling_ignored_during_execution.iter().flatten();
            preferred.extend(terms.map(|p| (-i64::from(p.weight), compile(&p.pod_affinity_term))));
        }
        self.preferred_pods = preferred;
    }

    /// `namespace/name`.
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Whether other pods' scheduling must look at its affinity terms.
    pub fn has_affinity(&self) -> bool {
        !self.affinity.is_empty() || !self.anti_affinity.is_empty() || !self.preferred_pods.is_empty()
    }

    /// Whether it allows a node by its selector and required affinity.
    pub fn allows_node(&self, name: &str, labels: &Labels) -> bool {
        self.node_selector.iter().all(|(k, v)| labels.get(k) == Some(v))
            && self.required_nodes.as_ref().is_none_or(|terms| terms.iter().any(|t| t.matches(name, labels)))
    }

    /// Whether it tolerates a taint.
    pub fn tolerates(&self, taint: &api::Taint) -> bool {
        any_tolerates(&self.tolerations, taint)
    }
}
