//! Which slices mirror an Endpoints object, and the steps towards them. Pure.

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort as SubsetPort, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
/// An Endpoints object with this label "true" has slices of its own.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// An Endpoints object with this annotation is a lock, not endpoints.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations that are not mirrored.
const OWN_ANNOTATIONS: &[&str] =
    &["endpoints.kubernetes.io/last-change-trigger-time", "kubectl.kubernetes.io/last-applied-configuration"];

/// Whether the service's endpoints are found by labels.
pub(super) fn has_selector(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.selector.as_ref()).is_some_and(|s| !s.is_empty())
}

/// Whether the object may be mirrored, if its service has no selector.
pub(super) fn may_mirror(endpoints: &Endpoints) -> bool {
    endpoints.labels().get(SKIP).map(String::as_str) != Some("true")
        && !endpoints.annotations().contains_key(LEADER)
}

/// Whether a slice is of this controller.
pub(super) fn is_mirror(slice: &EndpointSlice) -> bool {
    slice.labels().get(MANAGED_BY).map(String::as_str) == Some(MANAGER)
}

/// The service a slice belongs to.
pub(super) fn service_of(slice: &EndpointSlice) -> Option<&str> {
    slice.labels().get(SERVICE_NAME).map(String::as_str).filter(|name| !name.is_empty())
}

