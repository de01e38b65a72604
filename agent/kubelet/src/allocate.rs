//! Whether a pod that asks for other resources than it has is granted them, and in which order those that wait are asked. Pure.

use std::cmp::Reverse;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use crate::admit;
use crate::cgroup::limits::requested;
use crate::pod::allocation::Pending;
use crate::pod::qos::{self, Class};
use crate::quantity::{milli, whole};

/// Why the resources `pod` asks for are not granted beside the `others` (which hold what they were granted); `None`
/// when they are.
pub fn refusal(pod: &Pod, others: &[Arc<Pod>], node: &admit::Node<'_>) -> Option<Pending> {
    let refused = admit::refusal(pod, others, node)?;
    let message = refused.message.trim_start_matches("Pod was rejected: ").to_owned();
    Some(Pending { reason: "Deferred", message, generation: pod.metadata.generation.unwrap_or(0) })
}

/// Those that ask for no more first, then by priority, then the guaranteed, then who has waited longest.
pub fn order(asked: &Pod, granted: &Pod) -> impl Ord + use<> {
    let more = requested(asked, "cpu", milli) > requested(granted, "cpu", milli)
        || requested(asked, "memory", whole) > requested(granted, "memory", whole);
    let priority = asked.spec.as_ref().and_then(|s| s.priority).unwrap_or(0);
    let waiting = asked.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let since =
        waiting.filter(|c| c.type_ == "PodResizePending").find_map(|c| c.last_transition_time.clone());
    let since = since.map(|time| time.0);
    (more, Reverse(priority), qos::class(asked) != Class::Guaranteed, since.is_none(), since)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
    use serde_json::json;
    use std::collections::BTreeMap;

    fn pod(cpu: &str, priority: i32) -> Arc<Pod> {
        Arc::new(
            serde_json::from_value(json!({"metadata": {"generation": 3}, "spec": {"priority": priority,
            "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}}))
            .unwrap(),
        )
    }

    #[test]
    fn what_does_not_fit_is_deferred() {
        let quantity = |text: &str| Quantity(text.to_owned());
        let allocatable =
            BTreeMap::from([("cpu".to_owned(), quantity("2")), ("pods".to_owned(), quantity("3"))]);
        let node = admit::Node {
            name: "n",
            labels: None,
            allocatable: &allocatable,
            strict_groups: false,
            apparmor: false,
        };
        assert_eq!(refusal(&pod("1", 0), &[pod("1", 0)], &node), None);
        let refused = refusal(&pod("1500m", 0), &[pod("1", 0)], &node).unwrap();
        assert_eq!((refused.reason, refused.generation), ("Deferred", 3));
        assert_eq!(
            refused.message,
            "Node didn't have enough resource: cpu, requested: 1500, used: 1000, capacity: 2000"
        );
    }

    #[test]
    fn shrinking_goes_before_priority() {
        let granted = pod("1", 0);
        let (less, more, urgent) = (pod("500m", 0), pod("2", 0), pod("2", 9));
        assert!(order(&less, &granted) < order(&urgent, &granted));
        assert!(order(&urgent, &granted) < order(&more, &granted));
    }
}
