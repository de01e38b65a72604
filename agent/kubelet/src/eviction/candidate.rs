//! Pods that may be evicted: what they use, what they asked for, and in which order they go. Pure.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use machinery::quantity::{Format, Quantity};

use crate::cgroup::limits::requested;
use crate::pod::priority;
use crate::pod::spec::totals::{self, Side};
use crate::pressure::threshold::{Resource, Signal};
use crate::quantity::whole;
use crate::stats::collect::PodStats;
use crate::stats::disk::Used;

/// Which parts of a pod are on the disk that runs full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parts {
    layers: bool,
    logs_and_volumes: bool,
}

/// With a filesystem of its own for images, writable layers are there and the rest is on the node's.
fn parts(signal: Signal, images_apart: bool) -> Parts {
    let on_images = matches!(signal, Signal::ImagefsAvailable | Signal::ImagefsInodesFree);
    match images_apart {
        true => Parts { layers: on_images, logs_and_volumes: !on_images },
        false => Parts { layers: true, logs_and_volumes: true },
    }
}

/// A pod that runs.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub pod: Arc<Pod>,
    pub stats: PodStats,
}

impl Candidate {
    fn memory(&self) -> i64 {
        self.stats.usage.as_ref().map_or(0, |u| signed(u.working_set))
    }

    fn disk(&self, parts: Parts) -> Used {
        let mut all = Used::default();
        for container in &self.stats.containers {
            if parts.layers {
                all += container.layer.unwrap_or_default();
            }
            if parts.logs_and_volumes {
                all += container.logs.unwrap_or_default();
            }
        }
        if parts.logs_and_volumes {
            for volume in self.stats.volumes.iter().filter(|v| v.ephemeral) {
                all += volume.used;
            }
        }
        all
    }

    fn processes(&self) -> u64 {
        self.stats.usage.as_ref().and_then(|u| u.processes).unwrap_or(0)
    }
}

