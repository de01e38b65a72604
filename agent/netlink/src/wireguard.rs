//! WireGuard links: their key, port and peers, by the kernel's generic netlink family `wireguard` (`include/uapi/linux/wireguard.h`).
//!
//! The kernel makes the public key of the private one, so that nobody else has to know the curve.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use crate::address::family as address_family;
use crate::attribute::{Writer, attributes, find, read_address};
use crate::generic::{FIXED, family, request};
use crate::link::{INFO, INFO_KIND, MTU, NAME, NEW, UP, fixed};
use crate::message::{CREATE, EXCL, Request};
use crate::socket::{Error, Socket};

const FAMILY: &str = "wireguard";
const GET_DEVICE: u8 = 0;
const SET_DEVICE: u8 = 1;
const DEVICE_NAME: u16 = 2;
const DEVICE_PRIVATE_KEY: u16 = 3;
const DEVICE_PUBLIC_KEY: u16 = 4;
const DEVICE_LISTEN_PORT: u16 = 6;
const DEVICE_PEERS: u16 = 8;
const PEER_PUBLIC_KEY: u16 = 1;
const PEER_FLAGS: u16 = 3;
const PEER_ENDPOINT: u16 = 4;
const PEER_KEEPALIVE: u16 = 5;
const PEER_ALLOWED: u16 = 9;
const ALLOWED_FAMILY: u16 = 1;
const ALLOWED_ADDRESS: u16 = 2;
const ALLOWED_LENGTH: u16 = 3;
/// `WGPEER_F_REMOVE_ME`
const REMOVE: u32 = 1;
/// `WGPEER_F_REPLACE_ALLOWEDIPS`
const REPLACE_ALLOWED: u32 = 2;
/// As many peers go into one request; an attribute holds 64 KiB.
const AT_ONCE: usize = 100;

/// A public or a private key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(pub [u8; 32]);

impl fmt::Debug for Key {
    /// Never what it is: it may be a private one.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Key")
    }
}

/// Another machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its public key.
    pub key: Key,
    /// Where packets for it are sent; the kernel follows it to where its packets come from.
    pub endpoint: Option<SocketAddr>,
    /// What is sent to it, and what may come from it.
    pub allowed: Vec<IpNet>,
    /// Seconds between packets that keep a way open through address translation; 0: none.
    pub keepalive: u16,
}

/// What a link is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// None where it has no private one.
    pub public_key: Option<Key>,
    /// UDP port.
    pub port: u16,
    /// The others.
    pub peers: Vec<Peer>,
}

/// Makes a WireGuard link, up. The kernel refuses it if it has no WireGuard (`EOPNOTSUPP`).
#[must_use]
pub fn add(name: &str, mtu: u32) -> Request {
    Request::new(NEW, CREATE | EXCL, &fixed(0, UP), |w| {
        w.text(NAME, name);
        w.native(MTU, mtu);
        w.nested(INFO, |w| w.text(INFO_KIND, FAMILY));
    })
}

/// Sets the key and port of a link, and adds, changes and removes peers; others stay. The socket speaks [`crate::Protocol::Generic`].
///
/// # Errors
/// The kernel's; it has no such family unless it has WireGuard.
pub fn set(
    socket: &mut Socket,
    name: &str,
    (key, port): (&Key, u16),
    peers: &[Peer],
    gone: &[Key],
) -> Result<(), Error> {
    let id = id(socket)?;
    socket.batch(&changes(id, name, (key, port), peers, gone))
}

/// What a link is now.
///
/// # Errors
/// The kernel's.
pub fn get(socket: &mut Socket, name: &str) -> Result<Device, Error> {
    let id = id(socket)?;
    let parts = socket.dump(&request(id, GET_DEVICE, |w| w.text(DEVICE_NAME, name)), |body, found| {
        found.push(body.to_vec())
    })?;
    let mut device = Device::default();
    for part in &parts {
        read(part, &mut device);
    }
    Ok(device)
}

fn id(socket: &mut Socket) -> Result<u16, Error> {
    let missing = || std::io::Error::from_raw_os_error(nix::libc::EOPNOTSUPP);
    family(socket, FAMILY)?.ok_or_else(|| Error::Socket { doing: "find WireGuard by", source: missing() })
}

fn changes(id: u16, name: &str, (key, port): (&Key, u16), peers: &[Peer], gone: &[Key]) -> Vec<Request> {
    let own = request(id, SET_DEVICE, |w| {
        w.text(DEVICE_NAME, name);
        w.raw(DEVICE_PRIVATE_KEY, &key.0);
        w.raw(DEVICE_LISTEN_PORT, &port.to_ne_bytes());
    });
    let mut requests = vec![own];
    for part in gone.chunks(AT_ONCE) {
        requests.push(request(id, SET_DEVICE, |w| {
            w.text(DEVICE_NAME, name);
            w.nested(DEVICE_PEERS, |w| part.iter().for_each(|key| w.nested(0, |w| remove(w, key))));
        }));
    }
    for part in peers.chunks(AT_ONCE) {
        requests.push(request(id, SET_DEVICE, |w| {
            w.text(DEVICE_NAME, name);
            w.nested(DEVICE_PEERS, |w| part.iter().for_each(|peer| w.nested(0, |w| write(w, peer))));
        }));
    }
    requests
}

fn remove(w: &mut Writer, key: &Key) {
    w.raw(PEER_PUBLIC_KEY, &key.0);
    w.native(PEER_FLAGS, REMOVE);
}

