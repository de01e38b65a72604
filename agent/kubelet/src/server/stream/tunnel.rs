//! Port-forward by WebSocket: the client's SPDY comes in binary messages, and goes to the runtime as it is.

use super::remote::spdy;
use super::upgrade::{Outcome, dial};
use super::websocket::{self, Socket};
use crate::server::answer::HttpResponse;
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, Method, Request};
use hyper::body::Incoming;
use supervise::Work;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};
use tokio_util::sync::CancellationToken;

/// The protocol's name in the WebSocket, and inside.
const PROTOCOLS: &[(&str, ())] = &[("SPDY/3.1+portforward.k8s.io", ())];
const INNER: &str = "portforward.k8s.io";
/// Bytes of a message to the client.
const PIECE: usize = 32 * 1024;

/// Whether a client asks for this.
pub fn is_asked(headers: &HeaderMap) -> bool {
    websocket::choose(headers, PROTOCOLS).is_some()
}

/// Answers a WebSocket request and carries bytes until either side ends.
pub async fn serve(
    streams: &Work,
    shutdown: &CancellationToken,
    mut request: Request<Incoming>,
    url: &str,
) -> HttpResponse {
    let answer = match websocket::accept(request.headers(), PROTOCOLS[0].0) {
        Ok(answer) => answer,
        Err(refusal) => return *refusal,
    };
    let runtime = match dial(streams, url, Method::POST, spdy(INNER)).await {
        Outcome::Refused(answer) => return answer,
        Outcome::Switched(both) => both.1,
    };
    let client = hyper::upgrade::on(&mut request);
    let shutdown = shutdown.clone();
    streams.spawn(async move {
        let carried = async {
            match websocket::socket(client).await {
                Ok(socket) => {
                    if let Err(error) = Box::pin(carry(socket, runtime)).await {
                        tracing::debug!(%error, "port-forward ended");
                    }
                }
                Err(error) => tracing::debug!(%error, "upgrade of a client"),
            }
        };
        shutdown.run_until_cancelled(carried).await;
    });
    answer
}

async fn carry(socket: Socket, runtime: impl AsyncRead + AsyncWrite + Unpin) -> Result<(), SocketError> {
    let (mut to_client, mut from_client) = socket.split();
    let (mut read, mut write) = tokio::io::split(runtime);
    let up = async {
        // A runtime that takes no more may have said much that is still on its way.
        let mut takes = true;
        while let Some(message) = from_client.next().await {
            match message? {
                Message::Binary(bytes) if takes => {
                    takes = async {
                        write.write_all(&bytes).await?;
                        write.flush().await
                    }
                    .await
                    .is_ok();
                }
                Message::Close(_) => break,
                _ => {}
            }
        }
        Ok::<_, SocketError>(())
    };
    let down = async {
        let mut buffer = vec![0; PIECE];
        loop {
            match read.read(&mut buffer).await? {
                0 => return Ok::<_, SocketError>(()),
                count => to_client.send(Message::Binary(buffer[..count].to_vec().into())).await?,
            }
        }
    };
    tokio::select! {
        left = up => left?,
        ended = down => ended?,
    }
    if let Ok(socket) = to_client.reunite(from_client) {
        websocket::leave(socket).await;
    }
    Ok(())
}