fn signed(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

/// Puts first who goes first: those above their requests before the others, the less important first, the furthest
/// above its requests first.
pub fn rank(candidates: &mut [Candidate], signal: Signal, images_apart: bool) {
    let parts = parts(signal, images_apart);
    let key = |c: &Candidate| {
        let (used, asked, above) = match signal.resource() {
            Resource::Memory => (c.memory(), requested(&c.pod, "memory", whole), true),
            Resource::Storage => {
                (signed(c.disk(parts).bytes), requested(&c.pod, "ephemeral-storage", whole), true)
            }
            Resource::Inodes => (signed(c.disk(parts).inodes), 0, true),
            Resource::Processes => (signed(c.processes()), 0, false),
        };
        // Nobody asks for process ids: there only importance and number count.
        (above && used > asked, priority(&c.pod), used.saturating_sub(asked))
    };
    candidates.sort_by(|a, b| {
        let (a, b) = (key(a), key(b));
        Reverse(a.0).cmp(&Reverse(b.0)).then(a.1.cmp(&b.1)).then_with(|| b.2.cmp(&a.2)).then(Ordering::Equal)
    });
}

/// A quantity as upstream writes bytes.
pub fn bytes(amount: u64) -> String {
    Quantity::new(signed(amount), Format::BinarySi).canonical()
}

/// What the user reads: what ran out, by how much, and what of the pod exceeds its requests.
pub fn message(candidate: &Candidate, resource: Resource, met: Option<(u64, u64)>) -> String {
    let name = resource.name();
    let mut text = format!("The node was low on resource: {name}. ");
    if let Some((threshold, available)) = met {
        text += &format!("Threshold quantity: {}, available: {}. ", bytes(threshold), bytes(available));
    }
    for Offender { container, used, asked } in offenders(candidate, resource) {
        text += &format!(
            "Container {container} was using {}, request is {asked}, has larger consumption of {name}. ",
            bytes(used)
        );
    }
    text
}

/// What programs read of the event: what ran out, and which containers use more than they asked for.
pub fn annotations(candidate: &Candidate, resource: Resource) -> BTreeMap<String, String> {
    let offenders = offenders(candidate, resource);
    let joined = |of: fn(&Offender<'_>) -> String| offenders.iter().map(of).collect::<Vec<_>>().join(",");
    [
        ("offending_containers", joined(|offender| offender.container.to_owned())),
        ("offending_containers_usage", joined(|offender| bytes(offender.used))),
        ("starved_resource", resource.name().to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// A container that uses more than it asked for.
struct Offender<'a> {
    container: &'a str,
    /// Bytes.
    used: u64,
    asked: &'a str,
}

fn offenders(candidate: &Candidate, resource: Resource) -> Vec<Offender<'_>> {
    let of = |stats: &'_ crate::stats::collect::Container| match resource {
        Resource::Memory => stats.usage.as_ref().map(|u| u.working_set),
        Resource::Storage => stats.layer.zip(stats.logs).map(|(l, g)| l.bytes + g.bytes),
        Resource::Inodes | Resource::Processes => None,
    };
    let all = candidate.stats.containers.iter().filter_map(|stats| {
        let (used, name) = (of(stats)?, resource.name());
        let (_, spec) = crate::pod::containers(&candidate.pod).find(|(_, c)| c.name == stats.name)?;
        let asked = spec.resources.as_ref().and_then(|r| r.requests.as_ref()).and_then(|r| r.get(name));
        let asked_text = asked.map_or("0", |q| q.0.as_str());
        (signed(used) > asked.map_or(0, whole)).then_some(Offender {
            container: &stats.name,
            used,
            asked: asked_text,
        })
    });
    all.collect()
}

/// Why a pod that takes more of the node's disk than it may must go; `None` while it does not.
pub fn over_its_limits(candidate: &Candidate, images_apart: bool) -> Option<String> {
    let pod = &candidate.pod;
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    for volume in volumes {
        let limit = volume.empty_dir.as_ref().and_then(|e| e.size_limit.as_ref());
        let Some(limit) = limit.filter(|l| whole(l) > 0) else { continue };
        let used = candidate.stats.volumes.iter().find(|v| v.name == volume.name);
        if used.is_some_and(|v| signed(v.used.bytes) > whole(limit)) {
            return Some(format!(
                "Usage of EmptyDir volume \"{}\" exceeds the limit \"{}\". ",
                volume.name, limit.0
            ));
        }
    }
    let limit_of = |c: &k8s_openapi::api::core::v1::Container| {
        let limits = c.resources.as_ref().and_then(|r| r.limits.as_ref());
        limits.and_then(|l| l.get("ephemeral-storage")).cloned()
    };
    if let Some(total) = totals::of(pod, Side::Limits).get("ephemeral-storage")
        && candidate.stats.ephemeral.is_some_and(|used| signed(used.bytes) > whole(total))
    {
        let total = &total.0;
        return Some(format!(
            "Pod ephemeral local storage usage exceeds the total limit of containers {total}. "
        ));
    }
    for (container, limit) in crate::pod::main_containers(pod).iter().map(|c| (c, limit_of(c))) {
        let Some(limit) = limit.filter(|l| whole(l) > 0) else { continue };
        let Some(stats) = candidate.stats.containers.iter().find(|c| c.name == container.name) else {
            continue;
        };
        let mut used = stats.logs.unwrap_or_default();
        if !images_apart {
            used += stats.layer.unwrap_or_default();
        }
        if signed(used.bytes) > whole(&limit) {
            return Some(format!(
                "Container {} exceeded its local ephemeral storage limit \"{}\". ",
                container.name, limit.0
            ));
        }
    }
    None
}

/// Whether the pod's disk use is limited, so that it must be measured.
pub fn has_disk_limits(pod: &Pod) -> bool {
    let volumes = || pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    volumes().any(|v| v.empty_dir.as_ref().is_some_and(|e| e.size_limit.is_some()))
        || totals::of(pod, Side::Limits).contains_key("ephemeral-storage")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::usage::Usage;
    use crate::pods::View;
    use crate::stats::collect::{Container, VolumeUsage};
    use crate::stats::disk::Filesystem;
    use serde_json::{Value, json};

    fn candidate(name: &str, priority: i32, asked: &str, used: u64, disk: u64) -> Candidate {
        let requests = json!({"memory": asked, "ephemeral-storage": asked});
        let container = json!({"name": "c", "resources": {"requests": requests}});
        with(json!({"containers": [container], "priority": priority}), name, used, disk)
    }

    fn with(spec: Value, name: &str, used: u64, disk: u64) -> Candidate {
        let pod = json!({"metadata": {"name": name, "uid": name}, "spec": spec});
        let pod: Arc<Pod> = Arc::new(serde_json::from_value(pod).unwrap());
        let usage = Usage { working_set: used, processes: Some(used), ..Usage::default() };
        let part = Used { bytes: disk, inodes: 1 };
        let stats = PodStats {
            view: View {
                pod: pod.clone(),
                status: Arc::default(),
                observed: Arc::new(crate::pod::observed::Observed::default()),
            },
            usage: Some(usage.clone()),
            rate: None,
            containers: vec![Container {
                name: "c".into(),
                id: "i".into(),
                image: String::new(),
                started: None,
                usage: Some(usage),
                rate: None,
                layer: Some(part),
                logs: Some(Used::default()),
            }],
            interfaces: Vec::new(),
            volumes: vec![VolumeUsage {
                name: "scratch".into(),
                claim: None,
                used: part,
                filesystem: Filesystem::default(),
                ephemeral: true,
            }],
            ephemeral: Some(Used { bytes: 2 * disk, inodes: 2 }),
        };
        Candidate { pod, stats }
    }

    fn order(mut all: Vec<Candidate>, signal: Signal) -> Vec<String> {
        rank(&mut all, signal, false);
        all.iter().map(|c| crate::pod::name(&c.pod).to_owned()).collect()
    }

    #[test]
    fn those_above_their_requests_go_first_then_the_unimportant_then_the_greedy() {
        let all = vec![
            candidate("within", 0, "100", 90, 0),
            candidate("important", 10, "10", 500, 0),
            candidate("greedy", 0, "10", 300, 0),
            candidate("modest", 0, "10", 20, 0),
        ];
        let want = ["greedy", "modest", "important", "within"];
        assert_eq!(order(all.clone(), Signal::MemoryAvailable), want);
        assert_eq!(order(all, Signal::PidAvailable), ["greedy", "within", "modest", "important"]);
        let disks = vec![candidate("small", 0, "100", 0, 10), candidate("large", 0, "100", 0, 300)];
        assert_eq!(order(disks, Signal::NodefsAvailable), ["large", "small"]);
    }

    #[test]
    fn the_message_tells_what_and_who() {
        let greedy = candidate("greedy", 0, "10Mi", 20 << 20, 0);
        assert_eq!(
            message(&greedy, Resource::Memory, Some((100 << 20, 50 << 20))),
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. \
             Container c was using 20Mi, request is 10Mi, has larger consumption of memory. "
        );
        let told = annotations(&greedy, Resource::Memory);
        let told: Vec<_> = told.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let expected = [
            ("offending_containers", "c"),
            ("offending_containers_usage", "20Mi"),
            ("starved_resource", "memory"),
        ];
        assert_eq!(told, expected);
        let modest = candidate("modest", 0, "10Mi", 1, 0);
        assert_eq!(message(&modest, Resource::Memory, None), "The node was low on resource: memory. ");
    }

    #[test]
    fn limits_of_the_disk_are_kept() {
        let volume = json!({"name": "scratch", "emptyDir": {"sizeLimit": "1Ki"}});
        let spec = |volumes: Value, limit: Option<&str>| {
            let limits = limit.map(|l| json!({"ephemeral-storage": l}));
            json!({"containers": [{"name": "c", "resources": {"limits": limits}}], "volumes": volumes})
        };
        let over = |spec: Value, disk| over_its_limits(&with(spec, "p", 0, disk), false);
        assert_eq!(over(spec(json!([volume]), None), 1024), None);
        assert_eq!(
            over(spec(json!([volume]), None), 1025).as_deref(),
            Some("Usage of EmptyDir volume \"scratch\" exceeds the limit \"1Ki\". ")
        );
        assert_eq!(over(spec(json!([]), Some("2Ki")), 1024), None);
        assert_eq!(
            over(spec(json!([]), Some("2Ki")), 1025).as_deref(),
            Some("Pod ephemeral local storage usage exceeds the total limit of containers 2Ki. ")
        );
    }

    #[test]
    fn room_that_init_containers_and_sidecars_may_take_must_not_evict_their_pod() {
        let container = |name: &str, limit: &str, policy: Option<&str>| json!({"name": name, "restartPolicy": policy, "resources": {"limits": {"ephemeral-storage": limit}}});
        let over = |spec: Value, disk| over_its_limits(&with(spec, "p", 0, disk), false);
        // twice the disk is used by the pod as a whole
        let init = json!({"containers": [container("a", "1Ki", None)], "initContainers": [container("i", "4Ki", None)]});
        assert!(has_disk_limits(&with(init.clone(), "p", 0, 0).pod));
        assert_eq!(over(init.clone(), 2048), None);
        assert_eq!(
            over(init, 2049).as_deref(),
            Some("Pod ephemeral local storage usage exceeds the total limit of containers 4Ki. ")
        );
        let mut side =
            json!({"containers": [container("a", "1Ki", None)], "overhead": {"ephemeral-storage": "1Ki"}});
        side["initContainers"] = json!([container("s", "2Ki", Some("Always"))]);
        assert_eq!(over(side.clone(), 2048), None);
        assert!(over(side, 2049).is_some());
    }

    #[test]
    fn critical_pods_stay() {
        let pod = |priority: i32| candidate("p", priority, "1", 1, 1).pod;
        assert!(!crate::pod::is_critical(&pod(1)));
        assert!(crate::pod::is_critical(&pod(2_000_000_000)));
    }
}
