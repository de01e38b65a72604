//! The limits of a pod's cgroup: sums over its containers.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::pod::spec::resources::{amount, page_bytes};
use crate::pod::spec::totals::{self, Side};
use crate::quantity::{milli, whole};

/// What is written to a cgroup; `None` is left alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Requested CPU in thousandths of a core, which become shares or weight.
    pub cpu_milli: Option<i64>,
    /// CPU quota and period in microseconds.
    pub cpu_quota: Option<(i64, i64)>,
    /// The processors, as the kernel lists them.
    pub cpus: Option<String>,
    /// Bytes of memory.
    pub memory: Option<i64>,
    pub pids: Option<i64>,
    /// Bytes of huge pages by their size.
    pub huge_pages: BTreeMap<i64, i64>,
}

impl Limits {
    /// Room for both: the larger of each.
    pub fn widest(self, other: Self) -> Self {
        let quota = |limits: &Self| limits.cpu_quota.map(|(quota, _)| quota);
        // No limit is the largest.
        let larger = |a: Option<i64>, b: Option<i64>| Some(a?.max(b?));
        let mut huge_pages = self.huge_pages.clone();
        for (size, bytes) in &other.huge_pages {
            let own = huge_pages.entry(*size).or_default();
            *own = (*own).max(*bytes);
        }
        Self {
            cpu_milli: self.cpu_milli.max(other.cpu_milli),
            cpu_quota: larger(quota(&self), quota(&other))
                .zip(self.cpu_quota.or(other.cpu_quota).map(|(_, p)| p)),
            cpus: self.cpus.or(other.cpus),
            memory: larger(self.memory, other.memory),
            pids: self.pids.or(other.pids),
            huge_pages,
        }
    }

    /// A pod's own: what it states for itself, or else the sum of requests, and limits only where every container has
    /// one.
    pub fn of_pod(pod: &Pod, cfs_quota: bool, period_us: i64) -> Self {
        let request = |c: &Container| {
            let own = c.resources.as_ref();
            amount(own, false, "cpu", milli).or_else(|| amount(own, true, "cpu", milli)).unwrap_or(0)
        };
        let own = pod.spec.as_ref().and_then(|s| s.resources.as_ref());
        let asked = amount(own, false, "cpu", milli).or_else(|| amount(own, true, "cpu", milli));
        let cpu = asked.or_else(|| aggregate(pod, &|c| Some(request(c)))).unwrap_or(0)
            + overhead(pod, "cpu", milli);
        let limit = |name: &str, read: fn(&Quantity) -> i64| {
            let of = |c: &Container| amount(c.resources.as_ref(), true, name, read).filter(|l| *l > 0);
            let stated = amount(own, true, name, read).filter(|l| *l > 0);
            stated.or_else(|| aggregate(pod, &of)).map(|sum| sum + overhead(pod, name, read))
        };
        let cpu_limit = limit("cpu", milli).filter(|_| cfs_quota);
        Self {
            cpu_milli: Some(cpu),
            cpu_quota: cpu_limit.map(|l| ((l.saturating_mul(period_us) / 1000).max(1000), period_us)),
            cpus: None,
            memory: limit("memory", whole),
            pids: None,
            huge_pages: totals::of(pod, Side::Requests)
                .iter()
                .filter_map(|(name, amount)| Some((page_bytes(name)?, whole(amount))))
                .collect(),
        }
    }
}

fn overhead(pod: &Pod, name: &str, read: fn(&Quantity) -> i64) -> i64 {
    let overhead = pod.spec.as_ref().and_then(|s| s.overhead.as_ref());
    overhead.and_then(|o| o.get(name)).map_or(0, read)
}

/// Regular containers and sidecars add up; each other init container only needs its own room beside the sidecars before
/// it. `None` when one has no value.
fn aggregate(pod: &Pod, of: &dyn Fn(&Container) -> Option<i64>) -> Option<i64> {
    let main = crate::pod::main_containers(pod).iter().map(of).sum::<Option<i64>>()?;
    let (mut sidecars, mut peak) = (0, 0);
    for init in crate::pod::init_containers(pod) {
        let own = of(init)?;
        if crate::pod::is_sidecar(init) {
            sidecars += own;
            peak = peak.max(sidecars);
        } else {
            peak = peak.max(sidecars + own);
        }
    }
    Some((main + sidecars).max(peak))
}

/// The total a pod asks for of a resource, for admission.
pub fn requested(pod: &Pod, name: &str, read: fn(&Quantity) -> i64) -> i64 {
    totals::of(pod, Side::Requests).get(name).map_or(0, read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sums() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "initContainers": [
                {"name": "side", "restartPolicy": "Always", "resources": {"limits": {"cpu": "100m", "memory": "10Mi"}}},
                {"name": "init", "resources": {"limits": {"cpu": "1", "memory": "20Mi"}}}],
            "containers": [
                {"name": "a", "resources": {"requests": {"cpu": "200m"}, "limits": {"cpu": "300m", "memory": "30Mi"}}},
                {"name": "b", "resources": {"limits": {"cpu": "300m", "memory": "30Mi"}}}]}}))
        .unwrap();
        let limits = Limits::of_pod(&pod, true, 100_000);
        assert_eq!(limits.cpu_milli, Some(1100));
        assert_eq!(limits.cpu_quota, Some((110_000, 100_000)));
        assert_eq!(limits.memory, Some(70 << 20));
        let open: Pod = serde_json::from_value(json!({"spec": {"containers": [
            {"name": "a", "resources": {"limits": {"memory": "30Mi"}}}, {"name": "b"}]}}))
        .unwrap();
        assert_eq!(Limits::of_pod(&open, true, 100_000).memory, None);
        let stated: Pod =
            serde_json::from_value(json!({"spec": {"resources": {"limits": {"memory": "50Mi"}},
            "containers": [{"name": "a", "resources": {"limits": {"memory": "30Mi"}}}, {"name": "b"}]}}))
            .unwrap();
        assert_eq!(Limits::of_pod(&stated, true, 100_000).memory, Some(50 << 20));
    }

    #[test]
    fn the_widest_has_room_for_both() {
        let limits = |cpu: i64, memory: Option<i64>| Limits {
            cpu_milli: Some(cpu),
            cpu_quota: Some((cpu * 100, 100_000)),
            cpus: None,
            memory,
            pids: None,
            huge_pages: BTreeMap::from([(2 << 20, cpu)]),
        };
        let both = limits(100, Some(7)).widest(limits(200, Some(5)));
        assert_eq!(both, limits(200, Some(7)));
        assert_eq!(limits(1, None).widest(limits(2, Some(5))).memory, None);
    }
}
