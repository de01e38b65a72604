//! Real packets between namespaces.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use crate::lab::Netns;

/// A TCP server inside a namespace.
pub(crate) struct Server(TcpListener);

impl Server {
    pub(crate) fn listen(netns: &Netns, address: impl Into<SocketAddr>) -> Self {
        let address = address.into();
        Self(netns.run(|| TcpListener::bind(address)).unwrap())
    }

    /// The address that the server sees a client inside `client` come from, by way of `target`.
    pub(crate) fn source_of(&self, client: &Netns, target: impl Into<SocketAddr>) -> IpAddr {
        let target = target.into();
        std::thread::scope(|scope| {
            let echo = scope.spawn(|| -> std::io::Result<IpAddr> {
                let (mut stream, peer) = self.0.accept()?;
                let mut greeting = [0; 5];
                stream.read_exact(&mut greeting)?;
                stream.write_all(&greeting)?;
                Ok(peer.ip())
            });
            let answered = client.run(|| -> std::io::Result<[u8; 5]> {
                let mut stream = TcpStream::connect_timeout(&target, Duration::from_secs(5))?;
                stream.set_read_timeout(Some(Duration::from_secs(5)))?;
                stream.write_all(b"hello")?;
                let mut back = [0; 5];
                stream.read_exact(&mut back)?;
                Ok(back)
            });
            if answered.is_err() {
                // So that the test ends: nobody else will come.
                self.unblock();
            }
            assert_eq!(&answered.unwrap_or_else(|error| panic!("to {target}: {error}")), b"hello");
            echo.join().unwrap().unwrap()
        })
    }

    fn unblock(&self) {
        nix::sys::socket::shutdown(
            std::os::fd::AsRawFd::as_raw_fd(&self.0),
            nix::sys::socket::Shutdown::Both,
        )
        .unwrap();
    }
}

/// Whether a datagram from inside `client` to `target` reaches `listen` inside `server` and its answer comes back.
pub(crate) fn udp_reaches(
    server: &Netns,
    client: &Netns,
    listen: SocketAddr,
    target: SocketAddr,
) -> std::io::Result<()> {
    let socket = server.run(|| UdpSocket::bind(listen))?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    let echo = std::thread::spawn(move || -> std::io::Result<()> {
        let mut buffer = [0; 16];
        let (length, peer) = socket.recv_from(&mut buffer)?;
        socket.send_to(&buffer[..length], peer)?;
        Ok(())
    });
    client.run(|| -> std::io::Result<()> {
        let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any)?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        socket.connect(target)?;
        socket.send(b"hello")?;
        let mut back = [0; 16];
        let length = socket.recv(&mut back)?;
        assert_eq!(&back[..length], b"hello");
        Ok(())
    })?;
    echo.join().unwrap()
}
