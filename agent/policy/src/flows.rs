//! Cutting the flows that policies do not allow any more: connection tracking forgets them, so that their next packet is judged as the
//! first of a connection.
//!
//! Deciding is pure: the rules themselves are asked ([`Ruleset::allows`]), of flows that touch an address whose rules allow less than before.
//! What the node sends or gets itself was never judged and is not now.

use crate::ruleset::{Packet, Ruleset};
use netlink::conntrack::{self, Flow};
use netlink::{Error, Kernel};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Forgets the flows from or to `addresses` that are not allowed; returns how many.
///
/// # Errors
/// The kernel does not list or delete flows.
pub async fn cut(kernel: &mut Kernel, addresses: BTreeSet<IpAddr>, rules: &Ruleset) -> Result<usize, Error> {
    if addresses.is_empty() {
        return Ok(0);
    }
    let concerned = move |socket: &mut netlink::Socket| {
        conntrack::list(socket, |flow| {
            addresses.contains(&flow.source.0) || addresses.contains(&flow.answers_from.0)
        })
    };
    let mut flows: Vec<Flow> = kernel.call(concerned).await?;
    let node = node_addresses();
    flows.retain(|flow| is_closed(rules, &packet(flow), &node));
    let count = flows.len();
    if count > 0 {
        kernel.call(move |socket| conntrack::delete(socket, &flows)).await?;
    }
    Ok(count)
}

/// The first packet of a flow, where it was judged: its destination is who answers.
fn packet(flow: &Flow) -> Packet {
    Packet {
        source: flow.source.0,
        destination: flow.answers_from.0,
        protocol: flow.protocol,
        port: flow.answers_from.1,
    }
}

fn is_closed(rules: &Ruleset, packet: &Packet, node: &BTreeSet<IpAddr>) -> bool {
    !node.contains(&packet.source) && !node.contains(&packet.destination) && !rules.allows(packet)
}

/// This node's own addresses.
fn node_addresses() -> BTreeSet<IpAddr> {
    let all = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let ip = |address: nix::sys::socket::SockaddrStorage| {
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().into()))
    };
    all.filter_map(|interface| interface.address.and_then(ip)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Model;
    use crate::object::{read_pod, read_policy};
    use client::Key;
    use serde_json::json;

    #[test]
    fn what_the_node_sends_must_not_be_cut() {
        let mut model = Model::default();
        let pod = json!({"spec": {"nodeName": "n1", "containers": []}, "status": {"podIP": "10.244.1.2"}});
        let pod = read_pod(&serde_json::from_value(pod).unwrap(), "n1");
        model.set_pod(&Key::new("default", "a"), pod, None);
        let deny = json!({"spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}});
        let deny = read_policy(&serde_json::from_value(deny).unwrap(), &"default".into());
        model.set_policy(&Key::new("default", "deny"), Some(deny));
        let node = BTreeSet::from(["10.244.1.1".parse().unwrap(), "192.168.7.1".parse().unwrap()]);
        let closed = |from: &str, to: &str| {
            let packet = Packet {
                source: from.parse().unwrap(),
                destination: to.parse().unwrap(),
                protocol: 6,
                port: 80,
            };
            is_closed(model.rules(), &packet, &node)
        };
        let (pod, peer) = ("10.244.1.2", "10.244.2.2");
        assert!(closed(peer, pod) && closed(pod, peer));
        assert!(
            !closed("10.244.1.1", pod) && !closed(pod, "192.168.7.1"),
            "the node, and who is on its network"
        );
        assert!(!closed(peer, "10.244.1.3") && !closed(pod, pod));
    }

    #[test]
    fn the_loopback_address_is_the_nodes() {
        assert!(node_addresses().contains(&IpAddr::from([127, 0, 0, 1])));
    }
}
