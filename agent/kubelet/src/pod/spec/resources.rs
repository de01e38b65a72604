//! Requests and limits as the kernel takes them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cri_proto::v1;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::totals::{self, Side};
use crate::pod::qos::{self, Class};
use crate::quantity::{milli, whole};

/// What the node's configuration and machine add to a container's own numbers.
#[derive(Clone, Debug)]
pub struct Node {
    /// Bytes of memory of the machine.
    pub memory_capacity: i64,
    /// Whether CPU limits become quotas.
    pub cpu_cfs_quota: bool,
    /// Period of CPU quotas.
    pub cpu_cfs_quota_period: Duration,
    /// Whether all processes of a container are killed when one exceeds its memory, which cgroup v2 can.
    pub group_oom: bool,
    /// How memory is taken back from containers before their limit, which cgroup v2 can.
    pub throttling: Option<Throttling>,
    /// The sizes of huge pages the machine has, in bytes.
    pub page_sizes: Arc<[i64]>,
    /// What containers may have of its swap.
    pub swap: Swap,
}

/// Memory that is taken back before a limit is reached (`MemoryQoS`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Throttling {
    /// From which part of the way from what is asked for to the limit on: above 0, at most 1.
    pub factor: f64,
    /// Bytes that all pods may have together: the limit of a container without one.
    pub allocatable: i64,
}

/// Pages that the kernel counts memory in.
const PAGE: i64 = 4096;

/// What containers may have of the machine's swap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swap {
    /// Cgroups can limit it.
    pub counted: bool,
    /// Cgroups are of version 2.
    pub unified: bool,
    /// Burstable pods get a share of it (`memorySwap.swapBehavior: LimitedSwap`).
    pub shared: bool,
    /// Bytes of it.
    pub capacity: i64,
}

/// CPU shares of a request in thousandths of a core.
pub fn shares(milli_cpu: i64) -> i64 {
    if milli_cpu == 0 { 2 } else { (milli_cpu.saturating_mul(1024) / 1000).clamp(2, 262_144) }
}

/// CPU quota, in microseconds a period, of a limit in thousandths of a core; zero is no quota.
pub fn quota(milli_cpu: i64, period_us: i64) -> i64 {
    if milli_cpu == 0 { 0 } else { (milli_cpu.saturating_mul(period_us) / 1000).max(1000) }
}

/// The amount of one resource in one of the two maps.
pub fn amount(
    resources: Option<&ResourceRequirements>,
    limits: bool,
    name: &str,
    read: fn(&Quantity) -> i64,
) -> Option<i64> {
    let resources = resources?;
    let map: &BTreeMap<_, _> =
        if limits { resources.limits.as_ref()? } else { resources.requests.as_ref()? };
    map.get(name).map(read)
}

/// The limit a container runs with: its own, or else the pod's.
pub fn limit(
    pod: Option<&ResourceRequirements>,
    container: Option<&ResourceRequirements>,
    name: &str,
    read: fn(&Quantity) -> i64,
) -> Option<i64> {
    let own = amount(container, true, name, read).filter(|limit| *limit > 0);
    own.or_else(|| amount(pod, true, name, read).filter(|limit| *limit > 0))
}

/// A container's limits for the runtime.
pub fn container(pod: &Pod, container: &Container, node: &Node) -> v1::LinuxContainerResources {
    let own = container.resources.as_ref();
    let of_pod = pod.spec.as_ref().and_then(|s| s.resources.as_ref());
    let limit_cpu = limit(of_pod, own, "cpu", milli);
    let request_cpu = amount(own, false, "cpu", milli);
    let memory = limit(of_pod, own, "memory", whole).unwrap_or(0);
    let mut resources = v1::LinuxContainerResources {
        oom_score_adj: oom_score_adj(pod, container, node.memory_capacity),
        hugepage_limits: hugepage_limits(of_pod, own, node),
        ..of_amounts(request_cpu, limit_cpu.unwrap_or(0), memory, node)
    };
    if let Some(throttling) = node.throttling {
        // Nothing is kept for anybody (`memoryReservationPolicy: None`); those of an earlier life of the container are taken back.
        let none = ["memory.min", "memory.low"].map(|name| (name.to_owned(), "0".to_owned()));
        resources.unified.extend(none);
        let high = high(own, throttling).map(|bytes| ("memory.high".to_owned(), bytes.to_string()));
        resources.unified.extend(high);
    }
    match node.swap {
        Swap { counted: false, .. } => {}
        // With memory: as much of both as of memory alone.
        Swap { unified: false, .. } => resources.memory_swap_limit_in_bytes = memory,
        Swap { unified: true, .. } => {
            let bytes = swap(pod, container, node);
            resources.unified.insert("memory.swap.max".to_owned(), bytes.to_string());
        }
    }
    resources
}

