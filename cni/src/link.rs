//! Links, addresses and routes: requests are built with `netlink-packet-route`, answers are read by hand,
//! because only a few attributes matter and a kernel newer than the crate must not make us fail.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope},
    link::{
        InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkFlags,
        LinkInfo, LinkMessage,
    },
    route::{RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope, RouteType},
};

use crate::{
    netlink::{NetlinkError, Request, Socket, attributes, find, flags, number_of, text_of},
    result::Route,
};

const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;
const GETLINK: u16 = 18;
const NEWADDR: u16 = 20;
const DELADDR: u16 = 21;
const GETADDR: u16 = 22;
const NEWROUTE: u16 = 24;
const GETROUTE: u16 = 26;

const DELNEIGH: u16 = 29;

const OPERATIONALLY_UP: u8 = 6;
const IFINFO: usize = 16;
const IFADDR: usize = 8;
const RTMSG: usize = 12;

/// A hardware address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(formatter, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl std::str::FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2);
            *byte = part
                .and_then(|part| u8::from_str_radix(part, 16).ok())
                .ok_or_else(|| "not a hardware address".to_owned())?;
        }
        if parts.next().is_some() || bytes[0] & 1 == 1 {
            return Err("not a unicast hardware address of 6 bytes".to_owned());
        }
        Ok(Self(bytes))
    }
}

/// What is known of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// `bridge`, `veth`; empty for hardware and `lo`.
    pub kind: String,
    /// Hardware address, where it has one of 6 bytes.
    pub mac: Option<Mac>,
    /// Bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Up in fact: with a carrier that has been acted on.
    pub operational: bool,
    /// Receives what is not addressed to it.
    pub promiscuous: bool,
    /// The bridge it is a port of.
    pub controller: Option<u32>,
    /// Free text kept with the link.
    pub alias: String,
}

impl Link {
    fn parse(body: &[u8]) -> Option<Self> {
        let header = body.first_chunk::<IFINFO>()?;
        let flag_bits = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
        let flag_bits = LinkFlags::from_bits_retain(flag_bits);
        let mut link = Self {
            index: u32::from_ne_bytes([header[4], header[5], header[6], header[7]]),
            name: String::new(),
            kind: String::new(),
            mac: None,
            mtu: 0,
            up: flag_bits.contains(LinkFlags::Up),
            operational: false,
            promiscuous: flag_bits.contains(LinkFlags::Promisc),
            controller: None,
            alias: String::new(),
        };
        for (kind, value) in attributes(&body[IFINFO..]) {
            match kind {
                1 => link.mac = value.try_into().ok().map(Mac),
                3 => link.name = text_of(value).to_owned(),
                4 => link.mtu = number_of(value).unwrap_or(0),
                16 => link.operational = value == [OPERATIONALLY_UP],
                10 => link.controller = number_of(value),
                18 => link.kind = find(value, 1).map(text_of).unwrap_or_default().to_owned(),
                20 => link.alias = text_of(value).to_owned(),
                _ => {}
            }
        }
        Some(link)
    }
}

/// A veth pair, one end of which is made inside a container's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Veth {
    /// The end on the host, a port of the bridge and up.
    pub host: String,
    /// The end in the container, still down.
    pub container: String,
    /// Bytes; the kernel's default if absent.
    pub mtu: Option<u32>,
    /// Of the container's end; the kernel's choice if absent.
    pub mac: Option<Mac>,
    /// Kept with the host's end.
    pub alias: String,
    /// The bridge port may send back where a frame came from.
    pub hairpin: bool,
    /// The bridge port may not speak to other such ports.
    pub isolated: bool,
}

/// Requests that make the bridge, with a hardware address of its own so that it does not change as ports come and go.
#[must_use]
pub fn new_bridge(name: &str, mac: Mac, mtu: Option<u32>, promiscuous: bool) -> Request {
    let mut message = LinkMessage::default();
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    if promiscuous {
        message.header.flags |= LinkFlags::Promisc;
        message.header.change_mask |= LinkFlags::Promisc;
    }
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
        LinkAttribute::Address(mac.0.to_vec()),
    ];
    message.attributes.extend(mtu.map(LinkAttribute::Mtu));
    Request::new(NEWLINK, flags::CREATE | flags::EXCL, &message)
}

