//! From mappings to the elements of the ruleset. Pure.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::conf::{Conf, Mapping};
use crate::{
    nft::{Element, Target},
    ruleset::{Family, Placed, octets},
};

/// Every element that a container with these addresses needs. `addresses` has at most one of each family.
pub(super) fn elements(conf: &Conf, addresses: &[IpNet], comment: &str) -> Vec<Placed> {
    let mut placed: Vec<Placed> = Vec::new();
    for address in addresses {
        let v4 = address.addr().is_ipv4();
        for mapping in conf.mappings.iter().filter(|mapping| mapping.only_v4.is_none_or(|only| only == v4)) {
            placed.push(translation(mapping, address.addr(), comment));
            for hairpin in hairpins(conf, mapping, *address, comment) {
                // One host port on several of the host's addresses needs it once.
                if !placed.contains(&hairpin) {
                    placed.push(hairpin);
                }
            }
        }
    }
    placed
}

/// Fields of a key or value each begin at a multiple of four bytes.
fn joined(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(part);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

fn translation(mapping: &Mapping, container: IpAddr, comment: &str) -> Placed {
    let family = Family::of(container.is_ipv4());
    let (protocol, port) = ([mapping.protocol.0], mapping.host_port.to_be_bytes());
    let (set, key) = match mapping.host_ip {
        Some(host) => (family.hostports_at.name, joined(&[&octets(host), &protocol, &port])),
        None => (family.hostports.name, joined(&[&protocol, &port])),
    };
    let value = joined(&[&octets(container), &mapping.container_port.to_be_bytes()]);
    let element = Element { key, end: None, value: Some(Target::Value(value)), comment: comment.to_owned() };
    Placed { set, element }
}

/// Whose answers would not come back through the host: the container's own subnet, which has a direct way, and the
/// host's loopback addresses, which are nobody's outside.
fn hairpins(conf: &Conf, mapping: &Mapping, container: IpNet, comment: &str) -> Vec<Placed> {
    let v4 = container.addr().is_ipv4();
    let everyone: IpNet =
        if v4 { IpNet::V4(ipnet::Ipv4Net::default()) } else { IpNet::V6(ipnet::Ipv6Net::default()) };
    let sources = if conf.masquerade_all {
        vec![everyone]
    } else if !conf.snat {
        Vec::new()
    } else if v4 {
        let loopback = ipnet::Ipv4Net::new(Ipv4Addr::new(127, 0, 0, 0), 8).map(IpNet::V4);
        [Ok(container.trunc()), loopback].into_iter().flatten().collect()
    } else {
        vec![container.trunc()]
    };
    let (protocol, port) = ([mapping.protocol.0], mapping.host_port.to_be_bytes());
    let key = |source: IpAddr| joined(&[&protocol, &port, &octets(source), &octets(container.addr())]);
    sources
        .into_iter()
        .map(|source| Placed {
            set: Family::of(v4).hairpin.name,
            element: Element {
                key: key(source.network()),
                end: Some(key(source.broadcast())),
                value: None,
                comment: comment.to_owned(),
            },
        })
        .collect()
}
