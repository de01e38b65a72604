//! Exec and attach by WebSocket: messages of `channel.k8s.io` on the client's side, streams of SPDY on the runtime's.
//!
//! Runtimes speak WebSocket themselves, but none of them the version that can close standard input alone. What wakes
//! this: a message of the client or bytes of the runtime. What it promises: bytes of a channel in order; the end of
//! standard input reaches the command while its output goes on; the error channel's verdict, which holds the exit code,
//! is the runtime's own, and where the runtime gave none, it is a failure: its output may have been cut short; when the
//! command's streams have ended, the client is told by a close; when the client leaves, the runtime's connection is closed.

use super::channel::{ClientMessage, PROTOCOLS, Protocol, number};
use super::options::Streams;
use super::upgrade::{Outcome, dial};
use super::websocket::{self, Socket};
use crate::server::answer::HttpResponse;
use crate::spdy::session::{self, Receiving, Sending};
use futures::{Sink, SinkExt, Stream, StreamExt};
use http::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use http::{Method, Request};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use machinery::status::Status;
use supervise::Work;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};
use tokio_util::sync::CancellationToken;

/// Bytes of a verdict.
const LONGEST_VERDICT: usize = 64 * 1024;

/// The headers that ask the runtime for SPDY with that protocol in it.
pub fn spdy(protocol: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("SPDY/3.1"));
    headers.insert("x-stream-protocol-version", HeaderValue::from_static(protocol));
    headers
}

/// The protocol a client asks for, if it is translated here.
pub fn protocol(headers: &HeaderMap) -> Option<(&'static str, Protocol)> {
    websocket::choose(headers, PROTOCOLS)
}

