//! What a service's Endpoints object shall say. Pure.

use super::plan::{Port, addresses, headless, hostname, ports_on, publishes_unready, target};
use crate::pods::{finished, ready_since};
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Pod, Service};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Most addresses in an Endpoints object.
const MOST_ADDRESSES: usize = 1000;

/// An address of a pod; several pods may have the same, their node's.
type Place = (String, String);

/// The subsets of an Endpoints object, and whether some addresses had to be left out. Only the service's first family. Ports that the same
/// addresses have share a subset (upstream's `RepackSubsets`).
pub(super) fn subsets(service: &Service, pods: &[Arc<Pod>]) -> (Vec<EndpointSubset>, bool) {
    let spec = service.spec.as_ref();
    let v6 = spec.and_then(|s| s.ip_families.as_ref()?.first()).is_some_and(|family| family == "IPv6");
    let portless = headless(service) && spec.and_then(|s| s.ports.as_ref()).is_none_or(Vec::is_empty);
    let mut at: BTreeMap<Place, (bool, EndpointAddress)> = BTreeMap::new();
    let mut by_port: BTreeMap<Option<Port>, BTreeSet<Place>> = BTreeMap::new();
    for pod in pods.iter().filter(|p| !finished(p)) {
        let terminating = pod.metadata.deletion_timestamp.is_some();
        if terminating && !publishes_unready(service) {
            continue;
        }
        let Some(ip) = addresses(pod).into_iter().find(|a| a.is_ipv6() == v6) else { continue };
        let place: Place = (ip.to_string(), pod.metadata.uid.clone().unwrap_or_default());
        let ports: Vec<Option<Port>> =
            if portless { vec![None] } else { ports_on(service, pod).into_iter().map(Some).collect() };
        for port in ports {
            by_port.entry(port).or_default().insert(place.clone());
        }
        let address = EndpointAddress {
            ip: ip.to_string(),
            hostname: hostname(service, pod),
            node_name: pod.spec.as_ref().and_then(|s| s.node_name.clone()),
            target_ref: Some(target(pod)),
        };
        at.insert(place, (publishes_unready(service) || ready_since(pod).is_some(), address));
    }
    let mut by_places: BTreeMap<BTreeSet<Place>, Vec<Port>> = BTreeMap::new();
    for (port, places) in by_port {
        by_places.entry(places).or_default().extend(port);
    }
    let subset = |(places, ports): (BTreeSet<Place>, Vec<Port>)| {
        let listed = |ready: bool| {
            let of = places.iter().filter_map(|place| at.get(place)).filter(|(is, _)| *is == ready);
            Some(of.map(|(_, address)| address.clone()).collect::<Vec<_>>()).filter(|all| !all.is_empty())
        };
        EndpointSubset {
            addresses: listed(true),
            not_ready_addresses: listed(false),
            ports: Some(ports.into_iter().map(port).collect::<Vec<_>>()).filter(|ports| !ports.is_empty()),
        }
    };
    let mut subsets: Vec<EndpointSubset> = by_places.into_iter().map(subset).collect();
    let cut = truncate(&mut subsets, MOST_ADDRESSES);
    (subsets, cut)
}

fn port((name, protocol, port, app_protocol): Port) -> EndpointPort {
    EndpointPort { name: (!name.is_empty()).then_some(name), protocol: Some(protocol), port, app_protocol }
}

