//! Links that carry packets to nodes no link of ours leads to: what is wanted of one, and what is there.
//!
//! # Names
//!
//! There is one link for each family of node addresses, because a VXLAN link speaks one. Its hardware address is derived from the node's name:
//! nobody has to publish it, every node knows every other's from the Node object alone, and a machine that is set up anew under its old name has its
//! old one. 46 bits of SHA-256 make two of 5,000 nodes collide once in five million clusters; that is noticed and said.
//!
//! A node has the first address of its range, which is its bridge's, on the link, too. So what it sends itself to pods elsewhere comes from an address that pods are
//! reached by, and finds its way back by the same link. For IPv4 that is also the next hop of others' routes; for IPv6 it is the address on the link that
//! follows from the hardware address: the kernel takes no next hop that another link leads to, and while a route moves the old one still does. Neighbour and forwarding
//! entries are permanent and ours; the link learns nothing, and asks nobody.
//!
//! # MTU
//!
//! An overlay takes 50 bytes of each packet over IPv4 and 70 over IPv6; the link's own MTU is the least of the links that lead to its nodes, less that.
//! Pods keep the MTU of the node's link on their interface, so that those of one node always take each other's packets on the bridge, however old they are. A new pod's default route
//! has the overlay's MTU where an overlay is in use. A pod that is older than that sends a packet that is too long; its own node, whose
//! route is by the smaller link, says so at once (ICMP, never lost on the way: it crosses the bridge only), and the pod's kernel remembers it for that destination.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use netlink::{link::Mac, vxlan::Vxlan};
use sha2::{Digest, Sha256};

/// A link of ours to other nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Device {
    /// VXLAN between IPv4 addresses of nodes.
    Vxlan4,
    /// The same between IPv6 addresses.
    Vxlan6,
}

impl Device {
    pub(crate) const ALL: [Self; 2] = [Self::Vxlan4, Self::Vxlan6];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Vxlan4 => "wl-vxlan",
            Self::Vxlan6 => "wl-vxlan6",
        }
    }

    /// The one for nodes at addresses of a family.
    pub(crate) fn towards(ipv6: bool) -> Self {
        if ipv6 { Self::Vxlan6 } else { Self::Vxlan4 }
    }

    /// Between which addresses of nodes.
    pub(crate) fn is_ipv6(self) -> bool {
        self == Self::Vxlan6
    }

    /// Bytes it adds to a packet: Ethernet, VXLAN, UDP, IP.
    pub(crate) fn overhead(self) -> u32 {
        14 + 8 + 8 + if self.is_ipv6() { 40 } else { 20 }
    }

    pub(crate) fn unspecified(self) -> IpAddr {
        if self.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// The names of all links there may be, for whoever takes them away.
#[must_use]
pub fn links() -> Vec<&'static str> {
    Device::ALL.into_iter().map(Device::name).collect()
}

/// Where frames for a hardware address go, and where that address is told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Overlay {
    /// Bytes.
    pub(crate) mtu: u32,
    /// Our own hardware address on it.
    pub(crate) mac: Mac,
    pub(crate) vxlan: Vxlan,
    /// Our own addresses on it.
    pub(crate) addresses: BTreeSet<IpNet>,
    /// Next hops.
    pub(crate) neighbours: BTreeMap<IpAddr, Mac>,
    /// Nodes, by hardware address.
    pub(crate) forwarding: BTreeMap<Mac, IpAddr>,
}

/// A link of one of our names, as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Present {
    pub(crate) index: u32,
    pub(crate) up: bool,
    pub(crate) mtu: u32,
    pub(crate) mac: Option<Mac>,
    /// `None`: it is no VXLAN link, and so not of us.
    pub(crate) vxlan: Option<Vxlan>,
    pub(crate) addresses: BTreeSet<IpNet>,
    pub(crate) neighbours: BTreeMap<IpAddr, Mac>,
    /// Somebody else may have said several machines of one.
    pub(crate) forwarding: BTreeSet<(Mac, IpAddr)>,
}

/// The hardware address of a node on overlay links: locally administered, for one machine.
pub(crate) fn mac(node: &str) -> Mac {
    let digest = Sha256::digest(format!("windlass overlay {node}"));
    let mut bytes: [u8; 6] = std::array::from_fn(|place| digest[place]);
    bytes[0] = (bytes[0] & 0xfc) | 0x02;
    Mac(bytes)
}

/// The next hop on overlay links to a pod range of the node with this hardware address.
pub(crate) fn next_hop(range: &IpNet, mac: Mac) -> IpAddr {
    if range.addr().is_ipv4() {
        return own_address(range);
    }
    let Mac([a, b, c, d, e, f]) = mac;
    let host = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(host)).into()
}

/// The address on overlay links of the node that has a pod range: the range's first.
pub(crate) fn own_address(range: &IpNet) -> IpAddr {
    match range.network() {
        IpAddr::V4(ip) if range.prefix_len() < 32 => Ipv4Addr::from_bits(ip.to_bits() | 1).into(),
        IpAddr::V6(ip) if range.prefix_len() < 128 => Ipv6Addr::from_bits(ip.to_bits() | 1).into(),
        whole => whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_hardware_address_is_its_names_for_ever() {
        // every node of every version has to come to the same
        assert_eq!(mac("n1").to_string(), mac("n1").to_string());
        let mut seen = BTreeSet::new();
        for number in 0..5000 {
            let Mac(bytes) = mac(&format!("node-{number}.example.com"));
            assert_eq!(bytes[0] & 3, 2, "local, and of one machine");
            assert!(seen.insert(bytes), "node-{number}");
        }
    }

    #[test]
    fn the_next_hop_is_the_bridges_address_and_for_ipv6_the_links() {
        let of = |text: &str| text.parse().unwrap();
        let own = |text: &str| own_address(&of(text)).to_string();
        assert_eq!(own("10.244.3.0/24"), "10.244.3.1");
        assert_eq!(own("fd00:3::/64"), "fd00:3::1");
        assert_eq!(own("10.244.3.7/32"), "10.244.3.7");
        let hop = |text: &str| next_hop(&of(text), Mac([0x1a, 0xff, 0x48, 0x5b, 0x9b, 0x16])).to_string();
        assert_eq!(hop("10.244.3.0/24"), "10.244.3.1");
        assert_eq!(hop("fd00:3::/64"), "fe80::18ff:48ff:fe5b:9b16", "as the kernel makes it of the same");
    }

    #[test]
    fn headers_take_what_they_take() {
        assert_eq!([Device::Vxlan4.overhead(), Device::Vxlan6.overhead()], [50, 70]);
    }
}