/// Bytes of memory from which on the kernel takes memory back from a container; none where it may have no more than it asks for. Upstream:
/// `generateLinuxContainerResources`.
fn high(own: Option<&ResourceRequirements>, throttling: Throttling) -> Option<i64> {
    let bytes = |limits| amount(own, limits, "memory", whole).unwrap_or(0);
    let (request, limit) = (bytes(false), bytes(true));
    let most = if limit == 0 { throttling.allocatable } else { limit };
    if request == limit || most <= 0 {
        return None;
    }
    let between = (most - request) as f64 * throttling.factor;
    let high = (request as f64 + between) as i64 / PAGE * PAGE;
    (high > request).then_some(high)
}

/// Bytes of swap a container may have: of the machine's the part that it asks for of the machine's memory. Upstream:
/// `GetContainerSwapBehavior`, `calcSwapForBurstablePods`.
fn swap(pod: &Pod, container: &Container, node: &Node) -> i64 {
    let own = |limits| amount(container.resources.as_ref(), limits, "memory", whole).unwrap_or(0);
    let (request, limit) = (own(false), own(true));
    let burstable = qos::class(pod) == Class::Burstable && !crate::pod::is_critical(pod);
    if !node.swap.shared || !burstable || request == limit || request > node.memory_capacity {
        return 0;
    }
    let share = request as f64 / node.memory_capacity.max(1) as f64;
    (share * node.swap.capacity as f64) as i64
}

/// What a sandbox is told of its pod: what it asks for without its overhead, and the overhead. Upstream:
/// `applySandboxResources`.
pub fn sandbox(pod: &Pod, node: &Node) -> (v1::LinuxContainerResources, v1::LinuxContainerResources) {
    let (requests, limits) = (totals::stated(pod, Side::Requests), totals::stated(pod, Side::Limits));
    let limit = |name: &str, read: fn(&Quantity) -> i64| limits.get(name).map_or(0, read);
    let own = of_amounts(requests.get("cpu").map(milli), limit("cpu", milli), limit("memory", whole), node);
    let overhead = pod.spec.as_ref().and_then(|s| s.overhead.as_ref()).map(|overhead| {
        let amount = |name: &str, read: fn(&Quantity) -> i64| overhead.get(name).map_or(0, read);
        let cpu = amount("cpu", milli);
        of_amounts(Some(cpu), cpu, amount("memory", whole), node)
    });
    (own, overhead.unwrap_or_default())
}

/// What the kernel is told of thousandths of a core and bytes of memory; a limit of zero is none.
fn of_amounts(
    request_cpu: Option<i64>,
    limit_cpu: i64,
    memory: i64,
    node: &Node,
) -> v1::LinuxContainerResources {
    let period = i64::try_from(node.cpu_cfs_quota_period.as_micros()).unwrap_or(100_000);
    let (cpu_period, cpu_quota) = match limit_cpu > 0 && node.cpu_cfs_quota {
        true => (period, quota(limit_cpu, period)),
        false => (0, 0),
    };
    let unified = node.group_oom.then(|| ("memory.oom.group".to_owned(), "1".to_owned()));
    v1::LinuxContainerResources {
        cpu_period,
        cpu_quota,
        cpu_shares: shares(request_cpu.unwrap_or(limit_cpu)),
        memory_limit_in_bytes: memory,
        unified: unified.into_iter().collect(),
        ..Default::default()
    }
}

/// The limit of every size of huge pages the machine has: none of those that are not asked for; what a container states goes
/// before what its pod does. Upstream: `GetHugepageLimitsFromResources`.
fn hugepage_limits(
    pod: Option<&ResourceRequirements>,
    own: Option<&ResourceRequirements>,
    node: &Node,
) -> Vec<v1::HugepageLimit> {
    let lists = [pod, own].into_iter().flatten().filter_map(|resources| resources.limits.as_ref());
    let asked: BTreeMap<i64, u64> = lists
        .flatten()
        .filter_map(|(name, amount)| Some((page_bytes(name)?, u64::try_from(whole(amount)).ok()?)))
        .collect();
    let limit = |size: &i64| v1::HugepageLimit {
        page_size: page_size(*size),
        limit: asked.get(size).copied().unwrap_or(0),
    };
    node.page_sizes.iter().map(limit).collect()
}

/// The bytes of a huge page, by its resource's name; `None` for another resource.
pub fn page_bytes(name: &str) -> Option<i64> {
    let size = whole(&Quantity(name.strip_prefix("hugepages-")?.to_owned()));
    (size > 0).then_some(size)
}

