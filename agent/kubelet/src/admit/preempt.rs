//! Room for critical pods, which are not refused for want of it: less important pods make it. Pure. Upstream: `preemption`.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::{Shortage, amount};
use crate::pod::qos::{self, Class};
use crate::pod::{is_critical, priority};

/// Whether a pod may take another's room.
fn goes_before(pod: &Pod, other: &Pod) -> bool {
    let stated = |pod: &Pod| pod.spec.as_ref().is_some_and(|s| s.priority.is_some());
    let more = stated(pod) && stated(other) && priority(pod) > priority(other);
    (is_critical(pod) && !is_critical(other)) || more
}

/// The pods that are to go so that this one has room: as few of the better classes as can be.
///
/// # Errors
///
/// There are not enough of them: upstream's text.
pub fn victims(pod: &Pod, others: &[Arc<Pod>], missing: &[Shortage]) -> Result<Vec<Arc<Pod>>, String> {
    let of = |class: Class| -> Vec<Arc<Pod>> {
        let may_go = |other: &&Arc<Pod>| goes_before(pod, other) && qos::class(other) == class;
        others.iter().filter(may_go).cloned().collect()
    };
    let [best_effort, burstable, guaranteed] =
        [Class::BestEffort, Class::Burstable, Class::Guaranteed].map(of);
    let guaranteed = nearest(guaranteed, left(missing, best_effort.iter().chain(&burstable)))?;
    let burstable = nearest(burstable, left(missing, best_effort.iter().chain(&guaranteed)))?;
    let best_effort = nearest(best_effort, left(missing, burstable.iter().chain(&guaranteed)))?;
    Ok([best_effort, burstable, guaranteed].concat())
}

/// What is missing still once these pods are gone.
fn left<'a>(missing: &[Shortage], gone: impl Iterator<Item = &'a Arc<Pod>> + Clone) -> Vec<Shortage> {
    let still = missing.iter().map(|shortage| {
        let freed: i64 = gone.clone().map(|pod| amount(pod, &shortage.resource)).sum();
        Shortage { missing: shortage.missing - freed, ..shortage.clone() }
    });
    still.filter(|shortage| shortage.missing > 0).collect()
}

/// Of these pods, the one that comes nearest to what is missing, until nothing is; of two that come as near, the smaller.
fn nearest(mut pods: Vec<Arc<Pod>>, mut missing: Vec<Shortage>) -> Result<Vec<Arc<Pod>>, String> {
    let mut chosen = Vec::new();
    while !missing.is_empty() {
        let size = |pod: &Pod| (amount(pod, "memory"), amount(pod, "cpu"));
        let best = pods.iter().enumerate().min_by(|(_, a), (_, b)| {
            distance(&missing, a).total_cmp(&distance(&missing, b)).then_with(|| size(a).cmp(&size(b)))
        });
        let Some(index) = best.map(|(index, _)| index) else {
            let list: String = missing
                .iter()
                .map(|shortage| format!("(res: {}, q: {}), ", shortage.resource, shortage.missing))
                .collect();
            return Err(format!("no set of running pods found to reclaim resources: [{list}]"));
        };
        let pod = pods.swap_remove(index);
        missing = left(&missing, std::iter::once(&pod));
        chosen.push(pod);
    }
    Ok(chosen)
}

/// How far a pod's requests are from what is missing: each resource weighs the same.
fn distance(missing: &[Shortage], pod: &Pod) -> f64 {
    let parts = missing.iter().map(|shortage| {
        let rest = (shortage.missing - amount(pod, &shortage.resource)).max(0) as f64;
        (rest / shortage.missing as f64).powi(2)
    });
    parts.sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, priority: i32, requests: &[(&str, &str)], guaranteed: bool) -> Arc<Pod> {
        let amounts: std::collections::BTreeMap<_, _> = requests.iter().copied().collect();
        let resources = match guaranteed {
            true => json!({"requests": amounts, "limits": amounts}),
            false => json!({"requests": amounts}),
        };
        let spec = json!({"priority": priority, "containers": [{"name": "c", "resources": resources}]});
        Arc::new(serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap())
    }

    const CRITICAL: i32 = 2_000_000_000;

    fn chosen(others: &[Arc<Pod>], missing: &[(&str, i64)]) -> Result<Vec<String>, String> {
        let missing: Vec<_> = missing
            .iter()
            .map(|(resource, missing)| Shortage {
                resource: (*resource).to_owned(),
                missing: *missing,
                text: String::new(),
            })
            .collect();
        let critical = pod("critical", CRITICAL, &[], false);
        let mut names: Vec<String> = victims(&critical, others, &missing)?
            .iter()
            .map(|pod| crate::pod::name(pod).to_owned())
            .collect();
        names.sort();
        Ok(names)
    }

    #[test]
    fn more_pods_than_need_be_must_not_go_nor_better_ones() {
        let small = pod("small", 0, &[("cpu", "200m")], false);
        let large = pod("large", 0, &[("cpu", "2")], false);
        let full = pod("full", 0, &[("cpu", "1"), ("memory", "1Gi")], true);
        let none = pod("none", 0, &[], false);
        let all = [small, large, full, none];
        assert_eq!(chosen(&all, &[("cpu", 100)]).unwrap(), ["small"], "the smaller of two that suffice");
        assert_eq!(chosen(&all, &[("cpu", 500)]).unwrap(), ["large"]);
        assert_eq!(chosen(&all, &[("pods", 1)]).unwrap(), ["none"], "the best-effort one goes first");
        assert_eq!(chosen(&all, &[("cpu", 2500)]).unwrap(), ["full", "large"]);
        assert!(chosen(&all, &[]).unwrap().is_empty());
    }

    #[test]
    fn critical_pods_must_not_make_room_for_each_other() {
        let other = pod("other", CRITICAL, &[("cpu", "4")], false);
        assert_eq!(
            chosen(&[other], &[("cpu", 100)]).unwrap_err(),
            "no set of running pods found to reclaim resources: [(res: cpu, q: 100), ]"
        );
    }
}
