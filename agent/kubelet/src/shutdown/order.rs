//! Which pods end together when the machine shuts down. Pure. Upstream: `groupByPriority`.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

use crate::config::shutdown::Period;
use crate::pod::priority;

/// Pods that end together, and what they have for it.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) period: Period,
    pub(super) pods: Vec<Arc<Pod>>,
}

impl Group {
    /// How long it is waited for.
    pub(super) fn patience(&self) -> Duration {
        Duration::from_secs(u64::try_from(self.period.seconds).unwrap_or(0))
    }
}

/// The groups in the order in which they end; those without pods are left out. `periods` are sorted, the lowest priority first. A pod between
/// two priorities has the lower one's period, one below all the lowest one's.
pub(super) fn groups(periods: &[Period], pods: impl IntoIterator<Item = Arc<Pod>>) -> Vec<Group> {
    let mut groups: Vec<Group> =
        periods.iter().map(|period| Group { period: *period, pods: Vec::new() }).collect();
    for pod in pods {
        let above = groups.partition_point(|group| group.period.priority <= priority(&pod));
        if let Some(group) = groups.get_mut(above.saturating_sub(1)) {
            group.pods.push(pod);
        }
    }
    groups.retain(|group| !group.pods.is_empty());
    groups
}

/// What all periods come to: for so long the machine is to wait.
pub(super) fn whole(periods: &[Period]) -> Duration {
    let seconds = periods.iter().map(|period| u64::try_from(period.seconds).unwrap_or(0));
    Duration::from_secs(seconds.fold(0, u64::saturating_add))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, priority: Option<i32>) -> Arc<Pod> {
        let spec = json!({"containers": [], "priority": priority});
        Arc::new(serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap())
    }

    #[test]
    fn pods_end_in_the_order_of_their_priorities() {
        let of = |priority, seconds| Period { priority, seconds };
        let periods = [of(0, 20), of(1000, 10), of(2_000_000_000, 5)];
        let pods = [
            pod("critical", Some(2_000_001_000)),
            pod("none", None),
            pod("low", Some(-5)),
            pod("between", Some(1500)),
            pod("at", Some(1000)),
        ];
        let found = groups(&periods, pods.clone());
        let names = |group: &Group| -> Vec<String> {
            group.pods.iter().map(|pod| crate::pod::name(pod).to_owned()).collect()
        };
        let all: Vec<Vec<String>> = found.iter().map(names).collect();
        assert_eq!(all, [vec!["none", "low"], vec!["between", "at"], vec!["critical"]]);
        assert_eq!(found[2].patience(), Duration::from_secs(5));
        assert_eq!(whole(&periods), Duration::from_secs(35));
        assert!(groups(&[], pods.clone()).is_empty());
        assert_eq!(groups(&periods, pods[..1].to_vec()).len(), 1, "nobody waits for a group without pods");
    }
}
