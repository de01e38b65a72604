//! What runs inside the lab's containers: the sandbox's pause process, and a small server that says who it is.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};

fn main() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("pause") => pause(),
        Some("serve") => serve(args.get(1).map_or("8080", String::as_str)),
        _ => Err(std::io::Error::other("usage: guest pause | serve [PORT]")),
    }
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
    let datagrams = UdpSocket::bind(format!("0.0.0.0:{port}"))?;
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
