//! The machine's own address, when the configuration does not name it: the one the kernel would send from.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _, UdpSocket};

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

    #[test]
    fn the_way_to_the_server_names_our_address() {
        let uri: http::Uri = "https://127.0.0.1:6443".parse().unwrap();
        assert_eq!(own(Some(&uri)).unwrap(), IpAddr::from([127, 0, 0, 1]));
    }
}
