//! What a service's slices shall say. Pure.

use crate::pods::{finished, ready_since};
use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// The endpoints that share an address family and port numbers.
#[derive(Debug)]
pub(super) struct Desired {
    pub(super) address_type: &'static str,
    pub(super) ports: Vec<EndpointPort>,
    pub(super) endpoints: Vec<Endpoint>,
}

/// A port on a pod: name, protocol, number and application protocol.
pub(super) type Port = (String, String, i32, Option<String>);

/// What is known of a node: its zone, if it has one.
pub(super) type Place = Option<String>;

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

/// A pod's addresses.
pub(super) fn addresses(pod: &Pod) -> Vec<IpAddr> {
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

/// Whether the service has no address of its own.
pub(super) fn headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None")
}

/// Whether pods that are not ready count as if they were.
pub(super) fn publishes_unready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.publish_not_ready_addresses).unwrap_or(false)
}

/// The service's ports that the pod has.
pub(super) fn ports_on(service: &Service, pod: &Pod) -> Vec<Port> {
    let ports = service.spec.iter().flat_map(|s| s.ports.iter().flatten());
    let on_pod = ports.filter_map(|p| {
        let protocol = p.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        Some((p.name.clone().unwrap_or_default(), protocol, number(p, pod)?, p.app_protocol.clone()))
    });
    on_pod.collect()
}

/// Families a service answers in. One that was stored before there were any to name has those of its address, a headless one both: what
/// it has must not go (upstream: `getAddressTypesForService`).
fn families(service: &Service) -> BTreeSet<&'static str> {
    let name = |ipv6: bool| if ipv6 { "IPv6" } else { "IPv4" };
    let Some(spec) = service.spec.as_ref() else { return BTreeSet::from(["IPv4"]) };
    match spec.ip_families.as_deref() {
        Some(families) if !families.is_empty() => families.iter().map(|f| name(f == "IPv6")).collect(),
        _ => match spec.cluster_ip.as_deref().unwrap_or_default() {
            "None" => BTreeSet::from(["IPv4", "IPv6"]),
            ip => BTreeSet::from([name(ip.contains(':'))]),
        },
    }
}

/// The name a pod has within the service's domain.
pub(super) fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let in_domain =
        spec.subdomain.as_deref() == Some(&service.name_any()) && pod.namespace() == service.namespace();
    spec.hostname.clone().filter(|h| in_domain && !h.is_empty())
}

