//! Amounts by resource name, and what a pod asks for as a whole: its containers together or the most demanding moment of its
//! initialisation, with what the pod itself states in place of the sums, and its overhead.

use super::access::Get;
use crate::quantity::Quantity;
use serde_json::Value;
use std::collections::BTreeMap;

/// Amounts by resource.
pub type Amounts = BTreeMap<String, Quantity>;

/// Which of the two lists of a container's or a pod's resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// `requests`
    Requests,
    /// `limits`
    Limits,
}

impl List {
    fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Limits => "limits",
        }
    }
}

/// The amounts of a resource list; what does not parse is left out (validation refuses it).
#[must_use]
pub fn amounts(list: &Value) -> Amounts {
    let fields = list.as_object().into_iter().flatten();
    fields.filter_map(|(name, v)| Some((name.clone(), Quantity::parse(v.as_str()?).ok()?))).collect()
}

/// Adds each amount of `other`.
pub fn add(to: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let sum = to.get(name).map_or_else(|| amount.clone(), |present| present.add(amount));
        to.insert(name.clone(), sum);
    }
}

/// Makes each amount at least that of `other`.
pub fn at_least(to: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        if to.get(name).is_none_or(|present| present < amount) {
            to.insert(name.clone(), amount.clone());
        }
    }
}

/// Whether a pod may state the resource for all its containers together.
#[must_use]
pub fn pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

/// Whether the pod states requests or limits of its own.
#[must_use]
pub fn states_pod_level(pod: &Value) -> bool {
    let stated = |list: &str| pod.fields(list).is_some_and(|l| l.keys().any(|name| pod_level(name)));
    stated("spec.resources.requests") || stated("spec.resources.limits")
}

/// What the pod as a whole asks for (or may use), its overhead included. `observed`: a resize under way counts with the larger of what it
/// had and what it asks for, as the status tells.
#[must_use]
pub fn of_pod(pod: &Value, list: List, observed: bool) -> Amounts {
    let mut sum = stated(pod, list, observed);
    let mut overhead = amounts(pod.at("spec.overhead"));
    if list == List::Limits {
        // what has no limit does not get one by overhead
        overhead.retain(|name, _| sum.get(name).is_some_and(|limit| !limit.is_zero()));
    }
    add(&mut sum, &overhead);
    sum
}

/// The same without overhead: what the pod itself states.
#[must_use]
pub fn stated(pod: &Value, list: List, observed: bool) -> Amounts {
    let infeasible = pod
        .items("status.conditions")
        .iter()
        .any(|c| c.text("type") == "PodResizePending" && c.text("reason") == "Infeasible");
    let of = |container: &Value, statuses: &str| {
        let spec = amounts(container.at("resources").at(list.name()));
        let status = pod.items(statuses).iter().find(|s| s.text("name") == container.text("name"));
        let Some(status) = status.filter(|s| observed && s.has("resources")) else { return spec };
        let mut sum = if infeasible { Amounts::new() } else { spec };
        at_least(&mut sum, &amounts(status.at("resources").at(list.name())));
        if list == List::Requests {
            at_least(&mut sum, &amounts(status.at("allocatedResources")));
        }
        sum
    };
    let mut sum = Amounts::new();
    for container in pod.items("spec.containers") {
        add(&mut sum, &of(container, "status.containerStatuses"));
    }
    let (mut restartable, mut initial) = (Amounts::new(), Amounts::new());
    for container in pod.items("spec.initContainers") {
        if container.text("restartPolicy") == "Always" {
            let own = of(container, "status.initContainerStatuses");
            add(&mut sum, &own);
            add(&mut restartable, &own);
            at_least(&mut initial, &restartable);
        } else {
            let mut moment = amounts(container.at("resources").at(list.name()));
            add(&mut moment, &restartable);
            at_least(&mut initial, &moment);
        }
    }
    at_least(&mut sum, &initial);
    for (name, amount) in amounts(pod.at("spec.resources").at(list.name())) {
        if pod_level(&name) {
            sum.insert(name, amount);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn container(name: &str, cpu: &str) -> Value {
        json!({"name": name, "resources": {"requests": {"cpu": cpu}, "limits": {"cpu": cpu}}})
    }

    fn cpu(pod: &Value, list: List, observed: bool) -> i64 {
        of_pod(pod, list, observed).get("cpu").map_or(0, Quantity::milli_value)
    }

    #[test]
    fn sidecars_run_on_and_init_containers_take_turns() {
        let mut sidecar = container("s", "300m");
        sidecar["restartPolicy"] = "Always".into();
        let init = json!([container("a", "1"), sidecar, container("b", "900m")]);
        let pod = json!({"spec": {"containers": [container("c", "500m")], "initContainers": init}});
        assert_eq!(cpu(&pod, List::Requests, false), 1200);
        let pod = json!({"spec": {"containers": [container("c", "2")], "initContainers": init}});
        assert_eq!(cpu(&pod, List::Limits, false), 2300);
    }

    #[test]
    fn overhead_adds_to_limits_that_are_there() {
        let spec = json!({"containers": [container("c", "1")], "overhead": {"cpu": "100m", "memory": "1Mi"}});
        let pod = json!({ "spec": spec });
        assert_eq!(cpu(&pod, List::Limits, false), 1100);
        assert!(!of_pod(&pod, List::Limits, false).contains_key("memory"));
        assert!(of_pod(&pod, List::Requests, false).contains_key("memory"));
    }

    #[test]
    fn a_resize_counts_the_larger_unless_it_cannot_be() {
        let status =
            json!({"name": "c", "resources": {"requests": {"cpu": "2"}}, "allocatedResources": {"cpu": "3"}});
        let mut pod =
            json!({"spec": {"containers": [container("c", "4")]}, "status": {"containerStatuses": [status]}});
        assert_eq!(cpu(&pod, List::Requests, true), 4000);
        assert_eq!(cpu(&pod, List::Requests, false), 4000);
        pod["status"]["conditions"] = json!([{"type": "PodResizePending", "reason": "Infeasible"}]);
        assert_eq!(cpu(&pod, List::Requests, true), 3000);
    }

    #[test]
    fn the_pods_own_statement_replaces_the_sum() {
        let pod = json!({"spec": {"containers": [container("c", "4")], "resources": {"requests": {"cpu": "1", "example.com/x": "1"}}}});
        assert_eq!(cpu(&pod, List::Requests, false), 1000);
        assert!(!of_pod(&pod, List::Requests, false).contains_key("example.com/x"));
        assert!(states_pod_level(&pod));
    }
}