/// `2MB`, as the kernel's files name page sizes.
pub fn page_size(bytes: i64) -> String {
    match bytes {
        b if b >= 1 << 30 => format!("{}GB", b >> 30),
        b if b >= 1 << 20 => format!("{}MB", b >> 20),
        b => format!("{}KB", b >> 10),
    }
}

/// Who the kernel kills first when memory runs out: the more a burstable container asked for, the later.
pub fn oom_score_adj(pod: &Pod, container: &Container, capacity: i64) -> i64 {
    let critical = pod.spec.as_ref().is_some_and(|s| {
        s.priority_class_name.as_deref() == Some("system-node-critical")
            || s.priority.is_some_and(|p| p >= 2_000_001_000)
    });
    match qos::class(pod) {
        _ if critical => -997,
        Class::Guaranteed => -997,
        Class::BestEffort => 1000,
        Class::Burstable => {
            let request = memory_for_score(pod, container);
            let share = request.saturating_mul(1000) / capacity.max(1);
            match 1000 - share {
                low if low < 3 => 3,
                1000 => 999,
                middle => middle,
            }
        }
    }
}

/// The memory a burstable container is judged by: its request and an equal part of what the pod asks for beyond its
/// containers; a sidecar is not judged worse than the smallest regular container.
fn memory_for_score(pod: &Pod, container: &Container) -> i64 {
    let request = |c: &Container| amount(c.resources.as_ref(), false, "memory", whole).unwrap_or(0);
    let of_pod = pod.spec.as_ref().and_then(|s| s.resources.as_ref());
    let count = crate::pod::containers(pod).filter(|(role, _)| *role != crate::pod::Role::Init).count();
    let spare = amount(of_pod, false, "memory", whole).map_or(0, |whole_pod| {
        let named: i64 = crate::pod::containers(pod).map(|(_, c)| request(c)).sum();
        (whole_pod - named).max(0) / i64::try_from(count.max(1)).unwrap_or(1)
    });
    let own = request(container) + spare;
    let least = crate::pod::main_containers(pod).iter().map(request).min().unwrap_or(0) + spare;
    let sidecar = crate::pod::is_sidecar(container)
        && crate::pod::init_containers(pod).iter().any(|c| c.name == container.name);
    if sidecar { own.max(least) } else { own }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node() -> Node {
        Node {
            memory_capacity: 4 << 30,
            cpu_cfs_quota: true,
            cpu_cfs_quota_period: Duration::from_millis(100),
            group_oom: true,
            throttling: None,
            page_sizes: Arc::from([2 << 20, 1 << 30]),
            swap: Swap::default(),
        }
    }

    #[test]
    fn pods_must_not_swap_beyond_their_share() {
        let told = |swap: Swap, resources: serde_json::Value, priority: i32| {
            let spec = json!({"priority": priority, "containers": [{"name": "c", "resources": resources}]});
            let pod: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
            container(&pod, &pod.spec.as_ref().unwrap().containers[0], &Node { swap, ..node() })
        };
        let most = |swap: Swap, resources: serde_json::Value, priority: i32| {
            told(swap, resources, priority).unified.get("memory.swap.max").cloned()
        };
        let shared = Swap { counted: true, unified: true, shared: true, capacity: 1 << 30 };
        let burstable = json!({"requests": {"memory": "1Gi"}});
        let quarter = (1_i64 << 28).to_string();
        assert_eq!(most(shared, burstable.clone(), 0).as_deref(), Some(quarter.as_str()));
        let none = Some("0");
        assert_eq!(most(Swap { shared: false, ..shared }, burstable.clone(), 0).as_deref(), none);
        assert_eq!(most(shared, burstable.clone(), 2_000_000_000).as_deref(), none, "critical");
        assert_eq!(most(shared, json!({}), 0).as_deref(), none, "best effort");
        let equal = json!({"requests": {"memory": "1Gi"}, "limits": {"memory": "1Gi"}});
        assert_eq!(most(shared, equal.clone(), 0).as_deref(), none);
        assert_eq!(most(shared, json!({"requests": {"memory": "8Gi"}}), 0).as_deref(), none, "no machine's");
        assert_eq!(most(Swap { counted: false, ..shared }, burstable, 0), None);
        let first = told(Swap { unified: false, ..shared }, equal, 0);
        assert_eq!((first.memory_swap_limit_in_bytes, first.unified.len()), (1 << 30, 1));
    }

    #[test]
    fn numbers() {
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [{"name": "c", "resources":
            {"requests": {"cpu": "250m", "memory": "1Gi"}, "limits": {"cpu": "500m", "memory": "2Gi", "hugepages-2Mi": "4Mi"}}}]}}))
        .unwrap();
        let got = container(&pod, &pod.spec.as_ref().unwrap().containers[0], &node());
        assert_eq!((got.cpu_shares, got.cpu_quota, got.cpu_period), (256, 50_000, 100_000));
        assert_eq!(got.memory_limit_in_bytes, 2 << 30);
        assert_eq!(got.oom_score_adj, 750);
        assert_eq!(got.hugepage_limits[0].page_size, "2MB");
    }

    #[test]
    fn one_process_alone_must_not_be_killed_where_all_of_its_container_should_be() {
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [{"name": "c"}]}})).unwrap();
        let told = |node: &Node| container(&pod, &pod.spec.as_ref().unwrap().containers[0], node).unified;
        assert_eq!(told(&node()).get("memory.oom.group").map(String::as_str), Some("1"));
        assert!(told(&Node { group_oom: false, ..node() }).is_empty());
    }

    #[test]
    fn memory_must_not_be_taken_back_from_a_container_that_has_what_it_asks_for() {
        let throttling = Some(Throttling { factor: 0.9, allocatable: 4 << 30 });
        let told = |resources: serde_json::Value, throttling: Option<Throttling>| {
            let spec = json!({"containers": [{"name": "c", "resources": resources}]});
            let pod: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
            let node = Node { throttling, ..node() };
            container(&pod, &pod.spec.as_ref().unwrap().containers[0], &node).unified
        };
        let high = |resources: serde_json::Value| told(resources, throttling).get("memory.high").cloned();
        // 100 MiB and nine tenths of the other 100, in whole pages.
        let between = json!({"requests": {"memory": "100Mi"}, "limits": {"memory": "200Mi"}});
        assert_eq!(high(between.clone()), Some((190 * (1 << 20) / 4096 * 4096).to_string()));
        assert_eq!(high(json!({"requests": {"memory": "1Gi"}, "limits": {"memory": "1Gi"}})), None);
        let unlimited =
            (((1_i64 << 30) as f64 + 0.9 * (3_i64 << 30) as f64) as i64 / 4096 * 4096).to_string();
        assert_eq!(high(json!({"requests": {"memory": "1Gi"}})), Some(unlimited));
        assert_eq!(high(json!({"requests": {"memory": "8Gi"}})), None, "more than there is");
        assert_eq!(told(between.clone(), throttling).get("memory.min").map(String::as_str), Some("0"));
        assert!(!told(between, None).contains_key("memory.min"), "without the feature gate");
    }

    #[test]
    fn huge_pages_that_are_not_asked_for_must_not_be_had() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "resources": {"limits": {"hugepages-2Mi": "8Mi", "hugepages-1Gi": "1Gi"}},
            "containers": [{"name": "c", "resources": {"limits": {"hugepages-2Mi": "4Mi"}}}]}}))
        .unwrap();
        let limits = |pod: &Pod| -> Vec<(String, u64)> {
            let got = container(pod, &pod.spec.as_ref().unwrap().containers[0], &node());
            got.hugepage_limits.into_iter().map(|l| (l.page_size, l.limit)).collect()
        };
        assert_eq!(limits(&pod), [("2MB".to_owned(), 4 << 20), ("1GB".to_owned(), 1 << 30)]);
        let none: Pod = serde_json::from_value(json!({"spec": {"containers": [{"name": "c"}]}})).unwrap();
        assert_eq!(limits(&none), [("2MB".to_owned(), 0), ("1GB".to_owned(), 0)]);
    }

    #[test]
    fn a_sandbox_must_not_be_kept_from_what_its_pod_asks_for() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "overhead": {"cpu": "250m", "memory": "64Mi"},
            "containers": [{"name": "c", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}}]}}))
        .unwrap();
        let (own, overhead) = sandbox(&pod, &node());
        assert_eq!((own.cpu_shares, own.cpu_quota, own.memory_limit_in_bytes), (512, 100_000, 1 << 30));
        assert_eq!(
            (overhead.cpu_shares, overhead.cpu_quota, overhead.memory_limit_in_bytes),
            (256, 25_000, 64 << 20)
        );
    }

    #[test]
    fn the_small_and_the_absent() {
        assert_eq!(shares(0), 2);
        assert_eq!(shares(1), 2);
        assert_eq!(quota(1, 100_000), 1000);
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [{"name": "c"}]}})).unwrap();
        let got = container(&pod, &pod.spec.as_ref().unwrap().containers[0], &node());
        assert_eq!((got.cpu_shares, got.cpu_quota, got.oom_score_adj), (2, 0, 1000));
    }
}
