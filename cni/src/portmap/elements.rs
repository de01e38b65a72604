//! From mappings to the elements of the ruleset. Pure.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use netlink::nft::{Bytes, Element, Value};

use super::conf::{Conf, Mapping};
use crate::ruleset::{Family, Placed};

/// Every element that a container with these addresses needs. `addresses` has at most one of each family.
pub(super) fn elements(conf: &Conf, addresses: &[IpNet], comment: &str) -> Vec<Placed> {
    let mut placed: Vec<Placed> = Vec::new();
    for address in addresses {
        let v4 = address.addr().is_ipv4();
        for mapping in conf.mappings.iter().filter(|mapping| mapping.only_v4.is_none_or(|only| only == v4)) {
            // One mapping said twice is one, and one host port on several of the host's addresses needs one hairpin.
            let translation = translation(mapping, address.addr(), comment);
            for element in [translation].into_iter().chain(hairpins(conf, mapping, *address, comment)) {
                if !placed.contains(&element) {
                    placed.push(element);
                }
            }
        }
    }
    placed
}

fn translation(mapping: &Mapping, container: IpAddr, comment: &str) -> Placed {
    let family = Family::of(container.is_ipv4());
    let (set, key) = match mapping.host_ip {
        Some(host) => (family.hostports_at, Bytes::default().address(host)),
        None => (family.hostports, Bytes::default()),
    };
    let element = Element {
        value: Some(Value::Bytes(Bytes::default().address(container).port(mapping.container_port))),
        comment: Some(comment.to_owned()),
        ..Element::member(key.protocol(mapping.protocol.0).port(mapping.host_port))
    };
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
    let front = Bytes::default().protocol(mapping.protocol.0).port(mapping.host_port);
    let key = |source: IpAddr| front.clone().address(source).address(container.addr());
    sources
        .into_iter()
        .map(|source| Placed {
            set: Family::of(v4).hairpin,
            element: Element {
                end: Some(key(source.broadcast())),
                comment: Some(comment.to_owned()),
                ..Element::member(key(source.network()))
            },
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portmap::conf::Protocol;

    #[test]
    fn a_mapping_said_twice_must_not_be_taken_for_two() {
        let mapping = |container_port| Mapping {
            host_port: 8080,
            container_port,
            protocol: Protocol::UDP,
            host_ip: None,
            only_v4: None,
        };
        let of = |mappings: Vec<Mapping>| {
            let conf = Conf { mappings, snat: true, masquerade_all: false };
            elements(&conf, &["10.88.0.2/24".parse().unwrap()], "it")
        };
        let once = of(vec![mapping(80)]);
        assert_eq!(of(vec![mapping(80), mapping(80)]), once);
        assert_eq!(
            of(vec![mapping(80), mapping(81)]).len(),
            once.len() + 1,
            "one port that leads to two is an error"
        );
    }
}