fn write(w: &mut Writer, peer: &Peer) {
    w.raw(PEER_PUBLIC_KEY, &peer.key.0);
    w.native(PEER_FLAGS, REPLACE_ALLOWED);
    if let Some(endpoint) = peer.endpoint {
        w.raw(PEER_ENDPOINT, &socket_address(endpoint));
    }
    w.raw(PEER_KEEPALIVE, &peer.keepalive.to_ne_bytes());
    w.nested(PEER_ALLOWED, |w| {
        for net in &peer.allowed {
            w.nested(0, |w| {
                w.raw(ALLOWED_FAMILY, &u16::from(address_family(net.addr())).to_ne_bytes());
                w.address(ALLOWED_ADDRESS, net.network());
                w.raw(ALLOWED_LENGTH, &[net.prefix_len()]);
            });
        }
    });
}

/// `struct sockaddr_in`, `struct sockaddr_in6`
fn socket_address(address: SocketAddr) -> Vec<u8> {
    let (family, port) =
        (u16::from(address_family(address.ip())).to_ne_bytes(), address.port().to_be_bytes());
    match address.ip() {
        IpAddr::V4(ip) => [&family[..], &port, &ip.octets(), &[0; 8]].concat(),
        IpAddr::V6(ip) => [&family[..], &port, &[0; 4], &ip.octets(), &[0; 4]].concat(),
    }
}

fn read_socket_address(bytes: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    let ip = match u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?) {
        2 => Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(4..8)?).ok()?).into(),
        10 => Ipv6Addr::from(<[u8; 16]>::try_from(bytes.get(8..24)?).ok()?).into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// One part of an answer: a peer with many ranges goes on in the next.
fn read(body: &[u8], device: &mut Device) {
    for (kind, value) in attributes(body.get(FIXED..).unwrap_or_default()) {
        match kind {
            DEVICE_PUBLIC_KEY => device.public_key = value.try_into().ok().map(Key),
            DEVICE_LISTEN_PORT => device.port = value.try_into().map_or(0, u16::from_ne_bytes),
            DEVICE_PEERS => {
                for peer in attributes(value).filter_map(|(_, peer)| read_peer(peer)) {
                    match device.peers.last_mut().filter(|last| last.key == peer.key) {
                        Some(last) => last.allowed.extend(peer.allowed),
                        None => device.peers.push(peer),
                    }
                }
            }
            _ => {}
        }
    }
}

fn read_peer(bytes: &[u8]) -> Option<Peer> {
    let key = find(bytes, PEER_PUBLIC_KEY)?.try_into().ok().map(Key)?;
    let allowed = attributes(find(bytes, PEER_ALLOWED).unwrap_or_default());
    let range = |(_, bytes): (u16, &[u8])| {
        let length = find(bytes, ALLOWED_LENGTH)?.first().copied()?;
        IpNet::new(read_address(find(bytes, ALLOWED_ADDRESS)?)?, length).ok()
    };
    let keepalive = find(bytes, PEER_KEEPALIVE).and_then(|value| value.try_into().ok());
    Some(Peer {
        key,
        endpoint: find(bytes, PEER_ENDPOINT).and_then(read_socket_address),
        allowed: allowed.filter_map(range).collect(),
        keepalive: keepalive.map_or(0, u16::from_ne_bytes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8, endpoint: &str) -> Peer {
        Peer {
            key: Key([number; 32]),
            endpoint: Some(endpoint.parse().unwrap()),
            allowed: vec!["10.244.1.0/24".parse().unwrap(), "fd00:1::/64".parse().unwrap()],
            keepalive: 0,
        }
    }

    #[test]
    fn a_peer_is_written_byte_by_byte_as_the_kernel_reads_it() {
        let mut w = Writer::default();
        write(
            &mut w,
            &Peer { allowed: vec!["10.244.1.0/24".parse().unwrap()], ..peer(7, "192.0.2.9:51820") },
        );
        let native = |number: u16| number.to_ne_bytes();
        let head = |length: u16, kind: u16| [native(length), native(kind)].concat();
        let nested = |length: u16, kind: u16| head(length, kind | 1 << 15);
        let wanted = [
            head(36, 1),
            vec![7; 32],
            head(8, 3),
            2u32.to_ne_bytes().to_vec(),
            head(20, 4),
            [&native(2)[..], &[0xca, 0x6c, 192, 0, 2, 9], &[0; 8]].concat(),
            head(6, 5),
            vec![0; 4],
            nested(32, 9),
            nested(28, 0),
            head(6, 1),
            [&native(2)[..], &[0; 2]].concat(),
            head(8, 2),
            vec![10, 244, 1, 0],
            head(5, 3),
            vec![24, 0, 0, 0],
        ];
        assert_eq!(w.bytes, wanted.concat());
    }

    #[test]
    fn what_is_written_is_read() {
        let wanted = vec![peer(1, "192.0.2.9:51820"), peer(2, "[2001:db8::9]:51821")];
        let requests = changes(30, "wl-wireguard", (&Key([9; 32]), 51820), &wanted, &[]);
        let mut device = Device::default();
        requests.iter().for_each(|request| read(&request.body.bytes, &mut device));
        assert_eq!(device, Device { public_key: None, port: 51820, peers: wanted });
    }

    #[test]
    fn a_peer_that_is_told_in_two_parts_must_not_be_two() {
        let mut device = Device::default();
        for _ in 0..2 {
            let request = &changes(30, "wl-wireguard", (&Key([9; 32]), 1), &[peer(1, "192.0.2.9:1")], &[])[1];
            read(&request.body.bytes, &mut device);
        }
        assert_eq!((device.peers.len(), device.peers[0].allowed.len()), (1, 4));
    }

    #[test]
    fn a_key_must_not_be_shown() {
        assert_eq!(format!("{:?}", Key([1; 32])), "Key");
    }
}