/// Answers a WebSocket request and translates until either side ends.
pub async fn serve(
    pieces: &Work,
    shutdown: &CancellationToken,
    mut request: Request<Incoming>,
    (name, protocol): (&'static str, Protocol),
    streams: Streams,
    url: &str,
) -> HttpResponse {
    let answer = match websocket::accept(request.headers(), name) {
        Ok(answer) => answer,
        Err(refusal) => return *refusal,
    };
    let runtime = match dial(pieces, url, Method::POST, spdy("v4.channel.k8s.io")).await {
        Outcome::Refused(answer) => return answer,
        Outcome::Switched(both) => both.1,
    };
    let client = hyper::upgrade::on(&mut request);
    let shutdown = shutdown.clone();
    pieces.spawn(async move {
        let translated = async {
            match websocket::socket(client).await {
                Ok(socket) => Box::pin(translate(socket, runtime, protocol, streams)).await,
                Err(error) => tracing::debug!(%error, "upgrade of a client"),
            }
        };
        shutdown.run_until_cancelled(translated).await;
    });
    answer
}

async fn translate(socket: Socket, runtime: TokioIo<Upgraded>, protocol: Protocol, streams: Streams) {
    let (session, driver) = match session::client(runtime) {
        Ok(both) => both,
        Err(error) => return tracing::warn!(%error, "begin SPDY"),
    };
    // The end of the connection ends the streams, and they end the work: it may still have things to pass on.
    let carry = async {
        if let Err(error) = driver.run().await {
            tracing::debug!(%error, "SPDY session broke");
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = carry => {}
        worked = Box::pin(work(socket, session, protocol, streams)) => {
            if let Err(error) = worked {
                tracing::debug!(%error, "remote command's stream ended");
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Runtime(#[from] session::Error),
    #[error(transparent)]
    Client(#[from] SocketError),
    #[error("{0}")]
    Protocol(&'static str),
}

/// The sending sides of the channels a client may use.
struct Up {
    stdin: Option<Sending>,
    resize: Option<Sending>,
}

/// The receiving sides, by channel.
struct Down {
    error: Receiving,
    stdout: Option<Receiving>,
    stderr: Option<Receiving>,
}

async fn work(
    socket: Socket,
    mut session: session::Session,
    protocol: Protocol,
    streams: Streams,
) -> Result<(), Error> {
    let mut open = async |wanted: bool, kind: &str| {
        if !wanted {
            return Ok::<_, Error>(None);
        }
        let headers = vec![("streamtype".to_owned(), kind.to_owned())];
        Ok(Some(session.open(headers).await?))
    };
    let (error, stdin) = (open(true, "error").await?, open(streams.stdin, "stdin").await?);
    let (stdout, stderr) = (open(streams.stdout, "stdout").await?, open(streams.stderr, "stderr").await?);
    let resize = open(streams.tty, "resize").await?;
    // The sides not used are held: a dropped receiving side would do no harm, but a dropped sending side is no end either.
    let (_error_up, error) = error.ok_or(Error::Protocol("no error stream"))?;
    let up = Up { stdin: stdin.map(|s| s.0), resize: resize.map(|s| s.0) };
    let down = Down { error, stdout: stdout.map(|s| s.1), stderr: stderr.map(|s| s.1) };
    let (mut to_client, mut from_client) = socket.split();
    // Clients of version 4 may wait for a first message to know that the command is there; those of version 5 may not be
    // listening to the channel yet, and complain.
    let lowest = if streams.stdout {
        number::STDOUT
    } else if streams.stderr {
        number::STDERR
    } else {
        number::ERROR
    };
    if protocol != (Protocol::Binary { closes: true }) {
        to_client.send(protocol.write(lowest, &[])).await?;
    }
    tokio::select! {
        ended = downward(down, &mut to_client, protocol) => ended?,
        left = upward(&mut from_client, up, protocol) => left?,
    }
    if let Ok(socket) = to_client.reunite(from_client) {
        websocket::leave(socket).await;
    }
    Ok(())
}

/// Passes on what the client says until it leaves.
async fn upward(
    client: &mut (impl Stream<Item = Result<Message, SocketError>> + Unpin),
    up: Up,
    protocol: Protocol,
) -> Result<(), Error> {
    let Up { mut stdin, resize } = up;
    while let Some(message) = client.next().await {
        match protocol.read(message?).map_err(Error::Protocol)? {
            ClientMessage::Bytes(number::STDIN, bytes) => {
                if let Some(stdin) = &stdin
                    && stdin.send(bytes).await.is_err()
                {
                    // The command has ended; what is left of its output is still on its way.
                    break;
                }
            }
            ClientMessage::Bytes(number::RESIZE, bytes) => {
                if let Some(resize) = &resize
                    && resize.send(bytes).await.is_err()
                {
                    break;
                }
            }
            ClientMessage::Close(number::STDIN) => {
                if let Some(stdin) = stdin.take()
                    && stdin.finish().await.is_err()
                {
                    break;
                }
            }
            ClientMessage::Leave => return Ok(()),
            ClientMessage::Bytes(..) | ClientMessage::Close(_) | ClientMessage::Nothing => {}
        }
    }
    // Messages go on being read, so that a leaving client is noticed.
    while let Some(message) = client.next().await {
        if matches!(message?, Message::Close(_)) {
            break;
        }
    }
    Ok(())
}

/// Passes on what the command says until all its streams have ended; its verdict is the last thing told.
async fn downward(
    down: Down,
    client: &mut (impl Sink<Message, Error = SocketError> + Unpin),
    protocol: Protocol,
) -> Result<(), Error> {
    async fn receive(stream: &mut Option<Receiving>) -> Option<bytes::Bytes> {
        match stream {
            Some(stream) => stream.receive().await,
            None => None,
        }
    }
    let Down { error, mut stdout, mut stderr } = down;
    let (mut error, mut verdict) = (Some(error), Vec::new());
    while error.is_some() || stdout.is_some() || stderr.is_some() {
        let (channel, bytes) = tokio::select! {
            bytes = receive(&mut stdout), if stdout.is_some() => (number::STDOUT, bytes),
            bytes = receive(&mut stderr), if stderr.is_some() => (number::STDERR, bytes),
            bytes = receive(&mut error), if error.is_some() => (number::ERROR, bytes),
        };
        match (channel, bytes) {
            (number::ERROR, Some(bytes)) => {
                if verdict.len() + bytes.len() > LONGEST_VERDICT {
                    return Err(Error::Protocol("the runtime's verdict is too long"));
                }
                verdict.extend(bytes);
            }
            (channel, Some(bytes)) => client.send(protocol.write(channel, &bytes)).await?,
            (number::STDOUT, None) => stdout = None,
            (number::STDERR, None) => stderr = None,
            (_, None) => error = None,
        }
    }
    // A runtime says how a command ended after everything the command said.
    if verdict.is_empty() {
        let failure = Status::internal_error("the runtime's connection ended before the command did");
        verdict = failure.to_value().to_string().into_bytes();
    }
    client.send(protocol.write(number::ERROR, &verdict)).await?;
    Ok(())
}
