//! Real packets between namespaces.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use crate::lab::Netns;

/// The address that a TCP server inside `server` sees a client inside `client` come from, by way of `target`.
pub(crate) fn tcp_source(
    server: &Netns,
    client: &Netns,
    listen: SocketAddr,
    target: SocketAddr,
) -> std::io::Result<IpAddr> {
    let listener = server.run(|| TcpListener::bind(listen))?;
    let echo = std::thread::spawn(move || -> std::io::Result<IpAddr> {
        let (mut stream, peer) = listener.accept()?;
        let mut greeting = [0; 5];
        stream.read_exact(&mut greeting)?;
        stream.write_all(&greeting)?;
        Ok(peer.ip())
    });
    client.run(|| -> std::io::Result<()> {
        let mut stream = TcpStream::connect_timeout(&target, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"hello")?;
        let mut back = [0; 5];
        stream.read_exact(&mut back)?;
        assert_eq!(&back, b"hello");
        Ok(())
    })?;
    echo.join().unwrap()
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
