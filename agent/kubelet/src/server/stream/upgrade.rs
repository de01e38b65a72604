//! Leaving HTTP: a connection to the runtime's streaming server that has switched protocols.

use crate::server::answer::{self, Body, HttpResponse};
use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderMap, HeaderName, UPGRADE};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use std::io;
use std::time::Duration;
use supervise::Work;
use tokio::net::TcpStream;

/// The streaming server is on this machine.
const DIAL: Duration = Duration::from_secs(10);
/// How long it may take to switch protocols.
const SWITCH: Duration = Duration::from_secs(30);

/// Whether a request wants to leave HTTP.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE) && tokens(headers, &CONNECTION).any(|t| t.eq_ignore_ascii_case("upgrade"))
}

/// Whether it wants to become a WebSocket.
pub fn is_websocket(headers: &HeaderMap) -> bool {
    is_upgrade(headers) && tokens(headers, &UPGRADE).any(|t| t.eq_ignore_ascii_case("websocket"))
}

/// The comma-separated values of all headers of a name.
pub fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|t| !t.is_empty())
}

/// The streaming server's end.
pub enum Outcome {
    /// It switched: its answer and the bytes behind.
    Switched(Box<(Response<()>, TokioIo<Upgraded>)>),
    /// It did not; its answer goes to the client.
    Refused(HttpResponse),
}

/// Sends an upgrade request to a streaming URL of the runtime's.
pub async fn dial(streams: &Work, url: &str, method: Method, headers: HeaderMap) -> Outcome {
    match Box::pin(attempt(streams, url, method, headers)).await {
        Ok(outcome) => outcome,
        Err(error) => {
            let text = format!("error dialing the runtime's streaming server: {error}");
            Outcome::Refused(answer::text(StatusCode::INTERNAL_SERVER_ERROR, text))
        }
    }
}

async fn attempt(streams: &Work, url: &str, method: Method, headers: HeaderMap) -> io::Result<Outcome> {
    let uri: Uri = url.parse().map_err(io::Error::other)?;
    // The URL holds a token that is as good as the permission: it is not for texts or logs.
    if uri.scheme_str().is_some_and(|scheme| scheme != "http") {
        return Err(io::Error::other("only plain http is spoken to the runtime's streaming server"));
    }
    let authority =
        uri.authority().ok_or_else(|| io::Error::other("the runtime's URL names no host"))?.clone();
    let address = (authority.host().trim_matches(['[', ']']), authority.port_u16().unwrap_or(80));
    let stream = tokio::time::timeout(DIAL, TcpStream::connect(address)).await??;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    streams.spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection to the runtime's streaming server ended");
        }
    });
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = method;
    *request.uri_mut() =
        uri.path_and_query().map_or("/", |p| p.as_str()).parse().map_err(io::Error::other)?;
    *request.headers_mut() = headers;
    request.headers_mut().insert(HOST, authority.as_str().parse().map_err(io::Error::other)?);
    let response = tokio::time::timeout(SWITCH, sender.send_request(request)).await?;
    let mut response = response.map_err(io::Error::other)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        drop(sender);
        return Ok(Outcome::Refused(response.map(incoming)));
    }
    let upgraded = hyper::upgrade::on(&mut response).await.map_err(io::Error::other)?;
    Ok(Outcome::Switched(Box::new((response.map(|_| ()), TokioIo::new(upgraded)))))
}

fn incoming(body: Incoming) -> Body {
    body.map_err(io::Error::other).boxed_unsync()
}
