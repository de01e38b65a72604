//! A runtime's streaming server: a command that waits for the end of its input, says what
//! it got, and exits with 3.

use kubelet::spdy::frame::{self, Control, HEAD, Head};
use kubelet::spdy::headers::{Deflater, Inflater};
use std::collections::HashMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub const VERDICT: &str = r#"{"metadata":{},"status":"Failure","message":"command terminated with non-zero exit code","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#;

pub const SUCCESS: &str = r#"{"metadata":{},"status":"Success"}"#;

/// Serves streams; their address.
pub async fn serve() -> String {
    let streaming = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/exec/token", streaming.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = streaming.accept().await {
            tokio::spawn(streamed(stream));
        }
    });
    url
}

/// Plays a runtime's streaming server on one connection.
async fn streamed(mut io: TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    assert!(head.starts_with("post /exec/token") && head.contains("upgrade: spdy/3.1"), "{head}");
    assert!(head.contains("x-stream-protocol-version: v4.channel.k8s.io"), "{head}");
    assert!(!head.contains("authorization"), "the caller's credentials are not the runtime's: {head}");
    let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n";
    io.write_all(answer.as_bytes()).await.unwrap();
    let asked = head.split([' ', '?']).nth(2).and_then(|query| query.split_once('='));
    match asked {
        Some((kind, count)) => download(io, count.parse().unwrap(), kind == "whole").await,
        None => command(io).await,
    }
}

/// A command that says `count` bytes. Read all the time, as the real ones do, and closed at once after the last word:
/// what is still to be read stays in the kernel. Broken, it closes before it has said everything.
async fn download(io: TcpStream, count: usize, whole: bool) {
    let (mut read, mut write) = io.into_split();
    let (mut inflater, mut kinds) = (Inflater::default(), HashMap::new());
    while kinds.len() < 2 {
        let mut bytes = [0; HEAD];
        read.read_exact(&mut bytes).await.unwrap();
        let Head::Control { kind, flags, length } = frame::head(&bytes).unwrap() else {
            panic!("data first")
        };
        let mut payload = vec![0; length];
        read.read_exact(&mut payload).await.unwrap();
        if let Control::SynStream { stream, headers, .. } =
            Control::read(kind, flags, &payload, &mut inflater).unwrap()
        {
            kinds.insert(headers[0].1.clone(), stream);
        }
    }
    let drained = tokio::spawn(async move { tokio::io::copy(&mut read, &mut tokio::io::sink()).await });
    for start in (0..count).step_by(32 * 1024) {
        let piece = said(start..count.min(start + 32 * 1024));
        write.write_all(&frame::data(kinds["stdout"], false, piece.len())).await.unwrap();
        write.write_all(&piece).await.unwrap();
    }
    if whole {
        write.write_all(&frame::data(kinds["stdout"], true, 0)).await.unwrap();
        write.write_all(&frame::data(kinds["error"], false, SUCCESS.len())).await.unwrap();
        write.write_all(SUCCESS.as_bytes()).await.unwrap();
    }
    drained.abort();
    let _ = drained.await;
}

/// What a download is made of.
pub fn said(range: std::ops::Range<usize>) -> Vec<u8> {
    range.map(|n| u8::try_from(n % 251).unwrap()).collect()
}

/// Sends back what it got.
async fn command(mut io: TcpStream) {
    let (mut inflater, mut deflater) = (Inflater::default(), Deflater::new().unwrap());
    let (mut kinds, mut stdin, mut size) = (HashMap::new(), Vec::new(), String::new());
    loop {
        let mut bytes = [0; HEAD];
        io.read_exact(&mut bytes).await.unwrap();
        let head = frame::head(&bytes).unwrap();
        let (Head::Data { length, .. } | Head::Control { length, .. }) = head;
        let mut payload = vec![0; length];
        io.read_exact(&mut payload).await.unwrap();
        match head {
            Head::Control { kind, flags, .. } => {
                let control = Control::read(kind, flags, &payload, &mut inflater).unwrap();
                if let Control::SynStream { stream, headers, .. } = control {
                    kinds.insert(headers[0].1.clone(), stream);
                    let reply = Control::SynReply { stream, fin: false, headers: vec![] };
                    io.write_all(&reply.write(&mut deflater).unwrap()).await.unwrap();
                }
            }
            Head::Data { stream, fin, .. } if kinds.get("stdin") == Some(&stream) => {
                stdin.extend(payload);
                if fin {
                    break;
                }
            }
            Head::Data { .. } => size.push_str(std::str::from_utf8(&payload).unwrap()),
        }
    }
    let mut say = async |kind: &str, text: &[u8]| {
        if let Some(stream) = kinds.get(kind) {
            for piece in text.chunks(50_000) {
                io.write_all(&frame::data(*stream, false, piece.len())).await.unwrap();
                io.write_all(piece).await.unwrap();
            }
            io.write_all(&frame::data(*stream, true, 0)).await.unwrap();
        }
    };
    say("stdout", &[format!("size={size};").as_bytes(), &stdin].concat()).await;
    say("stderr", b"warning").await;
    say("error", VERDICT.as_bytes()).await;
    // The client closes first, as a peer that lingers shows whether ends are told by frames.
    let _ = io.read_to_end(&mut Vec::new()).await;
}
