//! Links: bridges, veth pairs, and what is known of any.

use crate::attribute::{Writer, attributes, find, read_native, read_text};
use crate::message::{CREATE, EXCL, Request};
use crate::socket::{Error, Socket};
use std::fmt;

pub(crate) const NEW: u16 = 16;
const DELETE: u16 = 17;
pub(crate) const GET: u16 = 18;
/// `struct ifinfomsg`
pub(crate) const FIXED: usize = 16;
pub(crate) const ADDRESS: u16 = 1;
pub(crate) const NAME: u16 = 3;
pub(crate) const MTU: u16 = 4;
const PEER: u16 = 5;
const CONTROLLER: u16 = 10;
const OPERATIONAL_STATE: u16 = 16;
pub(crate) const INFO: u16 = 18;
const ALIAS: u16 = 20;
const NETNS: u16 = 28;
pub(crate) const INFO_KIND: u16 = 1;
pub(crate) const INFO_DATA: u16 = 2;
const INFO_PORT_KIND: u16 = 4;
const INFO_PORT_DATA: u16 = 5;
const VETH_PEER: u16 = 1;
const PORT_HAIRPIN: u16 = 4;
const PORT_ISOLATED: u16 = 33;
pub(crate) const UP: u32 = 0x1;
const RUNNING: u32 = 0x40;
const PROMISCUOUS: u32 = 0x100;
const OPERATIONALLY_UP: u8 = 6;

/// Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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
    /// `ifi_index`, from 1.
    pub index: u32,
    /// `IFLA_IFNAME`, at most 15 bytes.
    pub name: String,
    /// `bridge`, `veth`; empty for hardware and `lo`.
    pub kind: String,
    /// Hardware address, where it has one of 6 bytes.
    pub mac: Option<Mac>,
    /// Bytes.
    pub mtu: u32,
    /// `IFF_UP`: an administrator raised it.
    pub up: bool,
    /// Up in fact: with a carrier that has been acted on.
    pub operational: bool,
    /// `IFF_RUNNING`: up, with a carrier as far as its driver tells.
    pub running: bool,
    /// Receives what is not addressed to it.
    pub promiscuous: bool,
    /// The bridge it is a port of.
    pub controller: Option<u32>,
    /// Of a veth: the number its other end has in that one's namespace.
    pub peer: Option<u32>,
    /// Free text kept with the link.
    pub alias: String,
}

impl Link {
    pub(crate) fn read(body: &[u8]) -> Option<Self> {
        let (fixed, rest) = body.split_first_chunk::<FIXED>()?;
        let word = |at: usize| u32::from_ne_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        let flags = word(8);
        let mut link = Self {
            index: word(4),
            name: String::new(),
            kind: String::new(),
            mac: None,
            mtu: 0,
            up: flags & UP != 0,
            operational: false,
            running: flags & RUNNING != 0,
            promiscuous: flags & PROMISCUOUS != 0,
            controller: None,
            peer: None,
            alias: String::new(),
        };
        for (kind, value) in attributes(rest) {
            match kind {
                ADDRESS => link.mac = value.try_into().ok().map(Mac),
                NAME => link.name = read_text(value),
                MTU => link.mtu = read_native(value).unwrap_or(0),
                OPERATIONAL_STATE => link.operational = value == [OPERATIONALLY_UP],
                CONTROLLER => link.controller = read_native(value),
                PEER => link.peer = read_native(value),
                INFO => link.kind = find(value, INFO_KIND).map(read_text).unwrap_or_default(),
                ALIAS => link.alias = read_text(value),
                _ => {}
            }
        }
        Some(link)
    }
}

/// A `struct ifinfomsg` that names a link and the flags to set.
pub(crate) fn fixed(index: u32, flags: u32) -> [u8; FIXED] {
    let mut fixed = [0; FIXED];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8..12].copy_from_slice(&flags.to_ne_bytes());
    fixed[12..].copy_from_slice(&flags.to_ne_bytes());
    fixed
}

