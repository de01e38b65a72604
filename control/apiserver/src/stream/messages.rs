//! An answer's body as WebSocket messages, for clients that read a log that way (upstream: `apimachinery`'s
//! `httpstream/wsstream`, its `Reader`).
//!
//! The first message is empty: it shows that the stream has begun. Then every piece of the body is a message, as bytes or as
//! base64 text by the protocol agreed on, and a normal closure is the end; a closure for an error means that a body broke.

use crate::answer;
use crate::context::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::header::{
    CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Frame;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use machinery::status::Status;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

/// Bytes of a client's message; it has nothing to say.
const LARGEST: usize = 4096;

/// How pieces become messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Bytes,
    Base64,
}

const PROTOCOLS: [(&str, Form); 3] =
    [("", Form::Bytes), ("binary.k8s.io", Form::Bytes), ("base64.binary.k8s.io", Form::Base64)];

/// Whether a request wants a WebSocket.
#[must_use]
pub fn is_wanted(headers: &HeaderMap) -> bool {
    super::rewrite::is_upgrade(headers)
        && headers.get(UPGRADE).is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// What was agreed on with a client.
#[derive(Clone, Debug)]
pub struct Agreed {
    accept: HeaderValue,
    protocol: Option<&'static str>,
    form: Form,
}

/// Agrees on the first of the client's protocols that is known; one that names none gets bytes.
///
/// # Errors
///
/// 400 where this is no WebSocket handshake, 403 where no protocol is known.
pub fn agree(headers: &HeaderMap) -> Result<Agreed, Status> {
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(Status::bad_request("missing or bad WebSocket Version"));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|key| !key.is_empty());
    let key = key.ok_or_else(|| Status::bad_request("mismatch challenge/response"))?;
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes()))
        .map_err(|error| Status::internal_error(error.to_string()))?;
    let asked = headers.get_all(SEC_WEBSOCKET_PROTOCOL);
    let mut asked =
        asked.iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).map(str::trim).peekable();
    if asked.peek().is_none() {
        return Ok(Agreed { accept, protocol: None, form: Form::Bytes });
    }
    let known = asked.find_map(|name| PROTOCOLS.iter().find(|(known, _)| *known == name));
    let (protocol, form) = known.ok_or_else(|| {
        Status::failure(403, machinery::status::Reason::Forbidden, "missing or bad WebSocket-Protocol")
    })?;
    Ok(Agreed { accept, protocol: Some(protocol), form: *form })
}

impl Agreed {
    /// The answer that makes the connection a WebSocket.
    #[must_use]
    pub fn answer(&self) -> Response<Body> {
        let mut response = Response::new(answer::body(Bytes::new()));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, self.accept.clone());
        if let Some(protocol) = self.protocol {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
        }
        response
    }

    /// Sends the body, until it or the client ends.
    pub async fn send(self, client: OnUpgrade, body: Body) {
        let client = match client.await {
            Ok(client) => TokioIo::new(client),
            Err(error) => return tracing::debug!(%error, "upgrade failed"),
        };
        let bounds = WebSocketConfig::default().max_message_size(Some(LARGEST)).max_frame_size(Some(LARGEST));
        let (mut sink, mut said) =
            WebSocketStream::from_raw_socket(client, Role::Server, Some(bounds)).await.split();
        let sending = async {
            let mut body = body;
            sink.send(self.message(Bytes::new())).await?;
            let mut code = CloseCode::Normal;
            while let Some(frame) = body.frame().await {
                match frame.map(Frame::into_data) {
                    Ok(Ok(piece)) => sink.send(self.message(piece)).await?,
                    Ok(Err(_)) => {}
                    // What was cut short must not look complete.
                    Err(error) => {
                        tracing::debug!(error = %error, "a log broke");
                        code = CloseCode::Error;
                        break;
                    }
                }
            }
            sink.send(Message::Close(Some(CloseFrame { code, reason: Utf8Bytes::default() }))).await?;
            // The client's close answers ours.
            std::future::pending::<Result<(), Error>>().await
        };
        let listening = async { while let Some(Ok(_)) = said.next().await {} };
        tokio::select! {
            Err(error) = sending => tracing::debug!(%error, "a log's WebSocket ended"),
            () = listening => {}
        }
    }

    fn message(&self, piece: Bytes) -> Message {
        match self.form {
            Form::Bytes => Message::Binary(piece),
            Form::Base64 => Message::Text(STANDARD.encode(&piece).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(protocol: Option<&'static str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("WebSocket"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        if let Some(protocol) = protocol {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
        }
        headers
    }

    #[test]
    fn the_first_known_protocol_is_agreed_on() {
        assert!(is_wanted(&headers(None)));
        let plain = agree(&headers(None)).unwrap();
        // the example of RFC 6455
        assert_eq!(plain.answer().headers()[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(!plain.answer().headers().contains_key(SEC_WEBSOCKET_PROTOCOL));
        let text = agree(&headers(Some("other, base64.binary.k8s.io"))).unwrap();
        assert_eq!(text.answer().headers()[SEC_WEBSOCKET_PROTOCOL], "base64.binary.k8s.io");
        assert_eq!(text.message(Bytes::from_static(b"a\xff")), Message::Text("Yf8=".into()));
        assert_eq!(plain.message(Bytes::new()), Message::Binary(Bytes::new()));
    }

    #[test]
    fn what_is_no_handshake_is_refused() {
        assert_eq!(agree(&headers(Some("v5.channel.k8s.io"))).unwrap_err().code, 403);
        let mut old = headers(None);
        old.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("8"));
        assert_eq!(agree(&old).unwrap_err().code, 400);
        let mut other = headers(None);
        other.insert(UPGRADE, HeaderValue::from_static("SPDY/3.1"));
        assert!(!is_wanted(&other));
    }
}
