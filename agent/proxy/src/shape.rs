//! What of the ruleset follows from settings and from the node itself: whose traffic is pods', and on which addresses node ports are. Pure.

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use std::net::IpAddr;

/// How traffic of this node's pods is told from other traffic (`detectLocalMode`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pods {
    /// By its source's range: `ClusterCIDR`, and `NodeCIDR` once the node's ranges are known.
    Ranges(Vec<IpNet>),
    /// It comes by this link (`BridgeInterface`).
    Interface(String),
    /// It comes by a link whose name begins so (`InterfaceNamePrefix`).
    InterfacePrefix(String),
}

/// What the ruleset is made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Traffic of pods, which have a way back by themselves.
    pub pods: Pods,
    /// Every connection to a cluster IP gets the node's address as its source.
    pub masquerade_all: bool,
    /// Where among the node's own addresses node ports are; a family without any range has them on each address.
    pub node_port_ranges: Vec<IpNet>,
}

impl From<Vec<IpNet>> for Shape {
    /// Pods have addresses in these ranges; the rest is as by default.
    fn from(ranges: Vec<IpNet>) -> Self {
        Self { pods: Pods::Ranges(ranges), masquerade_all: false, node_port_ranges: Vec::new() }
    }
}

impl Shape {
    /// The ranges of node ports in a family; `None`: every address of the node but loopback ones.
    pub(crate) fn node_ports(&self, ipv6: bool) -> Option<Vec<IpNet>> {
        let own = self.node_port_ranges.iter().filter(|range| range.addr().is_ipv6() == ipv6);
        let own: Vec<IpNet> = own.copied().collect();
        (!own.is_empty() && own.iter().all(|range| range.prefix_len() > 0)).then_some(own)
    }

    /// Whether pods of a family can be told from others.
    pub(crate) fn knows_pods(&self, ipv6: bool) -> bool {
        match &self.pods {
            Pods::Ranges(ranges) => ranges.iter().any(|range| range.addr().is_ipv6() == ipv6),
            Pods::Interface(_) | Pods::InterfacePrefix(_) => true,
        }
    }

    /// The ranges of pods in a family.
    pub(crate) fn pod_ranges(&self) -> &[IpNet] {
        match &self.pods {
            Pods::Ranges(ranges) => ranges,
            Pods::Interface(_) | Pods::InterfacePrefix(_) => &[],
        }
    }
}

/// How traffic of pods is told from other traffic, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detect {
    /// It does not depend on the node.
    Fixed(Pods),
    /// By the node's `spec.podCIDRs`.
    NodeRanges,
}

/// Where node ports are (`nodePortAddresses`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodePorts {
    /// On the node's addresses in these ranges; without ranges on all of them.
    Ranges(Vec<IpNet>),
    /// On the node's primary addresses, one a family, as the Node object has them (`primary`).
    Primary,
}

/// The settings a shape is made of.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) detect: Detect,
    pub(crate) masquerade_all: bool,
    pub(crate) node_ports: NodePorts,
    /// The node's primary address, whatever its object says (`bindAddress`).
    pub(crate) bind: Option<IpAddr>,
}

impl Settings {
    /// The shape for a node; without one for a node nothing is known of.
    pub(crate) fn shape(&self, node: Option<&Node>) -> Shape {
        let pods = match &self.detect {
            Detect::Fixed(pods) => pods.clone(),
            Detect::NodeRanges => Pods::Ranges(node.map(pod_ranges).unwrap_or_default()),
        };
        let node_port_ranges = match &self.node_ports {
            NodePorts::Ranges(ranges) => ranges.clone(),
            NodePorts::Primary => self.primary(node).into_iter().map(IpNet::from).collect(),
        };
        Shape { pods, masquerade_all: self.masquerade_all, node_port_ranges }
    }

