//! Which addresses are to be answered for, and by which nodes. Pure.

use crate::rank;
use client::Key;
use k8s_openapi::api::core::v1::{Node, ObjectReference, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Resource;
use machinery::load_balancer::{ANNOUNCED, MODE, takes_connections, takes_traffic};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Label of a slice: the Service it belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What matters of a Service.
#[derive(Clone, Debug, PartialEq)]
struct Balanced {
    addresses: Vec<IpAddr>,
    /// `externalTrafficPolicy: Local`
    local: bool,
    about: ObjectReference,
}

impl Balanced {
    /// None where the controller of ours has not said that its addresses are to be announced.
    fn of(service: &Service) -> Option<Self> {
        let annotations = service.metadata.annotations.as_ref()?;
        if annotations.get(MODE).map(String::as_str) != Some(ANNOUNCED) {
            return None;
        }
        let spec = service.spec.as_ref().filter(|spec| spec.type_.as_deref() == Some("LoadBalancer"))?;
        let points = service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?;
        let addresses: Vec<IpAddr> =
            points.iter().filter_map(|point| point.ip.as_deref()?.parse().ok()).collect();
        Some(Self {
            addresses,
            local: spec.external_traffic_policy.as_deref() == Some("Local"),
            // Its version goes with every change, and matters to nobody.
            about: ObjectReference { resource_version: None, ..service.object_ref(&()) },
        })
    }
}

/// What matters of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Member {
    addresses: Vec<IpAddr>,
    /// Nobody took it out.
    stays: bool,
    ready: bool,
}

impl Member {
    fn of(node: &Node) -> Self {
        let status = node.status.as_ref();
        let listed = status.and_then(|status| status.addresses.as_deref()).unwrap_or_default();
        let ready = status.and_then(|status| status.conditions.as_ref()).is_some_and(|conditions| {
            conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
        });
        let labels = node.metadata.labels.iter().flat_map(BTreeMap::keys).map(String::as_str);
        let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
        let leaves = node.metadata.deletion_timestamp.is_some();
        Self {
            addresses: listed.iter().filter_map(|address| address.address.parse().ok()).collect(),
            stays: takes_traffic((true, leaves), labels, taints.map(|taint| taint.key.as_str())),
            ready,
        }
    }
}

/// What is known of the cluster.
#[derive(Debug, Default)]
pub(crate) struct Model {
    services: BTreeMap<Key, Balanced>,
    nodes: BTreeMap<String, Member>,
    /// By slice: the Service it belongs to, and the nodes with endpoints that take connections.
    slices: BTreeMap<Key, (Key, BTreeSet<String>)>,
}

/// An address, as it concerns one node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Place {
    /// That node's place among those that could answer.
    pub(crate) rank: Option<usize>,
    /// A Service that has the address.
    pub(crate) about: ObjectReference,
}

impl Model {
    /// Whether anything changed.
    pub(crate) fn set_service(&mut self, key: Key, service: Option<&Service>) -> bool {
        replace(&mut self.services, key, service.and_then(Balanced::of))
    }

    /// The same of a node.
    pub(crate) fn set_node(&mut self, name: &str, node: Option<&Node>) -> bool {
        replace(&mut self.nodes, name.to_owned(), node.map(Member::of))
    }

    /// The same of a slice.
    pub(crate) fn set_slice(&mut self, key: Key, slice: Option<&EndpointSlice>) -> bool {
        let read = slice.and_then(|slice| {
            let service = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
            Some((Key::new(&key.namespace, service), serving(slice)))
        });
        replace(&mut self.slices, key, read)
    }

    pub(crate) fn forget_nodes(&mut self) {
        self.nodes.clear();
    }

    pub(crate) fn forget_slices(&mut self) {
        self.slices.clear();
    }

    /// Whether there is anything to answer for.
    pub(crate) fn has_addresses(&self) -> bool {
        self.services.values().any(|service| !service.addresses.is_empty())
    }

    /// Whether endpoints matter to any address.
    pub(crate) fn needs_endpoints(&self) -> bool {
        self.services.values().any(|service| service.local)
    }

    /// Addresses of a node.
    pub(crate) fn addresses_of(&self, node: &str) -> &[IpAddr] {
        self.nodes.get(node).map(|member| member.addresses.as_slice()).unwrap_or_default()
    }

    /// Every address, as it concerns `node`. What is a node's own is answered for by its kernel.
    pub(crate) fn places(&self, node: &str) -> BTreeMap<IpAddr, Place> {
        let own: BTreeSet<IpAddr> =
            self.nodes.values().flat_map(|member| member.addresses.iter().copied()).collect();
        let mut by_address: BTreeMap<IpAddr, Vec<(&Key, &Balanced)>> = BTreeMap::new();
        for (key, service) in &self.services {
            for address in service.addresses.iter().filter(|address| !own.contains(address)) {
                by_address.entry(*address).or_default().push((key, service));
            }
        }
        let place = |(address, services): (IpAddr, Vec<(&Key, &Balanced)>)| {
            let about = services.first().map(|(_, service)| service.about.clone()).unwrap_or_default();
            (address, Place { rank: rank::of(address, node, self.candidates(&services)), about })
        };
        by_address.into_iter().map(place).collect()
    }

