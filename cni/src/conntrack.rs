//! Forgetting connections.

use netlink_sys::protocols::NETLINK_NETFILTER;

use crate::{
    netlink::{NetlinkError, Request, Socket, attributes, find, flags},
    nft::Attributes,
};

const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const ZONE: u16 = 18;
const UDP: u8 = 17;

/// Deletes every UDP connection that was begun to one of these ports.
pub(crate) fn forget_udp(ports: &[u16]) -> Result<(), NetlinkError> {
    let mut socket = Socket::open(NETLINK_NETFILTER)?;
    let any_family = vec![0, 0, 0, 0];
    for reply in socket.request(Request::raw(GET, flags::DUMP, any_family))? {
        let Some((header, body)) = reply.body.split_first_chunk::<4>() else { continue };
        let Some(tuple) = find(body, TUPLE_ORIGINAL).filter(|tuple| is_udp_to(tuple, ports)) else {
            continue;
        };
        let mut wanted = Attributes::default().bytes(TUPLE_ORIGINAL | 0x8000, tuple);
        if let Some((_, zone)) = attributes(body).find(|(kind, _)| *kind == ZONE) {
            wanted = wanted.bytes(ZONE, zone);
        }
        let mut body = vec![header[0], 0, 0, 0];
        body.extend(wanted.as_slice());
        match socket.request(Request::raw(DELETE, 0, body)) {
            // It ended by itself.
            Err(error) if error.errno() != libc::ENOENT => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn is_udp_to(tuple: &[u8], ports: &[u16]) -> bool {
    let Some(protocol) = find(tuple, TUPLE_PROTOCOL) else { return false };
    let port = find(protocol, 3).and_then(|port| port.try_into().ok()).map(u16::from_be_bytes);
    find(protocol, 1) == Some(&[UDP]) && port.is_some_and(|port| ports.contains(&port))
}
