//! The machine's own address, when the configuration does not name it: the one the kernel would send from.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _, UdpSocket};
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

/// An address of documentation (RFC 5737): leads to the default route, and nothing is sent.
const ANYWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 9);

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

/// The source address of packets to the API server, or of the default route without one.
pub fn own(server: Option<&http::Uri>) -> Result<IpAddr, Error> {
    let towards = match server.and_then(|uri| uri.host().map(|host| (host, uri.port_u16().unwrap_or(443)))) {
        None => ANYWHERE,
        Some((host, port)) => {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let fail = |source| Error::Resolve { host: format!("{host}:{port}"), source };
            let mut found = (host, port).to_socket_addrs().map_err(fail)?;
            found.next().ok_or_else(|| fail(io::ErrorKind::NotFound.into()))?
        }
    };
    source_address(towards).map_err(|source| Error::NoRoute { towards, source })
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
    fn the_way_to_the_server_names_our_address() {
        let uri: http::Uri = "https://127.0.0.1:6443".parse().unwrap();
        assert_eq!(own(Some(&uri)).unwrap(), IpAddr::from([127, 0, 0, 1]));
    }
}
