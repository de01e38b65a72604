//! The few fields of Service and EndpointSlice the proxy keeps, read from the API's types.

use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Name of a service: namespace and name.
pub type ServiceName = (String, String);

/// What a client connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Front {
    /// An address of the service.
    Address(IpAddr, Protocol, u16),
    /// A port on any of the node's own addresses; the flag says IPv6.
    NodePort(bool, Protocol, u16),
}

impl Front {
    /// Whether the front belongs to the IPv6 table.
    #[must_use]
    pub fn is_ipv6(&self) -> bool {
        match self {
            Self::Address(ip, ..) => ip.is_ipv6(),
            Self::NodePort(v6, ..) => *v6,
        }
    }

    /// Protocol and port.
    #[must_use]
    pub fn port(&self) -> (Protocol, u16) {
        match *self {
            Self::Address(_, protocol, port) | Self::NodePort(_, protocol, port) => (protocol, port),
        }
    }
}

/// Transport protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// `TCP`
    Tcp,
    /// `UDP`
    Udp,
    /// `SCTP`
    Sctp,
}

impl Protocol {
    /// As nft prints it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// The number in an IP header.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The protocol with a number.
    #[must_use]
    pub fn of_number(number: u8) -> Option<Self> {
        [Self::Tcp, Self::Udp, Self::Sctp].into_iter().find(|protocol| protocol.number() == number)
    }

    fn read(name: Option<&str>) -> Option<Self> {
        match name {
            None | Some("TCP" | "") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some("SCTP") => Some(Self::Sctp),
            Some(_) => None,
        }
    }
}

/// One port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name, empty when it is the only one; matches an EndpointSlice port's name.
    pub name: String,
    /// `TCP` where the API object names none.
    pub protocol: Protocol,
    /// Port on the service's addresses.
    pub port: u16,
    /// Port on every node, 0 for none.
    pub node_port: u16,
}

/// A service the proxy serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// `metadata.creationTimestamp`: of services that ask for the same address and port the oldest has it.
    pub created: Timestamp,
    /// `spec.clusterIPs`.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs` and the VIP-mode load balancer addresses: reached from outside.
    pub external_ips: Vec<IpAddr>,
    /// Those of them that are a load balancer's.
    pub load_balancer_ips: Vec<IpAddr>,
    /// `spec.loadBalancerSourceRanges`: who may use these; anybody where none is given.
    pub source_ranges: Vec<IpNet>,
    /// `spec.ports`.
    pub ports: Vec<Port>,
    /// Session affinity by client address: how long a client stays, in seconds.
    pub affinity: Option<u32>,
    /// `externalTrafficPolicy: Local`.
    pub external_local: bool,
    /// `internalTrafficPolicy: Local`.
    pub internal_local: bool,
    /// `spec.healthCheckNodePort`, 0 for none.
    pub health_check_node_port: u16,
}

impl Service {
    /// The families it is served in, `true` for IPv6.
    pub(crate) fn families(&self) -> BTreeSet<bool> {
        self.cluster_ips.iter().map(IpAddr::is_ipv6).collect()
    }

    /// Every front it asks for, whatever is behind it, and whether that is anything but one of its cluster IPs.
    pub(crate) fn fronts(&self) -> BTreeMap<Front, bool> {
        self.ports.iter().flat_map(|port| self.fronts_of(port)).collect()
    }

    /// The same for one of its ports.
    pub(crate) fn fronts_of(&self, port: &Port) -> BTreeMap<Front, bool> {
        let families = self.families();
        let at = |ip: &IpAddr| Front::Address(*ip, port.protocol, port.port);
        let external = self.external_ips.iter().filter(|ip| families.contains(&ip.is_ipv6()));
        let mut out: BTreeMap<Front, bool> = external.map(|ip| (at(ip), true)).collect();
        out.extend(self.cluster_ips.iter().map(|ip| (at(ip), false)));
        if port.node_port != 0 {
            out.extend(families.iter().map(|v6| (Front::NodePort(*v6, port.protocol, port.node_port), true)));
        }
        out
    }
}

/// One endpoint of a slice with the ports of its slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// `addresses[0]` of the endpoint.
    pub address: IpAddr,
    /// Condition ready (absent means true).
    pub ready: bool,
    /// Condition serving (absent means true, as upstream's `endpointslicecache.go` reads it).
    pub serving: bool,
    /// Condition terminating (absent means false).
    pub terminating: bool,
    /// The node it runs on.
    pub node: String,
    /// Zones that should prefer it (`hints.forZones`).
    pub for_zones: Vec<String>,
    /// Nodes that should prefer it (`hints.forNodes`).
    pub for_nodes: Vec<String>,
}

/// What the proxy reads of an EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// The service it belongs to (label `kubernetes.io/service-name`).
    pub service: String,
    /// Port name, protocol and number.
    pub ports: Vec<(String, Protocol, u16)>,
    /// Endpoints of `endpoints` with an address.
    pub endpoints: Vec<SliceEndpoint>,
}

