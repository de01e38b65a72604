//! Addresses of links, and what is known of neighbours.

use crate::attribute::{Writer, find, read_address};
use crate::message::{CREATE, EXCL, Request};
use crate::socket::{Error, Socket};
use ipnet::IpNet;
use std::net::IpAddr;

const NEW: u16 = 20;
const DELETE: u16 = 21;
const GET: u16 = 22;
const DELETE_NEIGHBOUR: u16 = 29;
/// `struct ifaddrmsg`
const FIXED: usize = 8;
const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;
const BROADCAST: u16 = 4;
const FLAGS: u16 = 8;
/// Without looking for duplicates.
const NODAD: u8 = 0x02;
const HOST: u8 = 254;

/// Gives a link an address. Without duplicate detection: addresses are granted, and waiting for it costs a second.
#[must_use]
pub fn add(link: u32, address: IpNet) -> Request {
    request(NEW, CREATE | EXCL, link, address)
}

/// Takes an address from a link.
#[must_use]
pub fn delete(link: u32, address: IpNet) -> Request {
    request(DELETE, 0, link, address)
}

fn request(kind: u16, flags: u16, link: u32, address: IpNet) -> Request {
    let ip = address.addr();
    let nodad = if ip.is_ipv6() { NODAD } else { 0 };
    let scope = if ip.is_loopback() { HOST } else { 0 };
    let [a, b, c, d] = link.to_ne_bytes();
    let fixed = [family(ip), address.prefix_len(), nodad, scope, a, b, c, d];
    Request::new(kind, flags, &fixed, |w: &mut Writer| {
        w.address(LOCAL, ip);
        w.address(ADDRESS, ip);
        match address {
            IpNet::V4(net) if net.prefix_len() < 31 => w.address(BROADCAST, net.broadcast().into()),
            IpNet::V4(_) => {}
            IpNet::V6(_) => w.native(FLAGS, u32::from(NODAD)),
        }
    })
}

/// `AF_INET` or `AF_INET6`.
pub(crate) fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { 2 } else { 10 }
}

/// The addresses of a link.
///
/// # Errors
/// The kernel's.
pub fn list(socket: &mut Socket, link: u32) -> Result<Vec<IpNet>, Error> {
    let [a, b, c, d] = link.to_ne_bytes();
    let request = Request::new(GET, 0, &[0, 0, 0, 0, a, b, c, d], |_| {});
    socket.dump(&request, |body, found| found.extend(read(body, link)))
}

/// The addresses of every link, each with its link's number.
///
/// # Errors
/// The kernel's.
pub fn list_all(socket: &mut Socket) -> Result<Vec<(u32, IpNet)>, Error> {
    let request = Request::new(GET, 0, &[0; FIXED], |_| {});
    socket.dump(&request, |body, found| found.extend(read_any(body)))
}

fn read(body: &[u8], link: u32) -> Option<IpNet> {
    // Kernels before 4.20 do not filter.
    read_any(body).filter(|(of, _)| *of == link).map(|(_, net)| net)
}

fn read_any(body: &[u8]) -> Option<(u32, IpNet)> {
    let (fixed, attributes) = body.split_first_chunk::<FIXED>()?;
    let link = u32::from_ne_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
    let value = find(attributes, LOCAL).or_else(|| find(attributes, ADDRESS))?;
    Some((link, IpNet::new(read_address(value)?, fixed[1]).ok()?))
}

/// Forgets a neighbour's hardware address.
#[must_use]
pub fn forget_neighbour(link: u32, neighbour: IpAddr) -> Request {
    let [a, b, c, d] = link.to_ne_bytes();
    let fixed = [family(neighbour), 0, 0, 0, a, b, c, d, 0, 0, 0, 0];
    Request::new(DELETE_NEIGHBOUR, 0, &fixed, |w| w.address(1, neighbour))
}
