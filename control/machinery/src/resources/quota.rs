//! What a ResourceQuota counts: which of its resources an object uses, how much, and whether its scopes hold the object. Pure; the API
//! server charges writes with it, the controller recounts with it.
//!
//! [`limited`]: what may be used under a quota only. Rules: upstream's evaluators (`pkg/quota/v1/evaluator/core`, and the generic object count).

pub mod limited;

use super::strategy::noted_qos_class;
use crate::access::Get;
use crate::labels::{Operator, Requirement};
use crate::quantity::{Format, Quantity};
use crate::totals::{self, Amounts, Resize, Side, add, amounts, states_pod_level};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Kinds no quota counts: what is not stored, and events.
const IGNORED: [(&str, &str); 10] = [
    ("", "bindings"),
    ("", "componentstatuses"),
    ("", "events"),
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authentication.k8s.io", "tokenreviews"),
    ("authorization.k8s.io", "localsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
    ("events.k8s.io", "events"),
];
/// Kinds counted by their plain plural too.
const ALIASES: [&str; 4] = ["configmaps", "replicationcontrollers", "resourcequotas", "secrets"];
const COMPUTE: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
/// What every container must state where a quota limits it. Upstream regrets the rule and keeps it.
const DEMANDED: [&str; 6] =
    ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];
const CLASS: &str = ".storageclass.storage.k8s.io/";

/// What is counted, by group and plural name of its resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted<'a> {
    group: &'a str,
    plural: &'a str,
}

fn number(count: usize) -> Quantity {
    Quantity::new(i64::try_from(count).unwrap_or(i64::MAX), Format::DecimalSi)
}

/// The API server's writes a kind is charged for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// POST.
    Create,
    /// PUT or PATCH.
    Update,
}

impl<'a> Counted<'a> {
    /// None where no quota counts the kind.
    #[must_use]
    pub fn new(group: &'a str, plural: &'a str) -> Option<Self> {
        (!IGNORED.contains(&(group, plural))).then_some(Self { group, plural })
    }

    fn core(self, plural: &str) -> bool {
        self.group.is_empty() && self.plural == plural
    }

    /// The name by which any kind's objects are counted: `count/PLURAL.GROUP`.
    #[must_use]
    pub(crate) fn count_name(self) -> String {
        match self.group {
            "" => format!("count/{}", self.plural),
            group => format!("count/{}.{group}", self.plural),
        }
    }

    /// Whether the write may change what a quota counts.
    #[must_use]
    pub fn handles(self, write: Write, subresource: &str, new: &Value, old: &Value) -> bool {
        let update = write == Write::Update;
        match subresource {
            "" if self.core("pods") => !update || terminating(new) != terminating(old),
            "" if self.core("services") || self.core("persistentvolumeclaims") => true,
            "" => !update,
            "resize" => self.core("pods") && update,
            "status" => self.core("persistentvolumeclaims") && update && replenishes(new, old),
            _ => false,
        }
    }

    /// Whether a quota's resource of this name is used by objects of the kind.
    #[must_use]
    pub fn tracks(self, name: &str) -> bool {
        if name == self.count_name() {
            return true;
        }
        if self.core("pods") {
            let plain = name.strip_prefix("requests.").or(name.strip_prefix("limits.")).unwrap_or(name);
            return name == "pods"
                || COMPUTE.contains(&plain)
                || name.starts_with("hugepages-")
                || name.starts_with("requests.hugepages-")
                || extended_request(name);
        }
        if self.core("services") {
            return matches!(name, "services" | "services.nodeports" | "services.loadbalancers");
        }
        if self.core("persistentvolumeclaims") {
            let own = ["persistentvolumeclaims", "requests.storage"];
            return own.contains(&name)
                || name.split_once(CLASS).is_some_and(|(_, rest)| own.contains(&rest));
        }
        self.group.is_empty() && ALIASES.contains(&self.plural) && name == self.plural
    }

    /// What an object of the kind uses.
    #[must_use]
    pub fn usage(self, object: &Value, now: Timestamp) -> Amounts {
        let mut used = Amounts::from([(self.count_name(), number(1))]);
        if self.core("pods") {
            if charged(object, now) {
                let (requests, limits) = (of_pod(object, Side::Requests), of_pod(object, Side::Limits));
                add(&mut used, &compute(&requests, &limits));
            }
        } else if self.core("services") {
            service(object, &mut used);
        } else if self.core("persistentvolumeclaims") {
            claim(object, &mut used);
        } else if self.group.is_empty() && ALIASES.contains(&self.plural) {
            used.insert(self.plural.to_owned(), number(1));
        }
        used
    }