/// Requests that make a veth pair as described; `netns` is the container's namespace.
#[must_use]
pub fn new_veth(veth: &Veth, bridge: u32, netns: std::os::fd::RawFd) -> Vec<Request> {
    let mut peer = LinkMessage::default();
    peer.attributes = vec![LinkAttribute::IfName(veth.container.clone()), LinkAttribute::NetNsFd(netns)];
    peer.attributes.extend(veth.mtu.map(LinkAttribute::Mtu));
    peer.attributes.extend(veth.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    let mut create = LinkMessage::default();
    create.header.flags = LinkFlags::Up;
    create.header.change_mask = LinkFlags::Up;
    create.attributes = vec![LinkAttribute::IfName(veth.host.clone()), LinkAttribute::Controller(bridge)];
    create.attributes.extend(veth.mtu.map(LinkAttribute::Mtu));
    create.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    let mut port = LinkMessage::default();
    port.attributes = vec![
        LinkAttribute::IfName(veth.host.clone()),
        LinkAttribute::IfAlias(veth.alias.clone()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(vec![
                InfoBridgePort::HairpinMode(veth.hairpin),
                InfoBridgePort::Isolated(veth.isolated),
            ])),
        ]),
    ];
    vec![
        Request::new(NEWLINK, flags::CREATE | flags::EXCL, &create),
        // What a link is created with excludes its alias and port settings; a second message in the same datagram
        // leaves no moment in which the link exists without them.
        Request::new(NEWLINK, 0, &port),
    ]
}

/// Brings a link up, and lets it receive everything if `promiscuous`.
#[must_use]
pub fn raise(index: u32, promiscuous: bool) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    if promiscuous {
        message.header.flags |= LinkFlags::Promisc;
        message.header.change_mask |= LinkFlags::Promisc;
    }
    Request::new(NEWLINK, 0, &message)
}

/// Sets a link's MTU.
#[must_use]
pub fn set_mtu(index: u32, mtu: u32) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = vec![LinkAttribute::Mtu(mtu)];
    Request::new(NEWLINK, 0, &message)
}

/// Removes a link, and with a veth its peer.
#[must_use]
pub fn delete_link(name: &str) -> Request {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::IfName(name.to_owned())];
    Request::new(DELLINK, 0, &message)
}

/// Gives a link an address. Without duplicate detection: addresses are granted, and waiting for it costs a second.
#[must_use]
pub fn new_address(index: u32, address: IpNet) -> Request {
    Request::new(NEWADDR, flags::CREATE | flags::EXCL, &address_message(index, address))
}

/// Takes an address from a link.
#[must_use]
pub fn delete_address(index: u32, address: IpNet) -> Request {
    Request::new(DELADDR, 0, &address_message(index, address))
}

fn address_message(index: u32, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(&address.addr());
    message.header.prefix_len = address.prefix_len();
    message.header.index = index;
    message.attributes =
        vec![AddressAttribute::Local(address.addr()), AddressAttribute::Address(address.addr())];
    match address {
        IpNet::V4(net) if net.prefix_len() < 31 => {
            message.attributes.push(AddressAttribute::Broadcast(net.broadcast()));
        }
        IpNet::V4(_) => {}
        IpNet::V6(_) => {
            message.header.flags = AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
    }
    if address.addr().is_loopback() {
        message.header.scope = AddressScope::Host;
    }
    message
}

/// Adds a route through a link.
#[must_use]
pub fn new_route(index: u32, route: &Route) -> Request {
    let mut message = RouteMessage::default();
    let table = route.table.unwrap_or(u32::from(RouteHeader::RT_TABLE_MAIN));
    message.header.address_family = family(&route.dst.addr());
    message.header.destination_prefix_length = route.dst.prefix_len();
    message.header.table = u8::try_from(table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
    message.header.protocol = RouteProtocol::Boot;
    message.header.kind = RouteType::Unicast;
    message.header.scope = match (route.scope, route.gw) {
        (Some(scope), _) => RouteScope::from(scope),
        (None, Some(_)) => RouteScope::Universe,
        (None, None) => RouteScope::Link,
    };
    message.attributes = vec![
        RouteAttribute::Table(table),
        RouteAttribute::Oif(index),
        RouteAttribute::Destination(route.dst.network().into()),
    ];
    message.attributes.extend(route.gw.map(|gateway| RouteAttribute::Gateway(gateway.into())));
    message.attributes.extend(route.priority.map(RouteAttribute::Priority));
    let metrics: Vec<RouteMetric> = [route.mtu.map(RouteMetric::Mtu), route.advmss.map(RouteMetric::Advmss)]
        .into_iter()
        .flatten()
        .collect();
    if !metrics.is_empty() {
        message.attributes.push(RouteAttribute::Metrics(metrics));
    }
    Request::new(NEWROUTE, flags::CREATE | flags::EXCL, &message)
}

/// Sets a link's hardware address. To the same one as before, it makes the kernel announce the link's addresses
/// (gratuitous ARP, unsolicited neighbour advertisement) if the sysctls `arp_notify` and `ndisc_notify` say so.
#[must_use]
pub fn set_mac(index: u32, mac: Mac) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = vec![LinkAttribute::Address(mac.0.to_vec())];
    Request::new(NEWLINK, 0, &message)
}

/// Forgets a neighbour's hardware address.
#[must_use]
pub fn forget_neighbour(index: u32, neighbour: IpAddr) -> Request {
    // A `struct ndmsg` and the address.
    let (family, octets) = match neighbour {
        IpAddr::V4(v4) => (2, v4.octets().to_vec()),
        IpAddr::V6(v6) => (10, v6.octets().to_vec()),
    };
    let mut body = vec![family, 0, 0, 0];
    body.extend(index.to_ne_bytes());
    body.extend([0; 4]);
    body.extend(u16::try_from(4 + octets.len()).unwrap_or(u16::MAX).to_ne_bytes());
    body.extend(1u16.to_ne_bytes());
    body.extend(octets);
    Request::raw(DELNEIGH, 0, body)
}

fn family(address: &IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// The link of that name.
///
/// # Errors
/// The kernel's, save that there is none.
pub fn by_name(socket: &mut Socket, name: &str) -> Result<Option<Link>, NetlinkError> {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::IfName(name.to_owned())];
    match socket.request(Request::new(GETLINK, 0, &message)) {
        Ok(replies) => Ok(replies.iter().find_map(|reply| Link::parse(&reply.body))),
        Err(error) if error.errno() == libc::ENODEV => Ok(None),
        Err(error) => Err(error),
    }
}

/// Every link of the namespace.
///
/// # Errors
/// The kernel's.
pub fn all(socket: &mut Socket) -> Result<Vec<Link>, NetlinkError> {
    let replies = socket.request(Request::new(GETLINK, flags::DUMP, &LinkMessage::default()))?;
    Ok(replies.iter().filter_map(|reply| Link::parse(&reply.body)).collect())
}

/// The addresses of a link.
///
/// # Errors
/// The kernel's.
pub fn addresses(socket: &mut Socket, index: u32) -> Result<Vec<IpNet>, NetlinkError> {
    let mut message = AddressMessage::default();
    message.header.index = index;
    let replies = socket.request(Request::new(GETADDR, flags::DUMP, &message))?;
    Ok(replies.iter().filter_map(|reply| parse_address(&reply.body, index)).collect())
}

fn parse_address(body: &[u8], index: u32) -> Option<IpNet> {
    let header = body.first_chunk::<IFADDR>()?;
    // Kernels before 4.20 do not filter.
    if u32::from_ne_bytes([header[4], header[5], header[6], header[7]]) != index {
        return None;
    }
    let value = find(&body[IFADDR..], 2).or_else(|| find(&body[IFADDR..], 1))?;
    IpNet::new(ip_of(value)?, header[1]).ok()
}

/// A route as the kernel reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// The destination.
    pub dst: IpNet,
    /// Next hop.
    pub gw: Option<IpAddr>,
    /// The link's number.
    pub link: Option<u32>,
    /// The routing table.
    pub table: u32,
}

