//! A node with the pods on it, and all of them at one moment.

use super::pod::{HostPort, Pod};
use super::resources::Resources;
use super::terms::{Labels, Spread};
use k8s_openapi::api::core::v1 as api;
use machinery::labels::Selector;
use machinery::quantity::Quantity;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// A node as scheduling sees it, with its pods and their sums.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.labels`.
    pub labels: Labels,
    /// `spec.unschedulable`.
    pub unschedulable: bool,
    /// `spec.taints`.
    pub taints: Vec<api::Taint>,
    /// What pods may take together.
    pub allocatable: Resources,
    /// How many pods it takes.
    pub max_pods: i64,
    /// Image name to size in bytes.
    pub images: HashMap<String, i64>,
    /// Pods on it, bound or assumed.
    pub pods: Vec<Arc<Pod>>,
    /// What they ask for.
    pub requested: Resources,
    /// What scores take them to ask for.
    pub scored: Resources,
    /// Host ports they hold.
    pub ports: Vec<HostPort>,
    /// How many of them have affinity terms.
    pub with_affinity: usize,
}

impl NodeInfo {
    /// A node without pods.
    pub fn new(node: &api::Node) -> Self {
        let spec = node.spec.as_ref();
        let status = node.status.as_ref();
        let allocatable = status.and_then(|s| s.allocatable.as_ref());
        let mut images = HashMap::new();
        for image in status.and_then(|s| s.images.as_ref()).into_iter().flatten() {
            for name in image.names.iter().flatten() {
                images.insert(name.clone(), image.size_bytes.unwrap_or(0));
            }
        }
        Self {
            name: node.metadata.name.clone().unwrap_or_default(),
            labels: node.metadata.labels.clone().unwrap_or_default(),
            unschedulable: spec.and_then(|s| s.unschedulable).unwrap_or(false),
            taints: spec.and_then(|s| s.taints.clone()).unwrap_or_default(),
            allocatable: Resources::of(allocatable),
            max_pods: allocatable
                .and_then(|a| a.get("pods"))
                .and_then(|q| Quantity::parse(&q.0).ok())
                .map_or(0, |q| q.value()),
            images,
            ..Self::default()
        }
    }

    /// Counts a pod in.
    pub fn add(&mut self, pod: Arc<Pod>) {
        self.requested.add(&pod.requests);
        self.scored.add(&pod.scored);
        self.ports.extend(pod.ports.iter().cloned());
        self.with_affinity += usize::from(pod.has_affinity());
        self.pods.push(pod);
    }

    /// Counts the pod with this UID out.
    pub fn remove(&mut self, uid: &str) -> Option<Arc<Pod>> {
        let at = self.pods.iter().position(|p| p.uid == uid)?;
        let pod = self.pods.swap_remove(at);
        self.requested.sub(&pod.requests);
        self.scored.sub(&pod.scored);
        self.with_affinity -= usize::from(pod.has_affinity());
        for port in &pod.ports {
            if let Some(at) = self.ports.iter().position(|p| p == port) {
                self.ports.swap_remove(at);
            }
        }
        Some(pod)
    }

    /// Takes over what the API says of the node, keeping its pods; true where it matters to pods that wait.
    pub fn update(&mut self, new: Self) -> bool {
        let differs = self.labels != new.labels
            || self.unschedulable != new.unschedulable
            || self.taints != new.taints
            || self.allocatable != new.allocatable
            || self.max_pods != new.max_pods;
        let NodeInfo { pods, requested, scored, ports, with_affinity, .. } = std::mem::take(self);
        *self = Self { pods, requested, scored, ports, with_affinity, ..new };
        differs
    }
}

/// Selectors of what groups pods: Services and controllers.
#[derive(Clone, Debug, PartialEq)]
pub struct Grouping {
    /// `Service`, or the controller's kind.
    pub kind: &'static str,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// Which pods are its.
    pub selector: Selector,
}

/// What preemption reads of a PodDisruptionBudget.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    /// `metadata.namespace`.
    pub namespace: String,
    /// Which pods are its.
    pub selector: Selector,
    /// How many may go.
    pub allowed: i64,
    /// Pods whose eviction is already counted.
    pub disrupted: Vec<String>,
}

impl Budget {
    /// Whether the pod is under the budget; an empty selector protects nobody here, as upstream has it.
    pub fn covers(&self, pod: &Pod) -> bool {
        self.namespace == pod.namespace && !self.selector.is_empty() && self.selector.matches(&pod.labels)
    }
}

/// Everything a scheduling decision reads.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Nodes, in order of name.
    pub nodes: Vec<Arc<NodeInfo>>,
    /// Labels of each namespace.
    pub namespaces: Arc<HashMap<String, Labels>>,
    /// Claims, volumes and classes.
    pub storage: super::storage::Storage,
    /// Services and controllers by kind, namespace and name.
    pub groupings: Arc<BTreeMap<(&'static str, String), Grouping>>,
    /// Disruption budgets by `namespace/name`.
    pub budgets: Arc<HashMap<String, Budget>>,
    /// Pods that wait for their victims to leave a node, by that node.
    pub nominated: Arc<HashMap<String, Vec<Arc<Pod>>>>,
    /// The scheduler that decides.
    pub profile: Arc<crate::profile::Profile>,
}

impl Snapshot {
    /// The pod's own constraints, or the default ones where it has none and belongs to a Service or controller.
    pub fn spread_of(&self, pod: &Pod) -> (Vec<Spread>, bool) {
        if !pod.spread.is_empty() {
            return (pod.spread.clone(), false);
        }
        let mut requirements = Vec::new();
        for group in self.groupings.values().filter(|g| g.namespace == pod.namespace) {
            let is_its = match group.kind {
                "Service" => !group.selector.is_empty() && group.selector.matches(&pod.labels),
                kind => pod.owner.as_ref().is_some_and(|(k, n)| k == kind && *n == group.name),
            };
            if is_its {
                requirements.extend(group.selector.requirements().iter().cloned());
            }
        }
        if requirements.is_empty() {
            return (Vec::new(), true);
        }
        (Spread::defaults(&Selector::new(requirements)).into(), true)
    }

    /// Whether `term` is about `pod`.
    pub fn matches(&self, term: &super::terms::PodTerm, pod: &Pod) -> bool {
        term.matches(&pod.namespace, &pod.labels, self.namespaces.get(&pod.namespace))
    }
}
