//! What a service's slices and Endpoints should say, and which writes bring the stored slices there. Pure.

use crate::pods::{finished, ready_since};
use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort as SubsetPort, EndpointSubset, ObjectReference, Pod, Service, ServicePort,
};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Most endpoints in a slice (upstream's `--max-endpoints-per-slice`).
const PER_SLICE: usize = 100;
/// Most addresses in an Endpoints object.
const MOST_ADDRESSES: usize = 1000;

/// The endpoints that share an address family and port numbers.
#[derive(Debug)]
pub(super) struct Desired {
    address_type: &'static str,
    ports: Vec<EndpointPort>,
    endpoints: Vec<Endpoint>,
}

/// One step towards the desired slices.
#[derive(Debug)]
pub(super) enum Slot {
    /// Make a slice; its metadata is the caller's.
    Create(EndpointSlice),
    /// Replace the content of the named slice.
    Update(String, EndpointSlice),
    /// Remove the named slice.
    Delete(String),
}

/// Whether a service's selector chooses a pod.
pub(super) fn selects(service: &Service, pod: &Pod) -> bool {
    let selector = service.spec.as_ref().and_then(|s| s.selector.as_ref());
    selector.is_some_and(|s| !s.is_empty() && s.iter().all(|(k, v)| pod.labels().get(k) == Some(v)))
}

/// Whether nothing a service would notice differs.
pub(super) fn same_for_services(a: &Pod, b: &Pod) -> bool {
    let facts = |pod: &Pod| {
        let status = pod.status.as_ref();
        let spec = pod.spec.as_ref();
        (
            status.and_then(|s| s.pod_ips.clone()),
            ready_since(pod).is_some(),
            finished(pod),
            pod.metadata.deletion_timestamp.is_some(),
            spec.and_then(|s| s.node_name.clone()),
            pod.metadata.uid.clone(),
        )
    };
    a.labels() == b.labels() && facts(a) == facts(b)
}

fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let Some(status) = pod.status.as_ref() else { return Vec::new() };
    let mut all: Vec<IpAddr> = status.pod_ips.iter().flatten().filter_map(|ip| ip.ip.parse().ok()).collect();
    if all.is_empty() {
        all.extend(status.pod_ip.as_deref().and_then(|ip| ip.parse::<IpAddr>().ok()));
    }
    all
}

/// The number a service port has on a pod; a name is looked up among the containers' ports (sidecars' too).
fn number(port: &ServicePort, pod: &Pod) -> Option<i32> {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    match port.target_port.as_ref() {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(n)) => Some(*n),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            let sidecars = spec
                .init_containers
                .iter()
                .flatten()
                .filter(|c| c.restart_policy.as_deref() == Some("Always"));
            let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
            ports
                .into_iter()
                .find(|p| {
                    p.name.as_deref() == Some(name) && p.protocol.as_deref().unwrap_or("TCP") == protocol
                })
                .map(|p| p.container_port)
        }
    }
}

fn headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None")
}

fn publishes_unready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.publish_not_ready_addresses).unwrap_or(false)
}

/// Families a service answers in.
fn families(service: &Service) -> BTreeSet<&'static str> {
    let listed = service.spec.as_ref().and_then(|s| s.ip_families.as_ref());
    match listed {
        Some(families) if !families.is_empty() => {
            families.iter().map(|f| if f == "IPv6" { "IPv6" } else { "IPv4" }).collect()
        }
        _ => BTreeSet::from(["IPv4"]),
    }
}

fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let in_domain =
        spec.subdomain.as_deref() == Some(&service.name_any()) && pod.namespace() == service.namespace();
    spec.hostname.clone().filter(|h| in_domain && !h.is_empty())
}