/// Reads a service; `None` when it is not for us: headless, ExternalName, or handed to another proxy by label.
#[must_use]
pub(crate) fn read_service(service: &core::Service) -> Option<Service> {
    let spec = service.spec.as_ref()?;
    let labels = service.metadata.labels.as_ref();
    if labels.is_some_and(|l| l.contains_key("service.kubernetes.io/service-proxy-name")) {
        return None;
    }
    if spec.type_.as_deref() == Some("ExternalName")
        || spec.cluster_ip.as_deref().is_none_or(|ip| ip.is_empty() || ip == "None")
    {
        return None;
    }
    let parse = |list: &Option<Vec<String>>| -> Vec<IpAddr> {
        list.iter().flatten().filter_map(|ip| ip.parse().ok()).collect()
    };
    let mut cluster_ips = parse(&spec.cluster_ips);
    if cluster_ips.is_empty() {
        cluster_ips.extend(spec.cluster_ip.as_deref().and_then(|ip| ip.parse::<IpAddr>().ok()));
    }
    let mut external_ips = parse(&spec.external_ips);
    let ingress =
        service.status.as_ref().and_then(|s| s.load_balancer.as_ref()).and_then(|l| l.ingress.as_ref());
    let vip = |i: &&core::LoadBalancerIngress| i.ip_mode.as_deref() != Some("Proxy");
    let ingress = ingress.into_iter().flatten().filter(vip);
    let load_balancer_ips: Vec<IpAddr> = ingress.filter_map(|i| i.ip.as_deref()?.parse().ok()).collect();
    external_ips.extend(&load_balancer_ips);
    // validation lets blanks through
    let ranges = spec.load_balancer_source_ranges.iter().flatten();
    let ports = spec.ports.iter().flatten().filter_map(|p| {
        Some(Port {
            name: p.name.clone().unwrap_or_default(),
            protocol: Protocol::read(p.protocol.as_deref())?,
            port: u16::try_from(p.port).ok()?,
            node_port: p.node_port.and_then(|n| u16::try_from(n).ok()).unwrap_or(0),
        })
    });
    let affinity = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
        let config = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref());
        config.and_then(|c| c.timeout_seconds).and_then(|s| u32::try_from(s).ok()).unwrap_or(10800)
    });
    Some(Service {
        created: service.metadata.creation_timestamp.as_ref().map(|time| time.0).unwrap_or_default(),
        cluster_ips,
        external_ips,
        load_balancer_ips,
        source_ranges: ranges.filter_map(|range| range.trim().parse().ok()).collect(),
        ports: ports.collect(),
        affinity,
        external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
        internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
        health_check_node_port: spec.health_check_node_port.and_then(|p| u16::try_from(p).ok()).unwrap_or(0),
    })
}

/// Reads a slice; `None` when it names no service or holds host names.
#[must_use]
pub(crate) fn read_slice(slice: &discovery::EndpointSlice) -> Option<Slice> {
    let service = slice.metadata.labels.as_ref()?.get("kubernetes.io/service-name")?.clone();
    if slice.address_type == "FQDN" {
        return None;
    }
    let ports = slice.ports.iter().flatten().filter_map(|p| {
        let port = u16::try_from(p.port?).ok()?;
        Some((p.name.clone().unwrap_or_default(), Protocol::read(p.protocol.as_deref())?, port))
    });
    let endpoints = slice.endpoints.iter().flatten().filter_map(|e| {
        let conditions = e.conditions.as_ref();
        let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
        let hints = e.hints.as_ref();
        Some(SliceEndpoint {
            // all addresses of an endpoint are the same endpoint; upstream uses the first
            address: e.addresses.first()?.parse().ok()?,
            ready,
            serving: conditions.and_then(|c| c.serving).unwrap_or(true),
            terminating: conditions.and_then(|c| c.terminating).unwrap_or(false),
            node: e.node_name.clone().unwrap_or_default(),
            for_zones: hints
                .into_iter()
                .flat_map(|h| h.for_zones.iter().flatten())
                .map(|z| z.name.clone())
                .collect(),
            for_nodes: hints
                .into_iter()
                .flat_map(|h| h.for_nodes.iter().flatten())
                .map(|n| n.name.clone())
                .collect(),
        })
    });
    Some(Slice { service, ports: ports.collect(), endpoints: endpoints.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn endpoint(conditions: Value) -> SliceEndpoint {
        let slice = json!({
            "metadata": {"labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": conditions}],
        });
        read_slice(&serde_json::from_value(slice).unwrap()).unwrap().endpoints.remove(0)
    }

    #[test]
    fn addresses_of_a_load_balancer_that_is_a_proxy_must_not_be_taken() {
        let points = json!([
            {"ip": "192.0.2.1", "ipMode": "VIP"}, {"ip": "192.0.2.2", "ipMode": "Proxy"}, {"ip": "2001:db8::1"},
            {"hostname": "lb.example.com"},
        ]);
        let service = json!({
            "spec": {
                "type": "LoadBalancer", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::1"],
                "allocateLoadBalancerNodePorts": false, "externalTrafficPolicy": "Local", "healthCheckNodePort": 30001,
                "loadBalancerSourceRanges": [" 203.0.113.0/24", "2001:db8:1::/48 "],
                "ports": [{"port": 80}],
            },
            "status": {"loadBalancer": {"ingress": points}},
        });
        let read = read_service(&serde_json::from_value(service).unwrap()).unwrap();
        let ips: Vec<IpAddr> = ["192.0.2.1", "2001:db8::1"].map(|ip| ip.parse().unwrap()).into();
        assert_eq!((&read.load_balancer_ips, &read.external_ips), (&ips, &ips));
        assert_eq!((read.source_ranges.len(), read.external_local), (2, true));
        assert_eq!((read.ports[0].node_port, read.health_check_node_port), (0, 30001));
        assert!(read.fronts().keys().all(|front| matches!(front, Front::Address(..))), "no port of the node");
    }

    #[test]
    fn an_endpoint_that_leaves_must_not_be_lost_for_want_of_a_condition() {
        let leaving = endpoint(json!({"ready": false, "terminating": true}));
        assert_eq!((leaving.ready, leaving.serving, leaving.terminating), (false, true, true));
        let gone = endpoint(json!({"ready": false, "serving": false, "terminating": true}));
        assert_eq!((gone.ready, gone.serving), (false, false));
        let plain = endpoint(json!({}));
        assert_eq!((plain.ready, plain.serving, plain.terminating), (true, true, false));
    }
}