    /// Whether every scope of the quota holds the object. Only pods and claims are in scopes.
    #[must_use]
    pub fn in_scopes(self, quota: &Value, object: &Value) -> bool {
        let plain = quota.items("spec.scopes").iter().filter_map(Value::as_str);
        let mut plain = plain.map(|scope| self.in_scope(object, scope, "Exists", &[]));
        let mut selected = quota
            .items("spec.scopeSelector.matchExpressions")
            .iter()
            .map(|e| self.in_scope(object, e.text("scopeName"), e.text("operator"), e.items("values")));
        plain.all(|held| held) && selected.all(|held| held)
    }

    /// Those of a quota's scopes that hold the object, by name.
    #[must_use]
    pub fn scopes_of<'q>(self, quota: &'q Value, object: &Value) -> Vec<&'q str> {
        let plain = quota.items("spec.scopes").iter().filter_map(Value::as_str);
        let plain = plain.filter(|scope| self.in_scope(object, scope, "Exists", &[]));
        let selected = quota.items("spec.scopeSelector.matchExpressions").iter();
        plain.chain(selected.filter(|e| self.is_selected(e, object)).map(|e| e.text("scopeName"))).collect()
    }

    /// Whether a scope selector's requirement holds the object.
    fn is_selected(self, requirement: &Value, object: &Value) -> bool {
        let (scope, operator) = (requirement.text("scopeName"), requirement.text("operator"));
        self.in_scope(object, scope, operator, requirement.items("values"))
    }

    fn in_scope(self, object: &Value, scope: &str, operator: &str, values: &[Value]) -> bool {
        let selects = |class: &str| match operator {
            "Exists" => !class.is_empty(),
            operator => selects(scope, operator, values, class),
        };
        match scope {
            "VolumeAttributesClass" if self.core("persistentvolumeclaims") => {
                let classes = attribute_classes(object);
                if classes.is_empty() { selects("") } else { classes.into_iter().any(selects) }
            }
            _ if !self.core("pods") => false,
            "Terminating" => terminating(object),
            "NotTerminating" => !terminating(object),
            "BestEffort" => noted_qos_class(object) == "BestEffort",
            "NotBestEffort" => noted_qos_class(object) != "BestEffort",
            "PriorityClass" => selects(object.text("spec.priorityClassName")),
            "CrossNamespacePodAffinity" => affine_across_namespaces(object),
            _ => false,
        }
    }

    /// What containers of a pod do not state although the quota's resources (`hard`) demand it: upstream's words for it.
    #[must_use]
    pub fn unstated(self, object: &Value, hard: &Amounts) -> Option<String> {
        if !self.core("pods") || states_pod_level(object) {
            return None;
        }
        let demanded: Vec<&str> = DEMANDED.into_iter().filter(|name| hard.contains_key(*name)).collect();
        let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for container in object.items("spec.containers").iter().chain(object.items("spec.initContainers")) {
            let (requests, limits) = (container.at("resources.requests"), container.at("resources.limits"));
            let stated = compute(&amounts(requests), &amounts(limits));
            for name in demanded.iter().filter(|name| !stated.contains_key(**name)) {
                missing.entry(name).or_default().insert(container.text("name"));
            }
        }
        let of = |(name, containers): (&str, BTreeSet<&str>)| {
            let containers: Vec<&str> = containers.into_iter().collect();
            format!("{name} for: {}", containers.join(","))
        };
        let parts: Vec<String> = missing.into_iter().map(of).collect();
        (!parts.is_empty()).then(|| format!("must specify {}", parts.join("; ")))
    }
}

fn of_pod(pod: &Value, side: Side) -> Amounts {
    totals::of(pod, side, Resize::Counted)
}

/// Does the scope's requirement hold for the class named (empty: none)?
fn selects(scope: &str, operator: &str, values: &[Value], class: &str) -> bool {
    let Some(operator) = Operator::of_expression(operator) else { return false };
    let values = values.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let mut labels = Map::new();
    if !class.is_empty() {
        labels.insert(scope.to_owned(), class.into());
    }
    Requirement::new(scope, operator, values).is_ok_and(|requirement| requirement.matches(&labels))
}

/// A pod is charged until it has ended, or should have been gone for long: a lost node must not keep its owner from new pods.
#[must_use]
pub(crate) fn charged(pod: &Value, now: Timestamp) -> bool {
    if matches!(pod.text("status.phase"), "Succeeded" | "Failed") {
        return false;
    }
    let since = pod.text("metadata.deletionTimestamp").parse::<Timestamp>();
    match (since, pod.int("metadata.deletionGracePeriodSeconds")) {
        (Ok(since), Some(grace)) => {
            since.saturating_add(SignedDuration::from_secs(grace)).is_ok_and(|end| now <= end)
        }
        _ => true,
    }
}

fn terminating(pod: &Value) -> bool {
    pod.int("spec.activeDeadlineSeconds").is_some_and(|seconds| seconds >= 0)
}

