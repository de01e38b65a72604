//! Flows the kernel tracks, listed and forgotten.

use crate::attribute::{Writer, find, read_address, read_u16};
use crate::message::Request;
use crate::socket::{Error, Socket};
use std::net::IpAddr;

const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ZONE: u16 = 18;
const NESTED: u16 = 1 << 15;

/// `IPPROTO_UDP`
pub const UDP: u8 = 17;

/// An address and a port.
pub type End = (IpAddr, u16);

/// A flow. One of a protocol without ports has 0 in the place of each.
#[derive(Clone, Debug)]
pub struct Flow {
    /// `IPPROTO_*`
    pub protocol: u8,
    /// Who sent its first packet.
    pub source: End,
    /// Where its first packet was sent.
    pub destination: End,
    /// Who answers; not the destination where that is translated.
    pub answers_from: End,
    /// What identifies it to the kernel.
    identity: Writer,
}

impl Flow {
    fn read(body: &[u8]) -> Option<Self> {
        let (header, attributes) = body.split_first_chunk::<4>()?;
        let original = find(attributes, TUPLE_ORIGINAL)?;
        let (protocol, source, destination) = ends(original)?;
        let (_, answers_from, _) = ends(find(attributes, TUPLE_REPLY)?)?;
        let mut identity = Writer { bytes: vec![header[0], 0, 0, 0] };
        identity.raw(TUPLE_ORIGINAL | NESTED, original);
        if let Some(zone) = find(attributes, ZONE) {
            identity.raw(ZONE, zone);
        }
        Some(Self { protocol, source, destination, answers_from, identity })
    }
}

/// The protocol, source and destination of a tuple.
fn ends(tuple: &[u8]) -> Option<(u8, End, End)> {
    let (ip, protocol) = (find(tuple, 1)?, find(tuple, 2)?);
    let address = |v4, v6| find(ip, v4).or_else(|| find(ip, v6)).and_then(read_address);
    let port = |kind| find(protocol, kind).map_or(Some(0), read_u16);
    let number = find(protocol, 1)?.first()?;
    Some((*number, (address(1, 3)?, port(2)?), (address(2, 4)?, port(3)?)))
}

/// Forgets the flows that are `stale`; returns how many.
///
/// # Errors
/// The kernel does not list or delete flows.
pub fn forget(socket: &mut Socket, stale: impl Fn(&Flow) -> bool) -> Result<usize, Error> {
    let found = list(socket, stale)?;
    delete(socket, &found)?;
    Ok(found.len())
}

/// The flows that are `wanted`.
///
/// # Errors
/// The kernel does not list flows.
pub fn list(socket: &mut Socket, wanted: impl Fn(&Flow) -> bool) -> Result<Vec<Flow>, Error> {
    let any_family = [0; 4];
    let list = Request::new(GET, 0, &any_family, |_| {});
    socket.dump(&list, |body, found| found.extend(Flow::read(body).filter(&wanted)))
}

/// Forgets these flows, of which some may have ended by themselves.
///
/// # Errors
/// The kernel does not delete flows.
pub fn delete(socket: &mut Socket, flows: &[Flow]) -> Result<(), Error> {
    for flow in flows {
        match socket.request(Request::new(DELETE, 0, &flow.identity.bytes, |_| {})) {
            // It ended by itself.
            Err(error) if error.errno() != nix::libc::ENOENT => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_flow_must_not_be_told_by_its_answers_destination() {
        let tuple = |w: &mut Writer, kind, from: &str, to: &str, ports: (u16, u16)| {
            w.nested(kind, |w| {
                w.nested(1, |w| {
                    w.address(1, from.parse().unwrap());
                    w.address(2, to.parse().unwrap());
                });
                w.nested(2, |w| {
                    w.raw(1, &[UDP]);
                    w.raw(2, &ports.0.to_be_bytes());
                    w.raw(3, &ports.1.to_be_bytes());
                });
            });
        };
        let mut body = Writer { bytes: vec![2, 0, 0, 0] };
        tuple(&mut body, TUPLE_ORIGINAL, "10.0.0.1", "10.96.0.10", (4000, 53));
        tuple(&mut body, TUPLE_REPLY, "10.0.0.7", "10.0.0.1", (5353, 4000));
        let flow = Flow::read(&body.bytes).unwrap();
        assert_eq!(flow.source, ("10.0.0.1".parse().unwrap(), 4000));
        assert_eq!(flow.destination, ("10.96.0.10".parse().unwrap(), 53));
        assert_eq!(flow.answers_from, ("10.0.0.7".parse().unwrap(), 5353));
        assert_eq!(flow.protocol, UDP);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Flow::read(&bytes);
        }
    }
}