fn up(promiscuous: bool) -> u32 {
    if promiscuous { UP | PROMISCUOUS } else { UP }
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

/// Makes a bridge, with a hardware address of its own so that it does not change as ports come and go.
#[must_use]
pub fn add_bridge(name: &str, mac: Mac, mtu: Option<u32>, promiscuous: bool) -> Request {
    Request::new(NEW, CREATE | EXCL, &fixed(0, up(promiscuous)), |w| {
        w.text(NAME, name);
        w.nested(INFO, |w| w.text(INFO_KIND, "bridge"));
        w.raw(ADDRESS, &mac.0);
        mtu.into_iter().for_each(|mtu| w.native(MTU, mtu));
    })
}

/// Requests that make a veth pair as described; `netns` is the descriptor of the container's namespace.
#[must_use]
pub fn add_veth(veth: &Veth, bridge: u32, netns: std::os::fd::RawFd) -> Vec<Request> {
    let mtu = |w: &mut Writer| veth.mtu.into_iter().for_each(|mtu| w.native(MTU, mtu));
    let peer = |w: &mut Writer| {
        w.bytes.extend_from_slice(&[0; FIXED]);
        w.text(NAME, &veth.container);
        w.raw(NETNS, &netns.to_ne_bytes());
        mtu(w);
        veth.mac.into_iter().for_each(|mac| w.raw(ADDRESS, &mac.0));
    };
    let create = Request::new(NEW, CREATE | EXCL, &fixed(0, UP), |w| {
        w.text(NAME, &veth.host);
        w.native(CONTROLLER, bridge);
        mtu(w);
        w.nested(INFO, |w| {
            w.text(INFO_KIND, "veth");
            w.nested(INFO_DATA, |w| w.nested(VETH_PEER, peer));
        });
    });
    let port = Request::new(NEW, 0, &fixed(0, 0), |w| {
        w.text(NAME, &veth.host);
        w.text(ALIAS, &veth.alias);
        w.nested(INFO, |w| {
            w.text(INFO_PORT_KIND, "bridge");
            w.nested(INFO_PORT_DATA, |w| {
                w.raw(PORT_HAIRPIN, &[veth.hairpin.into()]);
                w.raw(PORT_ISOLATED, &[veth.isolated.into()]);
            });
        });
    });
    // What a link is created with excludes its alias and port settings; a second message in the same datagram
    // leaves no moment in which the link exists without them.
    vec![create, port]
}

/// Requests that make an intermediate device, by which traffic goes that is to be held back.
#[must_use]
pub fn add_intermediate(name: &str, mtu: u32, alias: &str) -> [Request; 2] {
    let create = Request::new(NEW, CREATE | EXCL, &fixed(0, UP), |w| {
        w.text(NAME, name);
        w.native(MTU, mtu);
        w.nested(INFO, |w| w.text(INFO_KIND, "ifb"));
    });
    let called = Request::new(NEW, 0, &fixed(0, 0), |w| {
        w.text(NAME, name);
        w.text(ALIAS, alias);
    });
    [create, called]
}

/// Brings a link up, and lets it receive everything if `promiscuous`.
#[must_use]
pub fn raise(index: u32, promiscuous: bool) -> Request {
    Request::new(NEW, 0, &fixed(index, up(promiscuous)), |_| {})
}

/// Sets a link's MTU.
#[must_use]
pub fn set_mtu(index: u32, mtu: u32) -> Request {
    Request::new(NEW, 0, &fixed(index, 0), |w| w.native(MTU, mtu))
}

/// Sets a link's hardware address. To the same one as before, it makes the kernel announce the link's addresses
/// (gratuitous ARP, unsolicited neighbour advertisement) if the sysctls `arp_notify` and `ndisc_notify` say so.
#[must_use]
pub fn set_mac(index: u32, mac: Mac) -> Request {
    Request::new(NEW, 0, &fixed(index, 0), |w| w.raw(ADDRESS, &mac.0))
}

/// Removes a link, and with a veth its peer.
#[must_use]
pub fn delete(name: &str) -> Request {
    Request::new(DELETE, 0, &fixed(0, 0), |w| w.text(NAME, name))
}

/// The link of that name.
///
/// # Errors
/// The kernel's, save that there is none.
pub fn by_name(socket: &mut Socket, name: &str) -> Result<Option<Link>, Error> {
    match socket.get(Request::new(GET, 0, &fixed(0, 0), |w| w.text(NAME, name))) {
        Ok(replies) => Ok(replies.iter().find_map(|reply| Link::read(reply))),
        Err(error) if error.errno() == nix::libc::ENODEV => Ok(None),
        Err(error) => Err(error),
    }
}

/// The name of a link.
///
/// # Errors
/// The kernel's.
pub fn name_of(socket: &mut Socket, index: u32) -> Result<Option<String>, Error> {
    let replies = socket.get(Request::new(GET, 0, &fixed(index, 0), |_| {}))?;
    Ok(replies.iter().find_map(|reply| Link::read(reply)).map(|link| link.name))
}

/// Every link of the namespace.
///
/// # Errors
/// The kernel's.
pub fn list(socket: &mut Socket) -> Result<Vec<Link>, Error> {
    socket.dump(&Request::new(GET, 0, &fixed(0, 0), |_| {}), |body, found| found.extend(Link::read(body)))
}
