//! Asking elsewhere: the node's own resolvers, in order, each with a deadline; over TCP when the answer did not fit.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// How long one resolver may take.
const DEADLINE: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// There is no resolver to ask.
    #[error("no upstream resolver is configured")]
    None,
    /// The last resolver asked did not answer.
    #[error("ask {server}")]
    Server {
        server: SocketAddr,
        #[source]
        source: std::io::Error,
    },
}

/// The resolvers a `resolv.conf` names, without `own` (asking ourselves would go round in circles).
#[must_use]
pub(crate) fn read_resolv_conf(path: &Path, own: &[IpAddr]) -> Vec<SocketAddr> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let addresses = servers.filter_map(|rest| rest.trim().parse::<IpAddr>().ok());
    addresses.filter(|a| !own.contains(a)).take(3).map(|a| SocketAddr::new(a, 53)).collect()
}

/// The first answer to `request` (its bytes as they came), over the transport the client used.
///
/// # Errors
/// No resolver answered in time.
pub(crate) async fn ask(request: &[u8], servers: &[SocketAddr], udp: bool) -> Result<Vec<u8>, Error> {
    let mut last = Error::None;
    for server in servers {
        let asked =
            async { if udp { over_udp(request, *server).await } else { over_tcp(request, *server).await } };
        let source = match timeout(DEADLINE, asked).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error,
            Err(_) => std::io::Error::from(std::io::ErrorKind::TimedOut),
        };
        last = Error::Server { server: *server, source };
    }
    Err(last)
}

async fn over_udp(request: &[u8], server: SocketAddr) -> std::io::Result<Vec<u8>> {
    // a fresh socket has a fresh port, which is what keeps forged answers out
    let any =
        if server.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(request).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if length >= 12 && buffer[..2] == request[..2] {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn over_tcp(request: &[u8], server: SocketAddr) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(request.len()).map_err(std::io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), request].concat()).await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; usize::from(length)];
    stream.read_exact(&mut buffer).await?;
    Ok(buffer)
}
