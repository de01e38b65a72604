//! The whole `status` of the Node, from what is observed and what was there before. Pure.

use super::condition::{StatusEvent, conditions};
use super::machine::{Machine, architecture};
use super::resources::{allocatable, capacity, pods};
use super::runtime::Health;
use super::{Cloud, Config, KUBELET_VERSION, Reported};
use cri_proto::v1::Image;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, NodeAddress, NodeDaemonEndpoints, NodeStatus, NodeSwapStatus,
    NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Most names an image has in the status.
const NAMES_PER_IMAGE: usize = 5;

/// What this kubelet can do of what others ask nodes for by name, sorted. Upstream: `nodedeclaredfeatures`, with the feature
/// gates it has by default.
const DECLARED_FEATURES: [&str; 4] = [
    "ExtendWebSocketsToKubelet",
    "InPlacePodLevelResourcesVerticalScaling",
    "InPlacePodVerticalScalingInitContainers",
    "RestartAllContainersOnContainerExits",
];

/// Everything a status is made of.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    pub machine: Machine,
    pub health: Health,
    /// What the rest of the kubelet reports.
    pub reported: Reported,
    /// The runtime's images; `None` when it was not asked or did not answer.
    pub images: Option<Vec<ContainerImage>>,
}

/// A status and what is worth an event about it.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub status: NodeStatus,
    pub events: Vec<StatusEvent>,
    /// The machine was booted since `previous`.
    pub rebooted: bool,
}

/// The node's status now. Parts owned by others (their conditions, extended resources, attached volumes) are kept.
#[must_use]
pub fn status(config: &Config, observed: &Observed, previous: &NodeStatus, now: Timestamp) -> Outcome {
    let machine = &observed.machine;
    let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
    let pods = pods(machine, config.max_pods, config.pods_per_core);
    let own_capacity = capacity(machine, pods);
    let mut all_capacity = previous.capacity.clone().unwrap_or_default();
    // A page size or filesystem that went away is ours to remove; what has a domain in its name is not.
    all_capacity.retain(|name, _| name.contains('/'));
    // Nothing of it is reserved: pods may have all of it.
    let mut all_allocatable = all_capacity.clone();
    all_capacity.extend(own_capacity);
    all_allocatable.extend(allocatable(machine, pods, &config.reservation));
    let (conditions, events) = conditions(
        previous.conditions.as_deref().unwrap_or_default(),
        &observed.reported,
        &observed.health,
        &all_capacity,
        &now,
    );
    let old_boot = previous.node_info.as_ref().map_or("", |info| info.boot_id.as_str());
    let rebooted = !old_boot.is_empty() && old_boot != machine.boot_id;
    let volumes = &observed.reported.volumes_in_use;
    let status = NodeStatus {
        addresses: Some(addresses(config, previous)),
        allocatable: Some(all_allocatable),
        capacity: Some(all_capacity),
        conditions: Some(conditions),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: config.port.into() }),
        }),
        declared_features: Some(DECLARED_FEATURES.map(str::to_owned).to_vec()),
        features: observed.health.features.clone(),
        images: observed.images.clone().or_else(|| previous.images.clone()),
        node_info: Some(system_info(machine, &observed.health)),
        runtime_handlers: some_if_any(&observed.health.handlers),
        volumes_in_use: some_if_any(volumes),
        ..previous.clone()
    };
    Outcome { status, events, rebooted }
}

fn some_if_any<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
}

/// A cloud's own program says them better, and nobody else where none was given. Upstream: `nodestatus.NodeAddress`.
fn addresses(config: &Config, previous: &NodeStatus) -> Vec<NodeAddress> {
    let address = |kind: &str, address: String| NodeAddress { type_: kind.to_owned(), address };
    let known = previous.addresses.as_deref().unwrap_or_default();
    let own = match config.cloud {
        Some(_) if !known.is_empty() => return known.to_vec(),
        Some(Cloud { ips_given: false }) => &[],
        _ => config.ips.as_slice(),
    };
    let ips = own.iter().map(|ip| address("InternalIP", ip.to_string()));
    ips.chain([address("Hostname", config.hostname.clone())]).collect()
}

fn system_info(machine: &Machine, health: &Health) -> NodeSystemInfo {
    let runtime = if health.version.is_empty() { "remote://Unknown" } else { &health.version };
    NodeSystemInfo {
        architecture: architecture().to_owned(),
        boot_id: machine.boot_id.clone(),
        container_runtime_version: runtime.to_owned(),
        kernel_version: machine.kernel.clone(),
        // Deprecated, and empty since 1.33: the kubelet does not know the proxy's version.
        kube_proxy_version: String::new(),
        kubelet_version: KUBELET_VERSION.to_owned(),
        machine_id: machine.machine_id.clone(),
        operating_system: "linux".to_owned(),
        os_image: machine.os_image.clone(),
        swap: (machine.swap > 0).then(|| NodeSwapStatus { capacity: i64::try_from(machine.swap).ok() }),
        system_uuid: machine.system_uuid.clone(),
    }
}

/// The images as a status lists them: the largest first, at most `most` (-1: all), digests before tags.
#[must_use]
pub fn images(mut list: Vec<Image>, most: i32) -> Vec<ContainerImage> {
    list.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    if let Ok(most) = usize::try_from(most) {
        list.truncate(most);
    }
    list.into_iter()
        .map(|image| {
            let names = image.repo_digests.into_iter().chain(image.repo_tags).take(NAMES_PER_IMAGE).collect();
            ContainerImage { names: Some(names), size_bytes: i64::try_from(image.size).ok() }
        })
        .collect()
}

/// True when two statuses differ in more than heartbeat times and the order of conditions.
#[must_use]
pub fn has_changed(old: &NodeStatus, new: &NodeStatus) -> bool {
    let strip = |status: &NodeStatus| {
        let mut status = status.clone();
        if let Some(list) = &mut status.conditions {
            list.iter_mut().for_each(|c| c.last_heartbeat_time = None);
            list.sort_by(|a, b| a.type_.cmp(&b.type_));
        }
        status
    };
    strip(old) != strip(new)
}

#[cfg(test)]
mod tests;
