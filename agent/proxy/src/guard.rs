//! From where a service's load balancer addresses may be reached (`loadBalancerSourceRanges`), as upstream's `nftables/proxier.go` reads it.
//! Pure. Node ports and external addresses are not subject to it.

use crate::model::Front;
use crate::service::Service;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The guarded fronts of a service and from where each is reached; ranges do not overlap. `node` are the addresses of this node.
pub(crate) fn guarded(service: &Service, node: &[IpAddr]) -> BTreeMap<Front, Vec<IpNet>> {
    let mut out = BTreeMap::new();
    for ipv6 in service.families() {
        let allowed = allowed(service, node, ipv6);
        if allowed.is_empty() {
            continue;
        }
        for port in &service.ports {
            let own = service.load_balancer_ips.iter().filter(|ip| ip.is_ipv6() == ipv6);
            let fronts = own.map(|ip| Front::Address(*ip, port.protocol, port.port));
            out.extend(fronts.map(|front| (front, allowed.clone())));
        }
    }
    out
}

/// The ranges of one family; none: anybody.
fn allowed(service: &Service, node: &[IpAddr], ipv6: bool) -> Vec<IpNet> {
    let of_family = service.source_ranges.iter().filter(|range| range.addr().is_ipv6() == ipv6);
    let mut ranges: Vec<IpNet> = of_family.map(IpNet::trunc).collect();
    if ranges.iter().any(|range| range.prefix_len() == 0) {
        return Vec::new();
    }
    // A load balancer's address may be this node's, too: what it sends there comes from that address.
    if ranges.iter().any(|range| node.iter().any(|ip| range.contains(ip))) {
        let own = service.load_balancer_ips.iter().filter(|ip| ip.is_ipv6() == ipv6);
        ranges.extend(own.copied().map(IpNet::from));
    }
    IpNet::aggregate(&ranges)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::{Port, Protocol};

    fn service(ranges: &[&str]) -> Service {
        let ips = |all: &[&str]| all.iter().map(|ip| ip.parse().unwrap()).collect();
        Service {
            cluster_ips: ips(&["10.96.0.5", "fd00::5"]),
            external_ips: ips(&["203.0.113.1", "198.51.100.1", "2001:db8::1"]),
            load_balancer_ips: ips(&["198.51.100.1", "2001:db8::1"]),
            source_ranges: ranges.iter().map(|range| range.parse().unwrap()).collect(),
            ports: vec![Port { name: String::new(), protocol: Protocol::Tcp, port: 80, node_port: 30080 }],
            ..Service::default()
        }
    }

    fn described(ranges: &[&str], node: &str) -> Vec<String> {
        let guarded = guarded(&service(ranges), &[node.parse().unwrap()]);
        let line = |(front, ranges): (Front, Vec<IpNet>)| {
            let Front::Address(ip, ..) = front else { panic!("{front:?}") };
            let ranges: Vec<String> = ranges.iter().map(ToString::to_string).collect();
            format!("{ip} {}", ranges.join(" "))
        };
        guarded.into_iter().map(line).collect()
    }

    #[test]
    fn a_load_balancer_must_not_let_in_whom_its_ranges_leave_out() {
        let node = "192.168.7.1";
        assert_eq!(described(&[], node), [""; 0]);
        assert_eq!(described(&["192.0.2.0/24"], node), ["198.51.100.1 192.0.2.0/24"], "its family alone");
        assert_eq!(
            described(&["192.0.2.0/25", "192.0.2.129/25", "192.0.2.7/32"], node),
            ["198.51.100.1 192.0.2.0/24"],
            "the kernel takes no range twice"
        );
        assert_eq!(described(&["192.0.2.0/24", "0.0.0.0/0"], node), [""; 0], "anybody");
        assert_eq!(
            described(&["192.168.7.0/24", "2001:db8:1::/48"], node),
            ["198.51.100.1 192.168.7.0/24 198.51.100.1/32", "2001:db8::1 2001:db8:1::/48"],
            "this node by the address itself"
        );
    }
}