/// How an endpoint names its pod.
pub(super) fn target(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.namespace(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// Whether zones share a service's endpoints by their CPUs, which its `trafficDistribution` then yields to.
pub(super) fn by_topology(service: &Service) -> bool {
    let annotations = service.annotations();
    let mode = annotations
        .get("service.kubernetes.io/topology-aware-hints")
        .or_else(|| annotations.get("service.kubernetes.io/topology-mode"));
    mode.is_some_and(|mode| mode == "Auto" || mode == "auto")
}

/// Who shall prefer an endpoint, for a service that wants its traffic kept close.
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

/// What the slices shall hold, and why some pods are in none: pods are those the service selects; `place` tells of a node that there is.
pub(super) fn desired(
    service: &Service,
    pods: &[Arc<Pod>],
    place: impl Fn(&str) -> Option<Place>,
) -> (Vec<Desired>, Vec<String>) {
    type Group = (&'static str, Vec<Port>);
    let mut groups: BTreeMap<Group, Vec<Endpoint>> = BTreeMap::new();
    let mut skipped = Vec::new();
    for pod in pods.iter().filter(|p| !finished(p) && !addresses(p).is_empty()) {
        let node = pod.spec.as_ref().and_then(|s| s.node_name.clone());
        let place = node.as_deref().and_then(&place);
        if place.is_none() && !publishes_unready(service) {
            let of = service.metadata.namespace.as_deref().unwrap_or_default();
            skipped.push(format!(
                "skipping Pod {} for Service {of}/{}: Node {} Not Found",
                pod.name_any(),
                service.name_any(),
                node.unwrap_or_default()
            ));
            continue;
        }
        let zone = place.flatten();
        for family in families(service) {
            let Some(address) = addresses(pod).into_iter().find(|a| a.is_ipv6() == (family == "IPv6")) else {
                continue;
            };
            let serving = ready_since(pod).is_some();
            let terminating = pod.metadata.deletion_timestamp.is_some();
            let ready = publishes_unready(service) || (serving && !terminating);
            let hinted = ready && !by_topology(service);
            groups.entry((family, ports_on(service, pod))).or_default().push(Endpoint {
                addresses: vec![address.to_string()],
                conditions: Some(EndpointConditions {
                    ready: Some(ready),
                    serving: Some(serving),
                    terminating: Some(terminating),
                }),
                hostname: hostname(service, pod),
                hints: if hinted { hints(service, zone.as_deref(), node.as_deref()) } else { None },
                zone: zone.clone(),
                node_name: node.clone(),
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
    let port = |(name, protocol, number, app): Port| EndpointPort {
        name: Some(name),
        protocol: Some(protocol),
        port: Some(number),
        app_protocol: app,
    };
    let desired = groups.into_iter().map(|((address_type, ports), endpoints)| Desired {
        address_type,
        ports: ports.into_iter().map(port).collect(),
        endpoints,
    });
    (desired.collect(), skipped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(name: &str, node: &str, ready: &str) -> Arc<Pod> {
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": name, "namespace": "d", "uid": name},
                "spec": {"containers": [], "nodeName": node},
                "status": {"podIPs": [{"ip": "10.0.0.1"}], "conditions": [{"type": "Ready", "status": ready}]},
            }))
            .unwrap(),
        )
    }

    fn service(spec: &Value) -> Service {
        serde_json::from_value(json!({ "metadata": { "name": "s", "namespace": "d" }, "spec": spec }))
            .unwrap()
    }

    #[test]
    fn ready_endpoints_of_a_service_that_keeps_close_carry_hints() {
        let pods = [pod("a", "n1", "True"), pod("b", "n2", "False"), pod("c", "n3", "True")];
        let place = |node: &str| Some((node == "n1").then(|| "z1".to_owned()));
        let told = |distribution: Option<&str>| -> Vec<String> {
            let service = service(&json!({"ports": [{"port": 80}], "trafficDistribution": distribution}));
            let all = desired(&service, &pods, place).0.into_iter().flat_map(|d| d.endpoints);
            all.map(|e| e.hints.map_or("-".to_owned(), |h| serde_json::to_string(&h).unwrap())).collect()
        };
        let z1 = "{\"forZones\":[{\"name\":\"z1\"}]}";
        assert_eq!(told(None), ["-", "-", "-"]);
        assert_eq!(told(Some("PreferClose")), [z1, "-", "-"]);
        assert_eq!(told(Some("PreferSameZone")), [z1, "-", "-"]);
        let both = "{\"forNodes\":[{\"name\":\"n1\"}],\"forZones\":[{\"name\":\"z1\"}]}";
        assert_eq!(told(Some("PreferSameNode")), [both, "-", "{\"forNodes\":[{\"name\":\"n3\"}]}"]);
    }

    #[test]
    fn a_pod_of_two_families_is_an_endpoint_in_each_that_its_service_has() {
        let mut pod = (*pod("a", "n1", "True")).clone();
        let ips = json!([{"ip": "10.0.0.1"}, {"ip": "FD00:0::1"}]);
        pod.status.as_mut().unwrap().pod_ips = serde_json::from_value(ips).unwrap();
        let pods = [Arc::new(pod)];
        let told = |spec: Value| -> Vec<String> {
            let (all, _) = desired(&service(&spec), &pods, |_| Some(None));
            let line = |d: Desired| {
                let addresses: Vec<String> = d.endpoints.into_iter().flat_map(|e| e.addresses).collect();
                format!("{} {}", d.address_type, addresses.join(","))
            };
            all.into_iter().map(line).collect()
        };
        let (four, six) = ("IPv4 10.0.0.1", "IPv6 fd00::1");
        let ports = json!([{"port": 80}]);
        let of = |families: Value| told(json!({"ports": ports, "ipFamilies": families}));
        assert_eq!(of(json!(["IPv4"])), [four]);
        assert_eq!(of(json!(["IPv6"])), [six]);
        assert_eq!(of(json!(["IPv6", "IPv4"])), [four, six]);
        // Stored before there were any to name.
        assert_eq!(told(json!({"ports": ports, "clusterIP": "fd02::5"})), [six]);
        assert_eq!(told(json!({"ports": ports, "clusterIP": "10.96.0.5"})), [four]);
        assert_eq!(told(json!({"ports": ports, "clusterIP": "None"})), [four, six]);
    }

    #[test]
    fn a_pod_without_the_named_port_must_not_vanish() {
        let mut named = (*pod("a", "n", "True")).clone();
        named.spec.as_mut().unwrap().containers = serde_json::from_value(
            json!([{ "name": "c", "ports": [{ "name": "web", "containerPort": 8080 }] }]),
        )
        .unwrap();
        let service = service(&json!({ "ports": [{ "port": 80, "targetPort": "web" }] }));
        let (all, _) = desired(&service, &[Arc::new(named), pod("b", "n", "True")], |_| Some(None));
        let shown =
            |d: &Desired| (d.ports.iter().filter_map(|p| p.port).collect::<Vec<_>>(), d.endpoints.len());
        assert_eq!(all.iter().map(shown).collect::<Vec<_>>(), [(vec![], 1), (vec![8080], 1)]);
    }

    #[test]
    fn a_pod_on_a_node_that_is_not_there_must_not_be_an_endpoint() {
        let pods = [pod("a", "n1", "True"), pod("b", "lost", "True")];
        let place = |node: &str| (node == "n1").then_some(None);
        let held = |publishes: bool| {
            let spec = json!({ "ports": [{ "port": 80 }], "publishNotReadyAddresses": publishes });
            let (all, skipped) = desired(&service(&spec), &pods, place);
            (all.iter().map(|d| d.endpoints.len()).sum::<usize>(), skipped)
        };
        assert_eq!(held(false), (1, vec!["skipping Pod b for Service d/s: Node lost Not Found".to_owned()]));
        assert_eq!(held(true), (2, Vec::new()), "who publishes all gets all");
    }

    #[test]
    fn topology_mode_goes_before_traffic_distribution() {
        let mut service =
            service(&json!({ "ports": [{ "port": 80 }], "trafficDistribution": "PreferClose" }));
        let hinted = |service: &Service| {
            let place = |_: &str| Some(Some("z".to_owned()));
            let (all, _) = desired(service, &[pod("a", "n", "True")], place);
            all[0].endpoints[0].hints.is_some()
        };
        assert!(hinted(&service) && !by_topology(&service));
        let mode = ("service.kubernetes.io/topology-mode".to_owned(), "Auto".to_owned());
        service.metadata.annotations = Some(BTreeMap::from([mode]));
        assert!(!hinted(&service) && by_topology(&service));
    }
}