/// Leaves addresses out where there are too many: first those that are not ready, each subset by its part.
fn truncate(subsets: &mut [EndpointSubset], most: usize) -> bool {
    let count = |list: &Option<Vec<EndpointAddress>>| list.as_ref().map_or(0, Vec::len);
    let ready: usize = subsets.iter().map(|s| count(&s.addresses)).sum();
    let others: usize = subsets.iter().map(|s| count(&s.not_ready_addresses)).sum();
    if ready + others <= most {
        return false;
    }
    let too_many_ready = ready > most;
    let (room, total) = if too_many_ready { (most, ready) } else { (most - ready, others) };
    let mut left = room;
    for subset in subsets {
        if too_many_ready {
            subset.not_ready_addresses = None;
        }
        let list = if too_many_ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        let part = (count(list) * room).div_ceil(total).min(left);
        if let Some(addresses) = list {
            addresses.truncate(part);
            left -= addresses.len();
        }
        *list = list.take().filter(|addresses| !addresses.is_empty());
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(uid: &str, ip: &str, ports: &Value) -> Arc<Pod> {
        Arc::new(
            serde_json::from_value(json!({ "metadata": { "name": uid, "uid": uid },
                "spec": { "containers": [{ "name": "c", "ports": ports }] },
                "status": { "podIPs": [{ "ip": ip }], "conditions": [{ "type": "Ready", "status": "True" }] } }))
            .unwrap(),
        )
    }

    fn service() -> Service {
        serde_json::from_value(json!({ "spec": { "ports": [
            { "name": "a", "port": 1, "targetPort": "a" }, { "name": "b", "port": 2, "targetPort": "b" }] } }))
        .unwrap()
    }

    /// The uids and port numbers of each subset.
    fn shown(subsets: &[EndpointSubset]) -> Vec<(Vec<String>, Vec<i32>)> {
        let uid = |a: &EndpointAddress| a.target_ref.as_ref()?.uid.clone();
        let of = |s: &EndpointSubset| {
            let uids = s.addresses.iter().flatten().filter_map(uid).collect();
            (uids, s.ports.iter().flatten().map(|p| p.port).collect())
        };
        subsets.iter().map(of).collect()
    }

    #[test]
    fn pods_of_one_address_must_not_hide_each_other() {
        let both = json!([{ "name": "a", "containerPort": 10 }, { "name": "b", "containerPort": 20 }]);
        let (subsets, _) = subsets(&service(), &[pod("x", "10.0.0.1", &both), pod("y", "10.0.0.1", &both)]);
        assert_eq!(shown(&subsets), [(vec!["x".to_owned(), "y".to_owned()], vec![10, 20])]);
    }

    #[test]
    fn ports_of_the_same_addresses_share_a_subset() {
        let both = json!([{ "name": "a", "containerPort": 10 }, { "name": "b", "containerPort": 20 }]);
        let one = json!([{ "name": "a", "containerPort": 10 }]);
        let (subsets, _) = subsets(&service(), &[pod("x", "10.0.0.1", &both), pod("y", "10.0.0.2", &one)]);
        let wanted = [(vec!["x".to_owned()], vec![20]), (vec!["x".to_owned(), "y".to_owned()], vec![10])];
        assert_eq!(shown(&subsets), wanted);
    }

    #[test]
    fn an_address_that_is_ready_must_not_go_before_one_that_is_not() {
        let list = |count: usize| Some(vec![EndpointAddress::default(); count]).filter(|l| !l.is_empty());
        let subset = |ready, others| EndpointSubset {
            addresses: list(ready),
            not_ready_addresses: list(others),
            ports: None,
        };
        let after = |most, mut all: Vec<EndpointSubset>| {
            let cut = truncate(&mut all, most);
            let count = |list: &Option<Vec<EndpointAddress>>| list.as_ref().map_or(0, Vec::len);
            let left: Vec<_> =
                all.iter().map(|s| (count(&s.addresses), count(&s.not_ready_addresses))).collect();
            (cut, left)
        };
        assert_eq!(after(10, vec![subset(6, 4)]), (false, vec![(6, 4)]));
        assert_eq!(after(10, vec![subset(4, 6), subset(2, 2)]), (true, vec![(4, 3), (2, 1)]));
        assert_eq!(after(10, vec![subset(9, 6), subset(6, 2)]), (true, vec![(6, 0), (4, 0)]));
    }
}
