//! Which link an address is on: the one whose range it is in, else the one by which the node itself is reached (a router may lead there).

use ipnet::IpNet;
use netlink::link::Mac;
use netlink::{Error, Socket, address, link};
use std::net::{IpAddr, Ipv6Addr};

/// A link that frames can be sent by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) mac: Mac,
    /// Up, with a carrier as far as is known.
    pub(crate) works: bool,
    pub(crate) addresses: Vec<IpNet>,
}

impl Link {
    /// An address of its own on the link itself.
    pub(crate) fn local(&self) -> Option<Ipv6Addr> {
        self.addresses.iter().find_map(|net| match net.addr() {
            IpAddr::V6(v6) if v6.is_unicast_link_local() => Some(v6),
            _ => None,
        })
    }
}

/// The links with a hardware address and an address.
///
/// # Errors
/// The kernel's.
pub(crate) fn observe(socket: &mut Socket) -> Result<Vec<Link>, Error> {
    let mut all = address::list_all(socket)?;
    let links = link::list(socket)?.into_iter().filter(|link| link.up).filter_map(|link| {
        let mac = link.mac.filter(|mac| mac.0 != [0; 6])?;
        let own = all.extract_if(.., |(index, _)| *index == link.index);
        let addresses: Vec<IpNet> = own.map(|(_, net)| net).collect();
        (!addresses.is_empty()).then_some(Link {
            index: link.index,
            name: link.name,
            mac,
            works: link.running,
            addresses,
        })
    });
    Ok(links.collect())
}

/// The link of `address` on a node with the addresses `node`.
pub(crate) fn of<'a>(address: IpAddr, links: &'a [Link], node: &[IpAddr]) -> Option<&'a Link> {
    let width = |link: &Link| {
        let nets = link.addresses.iter().filter(|net| net.contains(&address));
        // All of a family is no range of a link.
        nets.map(IpNet::prefix_len).filter(|length| *length > 0).max()
    };
    let near = links.iter().filter_map(|link| Some((width(link)?, link))).max_by_key(|(length, _)| *length);
    let reached = |family_too: bool| {
        let own = node.iter().filter(|own| !family_too || own.is_ipv6() == address.is_ipv6());
        let mut has = own
            .filter_map(|own| links.iter().find(|link| link.addresses.iter().any(|net| net.addr() == *own)));
        has.next()
    };
    near.map(|(_, link)| link).or_else(|| reached(true)).or_else(|| reached(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, addresses: &[&str]) -> Link {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        Link { index, name: format!("l{index}"), mac: Mac([2, 0, 0, 0, 0, 1]), works: true, addresses }
    }

    #[test]
    fn an_address_is_on_the_link_of_its_range_or_the_nodes_own() {
        let links = [
            link(2, &["192.0.2.7/24", "fe80::7/64"]),
            link(3, &["192.0.2.130/26", "10.0.0.1/8"]),
            link(4, &["203.0.113.5/32"]),
        ];
        let node: Vec<IpAddr> = vec!["203.0.113.5".parse().unwrap()];
        let index = |text: &str| of(text.parse().unwrap(), &links, &node).map(|link| link.index);
        assert_eq!(index("192.0.2.9"), Some(2));
        assert_eq!(index("192.0.2.150"), Some(3), "the narrower range");
        assert_eq!(index("198.51.100.1"), Some(4));
        assert_eq!(index("2001:db8::1"), Some(4));
        assert_eq!(of("2001:db8::1".parse().unwrap(), &links, &[]), None);
    }
}