/// A resource of some vendor's (`vendor/name`), or a device class.
fn extended(name: &str) -> bool {
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    name.starts_with("deviceclass.resource.kubernetes.io/") || (!native && !name.starts_with("requests."))
}

fn extended_request(name: &str) -> bool {
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    let device_class = name.starts_with("requests.deviceclass.resource.kubernetes.io/");
    name.starts_with("requests.") && (device_class || !native)
}

/// A pod's (or one container's) requests and limits under the names quotas know them by.
fn compute(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut used = Amounts::from([("pods".to_owned(), number(1))]);
    for (name, amount) in requests {
        let plain = COMPUTE.contains(&name.as_str()) || name.starts_with("hugepages-");
        if plain {
            used.insert(name.clone(), amount.clone());
        }
        if plain || extended(name) {
            used.insert(format!("requests.{name}"), amount.clone());
        }
    }
    for (name, amount) in limits.iter().filter(|(name, _)| COMPUTE.contains(&name.as_str())) {
        used.insert(format!("limits.{name}"), amount.clone());
    }
    used
}

fn service(service: &Value, used: &mut Amounts) {
    let ports = service.items("spec.ports");
    let balanced = service.text("spec.type") == "LoadBalancer";
    let node_ports = match service.text("spec.type") {
        "NodePort" => ports.len(),
        "LoadBalancer" if service.at("spec.allocateLoadBalancerNodePorts") == &Value::Bool(false) => {
            ports.iter().filter(|p| p.int("nodePort").is_some_and(|p| p != 0)).count()
        }
        "LoadBalancer" => ports.len(),
        _ => 0,
    };
    used.insert("services".to_owned(), number(1));
    used.insert("services.loadbalancers".to_owned(), number(usize::from(balanced)));
    used.insert("services.nodeports".to_owned(), number(node_ports));
}

fn claim(claim: &Value, used: &mut Amounts) {
    let legacy = claim.at("metadata.annotations").get("volume.beta.kubernetes.io/storage-class");
    let class = legacy.and_then(Value::as_str).unwrap_or(claim.text("spec.storageClassName"));
    let requested = Quantity::parse(claim.text("spec.resources.requests.storage")).ok();
    let allocated = Quantity::parse(claim.text("status.allocatedResources.storage")).ok();
    // whole bytes, as quotas must be
    let whole = |size: Quantity| {
        let value = Quantity::new(size.value(), size.format());
        if value == size { size } else { value }
    };
    let size = requested.map(|requested| whole(allocated.filter(|a| *a > requested).unwrap_or(requested)));
    used.insert("persistentvolumeclaims".to_owned(), number(1));
    if !class.is_empty() {
        used.insert(format!("{class}{CLASS}persistentvolumeclaims"), number(1));
    }
    if let Some(size) = size {
        if !class.is_empty() {
            used.insert(format!("{class}{CLASS}requests.storage"), size.clone());
        }
        used.insert("requests.storage".to_owned(), size);
    }
}

fn attribute_classes(claim: &Value) -> BTreeSet<&str> {
    let names = [
        claim.text("spec.volumeAttributesClassName"),
        claim.text("status.currentVolumeAttributesClassName"),
        claim.text("status.modifyVolumeStatus.targetVolumeAttributesClassName"),
    ];
    names.into_iter().filter(|name| !name.is_empty()).collect()
}

fn replenishes(new: &Value, old: &Value) -> bool {
    let allocated = |claim: &Value| amounts(claim.at("status.allocatedResources")).get("storage").cloned();
    allocated(new) != allocated(old) || attribute_classes(new) != attribute_classes(old)
}

fn affine_across_namespaces(pod: &Value) -> bool {
    let across = |term: &Value| !term.items("namespaces").is_empty() || term.has("namespaceSelector");
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let affinity = pod.at("spec.affinity").at(kind);
        affinity.items("requiredDuringSchedulingIgnoredDuringExecution").iter().any(across)
            || affinity
                .items("preferredDuringSchedulingIgnoredDuringExecution")
                .iter()
                .any(|weighted| across(weighted.at("podAffinityTerm")))
    })
}

/// Whether an update of an object may lower what it uses: the controller's sign to recount.
#[must_use]
pub fn frees(group: &str, plural: &str, old: &Value, new: &Value, now: Timestamp) -> bool {
    match (group, plural) {
        ("", "pods") => {
            let ran = |pod: &Value| (of_pod(pod, Side::Requests), of_pod(pod, Side::Limits));
            ran(old) != ran(new)
                || terminating(old) != terminating(new)
                || (charged(old, now) && !charged(new, now))
        }
        ("", "services") => {
            let kind = |service: &Value| match service.text("spec.type") {
                kind @ ("NodePort" | "LoadBalancer") => kind.to_owned(),
                _ => String::new(),
            };
            kind(old) != kind(new)
        }
        ("", "persistentvolumeclaims") => replenishes(new, old),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
