//! VXLAN links: Ethernet frames in UDP, to the machines that their forwarding table names (RFC 7348).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::attribute::{Writer, attributes, find, read_address, read_native, read_u16};
use crate::link::{ADDRESS, FIXED, GET, INFO, INFO_DATA, INFO_KIND, Link, MTU, Mac, NAME, NEW, UP, fixed};
use crate::message::{CREATE, EXCL, Request};
use crate::socket::{Error, Socket};

const KIND: &str = "vxlan";
const ID: u16 = 1;
const LOCAL: u16 = 4;
const LEARNING: u16 = 7;
const PORT: u16 = 15;
const LOCAL6: u16 = 17;

/// What such a link is made with. It learns nothing from what it receives: whoever made it says where frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vxlan {
    /// The network's number (VNI), of 24 bits.
    pub id: u32,
    /// UDP port, of this and of every other machine.
    pub port: u16,
    /// The address frames come from; unspecified leaves it to the route. Its family is that of all machines.
    pub local: IpAddr,
    /// The link notes where frames came from.
    pub learning: bool,
}

impl Vxlan {
    fn write(&self, w: &mut Writer) {
        w.native(ID, self.id);
        match self.local {
            IpAddr::V4(ip) => w.raw(LOCAL, &ip.octets()),
            // also the unspecified one: without any address the kernel takes IPv4
            IpAddr::V6(ip) => w.raw(LOCAL6, &ip.octets()),
        }
        w.raw(LEARNING, &[self.learning.into()]);
        w.raw(PORT, &self.port.to_be_bytes());
    }

    /// What the kernel says of a link of this kind. It leaves an unspecified address out; `ipv6` says which.
    fn read(data: &[u8], ipv6: bool) -> Option<Self> {
        let unspecified = if ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let mut vxlan = Self { id: 0, port: 0, local: unspecified, learning: false };
        for (kind, value) in attributes(data) {
            match kind {
                ID => vxlan.id = read_native(value)?,
                LOCAL | LOCAL6 => vxlan.local = read_address(value)?,
                LEARNING => vxlan.learning = value != [0],
                PORT => vxlan.port = read_u16(value)?,
                _ => {}
            }
        }
        Some(vxlan)
    }
}

/// Makes a VXLAN link with this hardware address, up. The kernel refuses a second one with the same number and port (`EEXIST`), and
/// every one if it has no VXLAN (`EOPNOTSUPP`).
#[must_use]
pub fn add(name: &str, mac: Mac, mtu: u32, vxlan: &Vxlan) -> Request {
    Request::new(NEW, CREATE | EXCL, &fixed(0, UP), |w| {
        w.text(NAME, name);
        w.raw(ADDRESS, &mac.0);
        w.native(MTU, mtu);
        w.nested(INFO, |w| {
            w.text(INFO_KIND, KIND);
            w.nested(INFO_DATA, |w| vxlan.write(w));
        });
    })
}

/// Has a VXLAN link send from another address of the same family; its forwarding table stays.
#[must_use]
pub fn set_local(index: u32, local: IpAddr) -> Request {
    Request::new(NEW, 0, &fixed(index, 0), |w| {
        w.nested(INFO, |w| {
            w.text(INFO_KIND, KIND);
            w.nested(INFO_DATA, |w| match local {
                IpAddr::V4(ip) => w.raw(LOCAL, &ip.octets()),
                IpAddr::V6(ip) => w.raw(LOCAL6, &ip.octets()),
            });
        });
    })
}

/// The link of that name, and what it was made with if it is a VXLAN link; `ipv6` says the family of an address that it does not have.
///
/// # Errors
/// The kernel's, save that there is none.
pub fn by_name(socket: &mut Socket, name: &str, ipv6: bool) -> Result<Option<(Link, Option<Vxlan>)>, Error> {
    match socket.get(Request::new(GET, 0, &fixed(0, 0), |w| w.text(NAME, name))) {
        Ok(replies) => Ok(replies.iter().find_map(|reply| read(reply, ipv6))),
        Err(error) if error.errno() == nix::libc::ENODEV => Ok(None),
        Err(error) => Err(error),
    }
}

fn read(body: &[u8], ipv6: bool) -> Option<(Link, Option<Vxlan>)> {
    let link = Link::read(body)?;
    let info = find(body.get(FIXED..)?, INFO);
    let data = info.filter(|_| link.kind == KIND).and_then(|info| find(info, INFO_DATA));
    Some((link, data.and_then(|data| Vxlan::read(data, ipv6))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);

    fn vxlan(local: &str) -> Vxlan {
        Vxlan { id: 87, port: 4789, local: local.parse().unwrap(), learning: false }
    }

    #[test]
    fn what_is_written_is_read() {
        for local in ["192.0.2.1", "0.0.0.0", "2001:db8::1", "::"] {
            let wanted = vxlan(local);
            let request = add("wl-vxlan", MAC, 1450, &wanted);
            let (link, read) = read(&request.body.bytes, wanted.local.is_ipv6()).unwrap();
            assert_eq!(
                (link.name.as_str(), link.mac, link.mtu, link.up),
                ("wl-vxlan", Some(MAC), 1450, true)
            );
            assert_eq!(read, Some(wanted));
        }
    }

    #[test]
    fn the_port_is_in_the_networks_order_and_the_number_in_the_machines() {
        let mut w = Writer::default();
        vxlan("192.0.2.1").write(&mut w);
        assert_eq!(find(&w.bytes, PORT), Some([0x12, 0xb5].as_slice()));
        assert_eq!(find(&w.bytes, ID), Some(87u32.to_ne_bytes().as_slice()));
        assert_eq!(find(&w.bytes, LEARNING), Some([0].as_slice()));
    }

    #[test]
    fn a_link_of_another_kind_must_not_be_taken_for_one() {
        let request = crate::link::add_bridge("wl-vxlan", MAC, None, false);
        let (link, read) = read(&request.body.bytes, false).unwrap();
        assert_eq!((link.kind.as_str(), read), ("bridge", None));
    }
}
