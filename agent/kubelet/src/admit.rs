//! Whether this node takes a pod: the last word after the scheduler's, and the only one for static pods. Pure.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{AppArmorProfile, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::cgroup::limits::requested;
use crate::pod::status::Outcome;
use crate::quantity::{milli, whole};

pub mod preempt;
pub mod sysctls;

/// What the node offers.
pub struct Node<'a> {
    pub name: &'a str,
    /// Its labels, where they are known.
    pub labels: Option<&'a BTreeMap<String, String>>,
    /// What pods may ask for in total.
    pub allocatable: &'a BTreeMap<String, Quantity>,
    /// Whether the runtime can keep a pod's groups to those it names.
    pub strict_groups: bool,
    /// Whether the kernel enforces AppArmor profiles.
    pub apparmor: bool,
}

/// Whether this machine's kernel enforces AppArmor profiles.
pub fn has_apparmor() -> bool {
    let enabled = || std::fs::read("/sys/module/apparmor/parameters/enabled");
    Path::new("/sys/kernel/security/apparmor").exists()
        && enabled().is_ok_and(|text| text.first() == Some(&b'Y'))
}

/// Whether a pod, or one of its containers, asks for an AppArmor profile.
fn wants_apparmor(pod: &Pod) -> bool {
    let confined = |profile: Option<&AppArmorProfile>| profile.is_some_and(|p| p.type_ != "Unconfined");
    let own = pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
    let ephemeral = crate::pod::ephemeral_containers(pod).iter().map(|c| c.security_context.as_ref());
    let mut all = crate::pod::containers(pod).map(|(_, c)| c.security_context.as_ref()).chain(ephemeral);
    confined(own.and_then(|c| c.app_armor_profile.as_ref()))
        || all.any(|context| confined(context.and_then(|c| c.app_armor_profile.as_ref())))
}

/// A resource there is not enough of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// Its name.
    pub resource: String,
    /// How much: thousandths of a core, or units.
    pub missing: i64,
    /// Upstream's words for it.
    pub text: String,
}

/// What a pod asks for of a resource, as shortages are counted.
pub fn amount(pod: &Pod, resource: &str) -> i64 {
    match resource {
        "pods" => 1,
        "cpu" => requested(pod, resource, milli),
        _ => requested(pod, resource, whole),
    }
}

/// What is refused before anything is added up: no other pod's end would change it.
pub fn never(pod: &Pod, node: &Node<'_>, unsafe_sysctls: &[String]) -> Option<Outcome> {
    let refused = |reason: &str, message: String| {
        Some(Outcome { reason: reason.to_owned(), message: format!("Pod was rejected: {message}") })
    };
    if let Some(why) = sysctls::refusal(pod, unsafe_sysctls, sysctls::kernel()) {
        return refused("SysctlForbidden", why);
    }
    let label = pod.metadata.labels.as_ref().and_then(|labels| labels.get("kubernetes.io/os"));
    if label.is_some_and(|os| os != "linux") {
        let why = "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label";
        return refused("PodOSSelectorNodeLabelDoesNotMatch", why.to_owned());
    }
    let spec = pod.spec.as_ref();
    if spec.and_then(|s| s.os.as_ref()).is_some_and(|os| os.name != "linux") {
        let why = "Failed to admit pod as the OS field doesn't match node OS";
        return refused("PodOSNotSupported", why.to_owned());
    }
    let policy = spec.and_then(|s| s.security_context.as_ref());
    let policy = policy.and_then(|c| c.supplemental_groups_policy.as_deref());
    if policy == Some("Strict") && !node.strict_groups {
        let why = "SupplementalGroupsPolicy=Strict is not supported in this node";
        return refused("SupplementalGroupsPolicyNotSupported", why.to_owned());
    }
    if wants_apparmor(pod) && !node.apparmor {
        let why = "Cannot enforce AppArmor: AppArmor is not enabled on the host";
        return refused("AppArmor", why.to_owned());
    }
    None
}

