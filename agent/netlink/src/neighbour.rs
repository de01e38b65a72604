//! What a link is told of its neighbours, for good: the hardware address of an address (ARP, neighbour discovery), and of a VXLAN link the
//! machine that a hardware address is at (its forwarding table).

use std::net::IpAddr;

use crate::address::family;
use crate::attribute::{attributes, read_address};
use crate::link::{FIXED as LINK_FIXED, Mac};
use crate::message::{CREATE, REPLACE, Request};
use crate::socket::{Error, Socket};

const NEW: u16 = 28;
const DELETE: u16 = 29;
const GET: u16 = 30;
/// `struct ndmsg`
const FIXED: usize = 12;
const DESTINATION: u16 = 1;
const HARDWARE: u16 = 2;
/// `AF_BRIDGE`: a forwarding table.
const FORWARDING: u8 = 7;
/// `NUD_PERMANENT`
const PERMANENT: u16 = 0x80;
/// `NTF_SELF`: the link's own table, not that of the bridge it is a port of.
const SELF: u8 = 2;

/// One entry: of a neighbour table the neighbour's address, of a forwarding table that of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Index of the link.
    pub link: u32,
    /// An address of either family; the entry of a multicast or unknown hardware address may have none, and is not listed.
    pub address: IpAddr,
    /// The hardware address.
    pub mac: Mac,
    /// Was said, not found out.
    pub permanent: bool,
}

fn fixed(family: u8, link: u32, flags: u8) -> [u8; FIXED] {
    let ([a, b, c, d], [e, f]) = (link.to_ne_bytes(), PERMANENT.to_ne_bytes());
    [family, 0, 0, 0, a, b, c, d, e, f, flags, 0]
}

/// Says the hardware address of a neighbour, in place of what is known.
#[must_use]
pub fn replace(link: u32, address: IpAddr, mac: Mac) -> Request {
    Request::new(NEW, CREATE | REPLACE, &fixed(family(address), link, 0), |w| {
        w.address(DESTINATION, address);
        w.raw(HARDWARE, &mac.0);
    })
}

/// Takes it back.
#[must_use]
pub fn delete(link: u32, address: IpAddr) -> Request {
    Request::new(DELETE, 0, &fixed(family(address), link, 0), |w| w.address(DESTINATION, address))
}

/// Says at which machine a hardware address is, in place of the machine that was said before.
#[must_use]
pub fn replace_forwarding(link: u32, mac: Mac, machine: IpAddr) -> Request {
    Request::new(NEW, CREATE | REPLACE, &fixed(FORWARDING, link, SELF), |w| {
        w.raw(HARDWARE, &mac.0);
        w.address(DESTINATION, machine);
    })
}

/// Takes it back, whichever machine was said.
#[must_use]
pub fn delete_forwarding(link: u32, mac: Mac) -> Request {
    Request::new(DELETE, 0, &fixed(FORWARDING, link, SELF), |w| w.raw(HARDWARE, &mac.0))
}

/// The neighbours of a link that are known, of one family.
///
/// # Errors
/// The kernel's.
pub fn list(socket: &mut Socket, link: u32, ipv6: bool) -> Result<Vec<Neighbour>, Error> {
    let family = if ipv6 { 10 } else { 2 };
    let request = Request::new(GET, 0, &fixed(family, link, 0), |_| {});
    socket.dump(&request, |body, found| found.extend(read(body, family, link)))
}

/// The forwarding table of a link.
///
/// # Errors
/// The kernel's.
pub fn list_forwarding(socket: &mut Socket, link: u32) -> Result<Vec<Neighbour>, Error> {
    // Asked by a `struct ifinfomsg`, the kernel lists the table of this link only.
    let mut fixed = [0; LINK_FIXED];
    fixed[0] = FORWARDING;
    fixed[4..8].copy_from_slice(&link.to_ne_bytes());
    let request = Request::new(GET, 0, &fixed, |_| {});
    socket.dump(&request, |body, found| found.extend(read(body, FORWARDING, link)))
}

/// Kernels that do not filter list everything.
fn read(body: &[u8], family: u8, of: u32) -> Option<Neighbour> {
    let (fixed, rest) = body.split_first_chunk::<FIXED>()?;
    let link = u32::from_ne_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
    if fixed[0] != family || link != of {
        return None;
    }
    let permanent = u16::from_ne_bytes([fixed[8], fixed[9]]) & PERMANENT != 0;
    let (mut address, mut mac) = (None, None);
    for (kind, value) in attributes(rest) {
        match kind {
            DESTINATION => address = read_address(value),
            HARDWARE => mac = value.try_into().ok().map(Mac),
            _ => {}
        }
    }
    Some(Neighbour { link, address: address?, mac: mac?, permanent })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_of_another_link_or_table_is_not() {
        let mac = Mac([2, 0, 0, 0, 0, 7]);
        for (text, own) in [("10.244.1.0", 2), ("fd00:1::", 10)] {
            let address = text.parse().unwrap();
            let wanted = Neighbour { link: 9, address, mac, permanent: true };
            let body = replace(9, address, mac).body.bytes;
            assert_eq!(read(&body, own, 9), Some(wanted));
            assert_eq!(read(&body, own, 8), None);
            assert_eq!(read(&body, FORWARDING, 9), None);
            let body = replace_forwarding(9, mac, address).body.bytes;
            assert_eq!(read(&body, FORWARDING, 9), Some(wanted));
        }
    }

    #[test]
    fn an_entry_without_a_machine_must_not_be_one_of_ours() {
        let mac = Mac([0; 6]);
        assert_eq!(read(&delete_forwarding(9, mac).body.bytes, FORWARDING, 9), None);
    }
}
