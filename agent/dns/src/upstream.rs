//! Asking elsewhere: the node's own resolvers, each with a deadline; over TCP when the answer did not fit.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// How long one resolver may take.
const DEADLINE: Duration = Duration::from_secs(2);

/// The port resolvers are asked at.
const PORT: u16 = 53;
/// As many resolvers count as a resolver library reads (`MAXNS`).
const MOST: usize = 3;

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
    servers(&text, own, link_index)
}

/// The first three name servers of a text in that form; `index` knows the numbers of links.
fn servers(text: &str, own: &[IpAddr], index: impl Fn(&str) -> Option<u32>) -> Vec<SocketAddr> {
    let words = text.lines().map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next(), words.next())
    });
    let named = words.filter_map(|(keyword, value)| value.filter(|_| keyword == Some("nameserver")));
    let at = |text: &str| match text.split_once('%') {
        Some((address, link)) => {
            let scope = link.parse().ok().or_else(|| index(link))?;
            Some(SocketAddrV6::new(address.parse().ok()?, PORT, 0, scope).into())
        }
        None => Some(SocketAddr::new(text.parse().ok()?, PORT)),
    };
    named.filter_map(at).filter(|at| !own.contains(&at.ip())).take(MOST).collect()
}

/// The number of a link, which an address of its own only means something with.
fn link_index(name: &str) -> Option<u32> {
    let plain = !name.contains('/');
    let text = plain.then(|| std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).ok())??;
    text.trim().parse().ok()
}

/// The resolvers to ask, beginning with the one that answered last: a dead one costs its deadline once, not with each question.
#[derive(Debug, Default)]
pub(crate) struct Upstream {
    servers: Box<[SocketAddr]>,
    answered: AtomicUsize,
}

impl Upstream {
    pub(crate) fn new(servers: Vec<SocketAddr>) -> Self {
        Self { servers: servers.into(), answered: AtomicUsize::default() }
    }

    /// The first answer to `request` (its bytes as they came), over the transport the client used; a datagram of at most `room` bytes.
    ///
    /// # Errors
    /// No resolver answered in time.
    pub(crate) async fn ask(&self, request: &[u8], udp: bool, room: usize) -> Result<Vec<u8>, Error> {
        let servers = &self.servers;
        let first = self.answered.load(Ordering::Relaxed);
        let mut last = Error::None;
        for turn in 0..servers.len() {
            let index = (first + turn) % servers.len();
            let server = servers[index];
            let asked = async {
                if udp { over_udp(request, server, room).await } else { over_tcp(request, server).await }
            };
            let source = match timeout(DEADLINE, asked).await {
                Ok(Ok(answer)) => {
                    self.answered.store(index, Ordering::Relaxed);
                    return Ok(answer);
                }
                Ok(Err(error)) => error,
                Err(_) => std::io::Error::from(std::io::ErrorKind::TimedOut),
            };
            last = Error::Server { server, source };
        }
        Err(last)
    }
}

async fn over_udp(request: &[u8], server: SocketAddr, room: usize) -> std::io::Result<Vec<u8>> {
    // a fresh socket has a fresh port, which is what keeps forged answers out
    let any =
        if server.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(request).await?;
    let mut buffer = vec![0; room];
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

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test sees how what it spawns ends")]
mod tests {
    use super::*;

    #[test]
    fn a_name_server_must_not_be_lost_for_what_stands_behind_it() {
        let text = "# nameserver 9.9.9.9\nnameserver 1.1.1.1 # office\nnameserver\t10.96.0.10\nsearch a\nnameservers 8.8.8.8\n\
                    nameserver fe80::1%eth0\nnameserver fe80::2%7\nnameserver fe80::3%gone\nnameserver 4.4.4.4";
        let own = ["10.96.0.10".parse().unwrap()];
        let found = servers(text, &own, |link| (link == "eth0").then_some(2));
        assert_eq!(
            found,
            ["1.1.1.1:53", "[fe80::1%2]:53", "[fe80::2%7]:53"].map(|at| at.parse::<SocketAddr>().unwrap())
        );
        assert_eq!(link_index("lo"), Some(1));
        assert_eq!(link_index("../lo"), None);
    }

    /// A resolver that answers each question with its own bytes.
    async fn echo() -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = vec![0; 65535];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let _ = socket.send_to(&buffer[..length], from).await;
            }
        });
        at
    }

    #[tokio::test]
    async fn a_dead_resolver_must_not_cost_each_question_its_deadline() {
        // bound, and never read
        let dead = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let alive = echo().await;
        let upstream = Upstream::new(vec![dead.local_addr().unwrap(), alive]);
        let began = std::time::Instant::now();
        for _ in 0..20 {
            upstream.ask(&[7; 12], true, 512).await.unwrap();
        }
        assert!(began.elapsed() < DEADLINE * 2, "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn an_answer_as_long_as_the_client_takes_must_not_be_torn() {
        let upstream = Upstream::new(vec![echo().await]);
        let long = vec![7; 9000];
        assert_eq!(upstream.ask(&long, true, 9000).await.unwrap(), long);
    }
}
