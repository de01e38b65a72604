//! A client's WebSocket: its protocol is chosen, its request answered.

use super::upgrade::tokens;
use crate::server::answer::{self, HttpResponse};
use bytes::Bytes;
use futures::StreamExt;
use http::header::{
    CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{Response, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Error as SocketError;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};

/// Bytes of a client's message; clients send 32 KiB.
const LARGEST: usize = 4 << 20;

/// A client's connection as a WebSocket.
pub type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// The client's first protocol that is one of `known`.
pub fn choose<T: Copy>(headers: &HeaderMap, known: &[(&'static str, T)]) -> Option<(&'static str, T)> {
    tokens(headers, &SEC_WEBSOCKET_PROTOCOL)
        .find_map(|asked| known.iter().find(|(name, _)| *name == asked).copied())
}

/// The answer that makes the connection a WebSocket, or a refusal.
pub fn accept(headers: &HeaderMap, protocol: &'static str) -> Result<HttpResponse, Box<HttpResponse>> {
    let bad = |text: &str| Box::new(answer::text(StatusCode::BAD_REQUEST, text));
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(bad("websocket: unsupported version: 13 not found in 'Sec-Websocket-Version' header"));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|key| !key.is_empty());
    let key = key.ok_or_else(|| bad("websocket: 'Sec-WebSocket-Key' header is missing or blank"))?;
    let proof =
        HeaderValue::try_from(derive_accept_key(key.as_bytes())).map_err(|error| bad(&error.to_string()))?;
    let mut answer = Response::new(answer::body(Bytes::new()));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let own = answer.headers_mut();
    own.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    own.insert(UPGRADE, HeaderValue::from_static("websocket"));
    own.insert(SEC_WEBSOCKET_ACCEPT, proof);
    own.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    Ok(answer)
}

/// The socket, once the answer has gone out.
pub async fn socket(client: OnUpgrade) -> Result<Socket, hyper::Error> {
    let io = TokioIo::new(client.await?);
    let bounds = WebSocketConfig::default().max_message_size(Some(LARGEST)).max_frame_size(Some(LARGEST));
    Ok(WebSocketStream::from_raw_socket(io, Role::Server, Some(bounds)).await)
}

/// Says farewell after our last message: our close is answered, then the connection is ended in order, or what is under
/// way could be lost. A slow reader may have megabytes before it that it has not read: it gets its time.
pub async fn leave(mut socket: Socket) {
    let farewell = async {
        // clients read a stream's end in a normal closure only; a close without a code is an error to them
        let normal = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() };
        socket.close(Some(normal)).await?;
        while let Some(message) = socket.next().await {
            message?;
        }
        socket.get_mut().shutdown().await?;
        Ok::<_, SocketError>(())
    };
    match tokio::time::timeout(splice::LINGER, farewell).await {
        Ok(Ok(()) | Err(SocketError::ConnectionClosed)) => {}
        Ok(Err(error)) => tracing::debug!(%error, "close a client's WebSocket"),
        Err(_) => tracing::debug!("a client does not answer a close"),
    }
}