    /// The nodes that could answer for an address of these Services: those that are ready, or any where none is: then it is the cluster that
    /// is not well, and they work all the same. Those with endpoints only, for the policy Local.
    fn candidates(&self, services: &[(&Key, &Balanced)]) -> Vec<&str> {
        let local: Vec<&Key> =
            services.iter().filter(|(_, service)| service.local).map(|(key, _)| *key).collect();
        let serves = |node: &str| {
            local.iter().all(|key| self.slices.values().any(|(of, nodes)| of == *key && nodes.contains(node)))
        };
        let staying = self.nodes.iter().filter(|(name, member)| member.stays && serves(name));
        let staying: Vec<(&str, bool)> =
            staying.map(|(name, member)| (name.as_str(), member.ready)).collect();
        let any_ready = staying.iter().any(|(_, ready)| *ready);
        staying.into_iter().filter(|(_, ready)| *ready || !any_ready).map(|(name, _)| name).collect()
    }
}

fn replace<K: Ord, V: PartialEq>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) -> bool {
    match value {
        None => map.remove(&key).is_some(),
        Some(value) if map.get(&key) == Some(&value) => false,
        Some(value) => {
            map.insert(key, value);
            true
        }
    }
}

/// Nodes of endpoints that are ready, or serve while they terminate: the proxy there sends to no other.
fn serving(slice: &EndpointSlice) -> BTreeSet<String> {
    let endpoints = slice.endpoints.iter().flatten().filter(|endpoint| {
        let Some(conditions) = &endpoint.conditions else { return true };
        takes_connections(conditions.ready, conditions.serving, conditions.terminating)
    });
    endpoints.filter_map(|endpoint| endpoint.node_name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn service(address: &str, policy: &str, mode: Value) -> Service {
        let service = json!({
            "metadata": { "name": "s", "namespace": "n", "annotations": { MODE: mode } },
            "spec": { "type": "LoadBalancer", "externalTrafficPolicy": policy },
            "status": { "loadBalancer": { "ingress": [{ "ip": address, "ipMode": "VIP" }] } },
        });
        serde_json::from_value(service).unwrap()
    }

    fn node(address: &str, ready: &str, labels: Value) -> Node {
        let node = json!({
            "metadata": { "labels": labels },
            "status": {
                "addresses": [{ "type": "InternalIP", "address": address }],
                "conditions": [{ "type": "Ready", "status": ready }],
            },
        });
        serde_json::from_value(node).unwrap()
    }

    fn slice(nodes: &[(&str, Value)]) -> EndpointSlice {
        let endpoints: Vec<Value> = nodes
            .iter()
            .map(|(node, conditions)| json!({ "addresses": ["10.0.0.1"], "nodeName": node, "conditions": conditions }))
            .collect();
        let slice = json!({
            "metadata": { "labels": { SERVICE_NAME: "s" } }, "addressType": "IPv4", "endpoints": endpoints,
        });
        serde_json::from_value(slice).unwrap()
    }

    fn model(nodes: &[(&str, &str)]) -> Model {
        let mut model = Model::default();
        for (index, (name, ready)) in nodes.iter().enumerate() {
            model.set_node(name, Some(&node(&format!("10.9.0.{index}"), ready, json!({}))));
        }
        model
    }

    /// Nodes that could answer for the address.
    fn able<'a>(model: &Model, nodes: &[&'a str]) -> Vec<&'a str> {
        let rank = |node: &str| model.places(node).values().next().and_then(|place| place.rank);
        nodes.iter().copied().filter(|node| rank(node).is_some()).collect()
    }

    const KEY: (&str, &str) = ("n", "s");
    const NODES: [&str; 3] = ["a", "b", "c"];

    #[test]
    fn only_what_our_controller_gave_is_answered_for() {
        let mut model = model(&[("a", "True")]);
        let key = Key::new(KEY.0, KEY.1);
        for (mode, announced) in [(json!("announced"), true), (json!("nodes"), false), (json!(""), false)] {
            model.set_service(key.clone(), Some(&service("192.0.2.1", "Cluster", mode)));
            assert_eq!(model.has_addresses(), announced);
        }
        model.set_service(key.clone(), Some(&service("10.9.0.0", "Cluster", json!("announced"))));
        assert!(model.places("a").is_empty(), "a node's own");
        assert!(model.set_service(key, None) && !model.has_addresses());
    }

    #[test]
    fn nodes_that_are_silent_or_taken_out_must_not_answer() {
        let mut model = model(&[("a", "True"), ("b", "Unknown"), ("c", "True")]);
        model.set_service(Key::new(KEY.0, KEY.1), Some(&service("192.0.2.1", "Cluster", json!("announced"))));
        assert_eq!(able(&model, &NODES), ["a", "c"]);
        let excluded = json!({ machinery::load_balancer::EXCLUDED: "" });
        assert!(model.set_node("c", Some(&node("10.9.0.2", "True", excluded))));
        assert_eq!(able(&model, &NODES), ["a"]);
        model.set_node("a", Some(&node("10.9.0.0", "False", json!({}))));
        assert_eq!(able(&model, &NODES), ["a", "b"], "where none is ready any will do");
        assert!(!model.set_node("a", Some(&node("10.9.0.0", "False", json!({})))), "nothing changed");
    }

    #[test]
    fn a_node_without_an_endpoint_must_not_answer_for_a_local_service() {
        let mut model = model(&[("a", "True"), ("b", "True"), ("c", "True")]);
        model.set_service(Key::new(KEY.0, KEY.1), Some(&service("192.0.2.1", "Local", json!("announced"))));
        assert!(model.needs_endpoints());
        assert_eq!(able(&model, &NODES), [""; 0]);
        let leaving = json!({ "ready": false, "serving": true, "terminating": true });
        let key = Key::new("n", "s-1");
        model.set_slice(
            key.clone(),
            Some(&slice(&[("b", json!({})), ("c", json!({ "ready": false })), ("a", leaving)])),
        );
        assert_eq!(able(&model, &NODES), ["a", "b"]);
        model.set_slice(key, None);
        assert_eq!(able(&model, &NODES), [""; 0]);
    }
}