fn target(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.namespace(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// Who should prefer an endpoint, for a service that wants its traffic kept close.
fn hints(service: &Service, zone: Option<&str>, node: Option<&str>) -> Option<EndpointHints> {
    let distribution = service.spec.as_ref()?.traffic_distribution.as_deref()?;
    let for_nodes = match distribution {
        "PreferClose" | "PreferSameZone" => None,
        "PreferSameNode" => node.map(|name| vec![ForNode { name: name.to_owned() }]),
        _ => return None,
    };
    let for_zones = zone.map(|name| vec![ForZone { name: name.to_owned() }]);
    (for_zones.is_some() || for_nodes.is_some()).then_some(EndpointHints { for_nodes, for_zones })
}

/// What the slices should hold; pods are those the service selects.
pub(super) fn desired(
    service: &Service,
    pods: &[Arc<Pod>],
    zone: impl Fn(&str) -> Option<String>,
) -> Vec<Desired> {
    type Group = (&'static str, Vec<(String, String, i32, Option<String>)>);
    let mut groups: BTreeMap<Group, Vec<Endpoint>> = BTreeMap::new();
    let service_ports = service.spec.as_ref().and_then(|s| s.ports.clone()).unwrap_or_default();
    for pod in pods.iter().filter(|p| !finished(p)) {
        for family in families(service) {
            let Some(address) = addresses(pod).into_iter().find(|a| a.is_ipv6() == (family == "IPv6")) else {
                continue;
            };
            let ports = service_ports.iter().filter_map(|p| {
                let protocol = p.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
                Some((p.name.clone().unwrap_or_default(), protocol, number(p, pod)?, p.app_protocol.clone()))
            });
            let ports: Vec<_> = ports.collect();
            // a pod without the named port is no endpoint, unless the service has no ports at all (headless)
            if ports.is_empty() && !service_ports.is_empty() {
                continue;
            }
            let serving = ready_since(pod).is_some();
            let terminating = pod.metadata.deletion_timestamp.is_some();
            let node = pod.spec.as_ref().and_then(|s| s.node_name.clone());
            let zone = node.as_deref().and_then(&zone);
            let ready = publishes_unready(service) || (serving && !terminating);
            groups.entry((family, ports)).or_default().push(Endpoint {
                addresses: vec![address.to_string()],
                conditions: Some(EndpointConditions {
                    ready: Some(ready),
                    serving: Some(serving),
                    terminating: Some(terminating),
                }),
                hostname: hostname(service, pod),
                hints: if ready { hints(service, zone.as_deref(), node.as_deref()) } else { None },
                zone,
                node_name: node,
                target_ref: Some(target(pod)),
                ..Endpoint::default()
            });
        }
    }
    // a service without endpoints has one empty slice a family, so that clients see that there are none
    for family in families(service) {
        if !groups.keys().any(|(f, _)| *f == family) {
            groups.insert((family, Vec::new()), Vec::new());
        }
    }
    let port = |(name, protocol, number, app): (String, String, i32, Option<String>)| EndpointPort {
        name: Some(name),
        protocol: Some(protocol),
        port: Some(number),
        app_protocol: app,
    };
    groups
        .into_iter()
        .map(|((address_type, ports), endpoints)| Desired {
            address_type,
            ports: ports.into_iter().map(port).collect(),
            endpoints,
        })
        .collect()
}

/// Steps from the slices that are there to the desired ones. Endpoints stay in their slice; new ones fill slices with room.
pub(super) fn arrange(
    desired: &[Desired],
    existing: &[Arc<EndpointSlice>],
    labels: &BTreeMap<String, String>,
) -> Vec<Slot> {
    let mut steps = Vec::new();
    let mut used = BTreeSet::new();
    for group in desired {
        let same = existing
            .iter()
            .filter(|s| s.address_type == group.address_type && same_ports(s.ports.as_deref(), &group.ports));
        let same: Vec<&Arc<EndpointSlice>> = same.filter(|s| used.insert(s.name_any())).collect();
        arrange_group(group, &same, labels, &mut steps);
    }
    steps.extend(existing.iter().map(|s| s.name_any()).filter(|name| !used.contains(name)).map(Slot::Delete));
    // make before break: a service never is without endpoints in between
    steps.sort_by_key(|s| match s {
        Slot::Create(_) => 0,
        Slot::Update(..) => 1,
        Slot::Delete(_) => 2,
    });
    steps
}

fn same_ports(old: Option<&[EndpointPort]>, new: &[EndpointPort]) -> bool {
    let facts = |ports: &[EndpointPort]| -> BTreeSet<_> {
        let fact = |p: &EndpointPort| {
            (p.name.clone().unwrap_or_default(), p.protocol.clone(), p.port, p.app_protocol.clone())
        };
        ports.iter().map(fact).collect()
    };
    facts(old.unwrap_or_default()) == facts(new)
}

fn arrange_group(
    group: &Desired,
    existing: &[&Arc<EndpointSlice>],
    labels: &BTreeMap<String, String>,
    steps: &mut Vec<Slot>,
) {
    let identity =
        |e: &Endpoint| (e.target_ref.as_ref().and_then(|t| t.uid.clone()), e.addresses.first().cloned());
    let mut wanted: BTreeMap<_, &Endpoint> = group.endpoints.iter().map(|e| (identity(e), e)).collect();
    let mut contents: Vec<(&EndpointSlice, Vec<Endpoint>)> = Vec::new();
    for slice in existing {
        let kept = slice.endpoints.iter().flatten().filter_map(|e| wanted.remove(&identity(e)));
        contents.push((slice, kept.cloned().collect()));
    }
    let mut newcomers: Vec<Endpoint> = wanted.into_values().cloned().collect();
    for (_, content) in &mut contents {
        let room = PER_SLICE.saturating_sub(content.len()).min(newcomers.len());
        content.extend(newcomers.drain(..room));
    }
    let build = |endpoints: Vec<Endpoint>| EndpointSlice {
        address_type: group.address_type.to_owned(),
        ports: Some(group.ports.clone()),
        endpoints: Some(endpoints),
        ..EndpointSlice::default()
    };
    let all_empty = contents.iter().all(|(_, c)| c.is_empty());
    for (index, (old, content)) in contents.iter().enumerate() {
        let keep_as_placeholder = all_empty && newcomers.is_empty() && index == 0;
        if content.is_empty() && !keep_as_placeholder {
            steps.push(Slot::Delete(old.name_any()));
        } else if old.endpoints.clone().unwrap_or_default() != *content || old.labels() != labels {
            steps.push(Slot::Update(old.name_any(), build(content.clone())));
        }
    }
    for chunk in newcomers.chunks(PER_SLICE) {
        steps.push(Slot::Create(build(chunk.to_vec())));
    }
    if contents.is_empty() && newcomers.is_empty() {
        steps.push(Slot::Create(build(Vec::new())));
    }
}

/// The subsets of an Endpoints object, and whether some addresses had to be left out. Only the service's first family.
pub(super) fn subsets(service: &Service, pods: &[Arc<Pod>]) -> (Vec<EndpointSubset>, bool) {
    type Port = (String, String, i32, Option<String>);
    let first = service.spec.as_ref().and_then(|s| s.ip_families.as_ref()?.first().cloned());
    let v6 = first.as_deref() == Some("IPv6");
    let service_ports = service.spec.as_ref().and_then(|s| s.ports.clone()).unwrap_or_default();
    // address -> its ports; addresses with the same ports share a subset
    let mut of_address: BTreeMap<(IpAddr, bool), (BTreeSet<Port>, EndpointAddress)> = BTreeMap::new();
    let mut count = 0;
    let mut cut = false;
    for pod in pods.iter().filter(|p| !finished(p)) {
        let terminating = pod.metadata.deletion_timestamp.is_some();
        if terminating && !publishes_unready(service) {
            continue;
        }
        let Some(ip) = addresses(pod).into_iter().find(|a| a.is_ipv6() == v6) else { continue };
        let ready = publishes_unready(service) || ready_since(pod).is_some();
        let ports: BTreeSet<Port> = service_ports
            .iter()
            .filter_map(|p| {
                let protocol = p.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
                Some((p.name.clone().unwrap_or_default(), protocol, number(p, pod)?, p.app_protocol.clone()))
            })
            .collect();
        if ports.is_empty() && !(service_ports.is_empty() && headless(service)) {
            continue;
        }
        count += 1;
        if count > MOST_ADDRESSES {
            cut = true;
            break;
        }
        let address = EndpointAddress {
            ip: ip.to_string(),
            hostname: hostname(service, pod),
            node_name: pod.spec.as_ref().and_then(|s| s.node_name.clone()),
            target_ref: Some(target(pod)),
        };
        of_address.insert((ip, ready), (ports, address));
    }
    let mut by_ports: BTreeMap<BTreeSet<Port>, EndpointSubset> = BTreeMap::new();
    for ((_, ready), (ports, address)) in of_address {
        let subset = by_ports.entry(ports).or_default();
        let list = if ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        list.get_or_insert_default().push(address);
    }
    let subset = |(ports, mut subset): (BTreeSet<Port>, EndpointSubset)| {
        let port = |(name, protocol, port, app_protocol): Port| SubsetPort {
            name: (!name.is_empty()).then_some(name),
            protocol: Some(protocol),
            port,
            app_protocol,
        };
        subset.ports = (!ports.is_empty()).then(|| ports.into_iter().map(port).collect());
        subset
    };
    (by_ports.into_iter().map(subset).collect(), cut)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn desired_of(addresses: &BTreeSet<u16>) -> Vec<Desired> {
        let endpoint = |n: &u16| Endpoint {
            addresses: vec![format!("10.0.{}.{}", n / 256, n % 256)],
            target_ref: Some(ObjectReference { uid: Some(n.to_string()), ..ObjectReference::default() }),
            ..Endpoint::default()
        };
        vec![Desired {
            address_type: "IPv4",
            ports: Vec::new(),
            endpoints: addresses.iter().map(endpoint).collect(),
        }]
    }

    fn apply(
        mut slices: Vec<Arc<EndpointSlice>>,
        steps: Vec<Slot>,
        next: &mut u32,
    ) -> Vec<Arc<EndpointSlice>> {
        for step in steps {
            match step {
                Slot::Create(mut slice) => {
                    *next += 1;
                    slice.metadata.name = Some(format!("s{next}"));
                    slices.push(Arc::new(slice));
                }
                Slot::Update(name, mut slice) => {
                    slice.metadata.name = Some(name.clone());
                    let at = slices.iter().position(|s| s.name_any() == name).unwrap();
                    slices[at] = Arc::new(slice);
                }
                Slot::Delete(name) => slices.retain(|s| s.name_any() != name),
            }
        }
        slices
    }

    #[test]
    fn ready_endpoints_of_a_service_that_keeps_close_carry_hints() {
        let pod = |name: &str, node: &str, ready: &str| -> Arc<Pod> {
            Arc::new(
                serde_json::from_value(serde_json::json!({
                    "metadata": {"name": name, "namespace": "d", "uid": name},
                    "spec": {"containers": [], "nodeName": node},
                    "status": {"podIPs": [{"ip": "10.0.0.1"}], "conditions": [{"type": "Ready", "status": ready}]},
                }))
                .unwrap(),
            )
        };
        let pods = [pod("a", "n1", "True"), pod("b", "n2", "False"), pod("c", "n3", "True")];
        let zone = |node: &str| (node == "n1").then(|| "z1".to_owned());
        let told = |distribution: Option<&str>| -> Vec<String> {
            let spec = serde_json::json!({"ports": [{"port": 80}], "trafficDistribution": distribution});
            let service = serde_json::from_value(serde_json::json!({"spec": spec})).unwrap();
            let all = desired(&service, &pods, zone).into_iter().flat_map(|d| d.endpoints);
            all.map(|e| e.hints.map_or("-".to_owned(), |h| serde_json::to_string(&h).unwrap())).collect()
        };
        let z1 = "{\"forZones\":[{\"name\":\"z1\"}]}";
        assert_eq!(told(None), ["-", "-", "-"]);
        assert_eq!(told(Some("PreferClose")), [z1, "-", "-"]);
        assert_eq!(told(Some("PreferSameZone")), [z1, "-", "-"]);
        let both = "{\"forNodes\":[{\"name\":\"n1\"}],\"forZones\":[{\"name\":\"z1\"}]}";
        assert_eq!(told(Some("PreferSameNode")), [both, "-", "{\"forNodes\":[{\"name\":\"n3\"}]}"]);
    }

    proptest! {
        #[test]
        fn slices_converge_and_hold_every_endpoint_once(rounds in proptest::collection::vec(proptest::collection::btree_set(0u16..400, 0..350), 1..6)) {
            let (mut slices, mut next, labels) = (Vec::new(), 0, BTreeMap::new());
            for wanted in rounds {
                let desired = desired_of(&wanted);
                slices = apply(slices.clone(), arrange(&desired, &slices, &labels), &mut next);
                let held: Vec<String> = slices.iter().flat_map(|s| s.endpoints.clone().unwrap()).map(|e| e.addresses[0].clone()).collect();
                prop_assert_eq!(held.len(), wanted.len());
                prop_assert_eq!(held.into_iter().collect::<BTreeSet<_>>().len(), wanted.len());
                prop_assert!(slices.iter().all(|s| s.endpoints.as_ref().unwrap().len() <= PER_SLICE));
                prop_assert!(!slices.is_empty());
                prop_assert!(arrange(&desired, &slices, &labels).is_empty(), "a converged state plans nothing");
            }
        }
    }
}