    /// The first address of each family, internal ones first; `bindAddress` stands for the one of its family. Upstream: `detectNodeIPs`.
    fn primary(&self, node: Option<&Node>) -> Vec<IpAddr> {
        let all = node.map(addresses).unwrap_or_default();
        let bind = self.bind.filter(|ip| !ip.is_unspecified());
        let of_family = |ipv6: bool| {
            let own = bind.into_iter().chain(all.iter().copied());
            own.into_iter().find(|ip| ip.is_ipv6() == ipv6).filter(|ip| !ip.is_loopback())
        };
        [false, true].into_iter().filter_map(of_family).collect()
    }
}

/// The first range of each family, as upstream's detector takes it.
fn pod_ranges(node: &Node) -> Vec<IpNet> {
    let spec = node.spec.as_ref();
    let several = spec.and_then(|spec| spec.pod_cidrs.as_deref()).unwrap_or_default();
    let single = spec.and_then(|spec| spec.pod_cidr.as_ref());
    let texts = several.iter().chain(single.filter(|_| several.is_empty()));
    let all: Vec<IpNet> = texts.filter_map(|text| text.parse().ok()).collect();
    let of_family = |ipv6: bool| all.iter().find(|range| range.addr().is_ipv6() == ipv6).copied();
    [false, true].into_iter().filter_map(of_family).collect()
}

fn addresses(node: &Node) -> Vec<IpAddr> {
    let all = || node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    let of = |kind: &'static str| all().filter(move |address| address.type_ == kind);
    of("InternalIP").chain(of("ExternalIP")).filter_map(|address| address.address.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node() -> Node {
        serde_json::from_value(json!({
            "spec": {"podCIDR": "10.244.3.0/24", "podCIDRs": ["10.244.3.0/24", "fd00:3::/64", "10.9.0.0/24"]},
            "status": {"addresses": [
                {"type": "Hostname", "address": "n1"},
                {"type": "ExternalIP", "address": "203.0.113.1"},
                {"type": "InternalIP", "address": "192.0.2.1"},
                {"type": "InternalIP", "address": "fd00::1"},
                {"type": "InternalIP", "address": "192.0.2.9"}
            ]}
        }))
        .unwrap()
    }

    fn settings() -> Settings {
        Settings {
            detect: Detect::NodeRanges,
            masquerade_all: false,
            node_ports: NodePorts::Primary,
            bind: None,
        }
    }

    fn nets(all: &[&str]) -> Vec<IpNet> {
        all.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_nodes_own_ranges_and_primary_addresses_are_its_objects() {
        let shape = settings().shape(Some(&node()));
        assert_eq!(shape.pods, Pods::Ranges(nets(&["10.244.3.0/24", "fd00:3::/64"])));
        assert_eq!(shape.node_port_ranges, nets(&["192.0.2.1/32", "fd00::1/128"]));
        let unknown = settings().shape(None);
        assert_eq!((unknown.pods, unknown.node_port_ranges), (Pods::Ranges(Vec::new()), Vec::new()));
    }

    #[test]
    fn the_bind_address_stands_for_the_primary_address_of_its_family() {
        let with = |bind: &str| Settings { bind: Some(bind.parse().unwrap()), ..settings() };
        let of = |bind: &str| with(bind).shape(Some(&node())).node_port_ranges;
        assert_eq!(of("198.51.100.7"), nets(&["198.51.100.7/32", "fd00::1/128"]));
        assert_eq!(of("0.0.0.0"), nets(&["192.0.2.1/32", "fd00::1/128"]));
        assert_eq!(of("127.0.0.1"), nets(&["fd00::1/128"]), "nobody reaches loopback from elsewhere");
    }

    #[test]
    fn a_family_without_ranges_must_not_lose_its_node_ports() {
        let shape = Shape { node_port_ranges: nets(&["192.0.2.0/24"]), ..Shape::from(Vec::new()) };
        assert_eq!(shape.node_ports(false), Some(nets(&["192.0.2.0/24"])));
        assert_eq!(shape.node_ports(true), None);
        let all = Shape { node_port_ranges: nets(&["192.0.2.0/24", "0.0.0.0/0"]), ..shape };
        assert_eq!(all.node_ports(false), None, "every address");
    }
}
