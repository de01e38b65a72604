//! The sockets that answer on an address, on one port for both transports. It is not port 53: see [`redirect`](crate::redirect).

use std::io;
use std::net::{IpAddr, SocketAddr};
use tokio::net::{TcpListener, UdpSocket};

/// The port where it is free, so that a firewall may name it.
const USUAL: u16 = 10053;
/// How often another port is tried, which must be free for both transports.
const ATTEMPTS: usize = 16;

/// Sockets of both transports on one port of an address.
///
/// # Errors
/// The address is not this machine's, or no port is free.
pub(crate) async fn listen(address: IpAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let mut failed = io::Error::from(io::ErrorKind::AddrInUse);
    for port in [USUAL].into_iter().chain([0; ATTEMPTS]) {
        match both(address, port).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => failed = error,
            other => return other,
        }
    }
    Err(failed)
}

async fn both(address: IpAddr, port: u16) -> io::Result<(UdpSocket, TcpListener)> {
    let streams = TcpListener::bind(SocketAddr::new(address, port)).await?;
    let datagrams = UdpSocket::bind(streams.local_addr()?).await?;
    Ok((datagrams, streams))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_of_one_transport_alone_must_not_be_taken() {
        let address = "127.0.0.1".parse().unwrap();
        let (one, streams) = listen(address).await.unwrap();
        let (two, _) = listen(address).await.unwrap();
        let at = one.local_addr().unwrap();
        assert_eq!(at, streams.local_addr().unwrap());
        assert_ne!(at, two.local_addr().unwrap(), "the usual port is taken");
        assert!(listen("192.0.2.1".parse().unwrap()).await.is_err(), "nobody's address");
    }
}