/// A mirrored slice's labels.
pub(super) fn labels(endpoints: &Endpoints) -> BTreeMap<String, String> {
    let mut labels = endpoints.labels().clone();
    labels.insert(SERVICE_NAME.to_owned(), endpoints.name_any());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

/// A mirrored slice's annotations.
pub(super) fn annotations(endpoints: &Endpoints) -> BTreeMap<String, String> {
    let all = endpoints.annotations().iter().filter(|(key, _)| !OWN_ANNOTATIONS.contains(&key.as_str()));
    all.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// The content of the slices.
#[derive(Debug, Default)]
pub(super) struct Mirrored {
    slices: Vec<EndpointSlice>,
    /// Addresses that are none.
    pub invalid: usize,
    /// Addresses left out, invalid ones included.
    pub skipped: usize,
}

type Port = (String, String, i32, Option<String>);

fn port_of(port: &SubsetPort) -> Port {
    let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
    (port.name.clone().unwrap_or_default(), protocol, port.port, port.app_protocol.clone())
}

type Identity = (String, Option<String>);

/// Ports, and the addresses that offer all of them with whether they are ready.
type Offer = (Vec<Port>, Vec<(EndpointAddress, bool)>);

/// The subsets in their canonical form: the ports that the same addresses offer are together, and an address that is not ready for
/// a port in one place is not ready for it.
fn repack(endpoints: &Endpoints) -> Vec<Offer> {
    let mut known: BTreeMap<Identity, &EndpointAddress> = BTreeMap::new();
    // without ports there still are addresses
    let mut offers: BTreeMap<Option<Port>, BTreeMap<Identity, bool>> = BTreeMap::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ports: Vec<Option<Port>> = match subset.ports.as_deref() {
            None | Some([]) => vec![None],
            Some(ports) => ports.iter().map(|port| Some(port_of(port))).collect(),
        };
        for port in ports {
            let all = offers.entry(port).or_default();
            let lists = [(&subset.addresses, true), (&subset.not_ready_addresses, false)];
            for (address, ready) in
                lists.into_iter().flat_map(|(l, r)| l.iter().flatten().map(move |a| (a, r)))
            {
                let uid = address.target_ref.as_ref().and_then(|t| t.uid.clone());
                let identity = (address.ip.clone(), uid);
                known.entry(identity.clone()).or_insert(address);
                let state = all.entry(identity).or_insert(ready);
                *state = *state && ready;
            }
        }
    }
    let mut together: BTreeMap<Vec<(Identity, bool)>, Vec<Port>> = BTreeMap::new();
    for (port, addresses) in offers {
        together.entry(addresses.into_iter().collect()).or_default().extend(port);
    }
    let full = |addresses: Vec<(Identity, bool)>| {
        let address = |(identity, ready)| Some(((*known.get(&identity)?).clone(), ready));
        let mut full: Vec<(EndpointAddress, bool)> = addresses.into_iter().filter_map(address).collect();
        // ready ones count first against the limit
        full.sort_by_key(|(_, ready)| !ready);
        full
    };
    together.into_iter().map(|(addresses, ports)| (ports, full(addresses))).collect()
}

/// The slices that mirror an Endpoints object, at most `most` addresses of each subset, without metadata.
pub(super) fn desired(endpoints: &Endpoints, most: usize) -> Mirrored {
    let mut mirrored = Mirrored::default();
    let mut groups: BTreeMap<(&'static str, Vec<Port>), BTreeMap<Identity, Endpoint>> = BTreeMap::new();
    for (ports, addresses) in repack(endpoints) {
        let mut added = 0;
        let total = addresses.len();
        for (address, ready) in addresses {
            if added >= most {
                break;
            }
            let Ok(ip) = address.ip.parse::<IpAddr>() else {
                mirrored.invalid += 1;
                continue;
            };
            added += 1;
            let family = if ip.is_ipv6() { "IPv6" } else { "IPv4" };
            let uid = address.target_ref.as_ref().and_then(|t| t.uid.clone());
            let endpoint = Endpoint {
                addresses: vec![ip.to_string()],
                conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
                hostname: address.hostname.filter(|h| !h.is_empty()),
                node_name: address.node_name,
                target_ref: address.target_ref,
                ..Endpoint::default()
            };
            groups.entry((family, ports.clone())).or_default().insert((ip.to_string(), uid), endpoint);
        }
        mirrored.skipped += total - added;
    }
    for ((address_type, ports), endpoints) in groups {
        let port = |(name, protocol, port, app_protocol)| EndpointPort {
            name: Some(name),
            protocol: Some(protocol),
            port: Some(port),
            app_protocol,
        };
        mirrored.slices.push(EndpointSlice {
            address_type: address_type.to_owned(),
            ports: Some(ports.into_iter().map(port).collect()),
            endpoints: Some(endpoints.into_values().take(most).collect()),
            ..EndpointSlice::default()
        });
    }
    mirrored
}

/// One step towards the desired slices.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// Make a slice; its metadata is the caller's.
    Create(EndpointSlice),
    /// Give the named slice this content, and the metadata of its Endpoints.
    Update(String, EndpointSlice),
    /// Remove the named slice.
    Delete(String),
}

fn facts(slice: &EndpointSlice) -> (String, BTreeSet<Port>) {
    let port = |p: &EndpointPort| {
        let protocol = p.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        (p.name.clone().unwrap_or_default(), protocol, p.port.unwrap_or(0), p.app_protocol.clone())
    };
    (slice.address_type.clone(), slice.ports.iter().flatten().map(port).collect())
}

/// Steps from the slices that are there. A slice of other ports is reused for the same family.
pub(super) fn steps(endpoints: &Endpoints, desired: &Mirrored, existing: &[Arc<EndpointSlice>]) -> Vec<Step> {
    let mut left: Vec<&Arc<EndpointSlice>> = existing.iter().collect();
    let (mut creates, mut out) = (Vec::new(), Vec::new());
    for slice in &desired.slices {
        let Some(at) = left.iter().position(|old| facts(old) == facts(slice)) else {
            creates.push(slice);
            continue;
        };
        let old = left.remove(at);
        if !same(endpoints, slice, old) {
            out.push(Step::Update(old.name_any(), slice.clone()));
        }
    }
    for slice in creates {
        match left.iter().position(|old| old.address_type == slice.address_type) {
            Some(at) => out.push(Step::Update(left.remove(at).name_any(), slice.clone())),
            None => out.push(Step::Create(slice.clone())),
        }
    }
    out.extend(left.into_iter().map(|slice| Step::Delete(slice.name_any())));
    out
}

fn same(endpoints: &Endpoints, new: &EndpointSlice, old: &EndpointSlice) -> bool {
    let list = |slice: &EndpointSlice| {
        let mut all = slice.endpoints.clone().unwrap_or_default();
        all.sort_by(|a, b| a.addresses.cmp(&b.addresses));
        all
    };
    let owned =
        old.owner_references().iter().any(|owner| Some(&owner.uid) == endpoints.metadata.uid.as_ref());
    owned
        && *old.labels() == labels(endpoints)
        && *old.annotations() == annotations(endpoints)
        && list(new) == list(old)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn endpoints(subsets: serde_json::Value) -> Endpoints {
        let labels = json!({"app": "db"});
        let annotations = json!({"note": "n", "kubectl.kubernetes.io/last-applied-configuration": "{}"});
        let meta =
            json!({"name": "db", "namespace": "d", "uid": "u", "labels": labels, "annotations": annotations});
        serde_json::from_value(json!({"metadata": meta, "subsets": subsets})).unwrap()
    }

    fn whole(endpoints: &Endpoints) -> Mirrored {
        desired(endpoints, 1000)
    }

    fn text(mirrored: &Mirrored) -> Vec<String> {
        let slice = |slice: &EndpointSlice| {
            let ports: Vec<String> =
                slice.ports.iter().flatten().map(|p| p.port.unwrap().to_string()).collect();
            let endpoint = |e: &Endpoint| {
                let ready = e.conditions.as_ref().unwrap().ready.unwrap();
                format!("{}{}", if ready { "" } else { "!" }, e.addresses[0])
            };
            let all: Vec<String> = slice.endpoints.iter().flatten().map(endpoint).collect();
            format!("{} {} {}", slice.address_type, ports.join(","), all.join(","))
        };
        mirrored.slices.iter().map(slice).collect()
    }

    #[test]
    fn subsets_become_slices_by_family_and_ports() {
        let mirrored = whole(&endpoints(json!([
            {"addresses": [{"ip": "10.0.0.2"}, {"ip": "fd00::2"}, {"ip": "no"}], "ports": [{"port": 80}]},
            {"addresses": [{"ip": "10.0.0.2"}], "notReadyAddresses": [{"ip": "10.0.0.3"}], "ports": [{"port": 81, "name": "b"}]},
            {"notReadyAddresses": [{"ip": "10.0.0.2"}], "ports": [{"port": 80}]},
        ])));
        let want = ["IPv4 80 !10.0.0.2", "IPv4 81 10.0.0.2,!10.0.0.3", "IPv6 80 fd00::2"];
        assert_eq!(text(&mirrored), want);
        assert_eq!((mirrored.invalid, mirrored.skipped), (1, 1));
        let together = whole(&endpoints(json!([
            {"addresses": [{"ip": "10.0.0.2"}], "ports": [{"port": 80, "name": "a"}]},
            {"addresses": [{"ip": "10.0.0.2"}], "ports": [{"port": 81, "name": "b"}]},
        ])));
        assert_eq!(text(&together), ["IPv4 80,81 10.0.0.2"]);
        assert!(whole(&endpoints(json!([]))).slices.is_empty(), "no addresses, no slice");
    }

    #[test]
    fn only_so_many_addresses_of_a_subset_are_mirrored() {
        let addresses: Vec<_> =
            (0..1200).map(|n| json!({"ip": format!("10.0.{}.{}", n / 250, n % 250)})).collect();
        let endpoints = endpoints(json!([{"addresses": addresses, "ports": [{"port": 80}]}]));
        for (most, skipped) in [(1000, 200), (10, 1190)] {
            let mirrored = desired(&endpoints, most);
            assert_eq!(mirrored.slices[0].endpoints.as_ref().unwrap().len(), most);
            assert_eq!((mirrored.invalid, mirrored.skipped), (0, skipped));
        }
    }

    fn apply(
        endpoints: &Endpoints,
        mut slices: Vec<Arc<EndpointSlice>>,
        next: &mut u32,
    ) -> Vec<Arc<EndpointSlice>> {
        let meta = |slice: &mut EndpointSlice, name: String| {
            slice.metadata.name = Some(name);
            slice.metadata.labels = Some(labels(endpoints));
            slice.metadata.annotations = Some(annotations(endpoints));
            slice.metadata.owner_references = Some(vec![crate::pods::controlled_by(endpoints)]);
        };
        for step in steps(endpoints, &whole(endpoints), &slices) {
            match step {
                Step::Create(mut slice) => {
                    *next += 1;
                    meta(&mut slice, format!("s{next}"));
                    slices.push(Arc::new(slice));
                }
                Step::Update(name, mut slice) => {
                    let at = slices.iter().position(|s| s.name_any() == name).unwrap();
                    assert_eq!(slices[at].address_type, slice.address_type, "it cannot be changed");
                    meta(&mut slice, name);
                    slices[at] = Arc::new(slice);
                }
                Step::Delete(name) => slices.retain(|s| s.name_any() != name),
            }
        }
        slices
    }

    proptest! {
        #[test]
        fn slices_converge(rounds in proptest::collection::vec(proptest::collection::vec((1u8..9, any::<bool>(), 80i32..83, any::<bool>()), 0..12), 1..6)) {
            let (mut slices, mut next) = (Vec::new(), 0);
            for round in rounds {
                let subsets: Vec<_> = round.iter().map(|(n, v6, port, ready)| {
                    let ip = if *v6 { format!("fd00::{n}") } else { format!("10.0.0.{n}") };
                    let list = if *ready { "addresses" } else { "notReadyAddresses" };
                    json!({list: [{"ip": ip}], "ports": [{"port": port}]})
                }).collect();
                let endpoints = endpoints(json!(subsets));
                slices = apply(&endpoints, slices, &mut next);
                let offered: BTreeSet<(String, i32)> = slices.iter().flat_map(|s| {
                    let ports: Vec<i32> = s.ports.iter().flatten().filter_map(|p| p.port).collect();
                    let all = s.endpoints.clone().unwrap_or_default();
                    all.into_iter().flat_map(move |e| ports.clone().into_iter().map(move |p| (e.addresses[0].clone(), p)))
                }).collect();
                let wanted: BTreeSet<(String, i32)> = round.iter().map(|(n, v6, port, _)| (if *v6 { format!("fd00::{n}") } else { format!("10.0.0.{n}") }, *port)).collect();
                prop_assert_eq!(offered, wanted);
                prop_assert!(steps(&endpoints, &whole(&endpoints), &slices).is_empty(), "a converged state plans nothing");
                prop_assert!(slices.iter().all(|s| is_mirror(s) && service_of(s) == Some("db") && s.annotations().len() == 1));
            }
        }
    }
}
