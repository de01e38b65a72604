//! Nodes' own addresses as a load balancer's. Pure.

use super::allocate::{Holder, Unavailable};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use machinery::load_balancer::{takes_connections, takes_traffic};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

/// So many addresses at most are said of a Service.
const MOST: usize = 256;

/// What a node is to load balancers: where it is reached, and whether it takes traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reached {
    /// Each of its addresses: they are no Service's.
    pub all: Vec<IpAddr>,
    /// By which it is reached from outside: its external ones, or its internal ones where it has none.
    pub outside: Vec<IpAddr>,
    pub takes: bool,
}

impl Reached {
    pub(super) fn of(node: &Node) -> Self {
        let status = node.status.as_ref();
        let listed = status.and_then(|status| status.addresses.as_deref()).unwrap_or_default();
        let of_type = |kind: &str| -> Vec<IpAddr> {
            let some = listed.iter().filter(|address| address.type_ == kind);
            some.filter_map(|address| address.address.parse().ok()).collect()
        };
        let external = of_type("ExternalIP");
        let ready = status.and_then(|status| status.conditions.as_ref()).is_some_and(|conditions| {
            conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
        });
        let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
        Self {
            all: listed.iter().filter_map(|address| address.address.parse().ok()).collect(),
            outside: if external.is_empty() { of_type("InternalIP") } else { external },
            takes: takes_traffic(
                (ready, node.metadata.deletion_timestamp.is_some()),
                node.labels().keys().map(String::as_str),
                taints.map(|taint| taint.key.as_str()),
            ),
        }
    }
}

/// Nodes with an endpoint that takes connections.
pub(super) fn with_endpoints(slices: &[Arc<EndpointSlice>]) -> BTreeSet<String> {
    let endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
    let takes = endpoints.filter(|endpoint| {
        let Some(conditions) = &endpoint.conditions else { return true };
        takes_connections(conditions.ready, conditions.serving, conditions.terminating)
    });
    takes.filter_map(|endpoint| endpoint.node_name.clone()).collect()
}

/// The addresses of all nodes that take traffic, of `families`, in their order; of those among `only` where that is given.
///
/// # Errors
/// There is none.
pub(super) fn published(
    nodes: &[Arc<Node>],
    families: &[bool],
    only: Option<&BTreeSet<String>>,
) -> Result<Vec<IpAddr>, Unavailable> {
    let some = nodes.iter().filter(|node| only.is_none_or(|only| only.contains(&node.name_any())));
    let reached: Vec<Reached> = some.map(|node| Reached::of(node)).filter(|node| node.takes).collect();
    let mut addresses = Vec::new();
    for family in families {
        let of_family = reached.iter().flat_map(|node| &node.outside).filter(|ip| ip.is_ipv6() == *family);
        for address in of_family {
            if !addresses.contains(address) && addresses.len() < MOST {
                addresses.push(*address);
            }
        }
    }
    if addresses.is_empty() { Err(Unavailable::NoNode) } else { Ok(addresses) }
}

/// That none of its ports is another's on the same nodes already; the older has it.
///
/// # Errors
/// One that is.
pub(super) fn ports_free(who: &Holder, others: &[Holder]) -> Result<(), Unavailable> {
    for other in others.iter().filter(|other| other.key != who.key && other.is_older_than(who)) {
        if let Some((protocol, port)) = who.ports.intersection(&other.ports).next() {
            return Err(Unavailable::Port { port: format!("{port}/{protocol}"), by: other.key.clone() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn node(name: &str, addresses: Value, ready: &str, labels: Value) -> Arc<Node> {
        let node = json!({
            "metadata": { "name": name, "labels": labels },
            "status": { "addresses": addresses, "conditions": [{ "type": "Ready", "status": ready }] },
        });
        Arc::new(serde_json::from_value(node).unwrap())
    }

    fn internal(address: &str) -> Value {
        json!([{ "type": "InternalIP", "address": address }, { "type": "Hostname", "address": "n" }])
    }

    fn texts(nodes: &[Arc<Node>], only: Option<&[&str]>) -> Vec<String> {
        let only = only.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        let published = published(nodes, &[false], only.as_ref()).unwrap_or_default();
        published.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn nodes_that_take_no_traffic_must_not_be_published() {
        let outside = json!([
            { "type": "InternalIP", "address": "10.0.0.2" }, { "type": "ExternalIP", "address": "192.0.2.2" },
            { "type": "InternalIP", "address": "fd00::2" },
        ]);
        let nodes = [
            node("a", internal("10.0.0.1"), "True", json!({})),
            node("b", outside, "True", json!({})),
            node("c", internal("10.0.0.3"), "Unknown", json!({})),
            node("d", internal("10.0.0.4"), "True", json!({ machinery::load_balancer::EXCLUDED: "" })),
        ];
        assert_eq!(texts(&nodes, None), ["10.0.0.1", "192.0.2.2"]);
        assert_eq!(texts(&nodes, Some(&["b", "c"])), ["192.0.2.2"]);
        assert_eq!(texts(&nodes, Some(&["c"])), [""; 0]);
    }

    #[test]
    fn a_node_whose_endpoint_still_serves_is_published() {
        let endpoint = |name: &str, conditions: Value| json!({ "addresses": ["10.1.0.1"], "nodeName": name, "conditions": conditions });
        let slice = json!({
            "metadata": { "name": "s" }, "addressType": "IPv4",
            "endpoints": [
                endpoint("a", json!({})),
                endpoint("b", json!({ "ready": false })),
                endpoint("c", json!({ "ready": false, "serving": true, "terminating": true })),
                endpoint("d", json!({ "ready": false, "serving": false, "terminating": true })),
            ],
        });
        let found = with_endpoints(&[Arc::new(serde_json::from_value(slice).unwrap())]);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["a", "c"]);
    }
}