/// Why a pod is not taken beside the `others`; `None` when it is.
pub fn refusal(pod: &Pod, others: &[Arc<Pod>], node: &Node<'_>) -> Option<Outcome> {
    let short = shortages(pod, others, node).into_iter().next().map(|short| Outcome {
        reason: format!("OutOf{}", short.resource),
        message: format!("Pod was rejected: {}", short.text),
    });
    short.or_else(|| misplaced(pod, others, node))
}

/// What there is not enough of for a pod beside the `others`.
pub fn shortages(pod: &Pod, others: &[Arc<Pod>], node: &Node<'_>) -> Vec<Shortage> {
    let mut names = vec!["pods", "cpu", "memory", "ephemeral-storage"];
    // Resources the node does not know are the cluster's business.
    let own = |name: &&String| name.contains('/') || name.starts_with("hugepages-");
    names.extend(node.allocatable.keys().filter(own).map(String::as_str));
    let short = |name: &str| {
        let offered = node.allocatable.get(name);
        let capacity =
            offered.map_or(0, |offered| if name == "cpu" { milli(offered) } else { whole(offered) });
        let asked = amount(pod, name);
        let used: i64 = others.iter().map(|other| amount(other, name)).sum();
        (asked > 0 && asked + used > capacity).then(|| Shortage {
            resource: name.to_owned(),
            missing: asked + used - capacity,
            text: format!(
                "Node didn't have enough resource: {name}, requested: {asked}, used: {used}, capacity: {capacity}"
            ),
        })
    };
    names.into_iter().filter_map(short).collect()
}

/// Why a pod does not belong here, however much room there is.
pub fn misplaced(pod: &Pod, others: &[Arc<Pod>], node: &Node<'_>) -> Option<Outcome> {
    let predicate = |name: &str, why: &str| {
        let message = format!("Pod was rejected: Predicate {name} failed: {why}");
        Some(Outcome { reason: name.to_owned(), message })
    };
    if let Some(labels) = node.labels
        && let Some(spec) = &pod.spec
        && !machinery::node_terms::allows(spec, node.name, labels)
    {
        return predicate("NodeAffinity", "node(s) didn't match Pod's node affinity/selector");
    }
    let taken: Vec<_> = others.iter().flat_map(|other| host_ports(other)).collect();
    if host_ports(pod).iter().any(|port| taken.iter().any(|other| conflict(port, other))) {
        return predicate("NodePorts", "node(s) didn't have free ports for the requested pod ports");
    }
    None
}

type HostPort = (String, String, i32);

fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let ports = crate::pod::lasting_containers(pod).flat_map(|c| c.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let number = port.host_port.filter(|p| *p > 0)?;
            let address = port.host_ip.clone().filter(|ip| !ip.is_empty());
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            Some((address.unwrap_or_else(|| "0.0.0.0".to_owned()), protocol, number))
        })
        .collect()
}

fn conflict(a: &HostPort, b: &HostPort) -> bool {
    let any = |address: &str| address == "0.0.0.0";
    a.1 == b.1 && a.2 == b.2 && (a.0 == b.0 || any(&a.0) || any(&b.0))
}

