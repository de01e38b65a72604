//! What runs inside the lab's containers: the sandbox's pause process, and a small server that says who it is.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::Duration;

fn main() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("pause") => pause(),
        Some("serve") => serve(args.get(1).map_or("8080", String::as_str)),
        Some("get") => {
            let count = args.get(2).and_then(|n| n.parse().ok()).unwrap_or(1);
            get(args.get(1).map_or("", String::as_str), count)
        }
        _ => Err(std::io::Error::other("usage: guest pause | serve [PORT] | get URL [COUNT]")),
    }
}

/// Prints the answers to `count` requests, each over a connection of its own; `failed` for one without an answer in five seconds.
fn get(url: &str, count: usize) -> std::io::Result<()> {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    // An address of IPv6 stands in brackets.
    let after = host.rsplit_once(']').map_or(host, |(_, after)| after);
    let at = if after.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let mut failed = None;
    for _ in 0..count {
        match get_once(&at, path) {
            Ok(body) => print!("{body}"),
            Err(error) => {
                println!("failed {error}");
                failed = Some(error);
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

fn get_once(at: &str, path: &str) -> std::io::Result<String> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let address = at.to_socket_addrs()?.next().ok_or_else(|| std::io::Error::other("no address"))?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or_else(|| std::io::Error::other("no HTTP answer"))?;
    Ok(body.to_owned())
}

/// Holds the sandbox's namespaces, and reaps what is orphaned in a shared process namespace.
fn pause() -> std::io::Result<()> {
    let signals = SigSet::from_iter([Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT]);
    signals.thread_block()?;
    loop {
        if signals.wait()? != Signal::SIGCHLD {
            return Ok(());
        }
        while waitpid(None, Some(WaitPidFlag::WNOHANG)).is_ok_and(|s| s != WaitStatus::StillAlive) {}
    }
}

/// Answers every HTTP request and every datagram with the host's name; ends at once on SIGTERM.
fn serve(port: &str) -> std::io::Result<()> {
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    signals.thread_block()?;
    let name = std::fs::read_to_string("/etc/hostname").unwrap_or_default().trim().to_owned();
    let listener = TcpListener::bind(format!("[::]:{port}"))
        .or_else(|_| TcpListener::bind(format!("0.0.0.0:{port}")))?;
    let datagrams =
        UdpSocket::bind(format!("[::]:{port}")).or_else(|_| UdpSocket::bind(format!("0.0.0.0:{port}")))?;
    println!("{name} listens on port {port}");
    let own = name.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((_, from)) = datagrams.recv_from(&mut buffer) {
            let _ = datagrams.send_to(own.as_bytes(), from);
        }
    });
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let name = name.clone();
            std::thread::spawn(move || answer(stream, &name));
        }
    });
    signals.wait()?;
    Ok(())
}

fn answer(stream: TcpStream, name: &str) -> std::io::Result<()> {
    let peer = stream.peer_addr()?;
    let mut reader = BufReader::new(stream.try_clone()?).take(64 * 1024);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let body = format!("{name} {peer}\n");
    let mut stream = stream;
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}