/// Every route of the namespace, of one family.
///
/// # Errors
/// The kernel's.
pub fn routes(socket: &mut Socket, v4: bool) -> Result<Vec<Installed>, NetlinkError> {
    let mut message = RouteMessage::default();
    message.header.address_family = if v4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let replies = socket.request(Request::new(GETROUTE, flags::DUMP, &message))?;
    Ok(replies.iter().filter_map(|reply| parse_route(&reply.body)).collect())
}

/// The number of the link a packet to `destination` would leave by.
///
/// # Errors
/// The kernel's, such as that there is no route.
pub fn link_towards(socket: &mut Socket, destination: IpAddr) -> Result<Option<u32>, NetlinkError> {
    let mut message = RouteMessage::default();
    message.header.address_family = family(&destination);
    message.header.destination_prefix_length = if destination.is_ipv4() { 32 } else { 128 };
    message.attributes = vec![RouteAttribute::Destination(destination.into())];
    let replies = socket.request(Request::new(GETROUTE, 0, &message))?;
    Ok(replies.iter().find_map(|reply| parse_route(&reply.body)?.link))
}

/// The name of a link.
///
/// # Errors
/// The kernel's.
pub fn name_of(socket: &mut Socket, index: u32) -> Result<Option<String>, NetlinkError> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    let replies = socket.request(Request::new(GETLINK, 0, &message))?;
    Ok(replies.iter().find_map(|reply| Link::parse(&reply.body)).map(|link| link.name))
}

fn parse_route(body: &[u8]) -> Option<Installed> {
    let header = body.first_chunk::<RTMSG>()?;
    let any: IpAddr = match header[0] {
        2 => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        10 => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let (mut address, mut gw, mut link, mut table) = (any, None, None, u32::from(header[4]));
    for (kind, value) in attributes(&body[RTMSG..]) {
        match kind {
            1 => address = ip_of(value)?,
            4 => link = number_of(value),
            5 => gw = ip_of(value),
            15 => table = number_of(value).unwrap_or(table),
            _ => {}
        }
    }
    Some(Installed { dst: IpNet::new(address, header[1]).ok()?, gw, link, table })
}

fn ip_of(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
        _ => None,
    }
}
