//! The machine's own addresses, when the configuration does not name them: those the kernel would send from.

use ipnet::IpNet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::time::Duration;

/// Why no address was found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server's name does not resolve.
    #[error("resolve {host}")]
    Resolve {
        /// The host and port asked for.
        host: String,
        /// Error of the resolver.
        #[source]
        source: io::Error,
    },
    /// There is no route to choose an address by.
    #[error("find this machine's address towards {towards}; name it with --node-ip")]
    NoRoute {
        /// The address a route was looked up for.
        towards: SocketAddr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Addresses of documentation (RFC 5737, RFC 3849): they lead to the default route, and nothing is sent.
const ANYWHERE4: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);
const ANYWHERE6: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 9);

/// How often it is looked whether the machine has moved.
const PERIOD: Duration = Duration::from_secs(30);

/// Waits until the machine has moved: it has lost the address `had`, and there is another one towards the API server. Another route alone is no move.
pub async fn moved(had: IpAddr, server: Option<http::Uri>) -> IpAddr {
    let mut before = None;
    loop {
        tokio::time::sleep(PERIOD).await;
        let server = server.clone();
        // Names are resolved by the C library, which blocks.
        let looked = tokio::task::spawn_blocking(move || {
            if is_of_this_machine(had) { None } else { own(server.as_ref()).ok() }
        });
        // None where it has it still, or no other: there is nothing to move to.
        let now = looked.await.ok().flatten().filter(|now| *now != had);
        match now {
            // Seen twice: a lease that is renewed, or a cable that is put back, is no move.
            Some(now) if before == Some(now) => return now,
            now => before = now,
        }
    }
}

/// The machine has this address. What cannot be found out is as it was.
fn is_of_this_machine(address: IpAddr) -> bool {
    let bound = UdpSocket::bind((address, 0));
    !matches!(bound, Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable)
}

/// The source address of packets to the API server, or of the default route without one: that of IPv6 where there is none of IPv4.
pub fn own(server: Option<&http::Uri>) -> Result<IpAddr, Error> {
    let Some((host, port)) = server.and_then(|uri| uri.host().map(|h| (h, uri.port_u16().unwrap_or(443))))
    else {
        return of_family(false).or_else(|error| of_family(true).map_err(|_| error));
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let fail = |source| Error::Resolve { host: format!("{host}:{port}"), source };
    let mut found = (host, port).to_socket_addrs().map_err(fail)?;
    sent_from(found.next().ok_or_else(|| fail(io::ErrorKind::NotFound.into()))?)
}

/// The source address of a family's default route.
pub fn of_family(ipv6: bool) -> Result<IpAddr, Error> {
    sent_from(if ipv6 { ANYWHERE6 } else { ANYWHERE4 })
}

fn sent_from(towards: SocketAddr) -> Result<IpAddr, Error> {
    source_address(towards).map_err(|source| Error::NoRoute { towards, source })
}

/// The addresses of a node whose pods have these ranges, when `own` was found: one of each of their families, in their order, as far as the
/// machine has them.
#[must_use]
pub fn of_node(own: IpAddr, ranges: &[IpNet]) -> Vec<IpAddr> {
    chosen(own, ranges, |ipv6| of_family(ipv6).ok())
}

fn chosen(own: IpAddr, ranges: &[IpNet], find: impl Fn(bool) -> Option<IpAddr>) -> Vec<IpAddr> {
    // On a loopback nobody else is to find this machine.
    if own.is_loopback() {
        return vec![own];
    }
    let usable = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
    };
    let mut out: Vec<IpAddr> = Vec::new();
    for ipv6 in ranges.iter().map(|range| range.addr().is_ipv6()) {
        if out.iter().all(|ip| ip.is_ipv6() != ipv6) {
            out.extend(if own.is_ipv6() == ipv6 { Some(own) } else { find(ipv6).filter(usable) });
        }
    }
    if out.is_empty() { vec![own] } else { out }
}

/// Connecting a datagram socket makes the kernel choose a route and an address, and sends nothing.
fn source_address(towards: SocketAddr) -> io::Result<IpAddr> {
    let any: SocketAddr = if towards.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(towards)?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_machine_that_moved_must_not_keep_an_address_that_it_has_no_more() {
        let uri: http::Uri = "https://127.0.0.1:6443".parse().unwrap();
        // Of documentation: nobody has it.
        let gone = IpAddr::from([192, 0, 2, 7]);
        assert_eq!(moved(gone, Some(uri.clone())).await, IpAddr::from([127, 0, 0, 1]));
        // It has this one, though the way to the server is from another.
        let stays = moved(IpAddr::from([127, 0, 0, 2]), Some(uri));
        assert!(tokio::time::timeout(5 * PERIOD, stays).await.is_err());
    }

    #[test]
    fn a_node_of_a_cluster_of_two_families_must_not_have_one_alone() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let found = |own: &str, ranges: &[&str], there: &[&str]| {
            let ranges: Vec<IpNet> = ranges.iter().map(|range| range.parse().unwrap()).collect();
            let all =
                chosen(ip(own), &ranges, |ipv6| there.iter().map(|t| ip(t)).find(|t| t.is_ipv6() == ipv6));
            all.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        };
        let (v4, v6, machine) = ("10.0.0.0/8", "fd00::/48", ["192.0.2.7", "fd77::7"]);
        assert_eq!(found("192.0.2.1", &[v4, v6], &machine), "192.0.2.1,fd77::7");
        assert_eq!(
            found("fd77::1", &[v4, v6], &machine),
            "192.0.2.7,fd77::1",
            "the cluster's first family is first"
        );
        assert_eq!(found("192.0.2.1", &[v6, v4], &machine), "fd77::7,192.0.2.1");
        assert_eq!(found("192.0.2.1", &[v4], &machine), "192.0.2.1", "the cluster has one family");
        assert_eq!(found("192.0.2.1", &[v6], &machine), "fd77::7", "the server was reached by the other one");
        assert_eq!(found("192.0.2.1", &[v6], &machine[..1]), "192.0.2.1", "there is nothing better");
        assert_eq!(found("192.0.2.1", &[v4, v6], &["fe80::7"]), "192.0.2.1", "known on its link alone");
        assert_eq!(found("127.0.0.1", &[v4, v6], &machine), "127.0.0.1");
    }

    #[test]
    fn the_way_to_the_server_names_our_address() {
        let uri: http::Uri = "https://127.0.0.1:6443".parse().unwrap();
        assert_eq!(own(Some(&uri)).unwrap(), IpAddr::from([127, 0, 0, 1]));
    }
}