/// The pod says something about where it may run.
pub fn is_selective(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    spec.is_some_and(|s| {
        s.node_selector.is_some() || s.affinity.as_ref().is_some_and(|a| a.node_affinity.is_some())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Arc<Pod> {
        let mut spec = spec;
        if spec.get("containers").is_none() {
            spec["containers"] = json!([{"name": "c"}]);
        }
        Arc::new(serde_json::from_value(json!({"spec": spec})).unwrap())
    }

    fn reason(spec: Value, others: &[Arc<Pod>]) -> Option<String> {
        let quantity = |text: &str| Quantity(text.to_owned());
        let allocatable = BTreeMap::from([
            ("cpu".to_owned(), quantity("2")),
            ("memory".to_owned(), quantity("1Gi")),
            ("pods".to_owned(), quantity("3")),
        ]);
        let labels = BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]);
        let node = Node {
            name: "n",
            labels: Some(&labels),
            allocatable: &allocatable,
            strict_groups: false,
            apparmor: false,
        };
        refusal(&pod(spec), others, &node).map(|outcome| outcome.reason)
    }

    #[test]
    fn what_no_room_would_change() {
        let allocatable = BTreeMap::new();
        let node = Node {
            name: "n",
            labels: None,
            allocatable: &allocatable,
            strict_groups: false,
            apparmor: false,
        };
        let reason = |spec: Value| never(&pod(spec), &node, &[]).map(|outcome| outcome.reason);
        assert_eq!(reason(json!({"os": {"name": "linux"}})), None);
        assert_eq!(reason(json!({"os": {"name": "windows"}})).as_deref(), Some("PodOSNotSupported"));
        let strict = json!({"securityContext": {"supplementalGroupsPolicy": "Strict"}});
        assert_eq!(reason(strict).as_deref(), Some("SupplementalGroupsPolicyNotSupported"));
    }

    #[test]
    fn a_profile_that_nothing_enforces_must_not_be_taken_for_one_that_is() {
        let allocatable = BTreeMap::new();
        let reason = |spec: Value, apparmor: bool| {
            let node =
                Node { name: "n", labels: None, allocatable: &allocatable, strict_groups: false, apparmor };
            never(&pod(spec), &node, &[])
        };
        let profile = |kind: &str| json!({"securityContext": {"appArmorProfile": {"type": kind}}});
        let container = json!({"containers": [
            {"name": "c", "securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}}}]});
        for asks in [profile("RuntimeDefault"), container] {
            let refused = reason(asks.clone(), false).unwrap();
            let text = "Pod was rejected: Cannot enforce AppArmor: AppArmor is not enabled on the host";
            assert_eq!((refused.reason.as_str(), refused.message.as_str()), ("AppArmor", text));
            assert_eq!(reason(asks, true), None);
        }
        assert_eq!(reason(profile("Unconfined"), false), None);
        assert_eq!(reason(json!({}), false), None);
    }

    #[test]
    fn an_init_containers_port_must_not_keep_a_pod_out() {
        let with = |policy: Value| {
            json!({"initContainers": [{"name": "i", "restartPolicy": policy,
                "ports": [{"containerPort": 1, "hostPort": 80}]}]})
        };
        let (once, sidecar) = (with(Value::Null), with(json!("Always")));
        let taken = [pod(sidecar.clone())];
        assert_eq!(reason(once.clone(), &taken), None);
        assert_eq!(reason(sidecar.clone(), &taken).as_deref(), Some("NodePorts"));
        assert_eq!(reason(sidecar, &[pod(once)]), None, "nor does it take it from others");
    }

    #[test]
    fn refusals() {
        let cpu =
            |amount: &str| json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": amount}}}]});
        let port = |ip: &str| json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 80, "hostIP": ip}]}]});
        let one = [pod(cpu("1500m"))];
        assert_eq!(reason(cpu("500m"), &one), None);
        assert_eq!(reason(cpu("501m"), &one).as_deref(), Some("OutOfcpu"));
        let three = [pod(json!({})), pod(json!({})), pod(json!({}))];
        assert_eq!(reason(json!({}), &three).as_deref(), Some("OutOfpods"));
        assert_eq!(reason(port("10.0.0.1"), &[pod(port("10.0.0.2"))]), None);
        assert_eq!(reason(port(""), &[pod(port("10.0.0.2"))]).as_deref(), Some("NodePorts"));
        assert_eq!(reason(json!({"nodeSelector": {"disk": "ssd"}}), &[]), None);
        assert_eq!(reason(json!({"nodeSelector": {"disk": "hdd"}}), &[]).as_deref(), Some("NodeAffinity"));
    }
}
